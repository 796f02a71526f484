//! Documents and updates, by chance.

use std::env;

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, JavaScriptCodeWithScope, Regex, Timestamp, doc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// From `SEED`, or another each time; printed for a failure.
pub fn seeded(test: &str) -> StdRng {
    let seed = env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u32>);
    println!("{test}: SEED={seed}");
    StdRng::seed_from_u64(seed.into())
}

/// `CASES`, or `usual`.
pub fn cases(usual: usize) -> usize {
    env::var("CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

/// Names that are likely to meet, some of which look like sections of a diff, indexes or operators.
const NAMES: [&str; 14] = ["a", "b", "c", "d", "u", "i", "s", "l", "sa", "0", "1", "9", "10", "é"];

pub fn name(chance: &mut StdRng) -> String {
    NAMES[chance.random_range(0..NAMES.len())].to_owned()
}

/// A value of any type, documents and arrays up to `depth` deep.
pub fn value(chance: &mut StdRng, depth: usize) -> Bson {
    match chance.random_range(0..if depth == 0 { 17 } else { 29 }) {
        0 => Bson::Null,
        1 => chance.random::<bool>().into(),
        2 => chance.random_range(-5..5).into(),
        3 => chance.random_range(-5_i64..5).into(),
        4 => (f64::from(chance.random_range(-5..5)) / 2.0).into(),
        5 => [f64::NAN, -0.0, f64::INFINITY][chance.random_range(0..3)].into(),
        6 => decimal(chance),
        7 => Bson::String(text(chance)),
        8 => Bson::Symbol(text(chance)),
        9 => binary(chance),
        10 => ObjectId::from_bytes(chance.random()).into(),
        11 => DateTime::from_millis(chance.random()).into(),
        12 => Timestamp { time: chance.random(), increment: chance.random_range(1..9) }.into(),
        13 => regex(["a", "b.*"][chance.random_range(0..2)], ["", "i", "im"][chance.random_range(0..3)]),
        14 => Bson::JavaScriptCode(text(chance)),
        15 => Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code: text(chance), scope: doc! {"x": 1} }),
        16 => [Bson::MinKey, Bson::MaxKey, Bson::Undefined][chance.random_range(0..3)].clone(),
        17..23 => document(chance, depth - 1).into(),
        _ => (0..chance.random_range(0..13)).map(|_| value(chance, depth - 1)).collect::<Vec<_>>().into(),
    }
}

fn decimal(chance: &mut StdRng) -> Bson {
    let texts = ["1", "1.00", "-0", "NaN", "Infinity", "0.1", "12345678901234567890.5", "1E-400", "-1.5"];
    Bson::Decimal128(texts[chance.random_range(0..texts.len())].parse().unwrap())
}

pub fn text(chance: &mut StdRng) -> String {
    (0..chance.random_range(0..4)).map(|_| ['a', 'b', 'é', '\0', '\u{1}'][chance.random_range(0..5)]).collect()
}

pub fn binary(chance: &mut StdRng) -> Bson {
    let subtype = [BinarySubtype::Generic, BinarySubtype::UserDefined(0x80)][chance.random_range(0..2)];
    Bson::Binary(Binary { subtype, bytes: (0..chance.random_range(0..4)).map(|_| chance.random_range(0..3)).collect() })
}

pub fn regex(pattern: &str, options: &str) -> Bson {
    let [pattern, options] = [pattern, options].map(|text| text.to_owned().try_into().unwrap());
    Bson::RegularExpression(Regex { pattern, options })
}

pub fn document(chance: &mut StdRng, depth: usize) -> Document {
    (0..chance.random_range(0..6)).map(|_| (name(chance), value(chance, depth))).collect()
}

/// Documents whose `_id`s are 0, 1, 2, ….
pub fn documents(chance: &mut StdRng, count: usize) -> Vec<Document> {
    let with_id = |id: usize| {
        let mut document = doc! {"_id": id as i32};
        document.extend(self::document(chance, 3));
        document
    };
    (0..count).map(with_id).collect()
}

/// A diff that may be applied to the document, and changes it at any depth.
pub fn diff(chance: &mut StdRng, pre: &Document) -> Document {
    let (mut deleted, mut updated, mut inserted, mut inside) = (doc! {}, doc! {}, doc! {}, doc! {});
    for (name, value) in pre.iter().filter(|(name, _)| *name != "_id") {
        match (chance.random_range(0..6), value) {
            (0, _) => drop(deleted.insert(name, false)),
            (1, _) => drop(updated.insert(name, self::value(chance, 2))),
            (2, _) => drop(inserted.insert(name, self::value(chance, 2))),
            (3 | 4, value) => inside.extend(inner(chance, value).map(|diff| (format!("s{name}"), diff.into()))),
            _ => {}
        }
    }
    for _ in 0..chance.random_range(0..3) {
        let name = name(chance);
        if [pre, &updated, &inserted].iter().all(|taken| !taken.contains_key(&name)) {
            // What is to be updated may not be there, either.
            let section = if chance.random_ratio(1, 4) { &mut updated } else { &mut inserted };
            section.insert(name, value(chance, 2));
        }
    }
    let mut diff = doc! {};
    for (section, fields) in [("d", deleted), ("u", updated), ("i", inserted)] {
        // Sections may be empty; diffs may not.
        if !fields.is_empty() || chance.random_ratio(1, 20) {
            diff.insert(section, fields);
        }
    }
    diff.extend(inside);
    if diff.is_empty() {
        diff.insert("u", doc! {});
    }
    diff
}

fn inner(chance: &mut StdRng, pre: &Bson) -> Option<Document> {
    match pre {
        Bson::Document(pre) => Some(diff(chance, pre)),
        Bson::Array(pre) => Some(array_diff(chance, pre)),
        _ => None,
    }
}

fn array_diff(chance: &mut StdRng, pre: &[Bson]) -> Document {
    let mut diff = doc! {"a": true};
    let mut length = pre.len() + 3;
    if chance.random() {
        length = chance.random_range(0..=length);
        diff.insert("l", length as i32);
    }
    for index in 0..length {
        match (chance.random_range(0..5), pre.get(index)) {
            (0, _) => drop(diff.insert(format!("u{index}"), value(chance, 2))),
            (1, Some(pre)) => diff.extend(inner(chance, pre).map(|diff| (format!("s{index}"), diff.into()))),
            _ => {}
        }
    }
    diff
}

/// `$set` and `$unset` that may be applied to the document: paths that do not meet, and lead through nothing but
/// documents and arrays.
pub fn modifiers(chance: &mut StdRng, pre: &Document) -> (Document, Document) {
    let (mut set, mut unset) = (doc! {}, doc! {});
    let mut paths: Vec<String> = Vec::new();
    for _ in 0..chance.random_range(1..6) {
        let path = path(chance, pre);
        let meets = |other: &String| {
            *other == path || other.starts_with(&format!("{path}.")) || path.starts_with(&format!("{other}."))
        };
        if paths.iter().any(meets) {
            continue;
        }
        if chance.random_ratio(2, 3) {
            set.insert(&path, value(chance, 1));
        } else {
            unset.insert(&path, true);
        }
        paths.push(path);
    }
    (set, unset)
}

fn path(chance: &mut StdRng, pre: &Document) -> String {
    let mut parts = Vec::new();
    let mut at = Some(Bson::Document(pre.clone()));
    loop {
        let (part, next) = match at {
            Some(Bson::Document(document)) => {
                let known = document.keys().filter(|key| *key != "_id").nth(chance.random_range(0..4));
                let part = known.cloned().unwrap_or_else(|| name(chance));
                let next = document.get(&part).cloned();
                (part, next)
            }
            Some(Bson::Array(array)) => {
                let index = chance.random_range(0..array.len() + 3);
                (index.to_string(), array.get(index).cloned())
            }
            Some(_) => break,
            None => (name(chance), None),
        };
        parts.push(part);
        at = next;
        if chance.random_ratio(1, 3) {
            break;
        }
    }
    parts.join(".")
}
