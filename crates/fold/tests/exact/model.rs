//! The same updates on owned documents, as simply as possible; and that the fold agrees.

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use stillpoint_fold::update::apply;

use crate::generate;

/// The document after a diff.
pub fn after_diff(pre: &Document, diff: &Document) -> Document {
    let section = |name: &str| diff.get_document(name).cloned().unwrap_or_default();
    let mut post = pre.clone();
    for (name, value) in diff.iter().filter(|(name, _)| name.starts_with('s')) {
        let (name, diff) = (&name[1..], value.as_document().unwrap());
        let changed = inside(&post[name], diff);
        post.insert(name, changed);
    }
    for name in section("d").keys() {
        post.remove(name);
    }
    // In place, or at the end.
    post.extend(section("u"));
    for (name, value) in section("i") {
        post.remove(&name);
        post.insert(name, value);
    }
    post
}

fn inside(pre: &Bson, diff: &Document) -> Bson {
    let Bson::Array(pre) = pre else { return after_diff(pre.as_document().unwrap(), diff).into() };
    let mut post = pre.clone();
    if let Ok(length) = diff.get_i32("l") {
        post.resize(length as usize, Bson::Null);
    }
    for (name, value) in diff.iter().filter(|(name, _)| name.len() > 1) {
        let index: usize = name[1..].parse().unwrap();
        if index >= post.len() {
            post.resize(index + 1, Bson::Null);
        }
        post[index] =
            if name.starts_with('u') { value.clone() } else { inside(&post[index], value.as_document().unwrap()) };
    }
    post.into()
}

/// The document after modifiers: one path at a time, in the server's order.
pub fn after_modifiers(pre: &Document, set: &Document, unset: &Document) -> Document {
    let mut post = Bson::Document(pre.clone());
    let set = set.iter().map(|(path, value)| (path, Some(value)));
    let mut all: Vec<_> = set.chain(unset.keys().map(|path| (path, None))).collect();
    all.sort_by_key(|(path, _)| path.split('.').map(sort_key).collect::<Vec<_>>());
    for (path, value) in all {
        let parts: Vec<_> = path.split('.').collect();
        modify(&mut post, &parts, value);
    }
    post.as_document().unwrap().clone()
}

/// Numbers are in order among themselves; the generator makes none with zeros before it.
fn sort_key(part: &str) -> (usize, String) {
    let number = part.bytes().all(|byte| byte.is_ascii_digit());
    (if number { part.len() } else { usize::MAX }, part.to_owned())
}

fn modify(at: &mut Bson, path: &[&str], value: Option<&Bson>) {
    let (part, rest) = path.split_first().unwrap();
    match at {
        Bson::Document(document) if !rest.is_empty() => {
            if value.is_some() && !document.contains_key(part) {
                document.insert(*part, doc! {});
            }
            if let Some(next) = document.get_mut(part) {
                modify(next, rest, value);
            }
        }
        Bson::Document(document) => match value {
            Some(value) => drop(document.insert(*part, value.clone())),
            None => drop(document.remove(part)),
        },
        Bson::Array(array) => {
            let index: usize = part.parse().unwrap();
            if index >= array.len() {
                if value.is_none() {
                    return;
                }
                array.resize(index, Bson::Null);
                array.push(Bson::Document(doc! {}));
            }
            match (rest.is_empty(), value) {
                (true, value) => array[index] = value.cloned().unwrap_or(Bson::Null),
                (false, value) => modify(&mut array[index], rest, value),
            }
        }
        // Nothing is there to be unset.
        _ => assert!(value.is_none(), "the generator leads through documents and arrays only"),
    }
}

fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn diffs_are_applied_as_the_model_does(seed: u64) {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut pre = doc! {"_id": 1};
        pre.extend(generate::document(&mut chance, 3));
        let diff = generate::diff(&mut chance, &pre);
        let post = apply(&raw(&pre), &raw(&doc! {"$v": 2, "diff": &diff}));
        prop_assert_eq!(post, Ok(raw(&after_diff(&pre, &diff))), "{} {}", pre, diff);
    }

    #[test]
    fn modifiers_are_applied_as_the_model_does(seed: u64) {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut pre = doc! {"_id": 1};
        pre.extend(generate::document(&mut chance, 3));
        let (set, unset) = generate::modifiers(&mut chance, &pre);
        let post = apply(&raw(&pre), &raw(&doc! {"$v": 1, "$unset": &unset, "$set": &set}));
        prop_assert_eq!(post, Ok(raw(&after_modifiers(&pre, &set, &unset))), "{} {} {}", pre, set, unset);
    }

    #[test]
    fn whatever_the_update_is_there_is_an_answer(seed: u64, at in 4_usize..200, flip in 1_u8..) {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut pre = doc! {"_id": 1};
        pre.extend(generate::document(&mut chance, 2));
        let mut o = raw(&doc! {"$v": 2, "diff": generate::diff(&mut chance, &pre)}).into_bytes();
        let end = o.len() - 1;
        o[4 + at % (end - 4)] ^= flip;
        let _ = apply(&raw(&pre), &RawDocumentBuf::from_bytes(o).unwrap());
    }
}
