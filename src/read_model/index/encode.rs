//! A value as tokens of a key, in the order of the values.
//!
//! | value | tokens |
//! |---|---|
//! | null | `a` |
//! | an object, a nested array, an empty array | `x` |
//! | a boolean | `b`, `0` or `1` |
//! | a number | `n`, 12 tokens of 4 bits each, one of 16 bits; the bits of the float, made to grow with it |
//! | a text | `s`, up to 16 tokens of 4 bits each, which are its first 8 bytes; then the rest up to byte 48, or `-` for none |
//! | a time | `t`, 12 tokens of 4 bits each, one of 16 bits: microseconds from 2^63 before 1970 |
//!
//! All digits are upper-case hexadecimal. Token by token, in the order of the characters, tokens are ordered as the values
//! are, values beyond the stated length or precision apart, which are equal. No value's tokens are the beginning of
//! another's, so one can follow the other. A server can filter by whole tokens only; that is why they are short.

use std::fmt::Write;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The token of what has no place in the order: an object, a nested array, an empty one. No lookup asks for it.
pub(super) const COMPOSITE: &str = "x";

/// The bytes of a text that are encoded.
pub(super) const TEXT_BYTES: usize = 48;

/// The bytes of a text that can be told apart by ranges.
const FINE_BYTES: usize = 8;

/// The digits of a number or a time that can be told apart by ranges; the others follow in one token.
const FINE_DIGITS: usize = 12;

/// The end of a text. Sorts before every digit.
pub(super) const END: char = '-';

pub(super) const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// A value by which a document can be found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scalar<'v> {
    Null,
    Bool(bool),
    Number(&'v serde_json::Number),
    Text(&'v str),
    /// Microseconds since 1970.
    Time(i64),
}

impl<'v> Scalar<'v> {
    /// `None` for an array and an object.
    pub(super) fn of(value: &'v Value, time: bool) -> Option<Self> {
        Some(match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => match micros(text).filter(|_| time) {
                Some(micros) => Self::Time(micros),
                None => Self::Text(text),
            },
            Value::Array(_) | Value::Object(_) => return None,
        })
    }

    /// The first token.
    pub(super) fn kind(self) -> char {
        match self {
            Self::Null => 'a',
            Self::Bool(_) => 'b',
            Self::Number(_) => 'n',
            Self::Text(_) => 's',
            Self::Time(_) => 't',
        }
    }

    /// The tokens of one character after the kind, and the one after them, if there is one.
    pub(super) fn digits(self) -> (String, Option<String>) {
        match self {
            Self::Null => (String::new(), None),
            Self::Bool(value) => (u8::from(value).to_string(), None),
            Self::Number(number) => split(float_bits(number)),
            Self::Time(micros) => split(micros as u64 ^ 1 << 63),
            Self::Text(text) => text_digits(text.as_bytes()),
        }
    }
}

/// The tokens of a value, `None` for an array and an object.
pub(super) fn tokens(value: &Value, time: bool) -> Option<String> {
    let scalar = Scalar::of(value, time)?;
    let (digits, rest) = scalar.digits();
    let mut tokens = prefix(scalar.kind(), &digits);
    if let Some(rest) = rest {
        tokens.push('.');
        tokens.push_str(&rest);
    }
    Some(tokens)
}

/// The tokens of a kind and of digits.
pub(super) fn prefix(kind: char, digits: &str) -> String {
    let mut tokens = String::with_capacity(2 * digits.len() + 1);
    tokens.push(kind);
    for digit in digits.chars() {
        tokens.push('.');
        tokens.push(digit);
    }
    tokens
}

/// What follows the first value in a text of tokens.
pub(super) fn skip(tokens: &str) -> Option<&str> {
    let (kind, rest) = tokens.split_once('.')?;
    let count = match kind {
        "a" | COMPOSITE => 0,
        "b" => 1,
        "n" | "t" => FINE_DIGITS + 1,
        "s" => {
            match rest.split('.').take(2 * FINE_BYTES).position(|token| token.starts_with(END)) {
                Some(end) => end + 1,
                None => 2 * FINE_BYTES + 1,
            }
        }
        _ => return None,
    };
    (0..count).try_fold(rest, |rest, _| Some(rest.split_once('.')?.1))
}

/// The moment that a text in RFC 3339 stands for.
pub(super) fn micros(text: &str) -> Option<i64> {
    let nanos = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
    i64::try_from(nanos.div_euclid(1000)).ok()
}

/// Bits that grow with the number.
fn float_bits(number: &serde_json::Number) -> u64 {
    // Adding zero makes one of the two zeros.
    let bits = (number.as_f64().unwrap_or_default() + 0.0).to_bits();
    match bits >> 63 {
        0 => bits | 1 << 63,
        _ => !bits,
    }
}

fn split(bits: u64) -> (String, Option<String>) {
    let mut digits = format!("{bits:016X}");
    let rest = digits.split_off(FINE_DIGITS);
    (digits, Some(rest))
}

fn text_digits(bytes: &[u8]) -> (String, Option<String>) {
    let (fine, rest) = bytes.split_at(bytes.len().min(FINE_BYTES));
    let mut digits = hexadecimal(fine);
    if rest.is_empty() {
        digits.push(END);
        return (digits, None);
    }
    (digits, Some(hexadecimal(&rest[..rest.len().min(TEXT_BYTES - FINE_BYTES)])))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02X}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_model::index::lookup::compare;
    use crate::state::Key;
    use proptest::prelude::*;
    use serde_json::json;
    use std::cmp::Ordering;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1000_i64..1000).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-50_i32..50).prop_map(|n| Value::from(f64::from(n) / 8.0)),
            ".{0,60}".prop_map(Value::from),
            "[A-C]{0,10}".prop_map(Value::from),
            (0_i64..4_000_000_000).prop_map(|s| {
                let time = OffsetDateTime::from_unix_timestamp(s).unwrap();
                Value::from(time.format(&Rfc3339).unwrap())
            }),
        ]
    }

    proptest! {
        #[test]
        fn tokens_are_ordered_as_the_values_are(a in value(), b in value(), time: bool) {
            let (x, y) = (tokens(&a, time).unwrap(), tokens(&b, time).unwrap());
            let kinds = (Scalar::of(&a, time).unwrap().kind(), Scalar::of(&b, time).unwrap().kind());
            let by_tokens = x.split('.').cmp(y.split('.'));
            if kinds.0 != kinds.1 {
                prop_assert_eq!(by_tokens, kinds.0.cmp(&kinds.1));
            } else {
                let by_value = compare(&a, &b, time);
                prop_assert!(by_tokens == by_value || by_tokens == Ordering::Equal, "{a} {b}: {x} {y}");
                prop_assert!(by_value != Ordering::Equal || by_tokens == Ordering::Equal);
            }
        }

        #[test]
        fn tokens_are_tokens_of_a_key_and_say_where_they_end(
            a in value(), b in value(), time: bool, id in "[a-z=-]{1,5}"
        ) {
            let (x, y) = (tokens(&a, time).unwrap(), tokens(&b, time).unwrap());
            prop_assert!(x.len() <= 116, "{x}");
            let text = format!("{x}.{y}.{id}");
            prop_assert!(Key::new(&text).is_ok());
            prop_assert_eq!(skip(&text).and_then(skip), Some(id.as_str()));
        }

        #[test]
        fn skipping_takes_any_text(text in ".{0,40}") {
            let _ = skip(&text);
        }
    }

    #[test]
    fn tokens_are_these() {
        let of = |value: Value| tokens(&value, true).unwrap();
        assert_eq!(of(json!(null)), "a");
        assert_eq!(of(json!(true)), "b.1");
        assert_eq!(of(json!(0)), "n.8.0.0.0.0.0.0.0.0.0.0.0.0000");
        assert_eq!(of(json!(-0.0)), of(json!(0)));
        assert_eq!(of(json!(1.5)), "n.B.F.F.8.0.0.0.0.0.0.0.0.0000");
        assert_eq!(of(json!(-1)), "n.4.0.0.F.F.F.F.F.F.F.F.F.FFFF");
        assert_eq!(of(json!("")), "s.-");
        assert_eq!(of(json!("B6")), "s.4.2.3.6.-");
        assert_eq!(of(json!("ABCDEFGH")), "s.4.1.4.2.4.3.4.4.4.5.4.6.4.7.4.8.-");
        assert_eq!(of(json!("ABCDEFGHI")), "s.4.1.4.2.4.3.4.4.4.5.4.6.4.7.4.8.49");
        assert_eq!(of(json!("1970-01-01T01:00:00.000001+01:00")), "t.8.0.0.0.0.0.0.0.0.0.0.0.0001");
        assert_eq!(tokens(&json!([1]), false), None);
        assert_eq!(tokens(&json!({}), false), None);
    }
}
