//! The envelope: everything that is stored with an event, except where and when the server stored it.

use cid::Cid;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Metadata, SchemaVersion};
use crate::clock::Timestamp;
use crate::subject::{AggregateId, AggregateType, ContextName, EventType};

/// One event with all that is known of it when it is written.
///
/// The field names and their meaning are the wire format; see `ARCHITECTURE.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope<D> {
    /// The number of the wire format: 1.
    pub format: u32,
    /// The context the aggregate belongs to.
    pub context: ContextName,
    /// The kind of aggregate.
    pub aggregate: AggregateType,
    /// The aggregate's id, in its escaped form.
    pub id: AggregateId,
    /// The event's place in the aggregate's history, counted from 1.
    pub version: u64,
    /// The kind of event.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// The version of the event type's shape.
    #[serde(rename = "schema")]
    pub schema_version: SchemaVersion,
    /// The event's own id, a UUID of version 7.
    #[serde(with = "uuid::serde::hyphenated")]
    pub event_id: Uuid,
    /// When it happened, by the clock of the service that recorded it, in microseconds since 1970.
    pub occurred_at: Timestamp,
    /// What it belongs to: the id shared by everything that one request set in motion.
    #[serde(with = "uuid::serde::hyphenated")]
    pub correlation_id: Uuid,
    /// What caused it: the id of the command or event, if there was one.
    #[serde(with = "uuid::serde::hyphenated::option")]
    pub causation_id: Option<Uuid>,
    /// What the service says about it.
    pub metadata: Metadata,
    /// The CID of the aggregate's event before this one; `None` for the first, and without IPLD.
    pub previous: Option<Cid>,
    /// The event itself.
    pub data: D,
}

impl Envelope<()> {
    /// The number of the wire format this version writes, and the only one it reads.
    pub const FORMAT: u32 = 1;
}
