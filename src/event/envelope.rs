//! The envelope: everything that is stored with an event, except where and when the server stored it.

use cid::Cid;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use super::{Metadata, SchemaVersion};
use crate::clock::Timestamp;
use crate::subject::{AggregateId, AggregateType, ContextName, EventType};

/// One event with all that is known of it when it is written.
///
/// The field names and their meaning are the wire format. Every field is always written, `None` as null; ids are UUIDs in
/// lower case with hyphens; `previous` is a link.
///
/// ```
/// use cim_persistence::clock::Timestamp;
/// use cim_persistence::event::{Envelope, Metadata};
/// use cim_persistence::ipld::{BlockFormat, decode_event, encode_event};
/// use cim_persistence::subject::{AggregateId, AggregateType, ContextName, EventType};
/// use uuid::Uuid;
///
/// let envelope = Envelope {
///     format: Envelope::FORMAT,
///     context: ContextName::new("sales")?,
///     aggregate: AggregateType::new("order")?,
///     id: AggregateId::new("42")?,
///     version: 1,
///     event_type: EventType::new("placed")?,
///     schema_version: 1,
///     event_id: Uuid::now_v7(),
///     occurred_at: Timestamp::now(),
///     correlation_id: Uuid::now_v7(),
///     causation_id: None,
///     metadata: Metadata::new([("user", "kim")])?,
///     previous: None,
///     data: &"two chairs",
/// };
/// let encoded = encode_event(BlockFormat::default(), envelope)?;
/// let read = decode_event(&encoded.block.bytes, encoded.block.cid.as_ref())?;
/// assert_eq!(read, encoded.envelope);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    #[serde(with = "uuid_text")]
    pub event_id: Uuid,
    /// When it happened, by the clock of the service that recorded it, in microseconds since 1970.
    pub occurred_at: Timestamp,
    /// What it belongs to: the id shared by everything that one request set in motion.
    #[serde(with = "uuid_text")]
    pub correlation_id: Uuid,
    /// What caused it: the id of the command or event, if there was one.
    #[serde(with = "uuid_text::option")]
    pub causation_id: Option<Uuid>,
    /// What the service says about it.
    #[serde(deserialize_with = "Metadata::deserialize_stored")]
    pub metadata: Metadata,
    /// The CID of the aggregate's event before this one; `None` for the first, and without IPLD.
    #[serde(deserialize_with = "present")]
    pub previous: Option<Cid>,
    /// The event itself.
    pub data: D,
}

impl Envelope<()> {
    /// The number of the wire format this version writes, and the only one it reads.
    pub const FORMAT: u32 = 1;
}

/// Reads a UUID written in lower case with hyphens, the one form that blocks and headers have.
pub(crate) fn parse_uuid(text: &str) -> Option<Uuid> {
    let lower = text.len() == uuid::fmt::Hyphenated::LENGTH
        && !text.bytes().any(|byte| byte.is_ascii_uppercase());
    if lower { Uuid::try_parse(text).ok() } else { None }
}

/// Reads a field that may be null but not missing, where serde would take a missing one for null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cid>, D::Error> {
    Option::deserialize(deserializer)
}

/// UUIDs as text, also in formats that would rather have their bytes.
mod uuid_text {
    use std::borrow::Cow;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer};
    use uuid::Uuid;

    pub(super) use uuid::serde::hyphenated::serialize;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
        parse(&Cow::<str>::deserialize(from)?)
    }

    fn parse<E: Error>(text: &str) -> Result<Uuid, E> {
        super::parse_uuid(text)
            .ok_or_else(|| E::custom(format_args!("{text:?} is not a UUID in lower case")))
    }

    pub(super) mod option {
        use super::{Cow, Deserialize, Deserializer, Uuid};

        pub(in super::super) use uuid::serde::hyphenated::option::serialize;

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Uuid>, D::Error> {
            let text = Option::<Cow<'_, str>>::deserialize(from)?;
            text.map(|text| super::parse(&text)).transpose()
        }
    }
}
