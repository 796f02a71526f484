//! Capped collections that hold more than they may: the limit was lowered (`collMod`), or documents grew. A server
//! lets what is too much go with the next insert. So while one is filled, the limits that it passes are lifted, and
//! set in the last step.

use bson::RawBson;
use stillpoint_fold::Collection;
use stillpoint_snapshot::Digest;

/// The largest that a server takes, in bytes.
const LARGEST: i64 = 1 << 50;
/// What a server notes when there is to be none.
const MOST: i32 = i32::MAX;

/// How large a capped collection may be; other collections have no limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    size: Option<u64>,
    max: Option<u64>,
}

/// The limits that documents pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    size: bool,
    max: bool,
}

impl Limits {
    pub fn of(collection: &Collection) -> Limits {
        let limit = |name: &str| collection.options.get(name).filter(|_| collection.is_capped()).and_then(number);
        Limits { size: limit("size"), max: limit("max") }
    }

    pub fn passed(&self, documents: &Digest) -> Passed {
        Passed {
            size: self.size.is_some_and(|size| documents.bytes > size),
            max: self.max.is_some_and(|max| documents.documents > max),
        }
    }
}

impl Passed {
    /// The collection with these limits lifted.
    pub fn lifted(self, mut collection: Collection) -> Collection {
        if self.size {
            collection.options.insert("size".into(), RawBson::Int64(LARGEST));
        }
        if self.max {
            collection.options.insert("max".into(), RawBson::Int32(MOST));
        }
        collection
    }

    /// These limits of a collection, as `collMod` has them.
    pub fn fields(self, collection: &Collection) -> Vec<(&'static str, &RawBson)> {
        let size = collection.options.get("size").filter(|_| self.size).map(|size| ("cappedSize", size));
        let max = collection.options.get("max").filter(|_| self.max).map(|max| ("cappedMax", max));
        size.into_iter().chain(max).collect()
    }
}

/// A limit in any of a number's types; none is written as zero, too.
fn number(value: &RawBson) -> Option<u64> {
    let number = match *value {
        RawBson::Int32(number) => number.into(),
        RawBson::Int64(number) => number,
        RawBson::Double(number) => number as i64,
        _ => return None,
    };
    u64::try_from(number).ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collection(options: &[(&str, RawBson)]) -> Collection {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Collection { ns: "a.b".into(), options, indexes: [].into() }
    }

    fn capped(size: i32, max: RawBson) -> Collection {
        collection(&[("capped", RawBson::Boolean(true)), ("size", RawBson::Int32(size)), ("max", max)])
    }

    fn documents(documents: u64, bytes: u64) -> Digest {
        Digest { documents, bytes, ..Digest::EMPTY }
    }

    #[test]
    fn only_what_is_passed_is_lifted_and_set_again() {
        let log = capped(1024, RawBson::Double(3.0));
        let limits = Limits::of(&log);
        assert_eq!(limits.passed(&documents(3, 1024)), Passed::default());
        let passed = limits.passed(&documents(4, 1024));
        assert_eq!(passed.fields(&log), [("cappedMax", &RawBson::Double(3.0))]);
        assert_eq!(passed.lifted(log.clone()), capped(1024, RawBson::Int32(MOST)));
        let passed = limits.passed(&documents(3, 1025));
        assert_eq!(passed.fields(&log), [("cappedSize", &RawBson::Int32(1024))]);
        let lifted = passed.lifted(log.clone());
        assert_eq!(passed.fields(&lifted), [("cappedSize", &RawBson::Int64(LARGEST))]);
        assert_eq!(limits.passed(&documents(4, 1025)).fields(&log).len(), 2);
    }

    #[test]
    fn what_is_not_capped_or_has_no_such_limit_passes_none() {
        let many = documents(u64::MAX, u64::MAX);
        let plain = Limits::of(&collection(&[("size", RawBson::Int32(1))]));
        assert_eq!(plain.passed(&many), Passed::default());
        let endless = Limits::of(&capped(1024, RawBson::Int64(0)));
        assert_eq!(endless.passed(&documents(u64::MAX, 1)), Passed::default());
    }
}
