//! The event log in memory, for tests without a server.
//!
//! It behaves as one JetStream stream does; how is in the model that it shares with the buckets in memory. What it
//! holds is gone with the last clone.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use super::{EventLog, LogLimits, LogQuery, LogStatus};
use crate::backend::memory::{Faults, Keeps, Limits, MemoryStream, Write};
use crate::backend::{
    BackendError, Bound, Count, Followed, Matching, NewMessage, Position, ReadFrom, StoredMessage,
    TailQuery,
};
use crate::clock::{Clock, System};
use crate::event::NonEmpty;
use crate::subject::{Pattern, Subject};

/// What the log calls its stream in errors and to the conditions of faults.
const NAME: &str = "memory";

/// An [`EventLog`] in memory. Cloning shares what is stored.
///
/// It takes every subject, where a stream takes those of its context. A message may have 1 MiB with its headers, a
/// batch 1000 messages, and message ids are remembered for two minutes of its clock.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use cim_persistence::event_log::{EventLog, MemoryLog};
///
/// let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new());
/// assert_eq!(log.status().await?.messages, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryLog {
    stream: MemoryStream,
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(System))
    }

    /// An empty log whose messages are stored at the times this clock tells.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { stream: MemoryStream::new(NAME, Limits::default(), clock) }
    }

    /// An empty log that takes messages of at most so many bytes, headers included.
    pub fn with_max_message_bytes(max_message_bytes: usize) -> Self {
        let limits = Limits { max_message_bytes, ..Limits::default() };
        Self { stream: MemoryStream::new(NAME, limits, Arc::new(System)) }
    }

    /// The same log, where what is done through this handle and its clones meets these faults.
    ///
    /// Handles that were cloned before do not meet them.
    pub fn with_faults(self, faults: &Faults) -> Self {
        Self { stream: self.stream.with_faults(faults) }
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl EventLog for MemoryLog {
    fn limits(&self) -> LogLimits {
        let Limits { max_message_bytes, max_batch_messages, .. } = self.stream.limits();
        LogLimits { max_message_bytes, max_batch_messages }
    }

    fn publish(&self, message: NewMessage) -> BoxFuture<'_, Result<Position, BackendError>> {
        self.stream.write(Write::One(message)).boxed()
    }

    fn publish_batch(
        &self,
        messages: NonEmpty<NewMessage>,
    ) -> BoxFuture<'_, Result<Position, BackendError>> {
        self.stream.write(Write::Batch(messages.into_vec())).boxed()
    }

    fn last<'a>(
        &'a self,
        subject: &'a Subject,
        from: ReadFrom,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>> {
        self.stream.last(subject, from).boxed()
    }

    fn first_after<'a>(
        &'a self,
        subject: &'a Subject,
        after: Position,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>> {
        self.stream.first_after(subject, after).boxed()
    }

    fn first_matching<'a>(
        &'a self,
        pattern: &'a Pattern,
        after: Position,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>> {
        self.stream.first_matching(pattern, after).boxed()
    }

    fn lasts<'a>(
        &'a self,
        subjects: &'a [Subject],
    ) -> BoxFuture<'a, Result<Vec<StoredMessage>, BackendError>> {
        self.stream.lasts(subjects).boxed()
    }

    fn read(&self, query: LogQuery) -> BoxStream<'static, Result<StoredMessage, BackendError>> {
        Box::pin(self.stream.read(query.filter, query.after))
    }

    fn matching<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
        bound: Bound,
    ) -> BoxFuture<'a, Result<Matching<StoredMessage>, BackendError>> {
        self.stream.matching(patterns, bound).boxed()
    }

    fn count<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
    ) -> BoxFuture<'a, Result<Count, BackendError>> {
        self.stream.count_matching(patterns).boxed()
    }

    fn follow(&self, query: TailQuery) -> BoxStream<'static, Result<Followed, BackendError>> {
        Box::pin(self.stream.follow(query, Keeps::Everything))
    }

    fn status(&self) -> BoxFuture<'_, Result<LogStatus, BackendError>> {
        async {
            let messages = self.stream.count().await?;
            let (last, created) = (Position::new(messages), self.stream.created());
            Ok(LogStatus { last, messages, created })
        }
        .boxed()
    }
}
