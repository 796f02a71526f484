//! Which collections are wanted: all, or those that are named as `DB` or `DB.COLLECTION`.

use std::collections::BTreeSet;

const BUCKETS: &str = "system.buckets.";
/// Of what is there instead, so many are named.
const NAMED: usize = 10;

/// Database and collection as clients know them: a time-series collection, not its buckets.
fn parts(ns: &str) -> (&str, &str) {
    let (db, name) = ns.split_once('.').unwrap_or((ns, ""));
    (db, name.strip_prefix(BUCKETS).unwrap_or(name))
}

/// Whether a namespace is among those that are wanted.
pub fn is_wanted(only: &[String], ns: &str) -> bool {
    only.is_empty() || only.iter().any(|one| is_of(one, ns))
}

fn is_of(one: &str, ns: &str) -> bool {
    let (named, ns) = (parts(one), parts(ns));
    named.0 == ns.0 && (named.1.is_empty() || named.1 == ns.1)
}

/// The first of what is wanted that nothing is called, and what there is instead.
pub fn missing(only: &[String], there: &BTreeSet<String>) -> Option<String> {
    let one = only.iter().find(|one| !there.iter().any(|ns| is_of(one, ns)))?;
    let (db, _) = parts(one);
    let of_db = there.iter().map(|ns| parts(ns)).filter(|of| of.0 == db && !of.1.starts_with("system.")).map(|of| of.1);
    let of_db: BTreeSet<_> = of_db.collect();
    let (what, instead) = match of_db.is_empty() {
        true => ("database", there.iter().map(|ns| parts(ns).0).collect()),
        false => ("collection", of_db),
    };
    let more = instead.len().saturating_sub(NAMED);
    let named = instead.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    Some(match (named.is_empty(), more) {
        (true, _) => format!("there was no {what} {one}, nor another"),
        (false, 0) => format!("there was no {what} {one}: there was {named}"),
        (false, more) => format!("there was no {what} {one}: there was {named} and {more} more"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn databases_and_collections_are_wanted_by_their_names() {
        let only = named(&["bank", "shop.orders", "shop.weather"]);
        for ns in ["bank.accounts", "bank.system.views", "shop.orders", "shop.system.buckets.weather"] {
            assert!(is_wanted(&only, ns) && is_wanted(&[], ns), "{ns}");
        }
        for ns in ["bank2.accounts", "shop.order", "shop.orders.old", "shop.system.views"] {
            assert!(!is_wanted(&only, ns), "{ns}");
        }
    }

    #[test]
    fn what_nothing_is_called_is_told_with_what_there_is() {
        let there = named(&["bank.accounts", "shop.orders", "shop.system.buckets.weather", "shop.system.views"]);
        let there: BTreeSet<_> = there.into_iter().collect();
        let missing = |name: &str| missing(&named(&["bank", "shop.weather", name]), &there);
        assert_eq!(missing("shop"), None);
        assert_eq!(missing("shop.order").unwrap(), "there was no collection shop.order: there was orders, weather");
        assert_eq!(missing("shops.orders").unwrap(), "there was no database shops.orders: there was bank, shop");
        let many: BTreeSet<_> = (0..12).map(|n| format!("db{n}.a")).collect();
        assert!(super::missing(&named(&["db"]), &many).unwrap().ends_with("db7 and 2 more"));
        assert_eq!(super::missing(&named(&["db"]), &BTreeSet::new()).unwrap(), "there was no database db, nor another");
    }
}
