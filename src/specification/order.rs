//! The order of JSON values, and of documents by their fields.
//!
//! How many of the ordered documents are wanted is in `options.rs`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::error::SpecificationError;
use super::field::Field;

/// Compares any two JSON values: a total order.
///
/// - null, then false, true, numbers, texts, arrays, objects;
/// - numbers by what they are worth, exactly: `1` and `1.0` are equal, and so are no two integers a float cannot tell apart;
/// - texts by code points;
/// - arrays element by element, a beginning before the whole;
/// - objects as arrays of their entries, sorted by name.
///
/// ```
/// use std::cmp::Ordering;
/// use cim_persistence::specification::compare;
/// use serde_json::json;
///
/// assert_eq!(compare(&json!(1), &json!(1.0)), Ordering::Equal);
/// assert_eq!(compare(&json!(9_007_199_254_740_993_u64), &json!(9_007_199_254_740_992.0)), Ordering::Greater);
/// assert_eq!(compare(&json!(null), &json!(false)), Ordering::Less);
/// ```
pub fn compare(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
        (Value::Number(one), Value::Number(other)) => compare_numbers(one, other),
        (Value::String(one), Value::String(other)) => one.cmp(other),
        (Value::Array(one), Value::Array(other)) => {
            let pairs = one.iter().zip(other).map(|(one, other)| compare(one, other));
            first_difference(pairs).then(one.len().cmp(&other.len()))
        }
        (Value::Object(one), Value::Object(other)) => {
            let pairs = sorted(one).into_iter().zip(sorted(other));
            let pairs =
                pairs.map(|(one, other)| one.0.cmp(other.0).then_with(|| compare(one.1, other.1)));
            first_difference(pairs).then(one.len().cmp(&other.len()))
        }
        _ => kind(one).cmp(&kind(other)),
    }
}

/// Whether two values are of one type. Null is of none that can be compared.
pub(super) fn same_type(one: &Value, other: &Value) -> bool {
    kind(one) == kind(other) && !one.is_null()
}

/// Which way values go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the least to the greatest, what is missing first.
    Ascending,
    /// From the greatest to the least, what is missing last.
    Descending,
}

/// One field that documents are ordered by, and which way.
///
/// As text it is the path of the field, after a `-` where the greatest comes first.
///
/// ```
/// use cim_persistence::specification::{Direction, OrderBy, SpecificationError};
///
/// let newest_first: OrderBy = "-created_at".parse()?;
/// assert_eq!(newest_first, OrderBy::descending("created_at"));
/// assert_eq!(newest_first.direction, Direction::Descending);
/// assert_eq!(newest_first.to_string(), "-created_at");
/// assert!(OrderBy::parse("-").is_err());
/// # Ok::<(), SpecificationError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OrderBy {
    /// The field. A document without it counts as one with null.
    pub field: Field,
    /// Which way.
    pub direction: Direction,
}

impl OrderBy {
    /// The least value first.
    pub fn ascending(field: impl Into<Field>) -> Self {
        Self { field: field.into(), direction: Direction::Ascending }
    }

    /// The greatest value first.
    pub fn descending(field: impl Into<Field>) -> Self {
        Self { field: field.into(), direction: Direction::Descending }
    }

    /// Reads `-path` or `path`.
    ///
    /// # Errors
    /// [`SpecificationError::EmptyName`] when there is no path, or one with an empty name.
    pub fn parse(text: &str) -> Result<Self, SpecificationError> {
        let order = match text.strip_prefix('-') {
            Some(path) => Self::descending(path),
            None => Self::ascending(text),
        };
        order.field.check()?;
        Ok(order)
    }

    /// Compares two values of the field.
    pub(super) fn compare(&self, one: &Value, other: &Value) -> Ordering {
        let ordering = compare(one, other);
        match self.direction {
            Direction::Ascending => ordering,
            Direction::Descending => ordering.reverse(),
        }
    }
}

impl fmt::Display for OrderBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.direction {
            Direction::Ascending => write!(f, "{}", self.field),
            Direction::Descending => write!(f, "-{}", self.field),
        }
    }
}

impl FromStr for OrderBy {
    type Err = SpecificationError;
    fn from_str(text: &str) -> Result<Self, SpecificationError> {
        Self::parse(text)
    }
}

fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

/// The entries by name, which serde_json keeps otherwise when its feature `preserve_order` is on.
fn sorted(object: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_unstable_by_key(|(name, _)| *name);
    entries
}

fn first_difference(mut pairs: impl Iterator<Item = Ordering>) -> Ordering {
    pairs.find(|ordering| ordering.is_ne()).unwrap_or(Ordering::Equal)
}

fn compare_numbers(one: &Number, other: &Number) -> Ordering {
    match (integer(one), integer(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        (Some(one), None) => compare_mixed(one, float(other)),
        (None, Some(other)) => compare_mixed(other, float(one)).reverse(),
        (None, None) => float(one).partial_cmp(&float(other)).unwrap_or(Ordering::Equal),
    }
}

fn integer(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

/// JSON has no infinity; a number that is too large for a float can only come with serde_json's `arbitrary_precision`.
fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or(f64::INFINITY)
}

/// An integer has no fraction, so the integer part of the float decides, and its fraction where that is equal. A cast of
/// a float beyond `i128` gives its limit, which no integer here reaches.
fn compare_mixed(integer: i128, float: f64) -> Ordering {
    let whole = float.trunc() as i128;
    integer.cmp(&whole).then_with(|| 0.0.partial_cmp(&float.fract()).unwrap_or(Ordering::Less))
}
