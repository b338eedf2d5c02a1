//! CloudEvents as they lie in messages: version 1.0 in the binary mode of the NATS binding.
//!
//! Attributes are headers with the prefix `ce-`, the data is the payload: section 3.1 of the NATS protocol binding,
//! <https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md>.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::percent;
use crate::backend::StoredMessage;
use crate::clock::Timestamp;
use crate::event::Headers;

/// The names of attributes.
pub(super) mod names {
    pub(in crate::outbox) const SPEC_VERSION: &str = "specversion";
    pub(in crate::outbox) const ID: &str = "id";
    pub(in crate::outbox) const SOURCE: &str = "source";
    pub(in crate::outbox) const TYPE: &str = "type";
    pub(in crate::outbox) const TIME: &str = "time";
    pub(in crate::outbox) const SUBJECT: &str = "subject";
    pub(in crate::outbox) const CONTENT_TYPE: &str = "datacontenttype";
    pub(in crate::outbox) const KEY: &str = "partitionkey";
    pub(in crate::outbox) const CORRELATION: &str = "correlationid";
    pub(in crate::outbox) const CAUSATION: &str = "causationid";

    /// The header of [`KEY`], which every relay looks at.
    pub(in crate::outbox) const KEY_HEADER: &str = "ce-partitionkey";

    /// Those that a message sets by itself, or by a method of their own; `data` names no attribute.
    pub(in crate::outbox) const OWN: [&str; 11] = [
        SPEC_VERSION,
        ID,
        SOURCE,
        TYPE,
        TIME,
        SUBJECT,
        CONTENT_TYPE,
        KEY,
        CORRELATION,
        CAUSATION,
        "data",
    ];

    /// The version that is written and read.
    pub(in crate::outbox) const VERSION: &str = "1.0";

    /// What the headers of attributes begin with.
    pub(in crate::outbox) const PREFIX: &str = "ce-";

    pub(in crate::outbox) fn header(name: &str) -> String {
        format!("{PREFIX}{name}")
    }

    /// Whether a content type says that the payload is the whole event.
    pub(in crate::outbox) fn is_structured(content_type: &str) -> bool {
        const STRUCTURED: &str = "application/cloudevents";
        let begin = content_type.trim_start().get(..STRUCTURED.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(STRUCTURED))
    }
}

/// A CloudEvent of version 1.0, whoever wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct CloudEvent {
    /// Its id; one event from one source has one. A UUID where this crate wrote it.
    pub id: String,
    /// Where it comes from, a URI reference.
    pub source: String,
    /// What kind of event it is.
    pub event_type: String,
    /// When it occurred, to the microsecond.
    pub time: Option<Timestamp>,
    /// What it is about, in the words of the source.
    pub subject: Option<String>,
    /// The media type of the data.
    pub content_type: Option<String>,
    /// The key whose messages are in order, extension `partitionkey`.
    pub key: Option<String>,
    /// All other attributes, by name: those of this crate are `correlationid` and `causationid`.
    pub extensions: BTreeMap<String, String>,
    /// The data.
    pub data: Bytes,
}

/// A message is not a CloudEvent that can be read. Hand it to who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCloudEvent {
    /// An attribute that every event has is missing or empty.
    #[error("the message is not a CloudEvent: it has no attribute {name}")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// It is of another version. Read it with another library, or ask its writer for version 1.0.
    #[error("the CloudEvent is of version {found:?}, and only version 1.0 is read")]
    Version {
        /// The version it says.
        found: String,
    },
    /// An attribute cannot be what it says: its escape is wrong, its time is none.
    #[error("attribute {name} of the CloudEvent cannot be {value:?}")]
    Attribute {
        /// Its name.
        name: String,
        /// The header's value.
        value: String,
    },
    /// The whole event is in the payload. Ask its writer for binary mode.
    #[error("the CloudEvent is in structured mode, and only binary mode is read")]
    Structured,
}

impl CloudEvent {
    /// The event that a stored message holds.
    ///
    /// # Errors
    /// [`InvalidCloudEvent`], as its variants say.
    pub fn read(message: &StoredMessage) -> Result<Self, InvalidCloudEvent> {
        Self::from_parts(&message.headers, message.payload.clone())
    }

    /// The event that headers and a payload hold, wherever they come from. The case of header names does not matter.
    ///
    /// # Errors
    /// [`InvalidCloudEvent`], as its variants say.
    pub fn from_parts(headers: &Headers, data: Bytes) -> Result<Self, InvalidCloudEvent> {
        let mut attributes = BTreeMap::new();
        for (name, value) in headers.iter() {
            let name = name.to_ascii_lowercase();
            if name == "content-type" && names::is_structured(value) {
                return Err(InvalidCloudEvent::Structured);
            }
            if let Some(name) = name.strip_prefix(names::PREFIX) {
                let decoded = percent::decode(value).ok_or_else(|| invalid(name, value))?;
                attributes.entry(name.to_owned()).or_insert(decoded);
            }
        }
        let mut take = |name: &str| attributes.remove(name);
        let found = required(names::SPEC_VERSION, &mut take)?;
        if found != names::VERSION {
            return Err(InvalidCloudEvent::Version { found });
        }
        Ok(Self {
            id: required(names::ID, &mut take)?,
            source: required(names::SOURCE, &mut take)?,
            event_type: required(names::TYPE, &mut take)?,
            time: take(names::TIME).map(parse_time).transpose()?,
            subject: take(names::SUBJECT),
            content_type: take(names::CONTENT_TYPE),
            key: take(names::KEY),
            extensions: attributes,
            data,
        })
    }

    /// The data as JSON.
    ///
    /// # Errors
    /// What serde says when the data is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.data)
    }
}

fn required(
    name: &'static str,
    take: &mut impl FnMut(&str) -> Option<String>,
) -> Result<String, InvalidCloudEvent> {
    take(name).filter(|value| !value.is_empty()).ok_or(InvalidCloudEvent::Missing { name })
}

fn parse_time(text: String) -> Result<Timestamp, InvalidCloudEvent> {
    let time = OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| invalid(names::TIME, &text))?;
    let micros = time.unix_timestamp_nanos() / 1000;
    u64::try_from(micros).map(Timestamp::from_micros).map_err(|_| invalid(names::TIME, &text))
}

fn invalid(name: &str, value: &str) -> InvalidCloudEvent {
    InvalidCloudEvent::Attribute { name: name.to_owned(), value: value.to_owned() }
}
