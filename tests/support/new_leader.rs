//! A log with a leader that has not applied everything yet, which no server can be made to have at a given moment.

use std::sync::atomic::{AtomicU32, Ordering};

use cim_persistence::backend::{
    BackendError, Bound, Count, Followed, Matching, NewMessage, Position, ReadFrom, StoredMessage,
    TailQuery,
};
use cim_persistence::event::NonEmpty;
use cim_persistence::event_log::{EventLog, LogLimits, LogQuery, LogStatus, MemoryLog};
use cim_persistence::subject::{Pattern, Subject};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

/// Of the last messages it says so many times that they are not there.
#[derive(Debug)]
pub(crate) struct NewLeader {
    log: MemoryLog,
    lacking: u64,
    times: AtomicU32,
}

impl NewLeader {
    pub(crate) fn of(log: &MemoryLog, lacking: u64, times: u32) -> Self {
        Self { log: log.clone(), lacking, times: AtomicU32::new(times) }
    }
}

impl EventLog for NewLeader {
    fn limits(&self) -> LogLimits {
        self.log.limits()
    }

    fn publish(&self, message: NewMessage) -> BoxFuture<'_, Result<Position, BackendError>> {
        self.log.publish(message)
    }

    fn publish_batch(
        &self,
        messages: NonEmpty<NewMessage>,
    ) -> BoxFuture<'_, Result<Position, BackendError>> {
        self.log.publish_batch(messages)
    }

    fn last<'a>(
        &'a self,
        subject: &'a Subject,
        from: ReadFrom,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>> {
        self.log.last(subject, from)
    }

    fn first_after<'a>(
        &'a self,
        subject: &'a Subject,
        after: Position,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>> {
        self.log.first_after(subject, after)
    }

    fn lasts<'a>(
        &'a self,
        subjects: &'a [Subject],
    ) -> BoxFuture<'a, Result<Vec<StoredMessage>, BackendError>> {
        self.log.lasts(subjects)
    }

    fn read(&self, query: LogQuery) -> BoxStream<'static, Result<StoredMessage, BackendError>> {
        self.log.read(query)
    }

    fn matching<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
        bound: Bound,
    ) -> BoxFuture<'a, Result<Matching<StoredMessage>, BackendError>> {
        self.log.matching(patterns, bound)
    }

    fn count<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
    ) -> BoxFuture<'a, Result<Count, BackendError>> {
        self.log.count(patterns)
    }

    fn follow(&self, query: TailQuery) -> BoxStream<'static, Result<Followed, BackendError>> {
        self.log.follow(query)
    }

    fn status(&self) -> BoxFuture<'_, Result<LogStatus, BackendError>> {
        async {
            let mut status = self.log.status().await?;
            let left = |times: u32| times.checked_sub(1);
            if self.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok() {
                status.last = Position::new(status.last.get() - self.lacking);
                status.messages -= self.lacking;
            }
            Ok(status)
        }
        .boxed()
    }
}
