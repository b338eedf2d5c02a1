//! An event as it was stored, verified.

use std::sync::Arc;

use bytes::Bytes;
use cid::Cid;
use uuid::Uuid;

use super::today::Today;
use super::{IntegrityError, StoreError};
use crate::backend::{Position, StoredMessage};
use crate::clock::Timestamp;
use crate::event::{Envelope, Metadata, SchemaVersion, TOMBSTONE, names};
use crate::evolution::Evolution;
use crate::ipld::{self, BlockError, BlockFormat, Codec};
use crate::subject::{AggregateId, AggregateType, EventType, SubjectScheme};

/// One event of the store.
///
/// Its CID has been recomputed over the stored bytes, its block is in canonical form, and its headers and its subject
/// say the same as its block. Its place in the aggregate's chain is checked by whoever reads the aggregate's history.
///
/// What it says of itself is what is stored. Where the context has an [`Evolution`], [`data`](Self::data) and
/// [`events`](Self::events) give what the event is today.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    pub(super) envelope: Envelope<()>,
    pub(super) position: Position,
    recorded_at: Timestamp,
    cid: Option<Cid>,
    pub(super) codec: Option<Codec>,
    pub(super) block: Bytes,
    pub(super) today: Today,
}

/// What every event of a context is verified and read with.
#[derive(Debug, Clone)]
pub(crate) struct Verifier {
    pub(crate) scheme: SubjectScheme,
    pub(crate) format: BlockFormat,
    pub(crate) evolution: Option<Arc<Evolution>>,
}

impl Verifier {
    /// Verifies a stored message and reads it as an event of this context, as it is today.
    pub(crate) fn verify(&self, message: StoredMessage) -> Result<StoredEvent, StoreError> {
        let event = StoredEvent::verify(message, &self.scheme, self.format)?;
        Ok(StoredEvent { today: Today::of(&event.envelope, self.evolution.as_ref()), ..event })
    }
}

impl StoredEvent {
    /// Verifies a stored message and reads it as an event of this context, as it is stored.
    pub(crate) fn verify(
        message: StoredMessage,
        scheme: &SubjectScheme,
        format: BlockFormat,
    ) -> Result<Self, StoreError> {
        match Self::check(&message, scheme, format) {
            Ok((envelope, cid)) => Ok(Self {
                envelope,
                position: message.position,
                recorded_at: message.time,
                codec: cid.as_ref().and_then(Codec::of_cid),
                cid,
                block: message.payload,
                today: Today::Stored,
            }),
            Err(source) => Err(StoreError::Integrity {
                subject: message.subject.to_string(),
                position: message.position.get(),
                source,
            }),
        }
    }

    fn check(
        message: &StoredMessage,
        scheme: &SubjectScheme,
        format: BlockFormat,
    ) -> Result<(Envelope<()>, Option<Cid>), IntegrityError> {
        let cid = claimed_cid(message, format)?;
        let envelope = ipld::decode_event(&message.payload, cid.as_ref())?;
        message.headers.check(&envelope, cid.as_ref())?;
        let home = envelope.context == *scheme.context()
            && scheme.is_events_of(message.subject.as_str(), &envelope.aggregate, &envelope.id);
        if !home {
            return Err(IntegrityError::Foreign {
                found: format!("{}/{}/{}", envelope.context, envelope.aggregate, envelope.id),
            });
        }
        Ok((envelope, cid))
    }

    /// The event's own id.
    pub fn event_id(&self) -> Uuid {
        self.envelope.event_id
    }

    /// The kind of event.
    pub fn event_type(&self) -> &EventType {
        &self.envelope.event_type
    }

    /// The version of the event type's shape.
    pub fn schema_version(&self) -> SchemaVersion {
        self.envelope.schema_version
    }

    /// The kind of aggregate it belongs to.
    pub fn aggregate_type(&self) -> &AggregateType {
        &self.envelope.aggregate
    }

    /// The aggregate it belongs to.
    pub fn aggregate_id(&self) -> &AggregateId {
        &self.envelope.id
    }

    /// Its place in the aggregate's history, from 1.
    pub fn version(&self) -> u64 {
        self.envelope.version
    }

    /// Its place in the context's stream.
    pub fn position(&self) -> Position {
        self.position
    }

    /// When it happened, by the clock of the service that recorded it.
    pub fn occurred_at(&self) -> Timestamp {
        self.envelope.occurred_at
    }

    /// When the server stored it, by the server's clock.
    pub fn recorded_at(&self) -> Timestamp {
        self.recorded_at
    }

    /// What it belongs to.
    pub fn correlation_id(&self) -> Uuid {
        self.envelope.correlation_id
    }

    /// What caused it.
    pub fn causation_id(&self) -> Option<Uuid> {
        self.envelope.causation_id
    }

    /// What the service said about it.
    pub fn metadata(&self) -> &Metadata {
        &self.envelope.metadata
    }

    /// The tenant it belongs to, if one was named.
    pub fn tenant(&self) -> Option<&str> {
        self.envelope.metadata.tenant()
    }

    /// The CID of its block; `None` without IPLD.
    pub fn cid(&self) -> Option<&Cid> {
        self.cid.as_ref()
    }

    /// The CID of the aggregate's block before it.
    pub fn previous(&self) -> Option<&Cid> {
        self.envelope.previous.as_ref()
    }

    /// Its block, byte for byte as it is stored.
    pub fn block(&self) -> &Bytes {
        &self.block
    }

    /// Whether it marks its aggregate as deleted.
    pub fn is_tombstone(&self) -> bool {
        self.envelope.event_type.as_str() == TOMBSTONE
    }

    pub(crate) fn envelope(&self) -> &Envelope<()> {
        &self.envelope
    }
}

fn claimed_cid(message: &StoredMessage, format: BlockFormat) -> Result<Option<Cid>, BlockError> {
    match (message.headers.get(names::CID), format) {
        (Some(text), _) => Cid::try_from(text)
            .map(Some)
            .map_err(|e| BlockError::NotACid { text: text.to_owned(), reason: e.to_string() }),
        (None, BlockFormat::PlainJson) => Ok(None),
        (None, BlockFormat::Ipld(..)) => Err(BlockError::NoCid),
    }
}
