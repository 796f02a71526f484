//! Which version of a resource a client of v2 asks for, with
//! `Accept: application/vnd.atlas.2023-01-01+json`.
//!
//! A date is answered with the newest version that is not after it, so that a client may send the date
//! at which it was written and keep getting what it knew then.

use jiff::civil::Date;

use crate::error::{Code, Refusal};

/// A version of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub date: Date,
    /// From this day on it is no longer served.
    pub sunset: Option<Date>,
}

/// Every resource has been there since this one.
pub const FIRST: Version = Version { date: jiff::civil::date(2023, 1, 1), sunset: None };

impl Version {
    pub fn media_type(&self) -> String {
        format!("application/vnd.atlas.{}+json", self.date)
    }
}

/// The date that an `Accept` header asks for: the one of highest weight, the latest of several.
pub fn requested(accept: &str) -> Option<Date> {
    let ranges = accept.split(',').filter_map(|range| {
        let mut pieces = range.split(';').map(str::trim);
        let date = date_of(pieces.next()?)?;
        let weight =
            pieces.find_map(|piece| piece.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q")));
        let weight = weight.map_or(Some(1_000), |(_, text)| thousandths(text.trim()))?;
        (weight > 0).then_some((weight, date))
    });
    ranges.max().map(|(_, date)| date)
}

/// The date of a media type of this API's. Without weights and other parameters.
pub fn date_of(media_type: &str) -> Option<Date> {
    let lower = media_type.to_ascii_lowercase();
    let date = lower.strip_prefix("application/vnd.atlas.")?.strip_suffix("+json")?;
    // What `parse` takes is more than one form.
    let date: Date = Some(date).filter(|date| date.len() == 10)?.parse().ok()?;
    (date.to_string().len() == 10).then_some(date)
}

/// A weight (RFC 9110 §12.4.2) in thousandths.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    match (whole, digits) {
        ("0", true) => format!("{fraction:0<3}").parse().ok(),
        ("1", true) => fraction.bytes().all(|b| b == b'0').then_some(1_000),
        _ => None,
    }
}

/// The newest of `versions`, which are in order, that is not after `wanted`.
pub fn resolve(wanted: Option<Date>, versions: &[Version], today: Date) -> Result<Version, Refusal> {
    let oldest = versions.iter().find(|version| version.sunset.is_none_or(|sunset| today < sunset));
    let none = || Refusal::new(Code::InvalidVersionDate, [&oldest.unwrap_or(&FIRST).date.to_string()]);
    let wanted = wanted.ok_or_else(none)?;
    let found = versions.iter().rfind(|version| version.date <= wanted).ok_or_else(none)?;
    match found.sunset {
        Some(sunset) if today >= sunset => Err(Refusal::new(Code::VersionGone, [&found.date.to_string()])),
        _ => Ok(*found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn the_date_is_read_from_whatever_a_client_sends() {
        for (accept, expected) in [
            ("application/vnd.atlas.2023-01-01+json", Some(date(2023, 1, 1))),
            ("Application/VND.Atlas.2024-05-30+JSON", Some(date(2024, 5, 30))),
            ("text/html, application/vnd.atlas.2023-01-01+json;q=0.9, */*", Some(date(2023, 1, 1))),
            ("application/vnd.atlas.2023-01-01+json, application/vnd.atlas.2024-05-30+json", Some(date(2024, 5, 30))),
            (
                "application/vnd.atlas.2023-01-01+json;q=1, application/vnd.atlas.2024-05-30+json;q=0.5",
                Some(date(2023, 1, 1)),
            ),
            ("application/vnd.atlas.2023-01-01+json; charset=utf-8; q=0.001", Some(date(2023, 1, 1))),
            ("application/vnd.atlas.2023-01-01+json;q=0", None),
            ("application/vnd.atlas.2023-01-01+json;q=2", None),
            ("application/vnd.atlas.2023-13-01+json", None),
            ("application/vnd.atlas.2023-02-29+json", None),
            ("application/vnd.atlas.2023-1-1+json", None),
            ("application/vnd.atlas.20230101+json", None),
            ("application/vnd.atlas.2023-01-01+gzip", None),
            ("application/vnd.atlas.2023-01-01", None),
            ("application/vnd.atlas.+json", None),
            ("application/json", None),
            ("*/*", None),
            ("", None),
        ] {
            assert_eq!(requested(accept), expected, "{accept}");
        }
    }

    #[test]
    fn a_later_date_falls_back_and_an_early_or_a_gone_one_is_refused() {
        let versions = [
            Version { date: date(2023, 1, 1), sunset: Some(date(2026, 3, 1)) },
            Version { date: date(2024, 8, 5), sunset: None },
        ];
        let ask = |wanted, today| resolve(wanted, &versions, today).map(|found| found.date).map_err(|e| e.code());
        let (before, after) = (date(2026, 2, 28), date(2026, 3, 1));
        assert_eq!(ask(Some(date(2024, 8, 5)), after), Ok(date(2024, 8, 5)));
        assert_eq!(ask(Some(date(2099, 1, 1)), after), Ok(date(2024, 8, 5)));
        assert_eq!(ask(Some(date(2024, 8, 4)), before), Ok(date(2023, 1, 1)));
        assert_eq!(ask(Some(date(2024, 8, 4)), after), Err(Code::VersionGone));
        assert_eq!(ask(Some(date(2022, 12, 31)), after), Err(Code::InvalidVersionDate));
        assert_eq!(ask(None, after), Err(Code::InvalidVersionDate));
        let said = resolve(None, &versions, after).unwrap_err().to_string();
        assert!(said.contains("2024-08-05"), "names one that is served: {said}");
    }
}
