//! Specifications and queries as text that reads as the same again.

use std::fmt::{self, Display, Write};

use serde_json::Value;

use super::ParsedQuery;
use super::lexer::{is_plain, reserved};
use crate::specification::field::Field;
use crate::specification::spec::{Comparison, Specification};

impl Display for ParsedQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Some(subject) if self.specification == Specification::everything() => {
                write!(f, "subject:{subject}")?;
            }
            Some(subject) => {
                write!(f, "subject:{subject} AND ")?;
                write_specification(f, &self.specification, Within::All)?;
            }
            None => write!(f, "{}", self.specification)?,
        }
        for (order, before) in self.options.order_by.iter().zip(commas(" ORDER BY ")) {
            write!(f, "{before}{order}")?;
        }
        if let Some(limit) = self.options.limit {
            write!(f, " LIMIT {limit}")?;
        }
        match self.options.offset {
            0 => Ok(()),
            offset => write!(f, " OFFSET {offset}"),
        }
    }
}

impl Display for Specification {
    /// As a query text has it, see [`ParsedQuery`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_specification(f, self, Within::Any)
    }
}

/// Writes the path of a field, in backticks where it would be read as something else.
pub(in crate::specification) fn write_field(
    f: &mut fmt::Formatter<'_>,
    names: &[String],
) -> fmt::Result {
    let alone = names.len() == 1;
    for (name, before) in names.iter().zip(separated("", ".")) {
        f.write_str(before)?;
        if is_plain(name) && !(alone && reserved(name).is_some()) {
            f.write_str(name)?;
        } else {
            write_quoted(f, '`', name)?;
        }
    }
    Ok(())
}

/// What a part stands in, from what binds least to what binds most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Within {
    Any,
    All,
    Not,
}

fn write_specification(
    f: &mut fmt::Formatter<'_>,
    specification: &Specification,
    within: Within,
) -> fmt::Result {
    match specification {
        Specification::All(parts) => write_group(f, parts, "TRUE", " AND ", Within::All, within),
        Specification::Any(parts) => write_group(f, parts, "FALSE", " OR ", Within::Any, within),
        Specification::Not(inner) => match &**inner {
            Specification::All(_) | Specification::Any(_) | Specification::Not(_) => {
                f.write_str("NOT ")?;
                write_specification(f, inner, Within::Not)
            }
            Specification::Compare { is: Comparison::Eq, field, value } => {
                write!(f, "{field} != {}", Literal(value))
            }
            Specification::Compare { .. } => write!(f, "NOT {inner}"),
            condition => write_condition(f, condition, "NOT "),
        },
        condition => write_condition(f, condition, ""),
    }
}

fn write_group(
    f: &mut fmt::Formatter<'_>,
    parts: &[Specification],
    without_any: &str,
    between: &'static str,
    kind: Within,
    within: Within,
) -> fmt::Result {
    match parts {
        [] => f.write_str(without_any),
        [one] => write_specification(f, one, within),
        _ => {
            let (open, close) = if within > kind { ("(", ")") } else { ("", "") };
            f.write_str(open)?;
            for (part, before) in parts.iter().zip(separated("", between)) {
                f.write_str(before)?;
                write_specification(f, part, kind)?;
            }
            f.write_str(close)
        }
    }
}

/// A condition on one field, with `not` before its operator.
fn write_condition(f: &mut fmt::Formatter<'_>, from: &Specification, not: &str) -> fmt::Result {
    match from {
        Specification::Compare { field, is, value } => {
            let symbol = match is {
                Comparison::Eq => "=",
                Comparison::Gt => ">",
                Comparison::Ge => ">=",
                Comparison::Lt => "<",
                Comparison::Le => "<=",
            };
            write!(f, "{field} {symbol} {}", Literal(value))
        }
        Specification::In { field, values } => {
            write!(f, "{field} {not}IN (")?;
            for (value, before) in values.iter().zip(commas("")) {
                write!(f, "{before}{}", Literal(value))?;
            }
            f.write_char(')')
        }
        Specification::Between { field, low, high } => {
            write!(f, "{field} {not}BETWEEN {} AND {}", Literal(low), Literal(high))
        }
        Specification::Contains { field, value } => {
            write!(f, "{field} {not}CONTAINS {}", Literal(value))
        }
        Specification::Like { field, pattern } => write_test(f, field, not, "LIKE", pattern),
        Specification::Regex { field, pattern } => write_test(f, field, not, "MATCHES", pattern),
        Specification::StartsWith { field, text } => write_test(f, field, not, "STARTS WITH", text),
        Specification::EndsWith { field, text } => write_test(f, field, not, "ENDS WITH", text),
        Specification::IsNull { field } => write!(f, "{field} IS {not}NULL"),
        group => write_specification(f, group, Within::Not),
    }
}

fn write_test(
    f: &mut fmt::Formatter<'_>,
    field: &Field,
    not: &str,
    test: &str,
    text: &str,
) -> fmt::Result {
    write!(f, "{field} {not}{test} ")?;
    write_quoted(f, '\'', text)
}

/// A value as the language has it.
struct Literal<'a>(&'a Value);

impl Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(text) => write_quoted(f, '\'', text),
            Value::Array(elements) => {
                f.write_char('[')?;
                for (element, before) in elements.iter().zip(commas("")) {
                    write!(f, "{before}{}", Literal(element))?;
                }
                f.write_char(']')
            }
            Value::Object(entries) => {
                f.write_char('{')?;
                for ((name, value), before) in entries.iter().zip(commas("")) {
                    f.write_str(before)?;
                    write_quoted(f, '\'', name)?;
                    write!(f, ": {}", Literal(value))?;
                }
                f.write_char('}')
            }
            plain => write!(f, "{plain}"),
        }
    }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, quote: char, text: &str) -> fmt::Result {
    f.write_char(quote)?;
    for c in text.chars() {
        if c == quote {
            f.write_char(quote)?;
        }
        f.write_char(c)?;
    }
    f.write_char(quote)
}

fn commas(first: &'static str) -> impl Iterator<Item = &'static str> {
    separated(first, ", ")
}

/// What stands before the first, and before each that follows.
fn separated(first: &'static str, rest: &'static str) -> impl Iterator<Item = &'static str> {
    std::iter::once(first).chain(std::iter::repeat(rest))
}
