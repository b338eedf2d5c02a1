//! What is wrong with a query text, and where.

use std::fmt;

use crate::subject::InvalidPattern;

/// How many characters of a text are shown on each side of the column.
const SHOWN: usize = 60;

/// Why a text is no query, and where. Printed with the text and a mark below the column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidText {
    /// The text around the column, on one line: white space and control characters are spaces, and a part that was
    /// cut off is `…`.
    pub excerpt: String,
    /// How many characters of `excerpt` stand before the column.
    pub mark: usize,
    /// The column, in characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: TextProblem,
}

/// What is wrong with a query text at some column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextProblem {
    /// Something else has to stand there. Write it.
    #[error("expected {what}, found {found}")]
    Expected {
        /// What has to stand there.
        what: &'static str,
        /// What stands there.
        found: String,
    },
    /// A quote or a backtick is not closed. Close it, or double it to mean the character.
    #[error("{quote} is not closed; close it, or double it to mean the character")]
    Unclosed {
        /// The opening quote.
        quote: char,
    },
    /// A character means nothing. Put texts in quotes, and names of fields in backticks.
    #[error(
        "{found:?} means nothing here; put texts in quotes, and unusual names of fields in backticks"
    )]
    Character {
        /// The character.
        found: char,
    },
    /// A number is beyond what JSON numbers hold exactly here: 64 bits, or a finite float. Write a smaller one, or a text.
    #[error("{number} is too large for a number; write it as a text if it is one")]
    NumberTooLarge {
        /// The number.
        number: String,
    },
    /// A value is compared with null. Write `IS NULL` or `IS NOT NULL`.
    #[error("nothing compares with null; write IS NULL or IS NOT NULL")]
    Null,
    /// What follows `subject:` is no pattern. Correct it as the source says.
    #[error("what follows subject: is no pattern: {0}")]
    Pattern(#[source] InvalidPattern),
    /// A second subject term. Keep one, with wildcards, or ask two queries.
    #[error("there is a subject: term already; keep one, with wildcards, or ask two queries")]
    SecondSubject,
    /// A subject term below `OR`, `NOT` or in parentheses, where it would not hold for the whole query. Move it out, or
    /// ask two queries.
    #[error(
        "a subject: term is joined to the whole query by AND; move it out of OR, NOT and parentheses"
    )]
    SubjectWithin,
    /// Parentheses, `NOT` or brackets are nested too deeply. Flatten them.
    #[error("nested more than {max} deep; flatten it")]
    TooDeep {
        /// How deep they may be.
        max: usize,
    },
    /// The text is too long. Shorten it, or build the specification in the program.
    #[error("the text has {actual} bytes, more than the {max} that are allowed")]
    TooLong {
        /// How many bytes it has.
        actual: usize,
        /// How many it may have.
        max: usize,
    },
}

impl InvalidText {
    pub(super) fn new(text: &str, column: usize, problem: TextProblem) -> Self {
        let skipped = column.saturating_sub(1 + SHOWN);
        let visible = |c: char| if c.is_whitespace() || c.is_control() { ' ' } else { c };
        let mut excerpt = String::from(if skipped > 0 { "…" } else { "" });
        let mut rest = text.chars().skip(skipped);
        let before = column - 1 - skipped;
        excerpt.extend(rest.by_ref().take(before + SHOWN).map(visible));
        if rest.next().is_some() {
            excerpt.push('…');
        }
        Self { excerpt, mark: before + usize::from(skipped > 0), column, problem }
    }
}

impl fmt::Display for InvalidText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { excerpt, mark, column, problem } = self;
        write!(f, "column {column}: {problem}\n  {excerpt}\n  {:mark$}^", "")
    }
}

impl std::error::Error for InvalidText {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.problem.source()
    }
}
