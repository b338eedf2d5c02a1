//! What a service says about its events beside their data.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// The most bytes that the names and values of one event's metadata may have together.
pub const MAX_METADATA_BYTES: usize = 16 * 1024;

const TAGS: &str = "tags";
const TENANT: &str = "tenant";
const TRACE_NAMES: [&str; 2] = ["traceparent", "tracestate"];

/// Why metadata or a tag is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMetadata {
    /// The name belongs to the protocol. Choose another one.
    #[error(
        "metadata name {name:?} is reserved; names starting with nats- or cim- and the name tags are not yours; choose another one"
    )]
    Reserved {
        /// The name.
        name: String,
    },
    /// The name is empty or holds a control character. Choose another one.
    #[error("metadata name {name:?} is empty or holds a control character; choose another one")]
    Name {
        /// The name.
        name: String,
    },
    /// A trace context that cannot be a header. Pass it on as it was received.
    #[error(
        "{name} is copied into a header, so it may hold visible ASCII characters and spaces only; pass it on as it was received"
    )]
    Trace {
        /// `traceparent` or `tracestate`.
        name: String,
    },
    /// Names and values are too long together. Keep what is large in the event.
    #[error(
        "metadata has {actual} bytes, more than the {max} that are allowed; keep what is large in the event"
    )]
    TooLarge {
        /// How many bytes there are.
        actual: usize,
        /// How many there may be.
        max: usize,
    },
    /// The tag is empty, over 64 bytes, or holds another character than `A-Z a-z 0-9 _ - . :`. Choose another one.
    #[error("tag {tag:?} is not 1 to 64 characters of A-Z a-z 0-9 _ - . :; choose another one")]
    Tag {
        /// The tag.
        tag: String,
    },
}

/// A label of an aggregate: 1 to 64 characters of `A-Z a-z 0-9 _ - . :`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

impl Tag {
    /// Checks `text` and makes it a tag.
    ///
    /// # Errors
    /// [`InvalidMetadata::Tag`] when it is not one.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidMetadata> {
        let tag = text.into();
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        if tag.is_empty() || tag.len() > 64 || !tag.chars().all(plain) {
            return Err(InvalidMetadata::Tag { tag });
        }
        Ok(Self(tag))
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Tag {
    type Error = InvalidMetadata;
    fn try_from(text: String) -> Result<Self, InvalidMetadata> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Tag {
    type Error = InvalidMetadata;
    fn try_from(text: &str) -> Result<Self, InvalidMetadata> {
        Self::new(text)
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> String {
        tag.0
    }
}

/// Free text by name that travels in every event of a commit.
///
/// - no name starts with `nats-` or `cim-`, in any case, and none is `tags` (tags have a way of their own);
/// - names are not empty and hold no control characters;
/// - `traceparent` and `tracestate` (W3C Trace Context) are copied into the headers of the same name and therefore
///   hold visible ASCII only; no other entry ever becomes a header;
/// - `tenant` is what [`tenant`](Self::tenant) reads;
/// - at most [`MAX_METADATA_BYTES`] bytes in all, the tags among them where they are saved together.
///
/// ```
/// use cim_persistence::event::Metadata;
/// let metadata = Metadata::new([("user", "kim"), ("tenant", "acme")])?;
/// assert_eq!(metadata.tenant(), Some("acme"));
/// assert!(Metadata::new([("Nats-Msg-Id", "1")]).is_err());
/// # Ok::<(), cim_persistence::event::InvalidMetadata>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Metadata {
    /// Checks the entries as [`Metadata::new`] does.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let entries = BTreeMap::<String, String>::deserialize(from)?;
        Self::new(entries).map_err(D::Error::custom)
    }
}

impl Metadata {
    /// Checks the entries and makes them metadata.
    ///
    /// # Errors
    /// [`InvalidMetadata`] for the first entry that breaks a rule of the type.
    pub fn new<K: Into<String>, V: Into<String>>(
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, InvalidMetadata> {
        let mut metadata = Self::default();
        for (name, value) in entries {
            metadata.insert(name, value)?;
        }
        Ok(metadata)
    }

    /// Sets one entry.
    ///
    /// # Errors
    /// [`InvalidMetadata`] when it breaks a rule of the type; the metadata is then unchanged.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<(), InvalidMetadata> {
        let (name, value) = (name.into(), value.into());
        check_entry(&name, &value)?;
        self.set(name, value)
    }

    fn set(&mut self, name: String, value: String) -> Result<(), InvalidMetadata> {
        let replaced = self.0.get(&name).map_or(0, |old| name.len() + old.len());
        let actual = self.bytes() - replaced + name.len() + value.len();
        if actual > MAX_METADATA_BYTES {
            return Err(InvalidMetadata::TooLarge { actual, max: MAX_METADATA_BYTES });
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// The value of one entry.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All entries, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tenant the event belongs to, if one was named.
    pub fn tenant(&self) -> Option<&str> {
        self.get(TENANT)
    }

    /// The tags of the event.
    pub fn tags(&self) -> impl Iterator<Item = Tag> + '_ {
        self.get(TAGS)
            .into_iter()
            .flat_map(|tags| tags.split(','))
            .filter_map(|tag| Tag::new(tag).ok())
    }

    /// Metadata as a block holds it. What is stored is taken as it is.
    pub(crate) fn stored(entries: BTreeMap<String, String>) -> Self {
        Self(entries)
    }

    /// As [`stored`](Self::stored), where a block is read by serde. What comes from elsewhere is checked.
    pub(crate) fn deserialize_stored<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(from).map(Self)
    }

    /// The same metadata with `tags` added: one entry, joined with commas.
    pub(crate) fn with_tags(mut self, tags: &[Tag]) -> Result<Self, InvalidMetadata> {
        if !tags.is_empty() {
            let names: Vec<&str> = tags.iter().map(Tag::as_str).collect();
            self.set(TAGS.to_owned(), names.join(","))?;
        }
        Ok(self)
    }

    /// The W3C trace context, as header names and values.
    pub(crate) fn trace(&self) -> impl Iterator<Item = (&'static str, &str)> {
        TRACE_NAMES
            .into_iter()
            .filter_map(|name| self.get(name).map(|value| (name, value)))
            .filter(|(_, value)| is_header_text(value))
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

fn check_entry(name: &str, value: &str) -> Result<(), InvalidMetadata> {
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("nats-") || lower.starts_with("cim-") || lower == TAGS {
        return Err(InvalidMetadata::Reserved { name: name.to_owned() });
    }
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(InvalidMetadata::Name { name: name.to_owned() });
    }
    if TRACE_NAMES.contains(&name) && !is_header_text(value) {
        return Err(InvalidMetadata::Trace { name: name.to_owned() });
    }
    Ok(())
}

fn is_header_text(value: &str) -> bool {
    value.bytes().all(|b| (b' '..=b'~').contains(&b))
}
