//! Stored events without a store: what a test gives, encoded, chained and read back as a store would.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::{CountingIds, FixedClock};
use crate::backend::{Position, StoredMessage};
use crate::event::{DomainEvent, SchemaVersion, TOMBSTONE};
use crate::store::{
    CommitInfo, Encoder, Head, NatsRepositoryConfig, StoreError, StoredEvent, named,
};
use crate::subject::{AggregateId, AggregateType, EventType, SubjectScheme};

/// The events of a test, at positions from 1 on, all of the same time.
#[derive(Debug, Clone)]
pub(super) struct Histories {
    encoder: Encoder,
    heads: HashMap<(AggregateType, AggregateId), Head>,
    last: Position,
}

impl Histories {
    pub(super) fn new() -> Self {
        let config = NatsRepositoryConfig::for_context("test");
        let encoder = Encoder {
            scheme: config.scheme().expect("test is a name, and the prefixes are the default ones"),
            format: config.format(),
            clock: Arc::new(FixedClock::default()),
            ids: Arc::new(CountingIds::new()),
        };
        Self { encoder, heads: HashMap::new(), last: Position::START }
    }

    pub(super) fn scheme(&self) -> &SubjectScheme {
        &self.encoder.scheme
    }

    /// Puts domain events behind an aggregate's history, as its next commit would.
    pub(super) fn append<E: DomainEvent>(
        &mut self,
        aggregate: &AggregateType,
        id: &AggregateId,
        events: &[E],
    ) -> Result<Vec<(StoredMessage, StoredEvent)>, StoreError> {
        let mut types = Vec::with_capacity(events.len());
        for event in events {
            let (event_type, version) = named(event)?;
            types.push((event_type, version, event));
        }
        self.put(aggregate, id, types)
    }

    /// Puts a tombstone there.
    pub(super) fn bury(
        &mut self,
        aggregate: &AggregateType,
        id: &AggregateId,
    ) -> Result<Vec<(StoredMessage, StoredEvent)>, StoreError> {
        self.put(aggregate, id, vec![(EventType::new(TOMBSTONE)?, 1, &())])
    }

    fn put<D: Serialize>(
        &mut self,
        aggregate: &AggregateType,
        id: &AggregateId,
        events: Vec<(EventType, SchemaVersion, &D)>,
    ) -> Result<Vec<(StoredMessage, StoredEvent)>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let head = self.heads.entry((aggregate.clone(), id.clone())).or_default();
        let info = CommitInfo::default();
        let encoded = self.encoder.encode(aggregate, id, head, &info, events.into_iter())?;
        let mut stored = Vec::with_capacity(encoded.messages.len().get());
        for message in encoded.messages {
            self.last = Position::new(self.last.get() + 1);
            let message = StoredMessage {
                subject: message.subject,
                position: self.last,
                time: self.encoder.clock.now(),
                headers: message.headers,
                payload: message.payload,
            };
            let (scheme, format) = (&self.encoder.scheme, self.encoder.format);
            let event = StoredEvent::verify(message.clone(), scheme, format)?;
            *head = Head::of(&event);
            stored.push((message, event));
        }
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::ipld::ChainVerifier;

    #[derive(Serialize, Deserialize)]
    struct Counted(u32);

    impl DomainEvent for Counted {
        fn event_type(&self) -> &'static str {
            "counted"
        }
    }

    #[test]
    fn events_form_a_chain_for_each_aggregate_and_share_one_order() {
        let mut histories = Histories::new();
        let kind = AggregateType::new("counter").unwrap();
        let (one, two) = (AggregateId::new("1").unwrap(), AggregateId::new("2").unwrap());
        let mut events = histories.append(&kind, &one, &[Counted(1), Counted(2)]).unwrap();
        events.extend(histories.append(&kind, &two, &[Counted(3)]).unwrap());
        events.extend(histories.append::<Counted>(&kind, &two, &[]).unwrap());
        events.extend(histories.bury(&kind, &one).unwrap());

        let places: Vec<_> =
            events.iter().map(|(_, event)| (event.position().get(), event.version())).collect();
        assert_eq!(places, [(1, 1), (2, 2), (3, 1), (4, 3)]);
        let mut chain = ChainVerifier::new();
        for (_, event) in events.iter().filter(|(_, event)| *event.aggregate_id() == one) {
            chain.accept(event.envelope(), event.cid().copied()).unwrap();
        }
        assert!(events[3].1.is_tombstone());
    }
}
