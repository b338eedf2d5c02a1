//! Appending events to aggregates by what is expected of them, without loading their state.

use std::collections::HashSet;

use futures::future::try_join_all;

use super::event_store::{Appended, ExpectedVersion};
use super::{CommitInfo, Context, Head, NewEvent, StoreError};
use crate::backend::{Position, ReadFrom};
use crate::event::{NonEmpty, TOMBSTONE};
use crate::subject::{AggregateId, AggregateType};

/// Why a try to append stored nothing.
enum Refusal {
    /// Another writer was first at an aggregate of which no version in particular is expected: another try may succeed.
    Overtaken(StoreError),
    Final(StoreError),
}

impl Refusal {
    fn of(conflict: StoreError, overtaken: bool) -> Self {
        if overtaken { Self::Overtaken(conflict) } else { Self::Final(conflict) }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Final(error)
    }
}

/// How often an append that expects nothing in particular is repeated after a conflict.
const ANY_ATTEMPTS: usize = 16;

impl Context {
    /// Appends events to one aggregate. One round trip, and one before it to read the head unless nothing is
    /// expected to be there.
    ///
    /// Dropping the future gives up the answer, not the commit: whatever was sent of it is stored whole or not at all.
    /// A further try that [`ExpectedVersion::Any`] would have needed is not made.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the aggregate has another version than expected; any other [`StoreError`].
    pub async fn append(
        &self,
        aggregate: &AggregateType,
        id: &AggregateId,
        expected: ExpectedVersion,
        events: &NonEmpty<NewEvent>,
        info: &CommitInfo,
    ) -> Result<Appended, StoreError> {
        let part = (aggregate.clone(), id.clone(), expected, events.clone());
        let mut appended = self.append_batch(&NonEmpty::one(part), info).await?;
        Ok(appended.swap_remove(0))
    }

    /// Appends events to several aggregates, all or none. Each aggregate at most once.
    ///
    /// Round trips, and dropping the future, as for [`append`](Self::append), whatever the number of aggregates.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when one of them has another version than expected; [`StoreError::Repeated`] when one
    /// is named twice; any other [`StoreError`]. Nothing is stored then, unless it is [`StoreError::OutcomeUnknown`] or
    /// [`StoreError::Closed`].
    pub async fn append_batch(
        &self,
        parts: &NonEmpty<(AggregateType, AggregateId, ExpectedVersion, NonEmpty<NewEvent>)>,
        info: &CommitInfo,
    ) -> Result<Vec<Appended>, StoreError> {
        let mut named = HashSet::new();
        if let Some((aggregate, id, ..)) =
            parts.iter().find(|part| !named.insert((&part.0, &part.1)))
        {
            let (aggregate_type, id) = (aggregate.to_string(), id.to_string());
            return Err(StoreError::Repeated { aggregate_type, id });
        }
        let mut events = parts.iter().flat_map(|(.., events)| events);
        // Only who deletes an aggregate writes its tombstone.
        if let Some(event) = events.find(|event| event.event_type.as_str() == TOMBSTONE) {
            return Err(StoreError::ReservedType { name: event.event_type.to_string() });
        }
        let mut from = ReadFrom::Nearest;
        let mut attempts = ANY_ATTEMPTS;
        loop {
            match self.try_append(parts, info, from).await {
                Ok(appended) => return Ok(appended),
                Err(Refusal::Overtaken(_)) if attempts > 0 => from = ReadFrom::Leader,
                Err(Refusal::Overtaken(error) | Refusal::Final(error)) => return Err(error),
            }
            attempts -= 1;
        }
    }

    async fn try_append(
        &self,
        parts: &NonEmpty<(AggregateType, AggregateId, ExpectedVersion, NonEmpty<NewEvent>)>,
        info: &CommitInfo,
        from: ReadFrom,
    ) -> Result<Vec<Appended>, Refusal> {
        let heads = try_join_all(parts.iter().map(|(aggregate, id, expected, _)| {
            self.expected_head(aggregate, id, *expected, from)
        }))
        .await?;
        let mut encoded = Vec::with_capacity(heads.len());
        let mut info = info.clone();
        for ((aggregate, id, _, events), head) in parts.iter().zip(&heads) {
            let events = events.iter().map(|e| (e.event_type.clone(), e.schema_version, &e.data));
            let part = self.encode(aggregate, id, head, &info, events)?;
            // What the first part begins, the others belong to.
            info.correlation_id = part.correlation_id;
            encoded.push(part);
        }
        let lengths: Vec<u64> = encoded.iter().map(|e| e.messages.len().get() as u64).collect();
        let ends: Vec<_> = encoded.iter().map(|e| (e.version, e.cid)).collect();
        let messages = encoded.into_iter().flat_map(|e| e.messages).collect();
        let stored = match self.commit(messages).await {
            Ok(stored) => stored,
            Err(StoreError::Conflict { .. }) => {
                return Err(self.explain_conflict(parts, &heads).await);
            }
            Err(error) => return Err(error.into()),
        };
        let mut next = stored.first.get();
        let appended = ends.into_iter().zip(lengths).map(|((version, cid), length)| {
            next += length;
            Appended { head: Head { version, position: Position::new(next - 1), cid } }
        });
        Ok(appended.collect())
    }

    async fn expected_head(
        &self,
        aggregate: &AggregateType,
        id: &AggregateId,
        expected: ExpectedVersion,
        from: ReadFrom,
    ) -> Result<Head, StoreError> {
        let version = match expected {
            ExpectedVersion::NoStream | ExpectedVersion::Exact(0) => return Ok(Head::default()),
            ExpectedVersion::Any => return self.head(aggregate, id, from).await,
            ExpectedVersion::Exact(version) => version,
        };
        let mut head = self.head(aggregate, id, from).await?;
        if head.version < version && from == ReadFrom::Nearest {
            // The replica that answered may be behind.
            head = self.head(aggregate, id, ReadFrom::Leader).await?;
        }
        match head.version == version {
            true => Ok(head),
            false => Err(StoreError::Conflict { expected: version, actual: head.version }),
        }
    }

    async fn explain_conflict(
        &self,
        parts: &NonEmpty<(AggregateType, AggregateId, ExpectedVersion, NonEmpty<NewEvent>)>,
        heads: &[Head],
    ) -> Refusal {
        let mut first = None;
        for ((aggregate, id, expected, _), head) in parts.iter().zip(heads) {
            let read = match parts.len().get() {
                1 => self.overtaken(aggregate, id, head.version).await,
                _ => self.head(aggregate, id, ReadFrom::Leader).await.map(|head| head.version),
            };
            let actual = match read {
                Ok(actual) => actual,
                Err(error) => return error.into(),
            };
            if actual != head.version {
                let conflict = StoreError::Conflict { expected: head.version, actual };
                return Refusal::of(conflict, expected.is_any());
            }
            first.get_or_insert(actual);
        }
        let version = first.unwrap_or(0);
        let conflict = StoreError::Conflict { expected: version, actual: version };
        Refusal::of(conflict, parts.iter().any(|part| part.2.is_any()))
    }
}
