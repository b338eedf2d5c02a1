//! One atomic batch out of a unit, and what becomes of it.
//!
//! In the batch: the events of each changed aggregate, guarded by the position it was loaded at; the claims, each guarded
//! by the position it was read at; the messages for others. What was only read is asserted by guards on messages that have
//! none of their own, and, where those are too few, on empty ones that carry nothing else.

use std::collections::VecDeque;

use tracing::Instrument;

use super::{HookFailure, UnitError, UnitOfWork};
use crate::backend::{Guard, NewMessage, Position};
use crate::event::{Headers, NonEmpty, names};
use crate::event_log::{Commit, CommitError, Stored};
use crate::repository::Part;
use crate::store::StoreError;
use crate::subject::Subject;

/// A unit that is stored.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The position of its last event, or of its last message where it has no events: what a query can wait for. `START`
    /// for a unit that had nothing to store.
    pub position: Position,
    /// How many messages were stored: events, claims, messages for others, guards.
    pub messages: usize,
    /// The hooks after the commit that did not do their work.
    pub failed_hooks: std::sync::Arc<Vec<HookFailure>>,
}

/// What is sent, and where the events of each part end in it.
struct Batch {
    messages: Vec<NewMessage>,
    ends: Vec<Option<usize>>,
    events: usize,
}

impl UnitOfWork {
    /// Stores everything or nothing, in one round trip when nobody contradicts.
    ///
    /// A unit that changes nothing stores nothing, whatever it read. Hooks run in their order. The commit goes on when this
    /// future is dropped: it is then stored whole or not at all, and its hooks run. Gathered with the commits of others as
    /// saves are.
    ///
    /// # Errors
    /// [`UnitError::Conflict`] and [`UnitError::Overtaken`] when others were first, [`UnitError::UniqueViolation`],
    /// [`UnitError::Hook`]; [`StoreError::TooMany`] and [`StoreError::TooLarge`] for a unit over the limits of a batch,
    /// before anything is sent. Nothing is stored then, except after [`StoreError::OutcomeUnknown`] and
    /// [`StoreError::Closed`], when it may be.
    pub async fn commit(mut self) -> Result<Committed, UnitError> {
        let span = tracing::debug_span!(
            "unit_of_work", context = %self.context.scheme().context(),
            aggregates = self.parts.len(), position = tracing::field::Empty
        );
        let finishing = async move { self.finish().await }.instrument(span);
        match tokio::spawn(finishing).await {
            Ok(result) => result,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_) => Err(StoreError::Closed.into()),
        }
    }

    async fn finish(&mut self) -> Result<Committed, UnitError> {
        let result = self.prepare_and_store().await;
        metrics::counter!("cim_units_total", "outcome" => outcome(&result)).increment(1);
        match result {
            Ok(mut committed) => {
                tracing::Span::current().record("position", committed.position.get());
                let failed = self.hooks.after_commit(&committed).await;
                committed.failed_hooks = failed.into();
                Ok(committed)
            }
            Err(
                error @ UnitError::Store(StoreError::OutcomeUnknown { .. } | StoreError::Closed),
            ) => {
                self.forget();
                self.hooks.let_go();
                Err(error)
            }
            Err(error) => {
                self.forget();
                self.roll_back().await;
                Err(error)
            }
        }
    }

    async fn prepare_and_store(&mut self) -> Result<Committed, UnitError> {
        let summary = self.summary();
        self.hooks.before_commit(&summary).await.map_err(UnitError::Hook)?;
        let Batch { messages, ends, events } = self.assemble()?;
        let count = messages.len();
        let Some(messages) = NonEmpty::from_vec(messages) else {
            let position = Position::START;
            return Ok(Committed { position, messages: 0, failed_hooks: Default::default() });
        };
        let commit = Commit::new(messages).map_err(|_| StoreError::Empty)?;
        let stored = match self.context.store(commit).await {
            Ok(stored) => stored,
            Err(CommitError::Conflict { subject, .. }) => return Err(self.explain(subject).await),
            Err(error) => return Err(StoreError::of_commit(error).into()),
        };
        self.settle(stored, ends);
        let last = if events > 0 { at(stored, events) } else { stored.last };
        Ok(Committed { position: last, messages: count, failed_hooks: Default::default() })
    }

    fn assemble(&mut self) -> Result<Batch, UnitError> {
        let mut messages = Vec::new();
        let mut ends = Vec::with_capacity(self.parts.len());
        let mut asserted = Vec::new();
        for part in &mut self.parts {
            let events = part.encode(&mut self.info)?;
            if events.is_empty() {
                asserted.push((part.subject().clone(), part.position()));
                ends.push(None);
            } else {
                messages.extend(events);
                ends.push(Some(messages.len()));
            }
        }
        let events = messages.len();
        let (claims, kept) = self.claims.encode(self.context.ids().as_ref());
        messages.extend(claims);
        asserted.extend(kept);
        let (free, marks): (Vec<_>, Vec<_>) =
            self.notes.drain(..).partition(|message| message.guard == Guard::Free);
        messages.extend(marks);
        if messages.is_empty() && free.is_empty() && self.outbox.is_empty() {
            return Ok(Batch { messages, ends, events });
        }
        if messages.is_empty() {
            messages.push(self.anchor());
        }
        messages.extend(free);
        for message in &self.outbox {
            messages.push(message.encode(&self.context, &self.info)?);
        }
        self.guard(&mut messages, events, asserted);
        Ok(Batch { messages, ends, events })
    }

    /// Puts the guards of what was only read onto messages that have none.
    fn guard(
        &self,
        messages: &mut Vec<NewMessage>,
        events: usize,
        asserted: Vec<(Subject, Position)>,
    ) {
        let mut asserted: VecDeque<_> = asserted.into();
        // The later events of an aggregate stand under the guard of its first one.
        let free = messages[events..].iter_mut().filter(|message| message.guard == Guard::Free);
        for message in free {
            let Some((subject, position)) = asserted.pop_front() else { return };
            message.guard = Guard::LastOf(subject, position);
        }
        for (subject, position) in asserted {
            let mut headers = Headers::with_capacity(1);
            headers.push("Cim-Asserts", subject.as_str());
            messages.push(NewMessage {
                subject: self.context.scheme().asserted(),
                headers,
                payload: Default::default(),
                guard: Guard::LastOf(subject, position),
            });
        }
    }

    /// Nothing else of the commit admits it at most once, so a subject of its own does.
    fn anchor(&self) -> NewMessage {
        let id = self.context.ids().next_id();
        let mut headers = Headers::with_capacity(1);
        headers.push(names::MSG_ID, id.to_string());
        NewMessage {
            subject: self.context.scheme().anchor(id),
            headers,
            payload: Default::default(),
            guard: Guard::Last(Position::START),
        }
    }

    fn settle(&mut self, stored: Stored, ends: Vec<Option<usize>>) {
        for (part, end) in self.parts.drain(..).zip(ends) {
            if let Some(end) = end {
                part.stored(at(stored, end));
            }
        }
    }

    /// What a broken guard means.
    async fn explain(&mut self, subject: Subject) -> UnitError {
        let part = self.parts.iter().find(|part| *part.subject() == subject);
        // Only the future is kept: it shares nothing with the part.
        if let Some(explained) = part.map(|part| explain_part(part.as_ref())) {
            return explained.await;
        }
        let (claims, context) = (&self.claims, &self.context);
        match claims.explain(context, &subject).await {
            Some(error) => error,
            None => UnitError::Overtaken { subject: subject.to_string() },
        }
    }

    fn forget(&self) {
        for part in &self.parts {
            part.forget();
        }
    }
}

fn explain_part(part: &dyn Part) -> impl Future<Output = UnitError> + use<> {
    let (aggregate_type, id) = part.name();
    let (aggregate_type, id) = (aggregate_type.to_string(), id.to_string());
    let versions = part.versions();
    async move {
        match versions.await {
            Ok((expected, actual)) => UnitError::Conflict { aggregate_type, id, expected, actual },
            Err(error) => error.into(),
        }
    }
}

/// The position of the message with this number, from 1.
fn at(stored: Stored, number: usize) -> Position {
    Position::new(stored.first.get() + number as u64 - 1)
}

fn outcome(result: &Result<Committed, UnitError>) -> &'static str {
    match result {
        Ok(_) => "stored",
        Err(UnitError::Conflict { .. } | UnitError::Overtaken { .. }) => "conflict",
        Err(UnitError::UniqueViolation { .. }) => "unique",
        Err(UnitError::Store(StoreError::OutcomeUnknown { .. } | StoreError::Closed)) => "unknown",
        Err(_) => "refused",
    }
}
