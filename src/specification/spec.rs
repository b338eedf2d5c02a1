//! Specifications: what has to hold for a document, as data, and how a program writes it.
//!
//! How they are evaluated is in `compiled.rs`, how they are written as text in `text.rs`.

use std::ops;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::compiled::Compiled;
use super::error::SpecificationError;
use super::field::Field;

/// How a value is compared with another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// Equal: numbers by what they are worth, arrays and objects by all they hold.
    Eq,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
}

/// What has to hold for a document.
///
/// Made from [`field`](super::field) and joined by [`and`](Self::and), [`or`](Self::or) and [`not`](Self::not). It is
/// data: it can be looked at, stored as JSON and printed as query text (`Display`). [`compile`](Self::compile) checks it
/// and makes it something that can be asked.
///
/// - a missing field is null, and no comparison with null holds;
/// - a comparison of values of different types does not hold; numbers are one type and are compared exactly;
/// - text is compared by code points;
/// - `ne`, `not_in` and `is_not_null` hold whenever `eq`, `is_in` and `is_null` do not, so `ne` holds for null.
///
/// ```
/// use cim_persistence::specification::{Specification, SpecificationError, field};
/// use serde_json::json;
///
/// let punctual = field("delay").le(5).or(field("status").eq("cancelled").not());
/// assert_eq!(punctual.to_string(), "delay <= 5 OR status != 'cancelled'");
///
/// let punctual = punctual.compile()?;
/// assert!(punctual.matches(&json!({"delay": 4.5, "status": "cancelled"})));
/// assert!(punctual.matches(&json!({})));
/// assert!(!punctual.matches(&json!({"delay": "4", "status": "cancelled"})));
///
/// let stored = serde_json::to_string(&field("delay").gt(30)).unwrap();
/// assert_eq!(stored, r#"{"compare":{"field":["delay"],"is":"gt","value":30}}"#);
/// # Ok::<(), SpecificationError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Specification {
    /// The value compares with another one as asked.
    Compare {
        /// Where the value is.
        field: Field,
        /// How they compare.
        is: Comparison,
        /// What it is compared with.
        value: Value,
    },
    /// The value is equal to one of several.
    In {
        /// Where the value is.
        field: Field,
        /// The values, of any number.
        values: Vec<Value>,
    },
    /// The value lies between two others, or is equal to one of them.
    Between {
        /// Where the value is.
        field: Field,
        /// The least value.
        low: Value,
        /// The greatest value.
        high: Value,
    },
    /// The whole text fits a pattern: `%` stands for any characters, `_` for one, `\` before a character for itself.
    Like {
        /// Where the text is.
        field: Field,
        /// The pattern.
        pattern: String,
    },
    /// The text holds another one, or the array has an element that is equal.
    Contains {
        /// Where the text or the array is.
        field: Field,
        /// What it holds.
        value: Value,
    },
    /// The text begins with another one.
    StartsWith {
        /// Where the text is.
        field: Field,
        /// The beginning.
        text: String,
    },
    /// The text ends with another one.
    EndsWith {
        /// Where the text is.
        field: Field,
        /// The end.
        text: String,
    },
    /// The value is null, or there is none.
    IsNull {
        /// Where it would be.
        field: Field,
    },
    /// A part of the text is matched by a regular expression.
    Regex {
        /// Where the text is.
        field: Field,
        /// The regular expression, in the syntax of the `regex` crate.
        pattern: String,
    },
    /// All of these hold; without any, every document does.
    All(Vec<Specification>),
    /// One of these holds or more; without any, no document does.
    Any(Vec<Specification>),
    /// This does not hold.
    Not(Box<Specification>),
}

impl Specification {
    /// Holds for every document.
    pub fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Holds when all of `parts` do. Groups of the same kind are joined, and a group of one is that one.
    pub fn all(parts: impl IntoIterator<Item = Specification>) -> Self {
        let mut joined = Vec::new();
        for part in parts {
            match part {
                Self::All(inner) => joined.extend(inner),
                other => joined.push(other),
            }
        }
        one_or(joined, Self::All)
    }

    /// Holds when one of `parts` does. Groups of the same kind are joined, and a group of one is that one.
    pub fn any(parts: impl IntoIterator<Item = Specification>) -> Self {
        let mut joined = Vec::new();
        for part in parts {
            match part {
                Self::Any(inner) => joined.extend(inner),
                other => joined.push(other),
            }
        }
        one_or(joined, Self::Any)
    }

    /// Holds when both do.
    #[must_use]
    pub fn and(self, other: Specification) -> Self {
        Self::all([self, other])
    }

    /// Holds when one of the two does, or both.
    #[must_use]
    pub fn or(self, other: Specification) -> Self {
        Self::any([self, other])
    }

    /// Holds when this does not. Twice is nothing.
    #[must_use]
    #[expect(
        clippy::should_implement_trait,
        reason = "it does, and a chain reads from left to right"
    )]
    pub fn not(self) -> Self {
        match self {
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    /// Checks everything that can be wrong, once, and makes it something that can be asked.
    ///
    /// # Errors
    /// [`SpecificationError`]: an empty name, a comparison with null, a pattern that does not compile or would need too
    /// much, too many conditions or too deep.
    pub fn compile(self) -> Result<Compiled, SpecificationError> {
        Compiled::new(self)
    }

    /// The fields that are asked about, each as often as it is.
    pub fn fields(&self) -> Vec<&Field> {
        let mut found = Vec::new();
        let mut left = vec![self];
        while let Some(specification) = left.pop() {
            match specification {
                Self::Compare { field, .. }
                | Self::In { field, .. }
                | Self::Between { field, .. }
                | Self::Like { field, .. }
                | Self::Contains { field, .. }
                | Self::StartsWith { field, .. }
                | Self::EndsWith { field, .. }
                | Self::IsNull { field }
                | Self::Regex { field, .. } => found.push(field),
                Self::All(parts) | Self::Any(parts) => left.extend(parts.iter().rev()),
                Self::Not(inner) => left.push(inner),
            }
        }
        found
    }
}

impl ops::Not for Specification {
    type Output = Self;
    fn not(self) -> Self {
        Specification::not(self)
    }
}

/// Conditions. Each is what [`Specification`] says of the variant of its name.
impl Field {
    /// Equal to `value`.
    pub fn eq(self, value: impl Into<Value>) -> Specification {
        self.compare(Comparison::Eq, value)
    }

    /// Not equal to `value`, null and values of other types included.
    pub fn ne(self, value: impl Into<Value>) -> Specification {
        self.eq(value).not()
    }

    /// Greater than `value`.
    pub fn gt(self, value: impl Into<Value>) -> Specification {
        self.compare(Comparison::Gt, value)
    }

    /// Greater than or equal to `value`.
    pub fn ge(self, value: impl Into<Value>) -> Specification {
        self.compare(Comparison::Ge, value)
    }

    /// Less than `value`.
    pub fn lt(self, value: impl Into<Value>) -> Specification {
        self.compare(Comparison::Lt, value)
    }

    /// Less than or equal to `value`.
    pub fn le(self, value: impl Into<Value>) -> Specification {
        self.compare(Comparison::Le, value)
    }

    /// Equal to one of `values`. A search among them takes the logarithm of their number.
    pub fn is_in<V: Into<Value>>(self, values: impl IntoIterator<Item = V>) -> Specification {
        let values = values.into_iter().map(Into::into).collect();
        Specification::In { field: self, values }
    }

    /// Equal to none of `values`, null and values of other types included.
    pub fn not_in<V: Into<Value>>(self, values: impl IntoIterator<Item = V>) -> Specification {
        self.is_in(values).not()
    }

    /// At least `low` and at most `high`.
    pub fn between(self, low: impl Into<Value>, high: impl Into<Value>) -> Specification {
        Specification::Between { field: self, low: low.into(), high: high.into() }
    }

    /// A text that fits `pattern` as a whole: `%` stands for any characters, `_` for one, `\` before a character for
    /// itself. Case counts.
    pub fn like(self, pattern: impl Into<String>) -> Specification {
        Specification::Like { field: self, pattern: pattern.into() }
    }

    /// A text that holds `value`, or an array that has it for an element.
    pub fn contains(self, value: impl Into<Value>) -> Specification {
        Specification::Contains { field: self, value: value.into() }
    }

    /// A text that begins with `text`.
    pub fn starts_with(self, text: impl Into<String>) -> Specification {
        Specification::StartsWith { field: self, text: text.into() }
    }

    /// A text that ends with `text`.
    pub fn ends_with(self, text: impl Into<String>) -> Specification {
        Specification::EndsWith { field: self, text: text.into() }
    }

    /// Null, or missing.
    pub fn is_null(self) -> Specification {
        Specification::IsNull { field: self }
    }

    /// There, and not null.
    pub fn is_not_null(self) -> Specification {
        self.is_null().not()
    }

    /// A text of which `pattern`, a regular expression, matches a part; `^` and `$` tie it to the ends. Takes time
    /// proportional to the text, whatever the pattern.
    pub fn regex(self, pattern: impl Into<String>) -> Specification {
        Specification::Regex { field: self, pattern: pattern.into() }
    }

    fn compare(self, is: Comparison, value: impl Into<Value>) -> Specification {
        Specification::Compare { field: self, is, value: value.into() }
    }
}

fn one_or(
    mut parts: Vec<Specification>,
    group: fn(Vec<Specification>) -> Specification,
) -> Specification {
    match parts.len() {
        1 => parts.remove(0),
        _ => group(parts),
    }
}
