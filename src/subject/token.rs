//! Names: the tokens of a subject that a program's author chooses, and why a text cannot be a token.
//!
//! Ids, which come from data and are escaped, are in `id.rs`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// The longest name of a context, an aggregate type or an event type, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// Why a text cannot be a token of a subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// The text is empty. Give it at least one character.
    #[error("{what} is empty; give it at least one character")]
    Empty {
        /// What the text was meant to be.
        what: &'static str,
    },
    /// The text is too long. Shorten it, or keep the long form in the event's data.
    #[error("{what} has {actual} bytes, more than the {max} that are allowed; shorten it")]
    TooLong {
        /// What the text was meant to be.
        what: &'static str,
        /// How many bytes it has.
        actual: usize,
        /// How many it may have.
        max: usize,
    },
    /// A name holds a character other than `A-Z a-z 0-9 _ -`. Choose another name.
    #[error("{what} {text:?} holds {found:?}; a name may hold A-Z a-z 0-9 _ and - only")]
    Character {
        /// What the text was meant to be.
        what: &'static str,
        /// The text.
        text: String,
        /// The first character that is not allowed.
        found: char,
    },
    /// An id holds a control character. Remove it.
    #[error("{what} holds the control character {found:?}; remove it")]
    Control {
        /// What the text was meant to be.
        what: &'static str,
        /// The first control character.
        found: char,
    },
    /// A stored id is not the escape of any id: it was not written by this crate.
    #[error("{text:?} is not an escaped id: {reason}")]
    Escape {
        /// The text as it was found.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A stored id does not fit the id type of the aggregate. Check the aggregate's `Id`.
    #[error("id {text:?} is not a {wanted}")]
    WrongType {
        /// The id.
        text: String,
        /// The type it was read as.
        wanted: &'static str,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// - at least one character, at most [`MAX_NAME_BYTES`];
        /// - only `A-Z a-z 0-9 _ -`, so it stands in a subject, a stream name and a key as it is;
        /// - case is kept and counts.
        ///
        /// Cloning is cheap.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks `text` and makes it a name.
            ///
            /// # Errors
            /// [`InvalidToken`] when it is empty, too long or holds another character.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidToken> {
                let text = text.as_ref();
                check_name($what, text)?;
                Ok(Self(text.into()))
            }

            /// The name as it stands in a subject.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidToken;
            fn from_str(text: &str) -> Result<Self, InvalidToken> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidToken;
            fn try_from(text: String) -> Result<Self, InvalidToken> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidToken;
            fn try_from(text: &str) -> Result<Self, InvalidToken> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a bounded context: one event stream, one transaction boundary.
    ///
    /// ```
    /// use cim_persistence::subject::ContextName;
    /// assert!(ContextName::new("sales").is_ok());
    /// assert!(ContextName::new("sales.eu").is_err());
    /// ```
    ContextName,
    "context name"
);
name!(
    /// The name of a kind of aggregate within its context.
    ///
    /// ```
    /// use cim_persistence::subject::AggregateType;
    /// assert!(AggregateType::new("order").is_ok());
    /// assert!(AggregateType::new("").is_err());
    /// ```
    AggregateType,
    "aggregate type"
);
name!(
    /// The name of a kind of event within its aggregate type.
    ///
    /// ```
    /// use cim_persistence::subject::EventType;
    /// assert!(EventType::new("order_placed").is_ok());
    /// assert!(EventType::new("order placed").is_err());
    /// ```
    EventType,
    "event type"
);
name!(
    /// The name of a kind of read model within its context.
    ///
    /// ```
    /// use cim_persistence::subject::ModelType;
    /// assert!(ModelType::new("order_summary").is_ok());
    /// assert!(ModelType::new("order.summary").is_err());
    /// ```
    ModelType,
    "read model type"
);
name!(
    /// The name of a constraint that keeps values unique within its context, like `email`.
    ///
    /// ```
    /// use cim_persistence::subject::ConstraintName;
    /// assert!(ConstraintName::new("email").is_ok());
    /// assert!(ConstraintName::new("e.mail").is_err());
    /// ```
    ConstraintName,
    "constraint name"
);

pub(super) fn check_name(what: &'static str, text: &str) -> Result<(), InvalidToken> {
    if text.is_empty() {
        return Err(InvalidToken::Empty { what });
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(InvalidToken::TooLong { what, actual: text.len(), max: MAX_NAME_BYTES });
    }
    match text.chars().find(|c| !is_plain(*c)) {
        Some(found) => Err(InvalidToken::Character { what, text: text.to_owned(), found }),
        None => Ok(()),
    }
}

pub(super) fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}
