use proptest::prelude::*;

use super::*;

const PRIVATE: &str = "8f6b2c1e-4d1a-4e0b-9a57-3c7f0d9b21aa";
const TARGET: &str = "/api/atlas/v1.0/groups?pretty=true";

fn noon() -> Duration {
    Duration::from_secs(100_000)
}

fn later(seconds: u64) -> Duration {
    noon() + Duration::from_secs(seconds)
}

fn verifier() -> Verifier {
    Verifier::new([7; 32])
}

fn nonce_of(challenge: &HeaderValue) -> String {
    challenge.to_str().unwrap().split('"').nth(5).unwrap().to_owned()
}

/// A right answer, whose parts a test may then change.
fn header(nonce: &str, nc: u32) -> String {
    let answer = Answer {
        username: "abcdefgh".into(),
        nonce: nonce.into(),
        uri: TARGET.into(),
        cnonce: "c".into(),
        nc_text: format!("{nc:08x}").into(),
        nc,
        response: [0; 16],
    };
    let response = hex::encode(response(&ha1("abcdefgh", PRIVATE), &answer, "GET"));
    format!(
        r#"Digest username="abcdefgh", realm="{REALM}", nonce="{nonce}", uri="{TARGET}", algorithm=MD5, qop=auth, nc={nc:08x}, cnonce="c", response="{response}""#
    )
}

fn verify(verifier: &Verifier, header: &str, now: Duration) -> Verdict {
    let answer = Answer::parse(header, REALM).unwrap();
    verifier.verify(&answer, "GET", TARGET, Some(&ha1("abcdefgh", PRIVATE)), now)
}

#[test]
fn the_example_of_rfc_7616_section_3_9_1() {
    let header = r#"Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm=MD5,
        nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001,
        cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth,
        response="8ca523f5e9506fed4657c9700eebdbec",
        opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#
        .replace('\n', "");
    let answer = Answer::parse(&header, "http-auth@example.org").unwrap();
    let ha1 = hex::encode(md5(["Mufasa", ":", "http-auth@example.org", ":", "Circle of Life"]));
    assert_eq!(response(&ha1, &answer, "GET"), answer.response);
}

#[test]
fn the_challenge_has_the_one_form_that_clients_read() {
    let challenge = verifier().challenge(noon(), 1, false);
    let nonce = nonce_of(&challenge);
    assert_eq!(nonce.len(), 64);
    assert_eq!(
        challenge.to_str().unwrap(),
        format!(r#"Digest realm="MMS Public API", domain="", nonce="{nonce}", algorithm=MD5, qop="auth", stale=false"#)
    );
    assert!(verifier().challenge(noon(), 1, true).to_str().unwrap().ends_with("stale=true"));
}

#[test]
fn a_right_answer_is_accepted_however_it_is_quoted() {
    let verifier = verifier();
    let nonce = nonce_of(&verifier.challenge(noon(), 1, false));
    let plain = header(&nonce, 1);
    let forms = [
        plain.clone(),
        header(&nonce, 2).replace("qop=auth", r#"qop="auth""#).replace("algorithm=MD5", r#"algorithm="MD5""#),
        header(&nonce, 3).replace("algorithm=MD5, ", "").replace("nc=00000003", r#"nc="00000003""#),
        header(&nonce, 4).replace(", ", ",").replace("Digest", "digest"),
        header(&nonce, 5).replace(", ", " , , ").replace("username", "USERNAME"),
        header(&nonce, 6).replace("abcdefgh", r"abc\defgh") + r#", opaque="a\"b\\", unknown=x,"#,
    ];
    for form in forms {
        assert_eq!(verify(&verifier, &form, noon()), Verdict::Accepted, "{form}");
    }
}

#[test]
fn what_is_not_asked_for_is_no_answer() {
    let right = header(&"0".repeat(64), 1);
    let repeated = format!("{right}, nc=00000002");
    let wrong = [
        (right.replace("Digest ", "Basic "), HeaderError::NotDigest),
        (right.replace("Digest ", "Digestive "), HeaderError::NotDigest),
        ("Digest".to_owned(), HeaderError::NotDigest),
        ("Digest ".to_owned(), HeaderError::Missing("realm")),
        (right.replace(REALM, "another"), HeaderError::Unsupported("realm")),
        (right.replace("qop=auth", "qop=auth-int"), HeaderError::Unsupported("qop")),
        (right.replace("qop=auth, ", ""), HeaderError::Missing("qop")),
        (right.replace("=MD5", "=MD5-sess"), HeaderError::Unsupported("algorithm")),
        (right.replace("=MD5", "=SHA-256"), HeaderError::Unsupported("algorithm")),
        (right.replace("cnonce=\"c\", ", ""), HeaderError::Missing("cnonce")),
        (right.replace("nc=00000001", "nc=00000000"), HeaderError::Malformed),
        (right.replace("nc=00000001", "nc=1"), HeaderError::Malformed),
        (right.replace("nc=00000001", "nc=+0000001"), HeaderError::Malformed),
        (right.replace("response=\"", "response=\"0"), HeaderError::Malformed),
        (right.replace("cnonce=\"c\"", "cnonce=\"c"), HeaderError::Malformed),
        (right.replace("cnonce=\"c\"", "cnonce=\"c\"d"), HeaderError::Malformed),
        (repeated, HeaderError::Repeated("nc")),
    ];
    for (header, error) in wrong {
        assert_eq!(Answer::parse(&header, REALM), Err(error), "{header}");
    }
}

#[test]
fn a_wrong_secret_an_unknown_key_another_method_or_target_is_refused() {
    let verifier = verifier();
    let nonce = nonce_of(&verifier.challenge(noon(), 1, false));
    let text = header(&nonce, 1);
    let answer = Answer::parse(&text, REALM).unwrap();
    let right = ha1("abcdefgh", PRIVATE);
    let wrong = ha1("abcdefgh", "another");
    assert_eq!(verifier.verify(&answer, "GET", TARGET, Some(&wrong), noon()), Verdict::Refused);
    assert_eq!(verifier.verify(&answer, "GET", TARGET, None, noon()), Verdict::Refused);
    assert_eq!(verifier.verify(&answer, "POST", TARGET, Some(&right), noon()), Verdict::Refused);
    for target in ["/api/atlas/v1.0/groups", "/api/atlas/v1.0/groups?pretty=false", ""] {
        assert_eq!(verifier.verify(&answer, "GET", target, Some(&right), noon()), Verdict::Refused);
    }
    // Not even with the secret of nobody.
    let nobody = Answer { response: response(NOBODY, &answer, "GET"), ..answer.clone() };
    assert_eq!(verifier.verify(&nobody, "GET", TARGET, None, noon()), Verdict::Refused);
    assert_eq!(verifier.remembered(), 0);
    assert_eq!(verifier.verify(&answer, "GET", TARGET, Some(&right), noon()), Verdict::Accepted);
}

#[test]
fn each_count_is_taken_once_in_any_order_within_the_window() {
    let verifier = verifier();
    let nonce = nonce_of(&verifier.challenge(noon(), 1, false));
    let take = |nc| verify(&verifier, &header(&nonce, nc), noon());
    for nc in [3, 1, 2, 500, 499, 500 - WINDOW + 1] {
        assert_eq!(take(nc), Verdict::Accepted, "{nc}");
        assert_eq!(take(nc), Verdict::Replayed, "{nc} again");
    }
    assert_eq!(take(500 - WINDOW), Verdict::Stale, "too far behind to know");
    assert_eq!(take(u32::MAX), Verdict::Accepted);
    assert_eq!(take(500), Verdict::Stale);
    assert_eq!(take(u32::MAX), Verdict::Replayed);
    assert_eq!(verifier.remembered(), 1);
}

#[test]
fn an_old_nonce_is_stale_and_one_of_another_process_too() {
    let verifier = verifier();
    let nonce = nonce_of(&verifier.challenge(noon(), 1, false));
    let lifetime = LIFETIME.as_secs();
    assert_eq!(verify(&verifier, &header(&nonce, 1), later(lifetime - 1)), Verdict::Accepted);
    assert_eq!(verify(&verifier, &header(&nonce, 2), later(lifetime)), Verdict::Stale);

    // The proof of a remembered nonce is held against it, too.
    let mut forged = nonce.clone();
    forged.replace_range(63.., if nonce.ends_with('0') { "1" } else { "0" });
    assert_eq!(verify(&verifier, &header(&forged, 3), noon()), Verdict::Stale);

    let foreign = nonce_of(&Verifier::new([8; 32]).challenge(noon(), 1, false));
    for nonce in [foreign.as_str(), "", "zz", &nonce[2..], &format!("{nonce}00")] {
        assert_eq!(verify(&verifier, &header(nonce, 1), noon()), Verdict::Stale);
    }
}

#[test]
fn a_nonce_that_was_forgotten_cannot_be_used_again() {
    let verifier = verifier();
    let first = header(&nonce_of(&verifier.challenge(noon(), 1, false)), 1);
    assert_eq!(verify(&verifier, &first, noon()), Verdict::Accepted);
    let second = header(&nonce_of(&verifier.challenge(later(400), 2, false)), 1);
    assert_eq!(verify(&verifier, &second, later(400)), Verdict::Accepted);
    assert_eq!(verifier.remembered(), 1, "the old one is gone");
    assert_eq!(verify(&verifier, &first, later(1)), Verdict::Stale);
}

#[test]
fn a_million_unanswered_challenges_cost_no_memory() {
    let verifier = verifier();
    let mut nonce = String::new();
    for chance in 0..1_000_000 {
        nonce = nonce_of(&verifier.challenge(noon(), chance, false));
    }
    assert_eq!(verifier.remembered(), 0);
    assert_eq!(verify(&verifier, &header(&nonce, 1), noon()), Verdict::Accepted);
    assert_eq!(verifier.remembered(), 1);
}

#[test]
fn the_table_of_used_nonces_is_bounded_and_what_falls_out_is_stale() {
    let mut used = Used::default();
    let nonce = |n: usize| Nonce::new(noon(), n as u64);
    for n in 0..CAPACITY + 10 {
        assert_eq!(used.take(nonce(n), [0; 16], 1, noon()), Taken::Fresh);
    }
    assert_eq!(used.len(), CAPACITY);
    for n in 0..10 {
        assert_eq!(used.take(nonce(n), [0; 16], 1, noon()), Taken::Old, "{n} was used and forgotten");
    }
    assert_eq!(used.take(nonce(10), [0; 16], 2, noon()), Taken::Fresh);
    assert_eq!(used.take(nonce(10), [0; 16], 1, noon()), Taken::Again);
    assert_eq!(used.len(), CAPACITY);
}

proptest! {
    #[test]
    fn no_header_makes_the_parser_panic(text in "\\PC*") {
        let _ = Answer::parse(&text, REALM);
        let _ = Answer::parse(&format!("Digest {text}"), REALM);
    }

    #[test]
    fn no_nearly_right_header_makes_it_panic(at in 0usize..400, with in "[\\\\\", =a-c\u{e9}]{0,3}", cut in 0usize..4) {
        let mut text = header(&"0".repeat(64), 1);
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        text.replace_range(at..end, &with);
        let _ = Answer::parse(&text, REALM);
    }

    #[test]
    fn quoting_is_undone(value in "\\PC*") {
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        let text = header(&"0".repeat(64), 1).replace("cnonce=\"c\"", &format!("cnonce=\"{quoted}\""));
        let answer = Answer::parse(&text, REALM).unwrap();
        prop_assert_eq!(answer.cnonce.as_ref(), value.as_str());
    }
}
