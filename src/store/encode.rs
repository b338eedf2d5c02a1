//! Events on their way into the store: from domain events to a commit.

use std::sync::Arc;

use cid::Cid;
use ipld_core::ipld::Ipld;
use serde::Serialize;
use uuid::Uuid;

use super::StoreError;
use crate::backend::{Guard, NewMessage, Position};
use crate::clock::{Clock, IdSource, Timestamp};
use crate::event::{DomainEvent, Envelope, Headers, Metadata, NonEmpty, SchemaVersion, TOMBSTONE};
use crate::ipld::{self, Block, BlockFormat, EncodeError, decode_any};
use crate::subject::{AggregateId, AggregateType, EventType, SubjectScheme};

/// Where an aggregate's history ends: what the next event is appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The version of the last event, 0 before the first.
    pub version: u64,
    /// Its position in the context's stream.
    pub position: Position,
    /// The CID of its block; `None` before the first and without IPLD.
    pub cid: Option<Cid>,
}

/// What one commit says about all its events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitInfo {
    /// Free text by name.
    pub metadata: Metadata,
    /// What the events belong to; by default the id of the commit's first event.
    pub correlation_id: Option<Uuid>,
    /// What caused them: the id of a command or an event.
    pub causation_id: Option<Uuid>,
}

/// An event to be appended whose type is known at run time only.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// The kind of event.
    pub event_type: EventType,
    /// The version of its shape.
    pub schema_version: SchemaVersion,
    /// The event itself.
    pub data: Ipld,
}

impl NewEvent {
    /// A domain event.
    ///
    /// # Errors
    /// [`StoreError::InvalidToken`] for an event type that is not a name, [`StoreError::Encode`] for an event that no block
    /// can hold.
    pub fn of<E: DomainEvent>(event: &E) -> Result<Self, StoreError> {
        let event_type = EventType::new(event.event_type())?;
        let failed = |reason| EncodeError { what: format!("event {event_type}"), reason };
        // By way of a block: it holds what the data model's own serializer refuses, an event without content for one.
        let block = Block::encode(BlockFormat::default(), event).map_err(failed)?;
        let data = decode_any(&block.bytes).map_err(failed)?;
        Ok(Self { event_type, schema_version: event.schema_version(), data })
    }
}

/// The messages of one aggregate's part of a commit, and what they make of its head.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) messages: NonEmpty<NewMessage>,
    /// The new head; its position is known only when the commit is stored.
    pub(crate) version: u64,
    pub(crate) cid: Option<Cid>,
    pub(crate) occurred_at: Timestamp,
    pub(crate) correlation_id: Option<Uuid>,
}

/// What every event of a context is encoded with.
#[derive(Debug, Clone)]
pub(crate) struct Encoder {
    pub(crate) scheme: SubjectScheme,
    pub(crate) format: BlockFormat,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
}

impl Encoder {
    /// Encodes events as the continuation of a history. The first message is guarded by the head's position.
    pub(crate) fn encode<'a, D: Serialize + 'a>(
        &self,
        aggregate: &AggregateType,
        id: &AggregateId,
        head: &Head,
        info: &CommitInfo,
        events: impl Iterator<Item = (EventType, SchemaVersion, &'a D)>,
    ) -> Result<Encoded, StoreError> {
        let occurred_at = self.clock.now();
        let subject = self.scheme.events_of(aggregate, id);
        let mut guard = Guard::Last(head.position);
        let mut messages = Vec::with_capacity(events.size_hint().0);
        // What all events of a commit have in common is written once.
        let mut last: Option<Envelope<&D>> = None;
        let (mut version, mut previous) = (head.version, head.cid);
        for (event_type, schema_version, data) in events {
            if event_type.as_str().starts_with("cim-") && event_type.as_str() != TOMBSTONE {
                return Err(StoreError::ReservedType { name: event_type.to_string() });
            }
            version = version.checked_add(1).ok_or_else(|| EncodeError {
                what: format!("an event after version {version} of {subject}"),
                reason: "no version is later, and no service gets there; see verify".to_owned(),
            })?;
            let event_id = self.ids.next_id();
            let envelope = match last.take() {
                None => Envelope {
                    format: Envelope::FORMAT,
                    context: self.scheme.context().clone(),
                    aggregate: aggregate.clone(),
                    id: id.clone(),
                    version,
                    event_type,
                    schema_version,
                    event_id,
                    occurred_at,
                    correlation_id: info.correlation_id.unwrap_or(event_id),
                    causation_id: info.causation_id,
                    metadata: info.metadata.clone(),
                    previous,
                    data,
                },
                Some(before) => Envelope {
                    version,
                    event_type,
                    schema_version,
                    event_id,
                    previous,
                    data,
                    ..before
                },
            };
            let envelope = last.insert(envelope);
            let block = ipld::encode_block(self.format, envelope)?;
            previous = block.cid;
            messages.push(NewMessage {
                subject: subject.clone(),
                headers: Headers::of_event(envelope, block.cid.as_ref()),
                payload: block.bytes,
                guard: std::mem::replace(&mut guard, Guard::Free),
            });
        }
        Ok(Encoded {
            messages: NonEmpty::from_vec(messages).ok_or(StoreError::Empty)?,
            version,
            cid: previous,
            occurred_at,
            correlation_id: last.map(|envelope| envelope.correlation_id),
        })
    }
}

/// Names the type of a domain event, refusing the reserved ones.
pub(crate) fn named<E: DomainEvent>(event: &E) -> Result<(EventType, SchemaVersion), StoreError> {
    let name = event.event_type();
    if name.starts_with("cim-") {
        return Err(StoreError::ReservedType { name: name.to_owned() });
    }
    Ok((EventType::new(name)?, event.schema_version()))
}

#[cfg(test)]
mod tests {
    use ipld_core::ipld::Ipld;
    use serde::{Deserialize, Serialize};

    use super::NewEvent;
    use crate::event::DomainEvent;
    use crate::store::StoreError;

    #[derive(Serialize, Deserialize)]
    struct Nothing;

    impl DomainEvent for Nothing {
        fn event_type(&self) -> &'static str {
            "nothing"
        }
    }

    #[derive(Serialize, Deserialize)]
    struct Weighed(f64);

    impl DomainEvent for Weighed {
        fn event_type(&self) -> &'static str {
            "weighed"
        }
    }

    #[test]
    fn whatever_a_block_can_hold_can_be_appended() {
        assert_eq!(NewEvent::of(&Nothing).unwrap().data, Ipld::Null);
        assert_eq!(NewEvent::of(&Weighed(0.5)).unwrap().data, Ipld::Float(0.5));
        match NewEvent::of(&Weighed(f64::NAN)) {
            Err(StoreError::Encode(error)) => {
                assert_eq!(error.what, "event weighed");
                assert_eq!(error.reason, "it is NaN, which is not a finite number");
            }
            other => panic!("{other:?}"),
        }
    }
}
