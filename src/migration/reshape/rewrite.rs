//! From a message of the old stream to those of the new one. No I/O.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use ipld_core::ipld::Ipld;
use uuid::Uuid;

use super::{EventCopy, EventEdit, ORIGIN, ORIGIN_HEADER, ORIGIN_POSITION, Transform};
use crate::backend::StoredMessage;
use crate::event::{Envelope, Headers, Metadata, TOMBSTONE, names};
use crate::ipld;
use crate::migration::MigrationError;
use crate::store::{Head, NewEvent, StoredEvent};
use crate::subject::Subject;

/// Where each subject of the new stream ends. What is no event has a position only.
pub(super) type Heads = HashMap<Subject, Head>;

/// A message of the new stream, before it has a position.
pub(super) struct Rewritten {
    pub(super) subject: Subject,
    pub(super) headers: Headers,
    pub(super) payload: Bytes,
}

impl Rewritten {
    /// The id by which a server knows a message again for a while.
    pub(super) fn id(&self) -> Option<String> {
        self.headers.get(names::MSG_ID).map(str::to_owned)
    }
}

impl EventCopy {
    /// What becomes of one message, chained to the heads, which move on.
    pub(super) fn rewrite(
        &self,
        message: StoredMessage,
        transform: &impl Transform,
        heads: &mut Heads,
    ) -> Result<Vec<Rewritten>, MigrationError> {
        if !message.subject.as_str().starts_with(self.from.scheme().event_prefix()) {
            return Ok(vec![as_it_is(message)]);
        }
        let subject = message.subject.clone();
        let event = self.verified(message)?;
        let refused = |reason: String| MigrationError::Refused {
            key: format!("event {} at position {}", event.event_type(), event.position()),
            reason,
        };
        let new = match transform(&event).map_err(|why| refused(why.to_string()))? {
            EventEdit::Drop => return Ok(Vec::new()),
            EventEdit::Keep => vec![NewEvent {
                event_type: event.event_type().clone(),
                schema_version: event.schema_version(),
                data: event.data::<Ipld>()?,
            }],
            EventEdit::Become(new) => new.into_vec(),
        };
        let head = heads.entry(subject.clone()).or_default();
        let mut rewritten = Vec::with_capacity(new.len());
        for (number, new) in new.iter().enumerate() {
            let name = new.event_type.as_str();
            if name.starts_with("cim-") && !(event.is_tombstone() && name == TOMBSTONE) {
                return Err(refused(format!("event type {name:?} is reserved")));
            }
            let envelope = envelope(&event, head, number, new);
            let encoded =
                ipld::encode_event(self.from.format(), envelope).map_err(|e| refused(e.reason))?;
            head.version += 1;
            head.cid = encoded.block.cid;
            let mut headers = Headers::of_event(&encoded.envelope, encoded.block.cid.as_ref());
            headers.push(ORIGIN_HEADER, event.position().to_string());
            let payload = encoded.block.bytes;
            rewritten.push(Rewritten { subject: subject.clone(), headers, payload });
        }
        Ok(rewritten)
    }
}

fn envelope<'e>(
    event: &StoredEvent,
    head: &Head,
    number: usize,
    new: &'e NewEvent,
) -> Envelope<&'e Ipld> {
    let old = event.envelope();
    let mut metadata: BTreeMap<String, String> =
        old.metadata.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if let Some(cid) = event.cid() {
        metadata.insert(ORIGIN.to_owned(), cid.to_string());
    }
    metadata.insert(ORIGIN_POSITION.to_owned(), event.position().to_string());
    Envelope {
        format: Envelope::FORMAT,
        context: old.context.clone(),
        aggregate: old.aggregate.clone(),
        id: old.id.clone(),
        version: head.version + 1,
        event_type: new.event_type.clone(),
        schema_version: new.schema_version,
        // The last bits of such an id are by chance, so the next numbers are nobody else's.
        event_id: Uuid::from_u128(old.event_id.as_u128().wrapping_add(number as u128)),
        occurred_at: old.occurred_at,
        correlation_id: old.correlation_id,
        causation_id: old.causation_id,
        metadata: Metadata::stored(metadata),
        previous: head.cid,
        data: &new.data,
    }
}

/// What is no event is copied byte for byte, without the headers by which it was sent.
fn as_it_is(message: StoredMessage) -> Rewritten {
    let mut headers = Headers::new();
    let sent = |name: &str| name.starts_with("Nats-") && name != names::MSG_ID;
    for (name, value) in message.headers.iter().filter(|(name, _)| !sent(name)) {
        if name != ORIGIN_HEADER {
            headers.push(name, value);
        }
    }
    headers.push(ORIGIN_HEADER, message.position.to_string());
    Rewritten { subject: message.subject, headers, payload: message.payload }
}
