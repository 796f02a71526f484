//! The commands that are printed for mongosh, read as mongosh would read them.

use bson::{Bson, Document};

/// `db.getSiblingDB("…").runCommand({…})`
#[derive(Debug)]
pub struct Command {
    pub database: String,
    pub command: Document,
}

/// Reads a printed line; `None` for one that runs no command.
pub fn command(text: &str) -> Option<Command> {
    let rest = text.strip_prefix("db.getSiblingDB(\"")?;
    let (database, rest) = rest.split_once("\").runCommand(")?;
    let json = quote_keys(rest.strip_suffix(')')?);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{e}: {json}"));
    match Bson::try_from(value).unwrap() {
        Bson::Document(command) => Some(Command { database: database.into(), command }),
        other => panic!("{other}"),
    }
}

/// JavaScript's object literals leave the quotes of keys out; JSON does not.
fn quote_keys(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '"' => 2 + rest[1..].find('"').expect("a string that ends"),
            c if c.is_ascii_alphabetic() => rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        match c.is_ascii_alphabetic() && after.starts_with(':') {
            true => out.extend(["\"", token, "\""]),
            false => out.push_str(token),
        }
        rest = after;
    }
    out
}
