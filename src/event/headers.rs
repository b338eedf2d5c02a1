//! Headers: what consumers filter on, repeated from the block so that any NATS client can read it.

use std::borrow::Cow;
use std::sync::Arc;

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
    /// The correlation id; absent from an event that belongs to nothing but itself.
    pub const CORRELATION_ID: &str = "Cim-Correlation-Id";
    /// The causation id.
    pub const CAUSATION_ID: &str = "Cim-Causation-Id";

    /// All of them.
    pub(crate) const ALL: [&str; 7] =
        [MSG_ID, EVENT_TYPE, SCHEMA_VERSION, VERSION, CID, CORRELATION_ID, CAUSATION_ID];
}

/// The headers of one message, in the order they were added. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(Arc<Vec<(Cow<'static, str>, String)>>);

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// No headers, with room for `count`.
    pub fn with_capacity(count: usize) -> Self {
        Self(Arc::new(Vec::with_capacity(count)))
    }

    /// Adds a header. Names are compared with their case.
    pub fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        Arc::make_mut(&mut self.0).push((name.into(), value.into()));
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
        let mut headers = Self::with_capacity(8);
        headers.push(names::MSG_ID, uuid_text(&envelope.event_id));
        headers.push(names::EVENT_TYPE, envelope.event_type.as_str());
        headers.push(names::SCHEMA_VERSION, envelope.schema_version.to_string());
        headers.push(names::VERSION, envelope.version.to_string());
        if let Some(cid) = cid {
            headers.push(names::CID, cid.to_string());
        }
        if let Some(id) = foreign_correlation(envelope) {
            headers.push(names::CORRELATION_ID, uuid_text(id));
        }
        if let Some(id) = &envelope.causation_id {
            headers.push(names::CAUSATION_ID, uuid_text(id));
        }
        for (name, value) in envelope.metadata.trace() {
            headers.push(name, value);
        }
        headers
    }

    /// Compares the headers of a stored event with its block. Its CID is not among what is compared: that is what the
    /// block has been checked against before.
    ///
    /// # Errors
    /// [`HeaderMismatch`] for the first header that says something else than the block, or is missing.
    pub fn check<D>(&self, envelope: &Envelope<D>) -> Result<(), HeaderMismatch> {
        let number = |text: &str| text.parse::<u64>().ok();
        let uuid = |text: &str| Uuid::try_parse(text).ok();
        let version = self.get(names::VERSION).and_then(number);
        let schema = self.get(names::SCHEMA_VERSION).and_then(number);
        let of = |name| self.get(name).and_then(uuid);
        let says_the_same = [
            (names::MSG_ID, of(names::MSG_ID) == Some(envelope.event_id)),
            (names::EVENT_TYPE, self.get(names::EVENT_TYPE) == Some(envelope.event_type.as_str())),
            (names::SCHEMA_VERSION, schema == Some(u64::from(envelope.schema_version))),
            (names::VERSION, version == Some(envelope.version)),
            (
                names::CORRELATION_ID,
                of(names::CORRELATION_ID).unwrap_or(envelope.event_id) == envelope.correlation_id,
            ),
            (names::CAUSATION_ID, of(names::CAUSATION_ID) == envelope.causation_id),
        ];
        match says_the_same.into_iter().find(|(_, same)| !same) {
            None => Ok(()),
            Some((name, _)) => Err(self.mismatch(name, envelope)),
        }
    }

    fn mismatch<D>(&self, name: &'static str, envelope: &Envelope<D>) -> HeaderMismatch {
        HeaderMismatch {
            name,
            header: self.get(name).map(str::to_owned),
            block: Self::of_event(envelope, None).get(name).map(str::to_owned),
        }
    }
}

impl FromIterator<(Cow<'static, str>, String)> for Headers {
    fn from_iter<I: IntoIterator<Item = (Cow<'static, str>, String)>>(headers: I) -> Self {
        Self(Arc::new(headers.into_iter().collect()))
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

/// The correlation id, where it is not that of the event itself.
fn foreign_correlation<D>(envelope: &Envelope<D>) -> Option<&Uuid> {
    Some(&envelope.correlation_id).filter(|id| **id != envelope.event_id)
}

fn uuid_text(id: &Uuid) -> String {
    id.hyphenated().to_string()
}
