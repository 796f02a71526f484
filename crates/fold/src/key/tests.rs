use std::cmp::Ordering;

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, JavaScriptCodeWithScope, Regex, Timestamp, doc};
use proptest::prelude::*;

use super::*;

fn key(value: impl Into<Bson>) -> Key {
    let document = RawDocumentBuf::try_from(&doc! {"_id": value.into()}).unwrap();
    let key = Key::of_document(&document).unwrap();
    assert_eq!(Ok(&key), Key::of(document.get("_id").unwrap().unwrap()).as_ref());
    key
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse().unwrap())
}

fn binary(subtype: u8, bytes: &[u8]) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::from(subtype), bytes: bytes.to_vec() })
}

/// Each group is of equal values, and less than the next.
#[track_caller]
fn ordered(groups: Vec<Vec<Bson>>) {
    let all = || groups.iter().enumerate().flat_map(|(at, group)| group.iter().map(move |value| (at, value)));
    for ((left_at, left), (right_at, right)) in all().flat_map(|left| all().map(move |right| (left, right))) {
        let (left_key, right_key) = (key(left.clone()), key(right.clone()));
        assert_eq!(left_key.cmp(&right_key), left_at.cmp(&right_at), "{left} {right} {left_key:?} {right_key:?}");
        let beginning = left_at != right_at && left_key.as_bytes().starts_with(right_key.as_bytes());
        assert!(!beginning, "{left} begins with {right}");
    }
}

#[test]
fn numbers_of_every_type_are_in_one_order() {
    let max = f64::MAX;
    ordered(vec![
        vec![f64::NAN.into(), (-f64::NAN).into(), decimal("NaN")],
        vec![f64::NEG_INFINITY.into(), decimal("-Infinity")],
        vec![decimal("-1E400")],
        vec![decimal("-1.8E308")],
        vec![(-max).into()],
        vec![i64::MIN.into(), (-(2_f64.powi(63))).into(), decimal("-9223372036854775808")],
        vec![(i64::MIN + 1).into(), decimal("-9223372036854775807")],
        vec![(-9007199254740993_i64).into(), decimal("-9007199254740993")],
        vec![(-9007199254740992_i64).into(), (-9007199254740992_f64).into()],
        vec![decimal("-1.1")],
        // The double is a little more than 1.1.
        vec![(-1).into(), (-1.0).into(), decimal("-1.00")],
        vec![(-f64::MIN_POSITIVE).into()],
        vec![(-5e-324).into()],
        vec![decimal("-1E-400")],
        vec![0.into(), 0_i64.into(), 0.0.into(), (-0.0).into(), decimal("0"), decimal("-0E+3"), decimal("0.000")],
        vec![decimal("1E-6176")],
        vec![decimal("1E-400")],
        vec![decimal("4.9E-324")],
        vec![5e-324.into()],
        vec![decimal("5E-324")],
        vec![decimal("0.1")],
        vec![0.1.into()],
        // The same as the double when rounded to 34 digits, and yet less.
        vec![decimal("0.5"), 0.5.into()],
        vec![1.into(), 1_i64.into(), 1.0.into(), decimal("1"), decimal("1.000")],
        vec![decimal("1.000000000000000000000000000000001")],
        vec![1.0_f64.next_up().into()],
        vec![9007199254740992_i64.into(), 9007199254740992_f64.into()],
        vec![decimal("9007199254740992.5")],
        vec![9007199254740993_i64.into(), decimal("9007199254740993.00")],
        vec![decimal("9007199254740993.5")],
        vec![9007199254740994_i64.into(), 9007199254740994_f64.into()],
        vec![(i64::MAX - 1).into()],
        vec![i64::MAX.into(), decimal("9223372036854775807")],
        vec![2_f64.powi(63).into(), decimal("9223372036854775808")],
        vec![1e22.into(), decimal("1E22"), decimal("10000000000000000000000")],
        // 1e23 is no double; this is the next below it.
        vec![1e23.into(), decimal("99999999999999991611392")],
        vec![decimal("1E23")],
        vec![max.into()],
        vec![decimal("1.8E308")],
        vec![decimal("1E309")],
        vec![decimal("9.999999999999999999999999999999999E6144")],
        vec![f64::INFINITY.into(), decimal("Infinity")],
    ]);
}

/// Coefficients that are too great count as zero, as in the decimal library of the server.
#[test]
fn decimals_that_are_not_canonical_are_zero() {
    for bits in [10_u128.pow(34) | 6176 << 113, 3 << 125, (3 << 125) | 77] {
        let value = Bson::Decimal128(Decimal128::from_bytes(bits.to_le_bytes()));
        assert_eq!(key(value), key(0), "{bits:x}");
    }
}

#[test]
fn types_are_in_mongodbs_order() {
    let scope = |code: &str, scope| Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code: code.into(), scope });
    let regex = |pattern: &str, options: &str| {
        let [pattern, options] = [pattern, options].map(|text| text.to_owned().try_into().unwrap());
        Bson::RegularExpression(Regex { pattern, options })
    };
    ordered(vec![
        vec![Bson::MinKey],
        vec![Bson::Undefined],
        vec![Bson::Null],
        vec![f64::NAN.into()],
        vec![decimal("Infinity")],
        vec!["".into(), Bson::Symbol(String::new())],
        vec!["a".into(), Bson::Symbol("a".into())],
        vec!["a\0".into()],
        vec!["a\0b".into()],
        vec!["a\u{1}".into()],
        vec!["ab".into()],
        vec!["é".into()],
        vec![doc! {}.into()],
        vec![doc! {"z": Bson::MinKey}.into()],
        vec![doc! {"a": 1}.into(), doc! {"a": 1.0}.into(), doc! {"a": decimal("1.0")}.into()],
        vec![doc! {"a": 1, "b": Bson::MinKey}.into()],
        vec![doc! {"a": 2}.into()],
        vec![doc! {"b": 1}.into()],
        // The type counts before the name.
        vec![doc! {"a": "x"}.into()],
        vec![doc! {"a": {"b": 1}}.into()],
        vec![Bson::Array(vec![])],
        vec![Bson::Array(vec![1.into()]), Bson::Array(vec![1.0.into()])],
        vec![Bson::Array(vec![1.into(), Bson::Null])],
        vec![Bson::Array(vec![2.into()])],
        vec![binary(5, b"")],
        vec![binary(0, b"b")],
        vec![binary(1, b"a")],
        vec![binary(0, b"aa")],
        vec![ObjectId::from_bytes([0; 12]).into()],
        vec![ObjectId::from_bytes([1; 12]).into()],
        vec![false.into()],
        vec![true.into()],
        vec![DateTime::from_millis(i64::MIN).into()],
        vec![DateTime::from_millis(-1).into()],
        vec![DateTime::from_millis(1).into()],
        vec![Timestamp { time: 1, increment: 2 }.into()],
        vec![Timestamp { time: u32::MAX, increment: 0 }.into()],
        vec![regex("a", "")],
        vec![regex("a", "i")],
        vec![regex("ab", "")],
        vec![Bson::JavaScriptCode("a".into())],
        vec![Bson::JavaScriptCode("b".into())],
        vec![scope("a", doc! {})],
        vec![scope("a", doc! {"x": 1}), scope("a", doc! {"x": 1.0})],
        vec![scope("b", doc! {})],
        vec![Bson::MaxKey],
    ]);
}

/// The length counts first, then the name, then the id.
#[test]
fn pointers() {
    let pointer = |name: &str, id: u8| {
        let mut bytes = (name.len() as u32 + 1).to_le_bytes().to_vec();
        bytes.extend(name.as_bytes());
        bytes.extend([0]);
        bytes.extend([id; 12]);
        Key::of_value(Value { tag: raw::DB_POINTER, bytes: &bytes }).unwrap()
    };
    let pointers = [pointer("b", 0), pointer("b", 1), pointer("c", 0), pointer("aa", 0)];
    assert!(pointers.is_sorted_by(|left, right| left < right));
}

#[test]
fn what_has_no_key_is_an_error() {
    let document = |bytes: &[u8]| Key::of_document(RawDocument::from_bytes(bytes).unwrap());
    assert_eq!(document(b"\x05\0\0\0\0"), Err(KeyError::None));
    assert!(matches!(document(b"\x0b\0\0\0\x10_id\0\x01\0"), Err(KeyError::Malformed(_))));
    // Strings without a zero at their end, or of another length.
    assert_eq!(document(b"\x10\0\0\0\x02_id\0\x02\0\0\0a\0\0"), Ok(key("a")));
    assert!(matches!(Key::of_value(Value { tag: raw::STRING, bytes: b"\x03\0\0\0a\0" }), Err(KeyError::Malformed(_))));
    assert!(matches!(Key::of_value(Value { tag: raw::STRING, bytes: b"\x02\0\0\0ab" }), Err(KeyError::Malformed(_))));
    assert!(matches!(Key::of_value(Value { tag: raw::STRING, bytes: b"" }), Err(KeyError::Malformed(_))));
    assert!(matches!(
        Key::of_value(Value { tag: raw::CODE_WITH_SCOPE, bytes: b"\0\0\0\0" }),
        Err(KeyError::Malformed(_))
    ));
    let mut deep = doc! {};
    (0..crate::DEPTH - 2).for_each(|_| deep = doc! {"a": std::mem::take(&mut deep)});
    key(deep.clone());
    let deep = doc! {"_id": {"b": deep}};
    assert_eq!(Key::of_document(&RawDocumentBuf::try_from(&deep).unwrap()), Err(KeyError::TooDeep));
}

/// Numbers at which types meet.
fn number() -> impl Strategy<Value = Bson> {
    prop_oneof![
        any::<i32>().prop_map(Bson::from),
        any::<i64>().prop_map(Bson::from),
        any::<f64>().prop_map(Bson::from),
        (-100_i32..100).prop_map(|value| (f64::from(value) / 8.0).into()),
        (any::<i64>(), -25_i32..25).prop_map(|(digits, exponent)| decimal(&format!("{digits}E{exponent}"))),
        (0_i64..1 << 56).prop_map(|value| decimal(&value.to_string())),
        any::<i64>().prop_map(|value| (value as f64).into()),
        any::<f32>().prop_filter("finite", |value| value.is_finite()).prop_map(|value| {
            let text = format!("{value:e}");
            decimal(&text)
        }),
    ]
}

/// An independent model: the sign and the decimal digits of `value` * 10^1100, without zeros before them.
fn exact(value: &Bson) -> Option<(bool, Vec<u8>)> {
    let text = match value {
        Bson::Int32(value) => value.to_string(),
        Bson::Int64(value) => value.to_string(),
        // The standard library writes every digit of a double.
        Bson::Double(value) if value.is_finite() => format!("{value:.1100}"),
        Bson::Decimal128(value) => value.to_string(),
        _ => return None,
    };
    let (text, exponent) = text.split_once(['E', 'e']).unwrap_or((&text, "0"));
    let (magnitude, exponent) = (text.trim_start_matches('-'), exponent.parse::<i32>().unwrap());
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    let zeros = 1100 + exponent - fraction.len() as i32;
    digits.resize(digits.len() + usize::try_from(zeros).unwrap(), b'0');
    let digits: Vec<u8> = digits.into_iter().skip_while(|digit| *digit == b'0').collect();
    Some((text.starts_with('-') && !digits.is_empty(), digits))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn numbers_compare_exactly(left in number(), right in number()) {
        let expected = match (exact(&left), exact(&right)) {
            (Some((false, left)), Some((false, right))) => (left.len(), left).cmp(&(right.len(), right)),
            (Some((true, left)), Some((true, right))) => (right.len(), right).cmp(&(left.len(), left)),
            (Some((true, _)), Some((false, _))) => Ordering::Less,
            (Some((false, _)), Some((true, _))) => Ordering::Greater,
            _ => return Ok(()),
        };
        prop_assert_eq!(key(left).cmp(&key(right)), expected);
    }

    #[test]
    fn any_bytes_have_a_key_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64), tag in 0_u8..0x20) {
        let _ = Key::of_value(Value { tag, bytes: &bytes });
    }
}
