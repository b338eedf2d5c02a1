//! Specifications that were checked and can be asked.
//!
//! What they mean is said in `spec.rs`; patterns of text are compiled in `pattern.rs`.

use std::cmp::Ordering;

use regex::Regex;
use serde_json::Value;

use super::error::SpecificationError;
use super::field::Field;
use super::order::{compare, same_type};
use super::pattern::{MAX_PATTERNS, compile_like, compile_regex};
use super::spec::{Comparison, Specification};

/// How deep conditions may be nested.
pub const MAX_DEPTH: usize = 64;

/// How many conditions and groups a specification may have together.
pub const MAX_CONDITIONS: usize = 4096;

/// A [`Specification`] that was checked once and can be asked of any number of documents.
///
/// It costs nothing to ask beyond what the conditions look at: no document is copied, and nothing is allocated unless
/// objects are compared or a pattern of text is met for the first time in a thread. Clones share what patterns became.
#[derive(Debug, Clone)]
pub struct Compiled {
    specification: Specification,
    test: Test,
}

impl Compiled {
    pub(super) fn new(specification: Specification) -> Result<Self, SpecificationError> {
        let mut budget = Budget { conditions: MAX_CONDITIONS, patterns: MAX_PATTERNS };
        let test = budget.compile(&specification, 0)?;
        Ok(Self { specification, test })
    }

    /// Whether `document` is as specified. What is not an object has no fields.
    pub fn matches(&self, document: &Value) -> bool {
        self.test.holds_for(document)
    }

    /// What was compiled.
    pub fn specification(&self) -> &Specification {
        &self.specification
    }

    /// Checks that each field that is asked about is one of `known`, as [`fields_of`](super::fields_of) tells them. Only
    /// the first name of a path is checked.
    ///
    /// # Errors
    /// [`SpecificationError::UnknownField`] for the first that is not.
    pub fn check_fields(&self, known: &[&str]) -> Result<(), SpecificationError> {
        self.specification.fields().into_iter().try_for_each(|field| field.check_known(known))
    }
}

#[derive(Debug, Clone)]
enum Test {
    Field(Field, Condition),
    All(Vec<Test>),
    Any(Vec<Test>),
    Not(Box<Test>),
}

#[derive(Debug, Clone)]
enum Condition {
    Compare(Comparison, Value),
    /// The values are sorted.
    In(Vec<Value>),
    Between(Value, Value),
    Contains(Value),
    StartsWith(String),
    EndsWith(String),
    Fits(Regex),
    IsNull,
}

impl Test {
    fn holds_for(&self, document: &Value) -> bool {
        match self {
            Self::Field(field, condition) => condition.holds_for(field.value_in(document)),
            Self::All(parts) => parts.iter().all(|part| part.holds_for(document)),
            Self::Any(parts) => parts.iter().any(|part| part.holds_for(document)),
            Self::Not(inner) => !inner.holds_for(document),
        }
    }
}

impl Condition {
    fn holds_for(&self, found: &Value) -> bool {
        match self {
            Self::Compare(is, value) => compares(found, *is, value),
            Self::In(values) => values.binary_search_by(|value| compare(value, found)).is_ok(),
            Self::Between(low, high) => {
                compares(found, Comparison::Ge, low) && compares(found, Comparison::Le, high)
            }
            Self::Contains(value) => contains(found, value),
            Self::StartsWith(text) => found.as_str().is_some_and(|found| found.starts_with(text)),
            Self::EndsWith(text) => found.as_str().is_some_and(|found| found.ends_with(text)),
            Self::Fits(pattern) => found.as_str().is_some_and(|found| pattern.is_match(found)),
            Self::IsNull => found.is_null(),
        }
    }
}

fn compares(found: &Value, is: Comparison, value: &Value) -> bool {
    if !same_type(found, value) {
        return false;
    }
    let ordering = compare(found, value);
    match is {
        Comparison::Eq => ordering == Ordering::Equal,
        Comparison::Gt => ordering == Ordering::Greater,
        Comparison::Ge => ordering != Ordering::Less,
        Comparison::Lt => ordering == Ordering::Less,
        Comparison::Le => ordering != Ordering::Greater,
    }
}

fn contains(found: &Value, value: &Value) -> bool {
    match (found, value) {
        (Value::String(found), Value::String(part)) => found.contains(part),
        (Value::Array(elements), value) => {
            elements.iter().any(|element| compare(element, value).is_eq())
        }
        _ => false,
    }
}

/// What may still be compiled.
struct Budget {
    conditions: usize,
    patterns: usize,
}

impl Budget {
    fn compile(&mut self, from: &Specification, depth: usize) -> Result<Test, SpecificationError> {
        if depth > MAX_DEPTH {
            return Err(SpecificationError::TooDeep { max: MAX_DEPTH });
        }
        self.conditions = self
            .conditions
            .checked_sub(1)
            .ok_or(SpecificationError::TooManyConditions { max: MAX_CONDITIONS })?;
        let mut all = |parts: &[Specification]| {
            parts.iter().map(|part| self.compile(part, depth + 1)).collect::<Result<Vec<_>, _>>()
        };
        match from {
            Specification::All(parts) => all(parts).map(Test::All),
            Specification::Any(parts) => all(parts).map(Test::Any),
            Specification::Not(inner) => {
                self.compile(inner, depth + 1).map(|inner| Test::Not(Box::new(inner)))
            }
            Specification::Compare { field, is, value } => {
                let condition = Condition::Compare(*is, some(field, value)?);
                test(field, condition)
            }
            Specification::In { field, values } => {
                let values = values.iter().map(|value| some(field, value));
                let mut values = values.collect::<Result<Vec<_>, _>>()?;
                values.sort_unstable_by(compare);
                test(field, Condition::In(values))
            }
            Specification::Between { field, low, high } => {
                test(field, Condition::Between(some(field, low)?, some(field, high)?))
            }
            Specification::Like { field, pattern } => {
                self.take_pattern()?;
                test(field, Condition::Fits(compile_like(field, pattern)?))
            }
            Specification::Regex { field, pattern } => {
                self.take_pattern()?;
                test(field, Condition::Fits(compile_regex(field, pattern)?))
            }
            Specification::Contains { field, value } => {
                test(field, Condition::Contains(some(field, value)?))
            }
            Specification::StartsWith { field, text } => {
                test(field, Condition::StartsWith(text.clone()))
            }
            Specification::EndsWith { field, text } => {
                test(field, Condition::EndsWith(text.clone()))
            }
            Specification::IsNull { field } => test(field, Condition::IsNull),
        }
    }

    fn take_pattern(&mut self) -> Result<(), SpecificationError> {
        let left = self.patterns.checked_sub(1);
        self.patterns = left.ok_or(SpecificationError::TooManyPatterns { max: MAX_PATTERNS })?;
        Ok(())
    }
}

fn test(field: &Field, condition: Condition) -> Result<Test, SpecificationError> {
    field.check()?;
    Ok(Test::Field(field.clone(), condition))
}

/// A value to compare with, which null is not.
fn some(field: &Field, value: &Value) -> Result<Value, SpecificationError> {
    if value.is_null() {
        return Err(SpecificationError::ComparedWithNull { field: field.dotted() });
    }
    Ok(value.clone())
}
