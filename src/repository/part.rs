//! An aggregate as a part of a commit that holds more than it.
//!
//! What the whole commit is, and when it is sent, is the business of `unit_of_work`.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;

use super::load::Rules;
use super::loaded::Loaded;
use super::{Aggregate, Freshness, Repository, RepositoryError};
use crate::backend::{Guard, NewMessage, Position};
use crate::event::TOMBSTONE;
use crate::store::{CommitInfo, Head, named};
use crate::subject::{AggregateId, AggregateType, EventType, Identity, Subject};

/// An aggregate in a commit, of whatever type.
pub(crate) trait Part: Any + Send {
    /// The subject its events are on.
    fn subject(&self) -> &Subject;

    /// Its type and id.
    fn name(&self) -> (&AggregateType, &AggregateId);

    /// The position of the last event it was loaded with.
    fn position(&self) -> Position;

    /// How many events were recorded, the tombstone of a deletion among them.
    fn recorded(&self) -> usize;

    /// The messages of what was recorded, the first one guarded. Notes in `info` what they belong to.
    fn encode(&mut self, info: &mut CommitInfo) -> Result<Vec<NewMessage>, RepositoryError>;

    /// What was encoded is stored, its last message at this position.
    fn stored(self: Box<Self>, last: Position);

    /// What was loaded may be out of date.
    fn forget(&self);

    /// The version it was loaded with, and the one it has now, through the leader.
    fn versions(&self) -> BoxFuture<'static, Result<(u64, u64), RepositoryError>>;
}

/// An aggregate that was loaded to take part in a commit.
pub(crate) struct Tracked<A: Aggregate> {
    repository: Repository<A>,
    subject: Subject,
    key: AggregateId,
    base: Arc<Loaded<A>>,
    /// The state with what was recorded; `None` as long as nothing was.
    now: Option<Loaded<A>>,
    events: Vec<A::Event>,
}

impl<A: Aggregate + Send + Sync + 'static> Repository<A> {
    /// Loads an aggregate to take part in a commit; a new one when it has no events.
    pub(crate) async fn track(
        &self,
        id: &A::Id,
        freshness: Freshness,
    ) -> Result<Tracked<A>, RepositoryError> {
        let key = id.to_aggregate_id()?;
        let base = self.current(id, &key, Rules::of(freshness)).await?;
        if base.deleted {
            return Err(self.not_found(&key, &base));
        }
        let subject = self.context.scheme().events_of(&self.aggregate, &key);
        Ok(Tracked { repository: self.clone(), subject, key, base, now: None, events: Vec::new() })
    }
}

impl<A: Aggregate + Send + Sync + 'static> Tracked<A> {
    pub(crate) fn loaded_version(&self) -> u64 {
        self.base.head.version
    }

    /// The state, with what was recorded.
    pub(crate) fn state(&self) -> &A {
        &self.now.as_ref().unwrap_or(&self.base).state
    }

    /// Records events that are to be committed.
    pub(crate) fn record(&mut self, events: Vec<A::Event>) -> Result<(), RepositoryError> {
        if events.is_empty() {
            return Ok(());
        }
        for event in &events {
            named(event)?;
        }
        let mut next = self.next()?;
        next.apply_new(&self.repository.aggregate, &self.key, &events)?;
        self.now = Some(next);
        self.events.extend(events);
        Ok(())
    }

    /// Records that it is deleted.
    pub(crate) fn delete(&mut self) -> Result<(), RepositoryError> {
        if !self.base.exists() && self.events.is_empty() {
            return Err(self.repository.not_found(&self.key, &self.base));
        }
        let mut next = self.next()?;
        next.bury()?;
        self.now = Some(next);
        Ok(())
    }

    /// What is to change: a copy, so that what is refused leaves nothing behind.
    fn next(&self) -> Result<Loaded<A>, RepositoryError> {
        let now = self.now.as_ref().unwrap_or(&self.base);
        match self.is_deleted() {
            true => Err(self.repository.not_found_id(&self.key, None)),
            false => Ok(now.clone()),
        }
    }

    fn is_deleted(&self) -> bool {
        self.now.as_ref().is_some_and(|now| now.deleted)
    }
}

impl<A: Aggregate + Send + Sync + 'static> Part for Tracked<A>
where
    A::Event: Send,
{
    fn subject(&self) -> &Subject {
        &self.subject
    }

    fn name(&self) -> (&AggregateType, &AggregateId) {
        (&self.repository.aggregate, &self.key)
    }

    fn position(&self) -> Position {
        self.base.head.position
    }

    fn recorded(&self) -> usize {
        self.events.len() + usize::from(self.is_deleted())
    }

    fn encode(&mut self, info: &mut CommitInfo) -> Result<Vec<NewMessage>, RepositoryError> {
        let deleted = self.is_deleted();
        let Some(now) = &mut self.now else { return Ok(Vec::new()) };
        let (context, aggregate, key) =
            (&self.repository.context, &self.repository.aggregate, &self.key);
        let mut head = self.base.head;
        let mut messages = Vec::with_capacity(self.events.len() + 1);
        if !self.events.is_empty() {
            let mut typed = Vec::with_capacity(self.events.len());
            for event in &self.events {
                let (event_type, schema_version) = named(event)?;
                typed.push((event_type, schema_version, event));
            }
            let encoded = context.encode(aggregate, key, &head, info, typed.into_iter())?;
            info.correlation_id = encoded.correlation_id;
            head = Head { version: encoded.version, cid: encoded.cid, ..head };
            now.note(head, encoded.occurred_at, &info.metadata);
            messages.extend(encoded.messages);
        }
        if deleted {
            let tombstone = [(EventType::new(TOMBSTONE)?, 1, &())];
            let encoded = context.encode(aggregate, key, &head, info, tombstone.into_iter())?;
            info.correlation_id = encoded.correlation_id;
            head = Head { version: encoded.version, cid: encoded.cid, ..head };
            now.note(head, encoded.occurred_at, &info.metadata);
            let mut last = encoded.messages.into_vec();
            // The guard of the aggregate is that of its first message.
            if !messages.is_empty() {
                last[0].guard = Guard::Free;
            }
            messages.extend(last);
        }
        Ok(messages)
    }

    fn stored(self: Box<Self>, last: Position) {
        let Some(mut now) = self.now else { return };
        now.head.position = last;
        let (before, now) = (self.base.head.version, Arc::new(now));
        self.repository.remember(&self.key, &now, Instant::now());
        self.repository.keep(&self.key, &now);
        self.repository.snapshot_if_due(&self.key, before, &now);
    }

    fn forget(&self) {
        self.repository.forget(&self.key);
    }

    fn versions(&self) -> BoxFuture<'static, Result<(u64, u64), RepositoryError>> {
        let expected = self.base.head.version;
        let (context, aggregate) =
            (self.repository.context.clone(), self.repository.aggregate.clone());
        let key = self.key.clone();
        Box::pin(async move {
            let actual = context.overtaken(&aggregate, &key, expected).await;
            Ok((expected, actual?))
        })
    }
}
