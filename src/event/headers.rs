//! Headers: what consumers filter on, repeated from the block so that any NATS client can read it.

use std::borrow::Cow;

use cid::Cid;
use uuid::Uuid;

use super::Envelope;

/// The names of the headers.
pub mod names {
    /// The event id; also what the server deduplicates by.
    pub const MSG_ID: &str = "Nats-Msg-Id";
    /// The event type.
    pub const EVENT_TYPE: &str = "Cim-Event-Type";
    /// The version of the event type's shape.
    pub const SCHEMA_VERSION: &str = "Cim-Schema-Version";
    /// The event's version in its aggregate.
    pub const VERSION: &str = "Cim-Version";
    /// The block's CID.
    pub const CID: &str = "Cim-Cid";
    /// The CID of the aggregate's block before.
    pub const PREVIOUS: &str = "Cim-Previous";
    /// The correlation id.
    pub const CORRELATION_ID: &str = "Cim-Correlation-Id";
    /// The causation id.
    pub const CAUSATION_ID: &str = "Cim-Causation-Id";

    /// All of them.
    pub(crate) const ALL: [&str; 8] =
        [MSG_ID, EVENT_TYPE, SCHEMA_VERSION, VERSION, CID, PREVIOUS, CORRELATION_ID, CAUSATION_ID];
}

/// The headers of one message, in the order they were added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(Vec<(Cow<'static, str>, String)>);

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// No headers, with room for `count`.
    pub fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// Adds a header. Names are compared with their case.
    pub fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// All headers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    pub(crate) fn entries(&self) -> &[(Cow<'static, str>, String)] {
        &self.0
    }

    /// The headers of an event: what its envelope and its CID say.
    pub fn of_event<D>(envelope: &Envelope<D>, cid: Option<&Cid>) -> Self {
        let mut headers = Self::with_capacity(12);
        for (name, value) in fields(envelope, cid) {
            if let Some(value) = value {
                headers.push(name, value);
            }
        }
        for (name, value) in envelope.metadata.trace() {
            headers.push(name, value);
        }
        headers
    }

    /// Compares the headers of a stored event with its block.
    ///
    /// # Errors
    /// [`HeaderMismatch`] for the first header that says something else than the block, or is missing.
    pub fn check<D>(
        &self,
        envelope: &Envelope<D>,
        cid: Option<&Cid>,
    ) -> Result<(), HeaderMismatch> {
        for (name, block) in fields(envelope, cid) {
            let header = self.get(name);
            if header != block.as_deref() {
                return Err(HeaderMismatch { name, header: header.map(str::to_owned), block });
            }
        }
        Ok(())
    }
}

impl FromIterator<(Cow<'static, str>, String)> for Headers {
    fn from_iter<I: IntoIterator<Item = (Cow<'static, str>, String)>>(headers: I) -> Self {
        Self(headers.into_iter().collect())
    }
}

/// A header says something else than the block it stands beside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header {name} is {header:?} but the block says {block:?}")]
pub struct HeaderMismatch {
    /// The header's name.
    pub name: &'static str,
    /// What the header says; `None` when it is missing.
    pub header: Option<String>,
    /// What the block says; `None` when the header should be missing.
    pub block: Option<String>,
}

fn fields<D>(envelope: &Envelope<D>, cid: Option<&Cid>) -> [(&'static str, Option<String>); 8] {
    [
        (names::MSG_ID, Some(uuid_text(&envelope.event_id))),
        (names::EVENT_TYPE, Some(envelope.event_type.as_str().to_owned())),
        (names::SCHEMA_VERSION, Some(envelope.schema_version.to_string())),
        (names::VERSION, Some(envelope.version.to_string())),
        (names::CID, cid.map(Cid::to_string)),
        (names::PREVIOUS, envelope.previous.as_ref().map(Cid::to_string)),
        (names::CORRELATION_ID, Some(uuid_text(&envelope.correlation_id))),
        (names::CAUSATION_ID, envelope.causation_id.as_ref().map(uuid_text)),
    ]
}

fn uuid_text(id: &Uuid) -> String {
    id.hyphenated().to_string()
}
