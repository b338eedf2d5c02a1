//! Patterns of text: `like` and regular expressions, compiled within limits.
//!
//! Both become an automaton of the `regex` crate, so no pattern makes a long text expensive.

use regex::{Regex, RegexBuilder};

use super::error::SpecificationError;
use super::field::Field;

/// The longest pattern for `like` or `regex`, in bytes.
pub const MAX_PATTERN_BYTES: usize = 1024;

/// How many conditions with `like` or `regex` a specification may have.
pub const MAX_PATTERNS: usize = 64;

/// How many bytes one pattern may need when it is compiled.
pub const MAX_REGEX_SIZE: usize = 1 << 20;

const MAX_GROUP_DEPTH: u32 = 64;

pub(super) fn compile_regex(field: &Field, pattern: &str) -> Result<Regex, SpecificationError> {
    check_length(field, pattern)?;
    build(field, pattern, pattern)
}

pub(super) fn compile_like(field: &Field, pattern: &str) -> Result<Regex, SpecificationError> {
    check_length(field, pattern)?;
    let mut expression = String::from(r"(?s)\A");
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '%' => expression.push_str(".*"),
            '_' => expression.push('.'),
            '\\' => match rest.next() {
                Some(escaped) => push_literal(&mut expression, escaped),
                None => {
                    let (field, pattern) = (field.dotted(), pattern.to_owned());
                    return Err(SpecificationError::LoneEscape { field, pattern });
                }
            },
            literal => push_literal(&mut expression, literal),
        }
    }
    expression.push_str(r"\z");
    build(field, pattern, &expression)
}

fn check_length(field: &Field, pattern: &str) -> Result<(), SpecificationError> {
    let (actual, max) = (pattern.len(), MAX_PATTERN_BYTES);
    if actual > max {
        return Err(SpecificationError::PatternTooLong { field: field.dotted(), actual, max });
    }
    Ok(())
}

fn push_literal(expression: &mut String, literal: char) {
    expression.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4])));
}

fn build(field: &Field, pattern: &str, expression: &str) -> Result<Regex, SpecificationError> {
    let built = RegexBuilder::new(expression)
        .size_limit(MAX_REGEX_SIZE)
        .dfa_size_limit(MAX_REGEX_SIZE)
        .nest_limit(MAX_GROUP_DEPTH)
        .build();
    let field = || field.dotted();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(max) => {
            SpecificationError::PatternTooLarge { field: field(), pattern: pattern.to_owned(), max }
        }
        other => SpecificationError::InvalidRegex { field: field(), reason: other.to_string() },
    })
}
