//! The `Authorization` header, and the whole of what is decided by it: a header that is read as an
//! answer is accepted if, and only if, its hash is the right one, its target is the request's, its
//! nonce is ours and its count is fresh.

use std::borrow::Cow;

use md5::{Digest, Md5};
use std::time::Duration;
use stillpoint_api::digest::{Answer, HeaderError, REALM, Verdict, Verifier, ha1};

const NAMES: [&str; 9] = ["username", "realm", "nonce", "uri", "cnonce", "nc", "response", "qop", "algorithm"];
/// What the verifier of the seeds was made with.
const SECRET: [u8; 32] = [7; 32];
const PRIVATE: &str = "8f6b2c1e-4d1a-4e0b-9a57-3c7f0d9b21aa";

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = Answer::parse(text, REALM);
    assert_eq!(read, Answer::parse(text, REALM), "read twice");
    match read {
        Ok(answer) => {
            written_again(&answer);
            spoilt(text);
            verified(&answer);
        }
        Err(error) => refused(text, &error),
    }
}

fn refused(text: &str, error: &HeaderError) {
    match error {
        HeaderError::NotDigest => {
            let scheme = text.get(..7).unwrap_or_default().to_ascii_lowercase();
            assert!(!["digest ", "digest\t"].contains(&scheme.as_str()), "{text:?}");
        }
        HeaderError::Repeated(name) | HeaderError::Missing(name) | HeaderError::Unsupported(name) => {
            assert!(NAMES.contains(name), "{name}");
            // Escapes are undone in values only, so a name that is there is there as it is.
            let there = text.to_ascii_lowercase().matches(name).count();
            let least = match error {
                HeaderError::Repeated(_) => 2,
                HeaderError::Unsupported(_) => 1,
                _ => 0,
            };
            assert!(there >= least, "{error}: {text:?}");
        }
        HeaderError::Malformed => {}
    }
}

/// What was read and is written in another way is read as the same.
fn written_again(answer: &Answer) {
    assert!(answer.nc > 0 && answer.nc_text.eq_ignore_ascii_case(&format!("{:08x}", answer.nc)), "{answer:?}");
    let response = hex::encode(answer.response);
    let pairs: [(&str, &str); 8] = [
        ("username", &answer.username),
        ("realm", REALM),
        ("nonce", &answer.nonce),
        ("uri", &answer.uri),
        ("cnonce", &answer.cnonce),
        ("nc", &answer.nc_text),
        ("response", &response),
        ("qop", "auth"),
    ];
    let join = |pairs: &mut dyn Iterator<Item = String>| format!("Digest {}", pairs.collect::<Vec<_>>().join(", "));
    let forms = [
        join(&mut pairs.iter().map(|(name, value)| format!("{name}={}", quoted(value)))),
        join(&mut pairs.iter().map(|(name, value)| format!("{name}={}", barely_quoted(value)))),
        join(
            &mut pairs.iter().rev().map(|(name, value)| format!("{}\t= {}", name.to_uppercase(), every_quoted(value))),
        ),
        join(&mut pairs.iter().map(|(name, value)| format!(r#",,{name}={} ,opaque="\"{name}=\",""#, quoted(value)))),
    ];
    for form in forms {
        assert_eq!(Answer::parse(&form, REALM).as_ref(), Ok(answer), "{form:?}");
    }

    for (left_out, _) in pairs {
        let rest = pairs.iter().filter(|(name, _)| *name != left_out);
        let form = join(&mut rest.map(|(name, value)| format!("{name}={}", quoted(value))));
        assert_eq!(Answer::parse(&form, REALM), Err(HeaderError::Missing(left_out)), "{form:?}");
    }
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""))
}

fn every_quoted(value: &str) -> String {
    format!("\"{}\"", value.chars().map(|character| format!("\\{character}")).collect::<String>())
}

fn barely_quoted(value: &str) -> Cow<'_, str> {
    let needs = value.is_empty() || value.contains(['"', ' ', '\t', ',', '\\']);
    if needs { quoted(value).into() } else { value.into() }
}

/// A header that was read is read no longer with a parameter twice, and for no other realm.
fn spoilt(text: &str) {
    for name in ["username", "realm", "nonce", "uri", "cnonce", "nc", "response", "qop"] {
        let twice = format!("{text}, {name}=x");
        assert_eq!(Answer::parse(&twice, REALM), Err(HeaderError::Repeated(name)), "{twice:?}");
    }
    let known = format!("{text},unknown=x,");
    assert_eq!(Answer::parse(&known, REALM), Answer::parse(text, REALM), "{text:?}");
    assert_eq!(Answer::parse(text, "another"), Err(HeaderError::Unsupported("realm")), "{text:?}");
}

fn verified(answer: &Answer) {
    let ha1 = ha1(&answer.username, PRIVATE);
    let first = verdicts(answer, &ha1);
    assert_eq!(first, verdicts(answer, &ha1), "verified twice");
    let right = right_response(answer, &ha1);
    if answer.response != right {
        assert_eq!(first, [Verdict::Refused; 2], "{answer:?}");
    }

    // The same answer with the right hash: only its nonce decides.
    let hashed = Answer { response: right, ..answer.clone() };
    let ours = our_nonce();
    let [once, again] = verdicts(&hashed, &ha1);
    let expected = match answer.nonce.eq_ignore_ascii_case(&ours) {
        true => (Verdict::Accepted, Verdict::Replayed),
        false => (Verdict::Stale, Verdict::Stale),
    };
    assert_eq!((once, again), expected, "{answer:?}");

    // And with a nonce of ours: it is accepted once, and by nothing else than what it was hashed for.
    let mut ours = Answer { nonce: ours.into(), ..answer.clone() };
    ours.response = right_response(&ours, &ha1);
    let verifier = Verifier::new(SECRET);
    let elsewhere = format!("{}x", ours.uri);
    for (method, target, key) in [
        ("POST", ours.uri.as_ref(), Some(ha1.as_str())),
        ("GET", elsewhere.as_str(), Some(ha1.as_str())),
        ("GET", ours.uri.as_ref(), None),
        ("GET", ours.uri.as_ref(), Some("d41d8cd98f00b204e9800998ecf8427e")),
    ] {
        assert_eq!(verifier.verify(&ours, method, target, key, noon()), Verdict::Refused, "{method} {target} {key:?}");
    }
    assert_eq!(verifier.remembered(), 0, "what is refused is not remembered");
    for expected in [Verdict::Accepted, Verdict::Replayed] {
        assert_eq!(verifier.verify(&ours, "GET", &ours.uri, Some(&ha1), noon()), expected, "{ours:?}");
    }
}

/// What a new verifier says of an answer, and what it says of the same again.
fn verdicts(answer: &Answer, ha1: &str) -> [Verdict; 2] {
    let verifier = Verifier::new(SECRET);
    let verdicts = [(); 2].map(|()| verifier.verify(answer, "GET", &answer.uri, Some(ha1), noon()));
    assert_eq!(verifier.remembered(), usize::from(verdicts[0] == Verdict::Accepted));
    verdicts
}

/// RFC 7616 §3.4.1, word for word.
fn right_response(answer: &Answer, ha1: &str) -> [u8; 16] {
    let md5 = |text: String| <[u8; 16]>::from(Md5::digest(text.as_bytes()));
    let ha2 = hex::encode(md5(format!("GET:{}", answer.uri)));
    md5(format!("{ha1}:{}:{}:{}:auth:{ha2}", answer.nonce, answer.nc_text, answer.cnonce))
}

fn our_nonce() -> String {
    let challenge = Verifier::new(SECRET).challenge(noon(), 1, false);
    challenge.to_str().ok().and_then(|text| text.split('"').nth(5)).expect("a challenge has a nonce").to_owned()
}

fn noon() -> Duration {
    Duration::from_secs(1_795_521_600)
}
