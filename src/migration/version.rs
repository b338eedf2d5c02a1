//! The version of a context's data as a whole.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A version of what is stored in a context: three numbers, ordered one after the other.
///
/// It counts what migrations did, not the shapes of single types, which have numbers of their own
/// ([`event::SchemaVersion`](crate::event::SchemaVersion)). A context that no migration ever ran in is at
/// [`NONE`](Self::NONE).
///
/// ```
/// use cim_persistence::migration::SchemaVersion;
/// let version: SchemaVersion = "1.10".parse()?;
/// assert_eq!(version, SchemaVersion::new(1, 10, 0));
/// assert!(version > SchemaVersion::new(1, 9, 3));
/// assert_eq!(version.to_string(), "1.10.0");
/// # Ok::<(), cim_persistence::migration::InvalidVersion>(())
/// ```
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct SchemaVersion([u32; 3]);

/// A text is not a version. Write numbers with dots between them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a version; write one to three numbers with dots between them, as 1.2.0")]
pub struct InvalidVersion {
    /// The text.
    pub text: String,
}

impl SchemaVersion {
    /// Before the first migration: `0.0.0`.
    pub const NONE: Self = Self([0; 3]);

    /// The version of these numbers, the first of which weighs most.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self([major, minor, patch])
    }
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl FromStr for SchemaVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let invalid = || InvalidVersion { text: text.to_owned() };
        let mut numbers = [0; 3];
        for (place, number) in text.split('.').enumerate() {
            // Otherwise a sign would be taken as well.
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            let number = number.parse().ok().filter(|_| digits).ok_or_else(invalid)?;
            *numbers.get_mut(place).ok_or_else(invalid)? = number;
        }
        Ok(Self(numbers))
    }
}

impl TryFrom<String> for SchemaVersion {
    type Error = InvalidVersion;
    fn try_from(text: String) -> Result<Self, InvalidVersion> {
        text.parse()
    }
}

impl From<SchemaVersion> for String {
    fn from(version: SchemaVersion) -> String {
        version.to_string()
    }
}
