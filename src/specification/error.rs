//! What can be wrong with a specification, its options or its text.

use super::text::InvalidText;

/// Why a specification, its options or a query text is refused. No document can cause any of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecificationError {
    /// A field has no name, or an empty one in its path. Correct the path.
    #[error("field {field:?} holds an empty name; write names with single dots between them")]
    EmptyName {
        /// The path, its names joined by dots.
        field: String,
    },
    /// The documents have no such field. Correct the name, or take it from those that are known.
    #[error("there is no field {field:?}; known are {}", known.join(", "))]
    UnknownField {
        /// The first name of the field's path.
        field: String,
        /// The fields there are.
        known: Vec<String>,
    },
    /// A field is compared with null, which is neither equal to anything nor greater or less. Ask with `is_null`
    /// or `is_not_null`. A float that is no number arrives as null too.
    #[error("field {field:?} is compared with null; ask with is_null, in a text with IS NULL")]
    ComparedWithNull {
        /// The field.
        field: String,
    },
    /// Groups stand within groups too deeply. Flatten them.
    #[error("conditions are nested more than {max} deep; flatten the groups")]
    TooDeep {
        /// How deep they may be.
        max: usize,
    },
    /// There are too many conditions and groups. Use `is_in` for many values of one field.
    #[error("there are more than {max} conditions; use is_in for many values of one field")]
    TooManyConditions {
        /// How many there may be.
        max: usize,
    },
    /// A pattern for `like` or `regex` is too long. Shorten it.
    #[error(
        "the pattern for field {field:?} has {actual} bytes, more than the {max} that are allowed; shorten it"
    )]
    PatternTooLong {
        /// The field.
        field: String,
        /// How many bytes it has.
        actual: usize,
        /// How many it may have.
        max: usize,
    },
    /// There are too many patterns. Join regular expressions of one field by `|`.
    #[error("there are more than {max} like and regex conditions; join some of one field by |")]
    TooManyPatterns {
        /// How many there may be.
        max: usize,
    },
    /// A pattern for `like` ends with a lone `\`, which escapes nothing. Write `\\` for the character.
    #[error(
        "the pattern {pattern:?} for field {field:?} ends with a lone \\; double it to mean the character"
    )]
    LoneEscape {
        /// The field.
        field: String,
        /// The pattern.
        pattern: String,
    },
    /// A regular expression does not compile. Correct it as the reason says.
    #[error("the regular expression for field {field:?} does not compile: {reason}")]
    InvalidRegex {
        /// The field.
        field: String,
        /// What is wrong and where, on several lines.
        reason: String,
    },
    /// A pattern would need too much memory, as counted repetitions of large classes do. Make it simpler.
    #[error(
        "the pattern {pattern:?} for field {field:?} needs more than {max} bytes when compiled; repeat less"
    )]
    PatternTooLarge {
        /// The field.
        field: String,
        /// The pattern.
        pattern: String,
        /// How many bytes it may need.
        max: usize,
    },
    /// The cursor was not made by this crate, or was damaged. Start again at the first page.
    #[error("the cursor is damaged: {reason}; start again at the first page")]
    InvalidCursor {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The cursor belongs to a query with another specification, order or scope. Repeat that query, or start this
    /// one at its first page.
    #[error(
        "the cursor was given out by another query; repeat that one, or start at the first page"
    )]
    CursorOfAnotherQuery,
    /// The query text is not one. Correct it at the column.
    #[error(transparent)]
    Text(#[from] InvalidText),
    /// A model cannot be written as JSON: a map has a key that is no text, for instance. Change the model's type.
    #[error("the model cannot be written as JSON: {reason}")]
    NotJson {
        /// What was in the way.
        reason: String,
    },
}
