//! The hash that stands for a value in a hashed index, and so in a hashed shard key.
//!
//! It is the beginning of an MD5: of a seed, then of what says the value's type and content. Which types and
//! values are the same to it is as in the server's `hasher.cpp` and `canonicalizeBSONType`, and measured on 6.0
//! (`tests/exact/hashed.rs`).

use bson::raw::{RawBsonRef, RawDocumentBuf};
use md5::{Digest, Md5};

use stillpoint_oplog::document::{self as raw, Malformed, Value};

use super::OwnershipError;
use crate::key::number::{DIGITS, Decimal, Parts};
use crate::key::{CUT, code_and_scope, fixed};

/// The only one that the server uses for indexes.
const SEED: i32 = 0;

/// The hash of a value. A number has that of a whole one, whatever their types: a double of what stands before its
/// point, a decimal of the next one. A field that is missing has that of null.
///
/// # Errors
/// A value that is no BSON, or nested too deep. An array is hashed, too, though a hashed index takes none.
pub fn hash(value: RawBsonRef<'_>) -> Result<i64, OwnershipError> {
    let mut document = RawDocumentBuf::new();
    document.append(bson::raw::cstr!("v"), value);
    let value = raw::find(document.as_bytes(), b"v")?;
    of_value(value.unwrap_or(super::NULL))
}

pub(super) fn of_value(value: Value<'_>) -> Result<i64, OwnershipError> {
    let mut hasher = Md5::new();
    hasher.update(SEED.to_le_bytes());
    add(&mut hasher, b"", value, 1)?;
    // The first half of the digest.
    Ok(u128::from_le_bytes(hasher.finalize().into()) as i64)
}

/// `name` comes with the zero at its end, or is empty for the value itself. `depth` is that of the document that
/// the value is in.
fn add(hasher: &mut Md5, name: &[u8], value: Value<'_>, depth: usize) -> Result<(), OwnershipError> {
    let Value { tag, bytes } = value;
    hasher.update(kind(tag)?.to_le_bytes());
    hasher.update(name);
    match tag {
        raw::DOUBLE | raw::INT32 | raw::INT64 | raw::DECIMAL128 => hasher.update(whole(value)?.to_le_bytes()),
        raw::DOCUMENT | raw::ARRAY => fields(hasher, bytes, depth + 1)?,
        raw::CODE_WITH_SCOPE => {
            let (code, scope) = code_and_scope(bytes)?;
            hasher.update(code.get(4..).ok_or(CUT)?);
            fields(hasher, scope, depth + 1)?;
        }
        // As it is stored, lengths and all.
        _ => hasher.update(bytes),
    }
    Ok(())
}

fn fields(hasher: &mut Md5, document: &[u8], depth: usize) -> Result<(), OwnershipError> {
    if depth > crate::DEPTH {
        return Err(OwnershipError::TooDeep);
    }
    for field in raw::fields(document)? {
        let field = field?;
        let name = field.whole.get(1..field.name.len() + 2).ok_or(CUT)?;
        add(hasher, name, field.value, depth)?;
    }
    // The document's end counts as a value without a name.
    hasher.update(0_i32.to_le_bytes());
    Ok(())
}

/// What the server calls the canonical type: one for all types that may be equal.
fn kind(tag: u8) -> Result<i32, Malformed> {
    Ok(match tag {
        raw::MIN_KEY => -1,
        raw::UNDEFINED => 0,
        raw::NULL => 5,
        raw::DOUBLE | raw::INT32 | raw::INT64 | raw::DECIMAL128 => 10,
        raw::STRING | raw::SYMBOL => 15,
        raw::DOCUMENT => 20,
        raw::ARRAY => 25,
        raw::BINARY => 30,
        raw::OBJECT_ID => 35,
        raw::BOOLEAN => 40,
        raw::DATE => 45,
        raw::TIMESTAMP => 47,
        raw::REGEX => 50,
        raw::DB_POINTER => 55,
        raw::CODE => 60,
        raw::CODE_WITH_SCOPE => 65,
        raw::MAX_KEY => 127,
        _ => return Err(Malformed { at: 0, what: "a value of no known type" }),
    })
}

/// A number as the whole one that is hashed: what is no number is 0, what is too great or too small the last one
/// that there is.
fn whole(value: Value<'_>) -> Result<i64, Malformed> {
    match value.tag {
        raw::DOUBLE => {
            let value = f64::from_le_bytes(fixed(value.bytes)?);
            // The least double that is too great counts as the least number: old servers let it overflow.
            Ok(if value == 2_f64.powi(63) { i64::MIN } else { value as i64 })
        }
        raw::DECIMAL128 => Ok(match Parts::of(u128::from_le_bytes(fixed(value.bytes)?)) {
            Parts::NotANumber => 0,
            Parts::Infinite { negative } => signed(negative, None),
            Parts::Finite { negative, magnitude } => signed(negative, rounded(magnitude)),
        }),
        _ => value.integer().ok_or(CUT),
    }
}

/// Of a magnitude; None is one that is too great for everything.
fn signed(negative: bool, magnitude: Option<u128>) -> i64 {
    let value = magnitude.and_then(|magnitude| i128::try_from(magnitude).ok()).unwrap_or(i128::MAX);
    let value = if negative { -value } else { value };
    value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// The next whole number; of two that are as near, the even one. None if it is too great.
fn rounded(Decimal { coefficient, exponent }: Decimal) -> Option<u128> {
    let power = exponent.unsigned_abs();
    if exponent >= 0 {
        let zero = (coefficient == 0).then_some(0);
        return zero.or_else(|| 10_u128.checked_pow(power)?.checked_mul(coefficient));
    }
    // Less than a tenth.
    if power > DIGITS {
        return Some(0);
    }
    let divisor = 10_u128.pow(power);
    let (whole, rest) = (coefficient / divisor, coefficient % divisor);
    let up = match (rest * 2).cmp(&divisor) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => whole % 2 == 1,
        std::cmp::Ordering::Greater => true,
    };
    Some(whole + u128::from(up))
}
