//! Query parameters, against a slow reader of the same rules that shares no code with them.

use std::fmt::Debug;

use stillpoint_api::error::{Code, Refusal};
use stillpoint_api::query::{Common, Paging};

pub fn check(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else { return };

    let common = same(query, named(Common::parse(query)), common(query));
    if let Ok(read) = common {
        let written = format!("pretty={}&envelope={}", read.pretty, read.envelope);
        for form in forms(&written) {
            assert_eq!(Common::parse(&form), Ok(read), "{query:?} written again as {form:?}");
        }
        let more = format!("{query}&pretty={}", read.pretty);
        let given = !values(query, "pretty").is_empty();
        assert_eq!(Common::parse(&more).is_err(), given, "pretty is added to {query:?}");
    }

    let paging = same(query, named(Paging::parse(query)), paging(query));
    if let Ok(read) = paging {
        // What a list works out of it.
        let skip = (read.page - 1).checked_mul(read.per_page).and_then(|skip| skip.checked_add(read.per_page + 1));
        assert!(skip.is_some_and(|skip| i64::try_from(skip).is_ok()), "{read:?}");
        let written = format!("pageNum={}&itemsPerPage={}&includeCount={}", read.page, read.per_page, read.count);
        for form in forms(&written) {
            assert_eq!(Paging::parse(&form), Ok(read), "{query:?} written again as {form:?}");
        }
    }
}

/// The parameter that a refusal names, which is all that it may hold.
fn named<T>(read: Result<T, Refusal>) -> Result<T, String> {
    read.map_err(|refusal| {
        assert_eq!(refusal.code(), Code::InvalidQueryParameter);
        let document = refusal.document(false);
        assert_eq!((document.error, document.parameters.len()), (400, 1));
        document.parameters[0].clone()
    })
}

fn same<T: PartialEq + Debug>(query: &str, read: Result<T, String>, slowly: Result<T, &str>) -> Result<T, String> {
    assert_eq!(read, slowly.map_err(str::to_owned), "{query:?}");
    read
}

/// Ways to write the same query.
fn forms(written: &str) -> [String; 4] {
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let pairs: Vec<_> = written.split('&').map(|pair| pair.split_once('=').unwrap_or_default()).collect();
    let hidden: Vec<_> = pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    let backwards: Vec<_> = written.split('&').rev().collect();
    [
        written.to_owned(),
        hidden.join("&"),
        backwards.join("&unknown=%ff&&"),
        format!("&=&Pretty=1&pretty%00=1&pagenum=0&{written}&"),
    ]
}

fn common(query: &str) -> Result<Common, &'static str> {
    Ok(Common { pretty: boolean(query, "pretty", false)?, envelope: boolean(query, "envelope", false)? })
}

fn paging(query: &str) -> Result<Paging, &'static str> {
    Ok(Paging {
        page: number(query, "pageNum", 1, 2_147_483_647)?,
        per_page: number(query, "itemsPerPage", 100, 500)?,
        count: boolean(query, "includeCount", true)?,
    })
}

fn boolean(query: &str, name: &'static str, default: bool) -> Result<bool, &'static str> {
    match values(query, name).as_slice() {
        [] => Ok(default),
        [one] if one == b"true" => Ok(true),
        [one] if one == b"false" => Ok(false),
        _ => Err(name),
    }
}

fn number(query: &str, name: &'static str, default: u64, highest: u128) -> Result<u64, &'static str> {
    match values(query, name).as_slice() {
        [] => Ok(default),
        [digits] if (1..=20).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) => {
            let number = digits.iter().fold(0u128, |sum, digit| sum * 10 + u128::from(digit - b'0'));
            if (1..=highest).contains(&number) { Ok(number as u64) } else { Err(name) }
        }
        _ => Err(name),
    }
}

/// Every value of a parameter, decoded.
fn values(query: &str, name: &str) -> Vec<Vec<u8>> {
    let pairs = query.as_bytes().split(|byte| *byte == b'&').map(|pair| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        (halves.next().unwrap_or_default(), halves.next().unwrap_or_default())
    });
    pairs.filter(|(key, _)| decoded(key) == name.as_bytes()).map(|(_, value)| decoded(value)).collect()
}

/// A percent sign that two hex digits do not follow stands for itself.
fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    bytes
}
