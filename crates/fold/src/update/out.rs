//! The document that is being made.

use super::{MAX_LENGTH, Wrong};
use stillpoint_oplog::document::{DOCUMENT, NULL, Value};

/// Bytes of a document that is not finished. It never grows past [`MAX_LENGTH`], whatever the update says.
pub(super) struct Out {
    bytes: Vec<u8>,
}

/// The longest index is that of a `u64`.
pub(super) type Digits = [u8; 20];

impl Out {
    pub fn new(expected: usize) -> Self {
        Self { bytes: Vec::with_capacity(expected.min(MAX_LENGTH)) }
    }

    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        if bytes.len() > MAX_LENGTH - self.bytes.len() {
            return Err(Wrong::TooLong);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub fn name(&mut self, tag: u8, name: &[u8]) -> Result<(), Wrong> {
        self.push(&[tag])?;
        self.push(name)?;
        self.push(&[0])
    }

    pub fn field(&mut self, name: &[u8], value: Value<'_>) -> Result<(), Wrong> {
        self.name(value.tag, name)?;
        self.push(value.bytes)
    }

    /// An array's element.
    pub fn element(&mut self, index: u64, value: Value<'_>) -> Result<(), Wrong> {
        self.field(digits(index, &mut [0; 20]), value)
    }

    pub fn null(&mut self, index: u64) -> Result<(), Wrong> {
        self.element(index, Value { tag: NULL, bytes: &[] })
    }

    /// Begins a document or array; [`end`](Self::end) wants what this returns.
    pub fn begin(&mut self) -> Result<usize, Wrong> {
        let at = self.bytes.len();
        self.push(&[0; 4])?;
        Ok(at)
    }

    pub fn end(&mut self, begun: usize) -> Result<(), Wrong> {
        self.push(&[0])?;
        let length = (self.bytes.len() - begun) as u32;
        if let Some(place) = self.bytes.get_mut(begun..begun + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
        Ok(())
    }

    pub fn begin_document(&mut self, name: &[u8]) -> Result<usize, Wrong> {
        self.name(DOCUMENT, name)?;
        self.begin()
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// The name of an array's element.
pub(super) fn digits(mut index: u64, digits: &mut Digits) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (index % 10) as u8;
        index /= 10;
        if index == 0 {
            return &digits[at..];
        }
    }
}

/// The index that a name is, as the server writes it: without leading zeros. One that is longer than the
/// longest document can have elements is none, either.
pub(super) fn index(name: &[u8]) -> Option<u64> {
    if name.is_empty() || name.len() > 9 || (name.len() > 1 && name[0] == b'0') {
        return None;
    }
    name.iter().try_fold(0, |index, digit| digit.is_ascii_digit().then(|| index * 10 + u64::from(digit - b'0')))
}
