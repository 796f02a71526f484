//! Which collections are restored, and what they are called in the target.

use std::collections::BTreeSet;

use bson::raw::{RawDocument, RawDocumentBuf};
use stillpoint_core::restore::Only;
use stillpoint_core::wanted::missing;

use super::RestoreError;
use super::load::parts_of;

const BUCKETS: &str = "system.buckets.";
pub const VIEWS: &str = "system.views";

/// All but what belongs to the servers themselves; or what was asked for.
#[derive(Debug, Clone)]
pub struct Naming {
    only: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    from: (String, Option<String>),
    to: (String, Option<String>),
}

/// A database, and a collection in it if there is one.
fn parted(ns: &str) -> (String, Option<String>) {
    match ns.split_once('.') {
        Some((db, name)) => (db.to_owned(), Some(name.to_owned())),
        None => (ns.to_owned(), None),
    }
}

/// Whether a database is the servers' own.
pub fn is_internal(db: &str) -> bool {
    matches!(db, "admin" | "config" | "local")
}

impl Naming {
    /// # Errors
    /// What could not be told apart in the target, or is no namespace.
    pub fn new(only: &[Only]) -> Result<Naming, RestoreError> {
        let mut rules = Vec::<Rule>::with_capacity(only.len());
        for Only { from, to } in only {
            let refused = |why: &str| Err(RestoreError::Refused(format!("{from}: {why}")));
            let rule = Rule { from: parted(from), to: parted(to.as_ref().unwrap_or(from)) };
            for (db, name) in [&rule.from, &rule.to] {
                if db.is_empty() || name.as_ref().is_some_and(String::is_empty) {
                    return refused("it is neither DB nor DB.COLLECTION");
                }
                if is_internal(db) {
                    return refused("admin, config and local are the servers' own");
                }
                if name.as_ref().is_some_and(|name| name.starts_with("system.")) {
                    return refused("system collections come with their database, buckets with their collection");
                }
            }
            if rule.from.1.is_some() != rule.to.1.is_some() {
                return refused("a database can become a database, a collection a collection");
            }
            let overlaps = |one: &(String, Option<String>), other: &(String, Option<String>)| {
                one.0 == other.0 && (one.1.is_none() || other.1.is_none() || one.1 == other.1)
            };
            for other in &rules {
                if overlaps(&other.from, &rule.from) || overlaps(&other.to, &rule.to) {
                    return refused("it is named twice, or two would have one name");
                }
                // There is one list of views in a database, which cannot be in two.
                if other.from.0 == rule.from.0 && other.to.0 != rule.to.0 {
                    return refused("collections of one database can go into one database only");
                }
            }
            rules.push(rule);
        }
        Ok(Naming { only: rules })
    }

    /// What is wanted and nothing is called, of all that `there` is. Whether there is a view is known by documents only.
    pub fn missing(&self, there: &BTreeSet<String>) -> Option<String> {
        let may_be_view = |db: &str, name: &Option<String>| name.is_some() && there.contains(&format!("{db}.{VIEWS}"));
        let only = self.only.iter().filter(|Rule { from: (db, name), .. }| !may_be_view(db, name));
        let only = only.map(|Rule { from: (db, name), .. }| match name {
            Some(name) => format!("{db}.{name}"),
            None => db.clone(),
        });
        missing(&only.collect::<Vec<_>>(), there)
    }

    /// What a collection or a view is called in the target; none if it is not restored.
    pub fn of(&self, ns: &str) -> Option<String> {
        let (db, name) = ns.split_once('.')?;
        if is_internal(db) {
            return None;
        }
        if self.only.is_empty() {
            return Some(ns.to_owned());
        }
        let (prefix, plain) = match name.strip_prefix(BUCKETS) {
            Some(plain) => (BUCKETS, plain),
            None => ("", name),
        };
        self.only.iter().filter(|rule| rule.from.0 == db).find_map(|Rule { from, to }| match (&from.1, &to.1) {
            (None, _) => Some(format!("{}.{name}", to.0)),
            (Some(from), Some(to_name)) if from == plain => Some(format!("{}.{prefix}{to_name}", to.0)),
            // Which of its views are restored is asked of each.
            (Some(_), _) if name == VIEWS => Some(format!("{}.{name}", to.0)),
            _ => None,
        })
    }

    /// What a database is called in the target; none if nothing of it is restored.
    pub fn database(&self, db: &str) -> Option<String> {
        if is_internal(db) {
            return None;
        }
        match self.only.is_empty() {
            true => Some(db.to_owned()),
            false => self.only.iter().find(|rule| rule.from.0 == db).map(|rule| rule.to.0.clone()),
        }
    }

    /// A row of `system.views` as the target is to have it; none if that view is not restored.
    pub fn view(&self, row: &RawDocument) -> Option<RawDocumentBuf> {
        let ns = row.get_str("_id").ok()?;
        let name = self.of(ns)?;
        if self.only.is_empty() {
            return Some(row.to_owned());
        }
        let db = ns.split('.').next().unwrap_or_default();
        let mut renamed = RawDocumentBuf::new();
        for field in row {
            let (key, value) = field.ok()?;
            match key.as_str() {
                "_id" => renamed.append(key, name.as_str()),
                "viewOn" => {
                    let on = value.as_str()?;
                    let to = self.of(&format!("{db}.{on}"));
                    renamed.append(key, to.as_ref().and_then(|to| to.split_once('.')).map_or(on, |(_, name)| name));
                }
                _ => renamed.append(key, value),
            }
        }
        Some(renamed)
    }

    /// Whether a database of the target, or that of a collection, is one that is written to.
    pub fn writes(&self, ns: &str) -> bool {
        let (db, _) = parts_of(ns);
        !is_internal(db) && (self.only.is_empty() || self.only.iter().any(|rule| rule.to.0 == db))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming(only: &[(&str, &str)]) -> Result<Naming, RestoreError> {
        let only: Vec<_> = only
            .iter()
            .map(|(from, to)| Only { from: (*from).into(), to: Some((*to).to_owned()).filter(|to| !to.is_empty()) })
            .collect();
        Naming::new(&only)
    }

    #[test]
    fn all_is_restored_but_what_is_the_servers_own() {
        let all = naming(&[]).unwrap();
        assert_eq!(all.of("bank.acct").as_deref(), Some("bank.acct"));
        assert_eq!(all.of("bank.system.buckets.w").as_deref(), Some("bank.system.buckets.w"));
        assert_eq!(all.database("bank").as_deref(), Some("bank"));
        for ns in ["config.chunks", "admin.system.users", "local.oplog.rs"] {
            assert_eq!(all.of(ns), None, "{ns}");
        }
    }

    #[test]
    fn what_is_asked_for_gets_the_name_that_is_asked_for() {
        let some = naming(&[("bank", "copy"), ("shop.goods", "shop2.old"), ("shop.weather", "shop2.weather")]).unwrap();
        let of = |ns: &str| some.of(ns);
        assert_eq!(of("bank.acct").as_deref(), Some("copy.acct"));
        assert_eq!(of("bank.system.views").as_deref(), Some("copy.system.views"));
        assert_eq!(of("shop.goods").as_deref(), Some("shop2.old"));
        assert_eq!(of("shop.system.buckets.weather").as_deref(), Some("shop2.system.buckets.weather"));
        assert_eq!(of("shop.system.views").as_deref(), Some("shop2.system.views"));
        assert_eq!((of("shop.other"), of("banker.acct")), (None, None));
        assert_eq!((some.database("shop").as_deref(), some.database("x")), (Some("shop2"), None));
        assert!(some.writes("copy") && some.writes("shop2") && !some.writes("bank"));
    }

    #[test]
    fn a_view_is_renamed_with_what_it_is_on() {
        let row = bson::rawdoc! {"_id": "shop.weather", "viewOn": "system.buckets.weather", "pipeline": [{"x": 1}]};
        assert_eq!(naming(&[]).unwrap().view(&row), Some(row.clone()));
        let some = naming(&[("shop.weather", "copy.climate")]).unwrap();
        let renamed = bson::rawdoc! {"_id": "copy.climate", "viewOn": "system.buckets.climate", "pipeline": [{"x": 1}]};
        assert_eq!(some.view(&row), Some(renamed));
        assert_eq!(some.view(&bson::rawdoc! {"_id": "shop.other", "viewOn": "goods", "pipeline": []}), None);
    }

    #[test]
    fn what_could_not_be_told_apart_is_refused() {
        for only in [
            &[("", "")][..],
            &[("bank.", "")],
            &[("config.chunks", "")],
            &[("bank.acct", "local.acct")],
            &[("bank.system.views", "")],
            &[("bank", "copy.acct")],
            &[("bank.acct", "copy")],
            &[("bank", ""), ("bank.acct", "")],
            &[("bank.acct", "copy.one"), ("bank.log", "copy.one")],
            &[("bank", "copy"), ("shop", "copy")],
            &[("bank.acct", "copy.acct"), ("bank.log", "other.log")],
        ] {
            assert!(matches!(naming(only), Err(RestoreError::Refused(_))), "{only:?}");
        }
    }
}
