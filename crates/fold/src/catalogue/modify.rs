//! `collMod`.

use bson::raw::{RawBson, RawBsonRef, RawDocument};

use super::{CatalogueError, Collection, Fields, Result, malformed};

#[cfg(test)]
mod tests;

/// Capped collections are as large as the next multiple of this.
const STEP: i64 = 256;

pub(super) fn apply(collection: &mut Collection, change: &RawDocument) -> Result<()> {
    let options = &mut collection.options;
    // It is set to what the command says, and one that says nothing says false.
    options.remove("recordPreImages");
    for field in change {
        let (name, value) = field.map_err(malformed)?;
        let unknown = || CatalogueError::Modify(format!("{} ({value:?})", name.as_str()));
        match name.as_str() {
            "collMod" => {}
            "recordPreImages" => set_flag(options, "recordPreImages", value),
            "validator" => {
                let validator = value.as_document().ok_or_else(unknown)?;
                let empty = validator.iter().next().is_none();
                validation(options);
                if empty {
                    options.remove("validator");
                } else {
                    options.insert("validator".into(), value.into());
                }
            }
            "validationLevel" | "validationAction" => {
                validation(options);
                options.insert(name.as_str().into(), value.into());
            }
            "expireAfterSeconds" => match value {
                RawBsonRef::String("off") => {
                    options.remove("expireAfterSeconds");
                }
                _ => {
                    options.insert("expireAfterSeconds".into(), value.into());
                }
            },
            "changeStreamPreAndPostImages" => {
                let enabled = value.as_document().ok_or_else(unknown)?.get_bool("enabled").map_err(malformed)?;
                if enabled {
                    options.insert("changeStreamPreAndPostImages".into(), value.into());
                } else {
                    options.remove("changeStreamPreAndPostImages");
                }
            }
            "cappedSize" => {
                let size = number(value).ok_or_else(unknown)?;
                let size = size.checked_add(STEP - 1).ok_or_else(unknown)? / STEP * STEP;
                options.insert("size".into(), written(size));
            }
            "cappedMax" => {
                let max = number(value).ok_or_else(unknown)?;
                let max = if max <= 0 { i64::from(i32::MAX) } else { max };
                options.insert("max".into(), written(max));
            }
            "timeseries" => timeseries(options, value.as_document().ok_or_else(unknown)?)?,
            "index" => {
                let change = value.as_document().ok_or_else(unknown)?;
                let index = change.get_str("name").map_err(malformed)?;
                match collection.indexes.get_mut(index) {
                    Some(spec) => modify_index(spec, change)?,
                    None => {
                        return Err(CatalogueError::NoIndex { ns: collection.ns.clone(), index: index.to_owned() });
                    }
                }
            }
            _ => return Err(unknown()),
        }
    }
    Ok(())
}

/// A number as the server writes it into the catalogue: in the shorter type, if it fits.
fn written(number: i64) -> RawBson {
    i32::try_from(number).map_or(RawBson::Int64(number), RawBson::Int32)
}

/// A whole number, as commands and options have it in any of three types.
fn number(value: RawBsonRef<'_>) -> Option<i64> {
    match value {
        RawBsonRef::Int32(value) => Some(value.into()),
        RawBsonRef::Int64(value) => Some(value),
        RawBsonRef::Double(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(value as i64),
        _ => None,
    }
}

/// A flag that is there only when it is set.
fn set_flag(fields: &mut Fields, name: &str, value: RawBsonRef<'_>) {
    if value == RawBsonRef::Boolean(true) {
        fields.insert(name.into(), RawBson::Boolean(true));
    } else {
        fields.remove(name);
    }
}

/// Whatever of validation is changed, its defaults are written out.
fn validation(options: &mut Fields) {
    for (name, default) in [("validationLevel", "strict"), ("validationAction", "error")] {
        options.entry(name.into()).or_insert_with(|| RawBson::String(default.into()));
    }
}

fn modify_index(spec: &mut Fields, change: &RawDocument) -> Result<()> {
    for field in change {
        let (name, value) = field.map_err(malformed)?;
        match name.as_str() {
            "name" | "keyPattern" => {}
            "hidden" | "prepareUnique" => set_flag(spec, name.as_str(), value),
            "unique" => {
                set_flag(spec, "unique", value);
                spec.remove("prepareUnique");
            }
            "expireAfterSeconds" => {
                spec.insert("expireAfterSeconds".into(), value.into());
            }
            other => return Err(CatalogueError::Modify(format!("index.{other}"))),
        }
    }
    Ok(())
}

fn timeseries(options: &mut Fields, change: &RawDocument) -> Result<()> {
    let Some(RawBson::Document(old)) = options.get("timeseries") else {
        return Err(CatalogueError::Modify("timeseries of a collection that is none".into()));
    };
    let mut fields = super::fields(old, &[])?;
    for field in change {
        let (name, value) = field.map_err(malformed)?;
        match (name.as_str(), value) {
            ("granularity", RawBsonRef::String(granularity)) => {
                let span = match granularity {
                    "seconds" => 3_600,
                    "minutes" => 86_400,
                    "hours" => 2_592_000,
                    other => return Err(CatalogueError::Modify(format!("timeseries.granularity ({other})"))),
                };
                fields.insert("granularity".into(), value.into());
                fields.insert("bucketMaxSpanSeconds".into(), RawBson::Int32(span));
                fields.remove("bucketRoundingSeconds");
            }
            // From 6.3 on they are chosen instead of a granularity.
            ("bucketMaxSpanSeconds" | "bucketRoundingSeconds", _) => {
                fields.remove("granularity");
                fields.insert(name.as_str().into(), value.into());
            }
            (other, _) => return Err(CatalogueError::Modify(format!("timeseries.{other}"))),
        }
    }
    // In the order in which the server writes them.
    let mut new = bson::RawDocumentBuf::new();
    for name in ["timeField", "metaField", "granularity", "bucketRoundingSeconds", "bucketMaxSpanSeconds"] {
        if let Some(value) = fields.remove(name) {
            append(&mut new, name, &value)?;
        }
    }
    for (name, value) in &fields {
        append(&mut new, name, value)?;
    }
    options.insert("timeseries".into(), RawBson::Document(new));
    Ok(())
}

fn append(document: &mut bson::RawDocumentBuf, name: &str, value: &RawBson) -> Result<()> {
    let name = bson::raw::CString::try_from(name).map_err(malformed)?;
    document.append(name, value.clone());
    Ok(())
}
