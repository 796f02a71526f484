//! Query parameters. What is known is read strictly: once, not empty, in range. What is not known is
//! ignored.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use stillpoint_core::RestoreId;

use crate::error::{Code, Refusal};

/// The parameters that every resource has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Common {
    pub pretty: bool,
    pub envelope: bool,
}

/// The parameters of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paging {
    /// Counted from 1.
    pub page: u64,
    pub per_page: u64,
    pub count: bool,
}

pub const HIGHEST_PAGE: u64 = i32::MAX as u64;
pub const MOST_PER_PAGE: u64 = 500;
/// More than any right value has, but for ids.
const LONGEST_VALUE: usize = 20;
const LENGTH_OF_ID: usize = 24;

impl Common {
    pub fn parse(query: &str) -> Result<Common, Refusal> {
        // Nearly all requests have none.
        if query.is_empty() {
            return Ok(Common::default());
        }
        Ok(Common { pretty: boolean(query, "pretty", false)?, envelope: boolean(query, "envelope", false)? })
    }
}

impl Paging {
    pub fn parse(query: &str) -> Result<Paging, Refusal> {
        Ok(Paging {
            page: number(query, "pageNum", 1, HIGHEST_PAGE)?,
            per_page: number(query, "itemsPerPage", 100, MOST_PER_PAGE)?,
            count: boolean(query, "includeCount", true)?,
        })
    }

    /// How many come before the page.
    pub fn skip(&self) -> u64 {
        (self.page - 1) * self.per_page
    }

    /// The page of all records, and whether there are more behind it.
    pub fn of<R>(self, records: &[R]) -> (&[R], bool) {
        let begin = usize::try_from(self.skip()).unwrap_or(usize::MAX).min(records.len());
        let end = begin.saturating_add(self.per_page as usize).min(records.len());
        (&records[begin..end], end < records.len())
    }
}

/// Which snapshots a list has: those that are complete, unless it says otherwise, those that are not, or all.
pub fn completed(query: &str) -> Result<Option<bool>, Refusal> {
    match value(query, "completed")?.as_deref() {
        Some("all") => Ok(None),
        _ => boolean(query, "completed", true).map(Some),
    }
}

/// The restore whose jobs a list has; of all, if it does not say.
pub fn batch(query: &str) -> Result<Option<RestoreId>, Refusal> {
    let name = "batchId";
    value_of(query, name, LENGTH_OF_ID)?.map(|text| text.parse().map_err(|_| refused(name))).transpose()
}

fn refused(name: &str) -> Refusal {
    Refusal::new(Code::InvalidQueryParameter, [name])
}

fn boolean(query: &str, name: &str, default: bool) -> Result<bool, Refusal> {
    match value(query, name)?.as_deref() {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) => Err(refused(name)),
    }
}

/// A whole number from 1 to `highest`.
fn number(query: &str, name: &str, default: u64, highest: u64) -> Result<u64, Refusal> {
    let Some(text) = value(query, name)? else { return Ok(default) };
    // `parse` alone would take a sign.
    match text.parse() {
        Ok(number) if (1..=highest).contains(&number) && text.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
        _ => Err(refused(name)),
    }
}

/// The one value of a parameter.
fn value<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
    value_of(query, name, LONGEST_VALUE)
}

fn value_of<'a>(query: &'a str, name: &str, longest: usize) -> Result<Option<Cow<'a, str>>, Refusal> {
    let mut found = None;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !named(key, name) {
            continue;
        }
        // A percent-encoded character is three long.
        if found.is_some() || value.len() > longest * 3 {
            return Err(refused(name));
        }
        // A `+` would be a space, which no right value has.
        let value = percent_decode_str(value).decode_utf8().map_err(|_| refused(name))?;
        if value.is_empty() || value.len() > longest {
            return Err(refused(name));
        }
        found = Some(value);
    }
    Ok(found)
}

fn named(key: &str, name: &str) -> bool {
    key == name || (key.contains('%') && percent_decode_str(key).eq(name.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default_and_what_is_unknown_is_ignored() {
        assert_eq!(Common::parse(""), Ok(Common { pretty: false, envelope: false }));
        assert_eq!(Paging::parse(""), Ok(Paging { page: 1, per_page: 100, count: true }));
        let query = "a=b&&pretty=true&%00=%ff&pageNum=2&itemsPerPage=500&includeCount=false&x&=";
        assert_eq!(Common::parse(query), Ok(Common { pretty: true, envelope: false }));
        assert_eq!(Paging::parse(query), Ok(Paging { page: 2, per_page: 500, count: false }));
        assert_eq!(Common::parse("%70retty=tru%65"), Ok(Common { pretty: true, envelope: false }));
    }

    #[test]
    fn a_list_of_snapshots_has_the_complete_ones_unless_it_says_otherwise() {
        for (query, expected) in [
            ("", Some(true)),
            ("x=all", Some(true)),
            ("completed=true", Some(true)),
            ("completed=false", Some(false)),
            ("completed=all", None),
            ("completed=%61ll", None),
        ] {
            assert_eq!(completed(query), Ok(expected), "{query}");
        }
        for query in ["completed", "completed=", "completed=ALL", "completed=all&completed=all", "completed=none"] {
            assert_eq!(completed(query), Err(refused("completed")), "{query}");
        }
    }

    #[test]
    fn a_list_of_restore_jobs_has_those_of_one_restore_if_it_says_so() {
        let id = "6b8cd6d580eef54711017e89";
        assert_eq!(batch(""), Ok(None));
        assert_eq!(batch(&format!("x=1&batchId={id}")), Ok(Some(id.parse().unwrap())));
        for value in ["", "=", "=1", "=6b8cd6d580eef54711017e8g", "=6b8cd6d580eef54711017e890", "=%00", "=all"] {
            assert_eq!(batch(&format!("batchId{value}")), Err(refused("batchId")), "{value}");
        }
        assert_eq!(batch(&format!("batchId={id}&batchId={id}")), Err(refused("batchId")));
    }

    #[test]
    fn every_malformed_value_is_refused_by_the_name_of_its_parameter() {
        let overlong = format!("pretty={}", "t".repeat(5_000));
        let common = ["pretty", "pretty=", "pretty=1", "pretty=TRUE", "pretty=true%00", "pretty=%2F", "pretty=%ff"];
        for query in common.into_iter().chain(["pretty=true&pretty=true", "pretty=true+", &overlong]) {
            assert_eq!(Common::parse(query), Err(refused("pretty")), "{query}");
        }
        for value in ["", "0", "-1", "+1", "%2B1", "1.5", "x", "501", "1%00", "99999999999999999999", "1%2F2", "١"] {
            assert_eq!(Paging::parse(&format!("itemsPerPage={value}")), Err(refused("itemsPerPage")), "{value}");
        }
        assert_eq!(Paging::parse("pageNum=2147483648"), Err(refused("pageNum")));
        assert_eq!(Paging::parse("pageNum=1&pageNum=2"), Err(refused("pageNum")));
        assert_eq!(Paging::parse("includeCount=yes"), Err(refused("includeCount")));
    }
}
