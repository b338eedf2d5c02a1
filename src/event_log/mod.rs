//! The event log: one context's stream of messages, appended atomically, read in order.
//!
//! The seam is [`EventLog`]; its adapters stand beside it. Group commit and the resolution of unknown outcomes
//! are built on the seam, not in the adapters. What the bytes mean is the business of [`ipld`](crate::ipld).

pub(crate) mod nats;
#[cfg(feature = "testing")]
mod memory;
mod commit;

use std::fmt;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::time::sleep;

use crate::backend::{
    BackendError, Bound, Count, Followed, Matching, NewMessage, Position, ReadFrom, Start,
    StoredMessage, TailQuery,
};
use crate::clock::Timestamp;
use crate::event::NonEmpty;
use crate::subject::{Pattern, Subject};

pub use commit::{Commit, CommitError, CommitPolicy, Committer, Stored};
#[cfg(feature = "testing")]
pub use memory::MemoryLog;
pub use nats::NatsLog;

/// How much one write may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// The largest message with its headers, in bytes.
    pub max_message_bytes: usize,
    /// The most messages of one atomic batch.
    pub max_batch_messages: usize,
}

/// What a log says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStatus {
    /// The position of the last message, or the one before the first where there is none. What is stored up to there
    /// holds all of a batch or none of it.
    pub last: Position,
    /// How many messages it holds, with those of a batch that is being stored.
    pub messages: u64,
    /// When it was created. Another log under the same name has another time.
    pub created: Timestamp,
}

/// What a log says of itself that has been read up to a position. While it says that it ends before, and is the log that was
/// created at this time, it is asked again for two seconds: a new leader may not have applied everything yet.
pub(crate) async fn status_since(
    log: &dyn EventLog,
    created: Timestamp,
    reached: Position,
) -> Result<LogStatus, BackendError> {
    let mut status = log.status().await?;
    for _ in 0..DOUBTS {
        if status.created != created || status.last >= reached {
            break;
        }
        sleep(DOUBT).await;
        status = log.status().await?;
    }
    Ok(status)
}

/// How often, and after how long, a log that looks cut is looked at again before that is believed.
pub(crate) const DOUBTS: u32 = 10;
pub(crate) const DOUBT: Duration = Duration::from_millis(200);

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// A literal subject or a pattern; `None` reads everything.
    pub filter: Option<String>,
    /// Read what is stored after this position.
    pub after: Position,
}

/// One context's stream, as bytes.
///
/// An implementation promises:
/// - a message is stored only if its guard holds at that moment, checked by whoever orders the writes;
/// - a batch is stored whole, at consecutive positions, or not at all;
/// - positions grow; what is stored never changes and never vanishes;
/// - [`BackendError::Conflict`], `Invalid`, `TooLarge`, `TooMany`, `Denied`, `NotFound` and `Unavailable` mean that
///   nothing was stored and nothing will be; `Duplicate` and `Unknown` prove nothing.
///
/// Futures may be dropped: a write is then stored whole or not at all.
pub trait EventLog: fmt::Debug + Send + Sync {
    /// How much one write may hold. No I/O.
    fn limits(&self) -> LogLimits;

    /// Stores one message and returns its position. One round trip.
    fn publish(&self, message: NewMessage) -> BoxFuture<'_, Result<Position, BackendError>>;

    /// Stores all messages or none and returns the position of the last. One round trip.
    ///
    /// At most one guard per subject: on the first message of a subject, if at all.
    fn publish_batch(
        &self,
        messages: NonEmpty<NewMessage>,
    ) -> BoxFuture<'_, Result<Position, BackendError>>;

    /// Whether a message may lie in a batch, as far as can be said without sending it. No I/O.
    fn admits(&self, _message: &NewMessage) -> bool {
        true
    }

    /// Stores the messages of a stream like [`publish_batch`](Self::publish_batch), where a backend can take each of them
    /// as it comes and the last one is not known before. A stream of one message is one message. The stream should end within
    /// seconds, since a server gives up an open batch. One round trip after that.
    ///
    /// # Errors
    /// As [`publish_batch`](Self::publish_batch), and [`BackendError::Invalid`] for a stream without messages.
    fn publish_stream<'a>(
        &'a self,
        messages: BoxStream<'a, NewMessage>,
    ) -> BoxFuture<'a, Result<Position, BackendError>> {
        Box::pin(async move {
            let messages: Vec<_> = messages.collect().await;
            let nothing = || BackendError::Invalid { detail: "a batch without messages".into() };
            let messages = NonEmpty::from_vec(messages).ok_or_else(nothing)?;
            match messages.len().get() {
                1 => self.publish(messages.into_vec().swap_remove(0)).await,
                _ => self.publish_batch(messages).await,
            }
        })
    }

    /// The last message on a subject. One round trip.
    fn last<'a>(
        &'a self,
        subject: &'a Subject,
        from: ReadFrom,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>>;

    /// The first message on a subject after a position, as the leader sees it. One round trip.
    fn first_after<'a>(
        &'a self,
        subject: &'a Subject,
        after: Position,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>>;

    /// The first message after a position on a subject that matches, as the leader sees it. One round trip; where an
    /// implementation does not have it, what following takes.
    fn first_matching<'a>(
        &'a self,
        pattern: &'a Pattern,
        after: Position,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>> {
        let patterns = NonEmpty::one(pattern.clone());
        let mut followed = self.follow(TailQuery { patterns, start: Start::After(after) });
        Box::pin(async move {
            match followed.next().await {
                Some(Ok(first)) => Ok(first.into_message()),
                // It ends before, so there is nothing behind it.
                Some(Err(BackendError::Truncated { .. })) => Ok(None),
                Some(Err(error)) => Err(error),
                None => Err(BackendError::unavailable("following the log ended")),
            }
        })
    }

    /// The last message of each subject that has one, in order of position; at most 1000 subjects. One round trip.
    fn lasts<'a>(
        &'a self,
        subjects: &'a [Subject],
    ) -> BoxFuture<'a, Result<Vec<StoredMessage>, BackendError>>;

    /// Everything stored so far that the query names, in order of position.
    ///
    /// Any replica may answer each of its requests. It ends where the log ends for the replica that answers when the
    /// reader gets there, so the newest messages may be missing. Memory is bounded whatever the length. Dropping the
    /// stream ends the read and leaves nothing on the server.
    fn read(&self, query: LogQuery) -> BoxStream<'static, Result<StoredMessage, BackendError>>;

    /// The last message of each subject that matches any of the patterns, as of a bound, in order of position; all at one
    /// moment. [`Matching::TooMany`] when more than 1024 subjects match. One round trip, a few when nothing is found up to
    /// a position; any replica may answer.
    fn matching<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
        bound: Bound,
    ) -> BoxFuture<'a, Result<Matching<StoredMessage>, BackendError>>;

    /// How many subjects match any of the patterns. One round trip, whatever the number; any replica may answer.
    fn count<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
    ) -> BoxFuture<'a, Result<Count, BackendError>>;

    /// What is stored, and then what is being stored, in order of position, without a gap or a double, for ever. It begins
    /// when it is polled for the first time.
    ///
    /// Lost connections, changes of leader and restarts of a server are waited out. It ends with an error only when
    /// following makes no sense any more: the permission or the log is gone, or the log was made anew, or ends before
    /// what was handed out or where following should begin ([`BackendError::Truncated`]). Memory is bounded: nothing more
    /// is fetched while nobody polls. Dropping the stream leaves nothing on the server.
    fn follow(&self, query: TailQuery) -> BoxStream<'static, Result<Followed, BackendError>>;

    /// What the log says of itself, through the leader. One round trip, two requests side by side.
    fn status(&self) -> BoxFuture<'_, Result<LogStatus, BackendError>>;
}
