//! Keys of a bucket.

use std::fmt;

use smol_str::{SmolStr, SmolStrBuilder};

/// A key: tokens of `A-Z a-z 0-9 _ - = /` joined with `.`, none empty, as the KV clients of NATS accept them.
///
/// It is a literal subject below the bucket's. Cloning is cheap.
///
/// ```
/// use cim_persistence::state::Key;
/// assert!(Key::new("order.42").is_ok());
/// assert!(Key::new("order..42").is_err());
/// assert!(Key::new("order.*").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(SmolStr);

/// A text cannot be a key. Escape what it is made from, as [`AggregateId`](crate::subject::AggregateId) does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a key: tokens of A-Z a-z 0-9 _ - = / joined with single dots")]
pub struct InvalidKey {
    /// The text.
    pub text: String,
}

impl Key {
    /// Checks `text` and makes it a key.
    ///
    /// # Errors
    /// [`InvalidKey`] when it is not one.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidKey> {
        let text = text.as_ref();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '=' | '/');
        if text.split('.').all(|token| !token.is_empty() && token.chars().all(plain)) {
            Ok(Self(SmolStr::new(text)))
        } else {
            Err(InvalidKey { text: text.to_owned() })
        }
    }

    /// A key of tokens that have the grammar of those of keys, as the names and ids of aggregates have.
    pub(crate) fn joined(tokens: &[&str]) -> Self {
        let mut text = SmolStrBuilder::new();
        for (nth, token) in tokens.iter().enumerate() {
            text.push_str(if nth > 0 { "." } else { "" });
            text.push_str(token);
        }
        Self(text.finish())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
