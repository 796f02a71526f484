//! The order of numbers, whatever their types, and without rounding.
//!
//! A number is written as the double next to it towards zero, and then, if it is no double, as the decimal that
//! it is: every int64 is one. The magnitude of a negative number is written with all bits flipped.

use std::cmp::Ordering;

const NAN: u8 = 0;
const NEGATIVE: u8 = 1;
/// Zero, too, of whichever sign.
const POSITIVE: u8 = 2;

/// The number is a double.
const EXACT: u8 = 0;
/// The number is more than the double, and less than the next.
const MORE: u8 = 1;

/// The digits of a decimal.
pub(crate) const DIGITS: u32 = 34;

pub(super) fn double(key: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        key.push(NAN);
        return;
    }
    write(key, value < 0.0, value.abs(), None);
}

pub(super) fn integer(key: &mut Vec<u8>, value: i64) {
    let magnitude = value.unsigned_abs();
    // Rounded to the nearest, which may be more.
    let mut double = magnitude as f64;
    if double as u128 > u128::from(magnitude) {
        double = double.next_down();
    }
    let exact = double as u128 == u128::from(magnitude);
    let decimal = Decimal { coefficient: magnitude.into(), exponent: 0 };
    write(key, value < 0, double, (!exact).then_some(decimal));
}

pub(super) fn decimal(key: &mut Vec<u8>, bits: u128) {
    match Parts::of(bits) {
        Parts::NotANumber => key.push(NAN),
        Parts::Infinite { negative } => write(key, negative, f64::INFINITY, None),
        Parts::Finite { magnitude: Decimal { coefficient: 0, .. }, .. } => write(key, false, 0.0, None),
        Parts::Finite { negative, magnitude } => {
            let (double, exact) = magnitude.towards_zero();
            write(key, negative, double, (!exact).then_some(magnitude));
        }
    }
}

/// What a Decimal128 says.
pub(crate) enum Parts {
    NotANumber,
    Infinite { negative: bool },
    Finite { negative: bool, magnitude: Decimal },
}

impl Parts {
    /// From its bits (IEEE 754, the coefficient a binary integer).
    pub(crate) fn of(bits: u128) -> Self {
        let negative = bits >> 127 == 1;
        match (bits >> 122) & 0x1f {
            0x1f => return Self::NotANumber,
            0x1e => return Self::Infinite { negative },
            _ => {}
        }
        // The other form has coefficients that are too great; those count as zero.
        let large = (bits >> 125) & 3 == 3;
        let coefficient = if large { 0 } else { bits & ((1 << 113) - 1) };
        let coefficient = if coefficient < 10_u128.pow(DIGITS) { coefficient } else { 0 };
        let exponent = ((bits >> 113) & 0x3fff) as i32 - 6176;
        Self::Finite { negative, magnitude: Decimal { coefficient, exponent } }
    }
}

fn write(key: &mut Vec<u8>, negative: bool, double: f64, decimal: Option<Decimal>) {
    // -0.0 is not negative here, and its magnitude is 0.0.
    key.push(if negative { NEGATIVE } else { POSITIVE });
    let magnitude = key.len();
    key.extend(double.to_bits().to_be_bytes());
    match decimal {
        None => key.push(EXACT),
        Some(decimal) => {
            let Decimal { coefficient, exponent } = decimal.with_all_digits();
            key.push(MORE);
            key.extend(((exponent + 0x4000) as u16).to_be_bytes());
            key.extend(coefficient.to_be_bytes());
        }
    }
    if negative {
        key[magnitude..].iter_mut().for_each(|byte| *byte = !*byte);
    }
}

/// A number that is not negative: the coefficient times ten to the power of the exponent.
#[derive(Clone, Copy)]
pub(crate) struct Decimal {
    /// Less than 10^[`DIGITS`].
    pub(crate) coefficient: u128,
    pub(crate) exponent: i32,
}

impl Decimal {
    /// The only form with 34 digits, so that decimals are in the order of exponents, then coefficients.
    fn with_all_digits(self) -> Self {
        let missing = DIGITS - 1 - self.coefficient.checked_ilog10().unwrap_or(0);
        Self { coefficient: self.coefficient * 10_u128.pow(missing), exponent: self.exponent - missing as i32 }
    }

    /// The greatest double that is no more, and whether it is the same.
    fn towards_zero(self) -> (f64, bool) {
        if self.exponent == 0 && self.coefficient < 1 << 53 {
            return (self.coefficient as f64, true);
        }
        // The standard library rounds to the nearest, exactly.
        let nearest = format!("{}e{}", self.coefficient, self.exponent).parse().unwrap_or(f64::MAX);
        if nearest == f64::INFINITY {
            return (f64::MAX, false);
        }
        // Less than half of the least double.
        if nearest == 0.0 {
            return (0.0, false);
        }
        match self.compare(nearest) {
            Ordering::Less => (nearest.next_down(), false),
            Ordering::Equal => (nearest, true),
            Ordering::Greater => (nearest, false),
        }
    }

    /// With a double of about the same size, exactly: both multiplied until they are whole.
    fn compare(self, double: f64) -> Ordering {
        let bits = double.to_bits();
        let (fraction, power) = (bits & ((1 << 52) - 1), (bits >> 52) as i32);
        let (mantissa, power) = if power == 0 { (fraction, -1074) } else { (fraction | 1 << 52, power - 1075) };
        let (mut left, mut right) = (Whole::new(self.coefficient), Whole::new(mantissa.into()));
        let fives = if self.exponent < 0 { &mut right } else { &mut left };
        (0..self.exponent.unsigned_abs()).for_each(|_| fives.multiply(5));
        // 10^e = 5^e * 2^e.
        let twos = self.exponent - power;
        let shifted = if twos < 0 { &mut right } else { &mut left };
        shifted.shift(twos.unsigned_abs());
        left.compare(&right)
    }
}

/// A whole number of any size, the least digit first, without zeros at its end.
struct Whole(Vec<u32>);

impl Whole {
    fn new(value: u128) -> Self {
        let mut whole = Self((0..4).map(|digit| (value >> (32 * digit)) as u32).collect());
        whole.trim();
        whole
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn multiply(&mut self, factor: u32) {
        let mut carry = 0;
        for digit in &mut self.0 {
            let product = u64::from(*digit) * u64::from(factor) + carry;
            *digit = product as u32;
            carry = product >> 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn shift(&mut self, bits: u32) {
        self.multiply(1 << (bits % 32));
        self.0.splice(0..0, vec![0; (bits / 32) as usize]);
        self.trim();
    }

    fn compare(&self, other: &Self) -> Ordering {
        let length = self.0.len().cmp(&other.0.len());
        length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }
}
