//! A log in which another writer is first exactly where a test wants it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::backend::{
    BackendError, Bound, Count, Followed, Matching, NewMessage, Position, ReadFrom, StoredMessage,
    TailQuery,
};
use crate::event::NonEmpty;
use crate::event_log::{EventLog, LogLimits, LogQuery, LogStatus};
use crate::store::{CommitInfo, Context, ExpectedVersion, NewEvent};
use crate::subject::{AggregateId, AggregateType, Pattern, Subject};

/// What another writer will append, in the order it was planned.
pub(super) type Plans = Arc<Mutex<VecDeque<Plan>>>;

/// One commit of another writer.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) aggregate: AggregateType,
    pub(super) id: AggregateId,
    pub(super) events: NonEmpty<NewEvent>,
}

pub(super) fn locked(plans: &Plans) -> MutexGuard<'_, VecDeque<Plan>> {
    // Nothing panics while it is held.
    plans.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A log whose writes let the other writer go first. Reads are those of the log within.
#[derive(Debug)]
pub(super) struct OvertakenLog {
    /// The other writer; its log is the one within.
    other: Context,
    plans: Plans,
}

impl OvertakenLog {
    pub(super) fn new(other: Context, plans: Plans) -> Self {
        Self { other, plans }
    }

    /// Before a write to an aggregate, the first commit that is planned for it.
    async fn let_others_first(&self, messages: &[NewMessage]) -> Result<(), BackendError> {
        let mut met: Vec<&Subject> = Vec::new();
        for NewMessage { subject, .. } in messages {
            if met.contains(&subject) {
                continue;
            }
            met.push(subject);
            if let Some(plan) = self.next_for(subject) {
                let Plan { aggregate, id, events } = &plan;
                let (any, info) = (ExpectedVersion::Any, CommitInfo::default());
                let appended = self.other.append(aggregate, id, any, events, &info).await;
                appended.map_err(|error| BackendError::Invalid {
                    detail: format!("the commit planned for {aggregate} {id} was refused: {error}"),
                })?;
            }
        }
        Ok(())
    }

    fn next_for(&self, subject: &Subject) -> Option<Plan> {
        let scheme = self.other.scheme();
        let mut plans = locked(&self.plans);
        let meant = |plan: &Plan| scheme.events_of(&plan.aggregate, &plan.id) == *subject;
        let at = plans.iter().position(meant)?;
        plans.remove(at)
    }

    fn within(&self) -> &dyn EventLog {
        self.other.log().as_ref()
    }
}

impl EventLog for OvertakenLog {
    fn limits(&self) -> LogLimits {
        self.within().limits()
    }

    fn publish(&self, message: NewMessage) -> BoxFuture<'_, Result<Position, BackendError>> {
        Box::pin(async move {
            self.let_others_first(std::slice::from_ref(&message)).await?;
            self.within().publish(message).await
        })
    }

    fn publish_batch(
        &self,
        messages: NonEmpty<NewMessage>,
    ) -> BoxFuture<'_, Result<Position, BackendError>> {
        Box::pin(async move {
            self.let_others_first(messages.as_slice()).await?;
            self.within().publish_batch(messages).await
        })
    }

    fn last<'a>(
        &'a self,
        subject: &'a Subject,
        from: ReadFrom,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>> {
        self.within().last(subject, from)
    }

    fn first_after<'a>(
        &'a self,
        subject: &'a Subject,
        after: Position,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>> {
        self.within().first_after(subject, after)
    }

    fn first_matching<'a>(
        &'a self,
        pattern: &'a Pattern,
        after: Position,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>> {
        self.within().first_matching(pattern, after)
    }

    fn lasts<'a>(
        &'a self,
        subjects: &'a [Subject],
    ) -> BoxFuture<'a, Result<Vec<StoredMessage>, BackendError>> {
        self.within().lasts(subjects)
    }

    fn read(&self, query: LogQuery) -> BoxStream<'static, Result<StoredMessage, BackendError>> {
        self.within().read(query)
    }

    fn matching<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
        bound: Bound,
    ) -> BoxFuture<'a, Result<Matching<StoredMessage>, BackendError>> {
        self.within().matching(patterns, bound)
    }

    fn count<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
    ) -> BoxFuture<'a, Result<Count, BackendError>> {
        self.within().count(patterns)
    }

    fn follow(&self, query: TailQuery) -> BoxStream<'static, Result<Followed, BackendError>> {
        self.within().follow(query)
    }

    fn status(&self) -> BoxFuture<'_, Result<LogStatus, BackendError>> {
        self.within().status()
    }
}
