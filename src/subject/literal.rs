//! Literal subjects: where one message lies.
//!
//! Which subjects this crate writes is in `scheme.rs`; subjects with wildcards are in `pattern.rs`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use smallvec::SmallVec;

/// More than most subjects have.
const USUAL_BYTES: usize = 256;

/// Why a text cannot be a literal subject. Positions count tokens from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSubject {
    /// The text is empty. Give it at least one token.
    #[error("the subject is empty; give it at least one token")]
    Empty,
    /// The text holds white space or a control character. Remove it; in an id, write its escape.
    #[error(
        "subject {subject:?} holds {found:?}; remove it, or write the id it stands in in its escaped form"
    )]
    Character {
        /// The text, its first 256 characters.
        subject: String,
        /// The first character that is not allowed.
        found: char,
    },
    /// Nothing stands before, between or after two dots. Remove a dot, or write the token.
    #[error("token {position} of subject {subject:?} is empty; remove a dot, or write the token")]
    EmptyToken {
        /// The text, its first 256 characters.
        subject: String,
        /// Which token is empty.
        position: usize,
    },
    /// A token holds `*` or `>`. Take the text for a pattern, or write the escape (`=2A`, `=3E`) for the character.
    #[error(
        "token {position} of subject {subject:?} holds {found:?}; take it for a pattern, or write =2A and =3E for \
         the characters * and >"
    )]
    Wildcard {
        /// The text, its first 256 characters.
        subject: String,
        /// Which token holds it.
        position: usize,
        /// The wildcard.
        found: char,
    },
}

/// A literal subject: tokens joined by dots, on which messages are stored.
///
/// - at least one token, none empty;
/// - neither `*` nor `>`, no white space, no control character.
///
/// A [`SubjectScheme`](super::SubjectScheme) makes them of checked names and ids. A store that keeps subjects as text
/// makes them of that again by [`parse`](Self::parse). Cloning is cheap.
///
/// ```
/// use cim_persistence::subject::{InvalidSubject, Subject};
///
/// let order = Subject::parse("cim.events.sales.order.42")?;
/// assert_eq!(order.as_str(), "cim.events.sales.order.42");
///
/// assert!(Subject::parse("cim.events..order").is_err());
/// assert!(Subject::parse("cim.events.sales.*").is_err());
/// assert!(Subject::parse("cim.events.sales.order.4 2").is_err());
/// # Ok::<(), InvalidSubject>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(Arc<str>);

impl Subject {
    /// Checks `text` and makes it a subject.
    ///
    /// Takes every subject that this crate writes, and gives it back unchanged; no length is too long, since that is for a
    /// server to say. Reads the text a few times and copies it once.
    ///
    /// # Errors
    /// [`InvalidSubject`], which says what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, InvalidSubject> {
        check(text)?;
        Ok(Self(text.into()))
    }

    /// The subject as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A subject whose text is known to be literal: built from checked tokens, or stored by a server.
    pub(crate) fn trusted(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// As [`trusted`](Self::trusted), of parts that are put together where no memory is allocated for it.
    pub(super) fn joined(parts: &[&str]) -> Self {
        let mut bytes = SmallVec::<[u8; USUAL_BYTES]>::new();
        for part in parts {
            bytes.extend_from_slice(part.as_bytes());
        }
        Self(std::str::from_utf8(&bytes).expect("texts one after the other are a text").into())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Subject {
    type Err = InvalidSubject;
    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        Self::parse(text)
    }
}

fn check(text: &str) -> Result<(), InvalidSubject> {
    if text.is_empty() {
        return Err(InvalidSubject::Empty);
    }
    if let Some(found) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(InvalidSubject::Character { subject: shown(text), found });
    }
    for (token, position) in text.split('.').zip(1..) {
        if token.is_empty() {
            return Err(InvalidSubject::EmptyToken { subject: shown(text), position });
        }
        if let Some(found) = token.chars().find(|c| matches!(c, '*' | '>')) {
            return Err(InvalidSubject::Wildcard { subject: shown(text), position, found });
        }
    }
    Ok(())
}

/// As much of a refused text as an error should carry: the text may come from anywhere and have any length.
pub(super) fn shown(text: &str) -> String {
    const LIMIT: usize = 256;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
