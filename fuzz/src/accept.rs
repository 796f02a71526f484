//! Which version of the API an `Accept` header asks for.

use jiff::civil::Date;
use stillpoint_api::version::{FIRST, Version, date_of, requested, resolve};

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = requested(text);
    assert_eq!(read, requested(text), "read twice");
    let Some(date) = read else { return };

    let written = date.to_string();
    assert!(text.to_ascii_lowercase().contains(&written), "{date} is not in {text:?}");
    for form in [
        format!("application/vnd.atlas.{written}+json"),
        format!(" application/vnd.atlas.{written}+json "),
        format!("APPLICATION/VND.ATLAS.{written}+JSON"),
        format!("application/vnd.atlas.{written}+json;q=1"),
        format!("text/html;q=0.1, application/vnd.atlas.{written}+json;charset=utf-8; q=0.5"),
        format!("application/vnd.atlas.9999-12-31+json;q=0.1,application/vnd.atlas.{written}+json;q=0.2"),
        // The later of two that weigh the same; 0001-01-01 is the first that can be written.
        format!("application/vnd.atlas.0001-01-01+json,application/vnd.atlas.{written}+json"),
    ] {
        assert_eq!(requested(&form), Some(date), "{text:?} written again as {form:?}");
    }
    assert_eq!(requested(&format!("application/vnd.atlas.{written}+json;q=0")), None);
    assert_eq!(date_of(&format!("application/vnd.atlas.{written}+json")), Some(date));
    resolved(date);
}

/// The newest that is not after it, and never one that is not there.
fn resolved(wanted: Date) {
    let second = Version { date: jiff::civil::date(2024, 8, 5), sunset: None };
    let today = jiff::civil::date(2026, 11, 24);
    let found = resolve(Some(wanted), &[FIRST, second], today).ok();
    let expected = [second, FIRST].into_iter().find(|version| version.date <= wanted);
    assert_eq!(found, expected, "{wanted}");
}
