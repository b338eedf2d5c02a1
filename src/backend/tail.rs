//! Following a log: what is asked for and what comes back.
//!
//! How it is done on a server is in `event_log/nats/follow.rs`, in memory in `memory/follow.rs`.

use crate::clock::Timestamp;
use crate::event::NonEmpty;
use crate::subject::Pattern;

use super::{BackendError, Position, StoredMessage};

/// Where following begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// After this position, which is in the log or before its first message.
    After(Position),
    /// With the first message stored at this time or later, by the server's clock. The time may be to come.
    Since(Timestamp),
    /// With what is stored from now on.
    Now,
    /// With the last message of each subject, in order of position, and then with what is stored from now on.
    ///
    /// A subject that is written again before its turn comes may begin with what was written then. In a bucket, which keeps
    /// the last message only, it comes then; a subject that was handed out may come again, and the end is reached when
    /// nothing more is left. Only subjects that are written as fast as they are read may still be missing then.
    Latest,
}

/// What to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailQuery {
    /// Messages whose subject matches any of these. They may overlap; a message comes once.
    pub patterns: NonEmpty<Pattern>,
    /// Where to begin.
    pub start: Start,
}

/// What a follower gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// The next message.
    Message(StoredMessage),
    /// Everything that was stored when following began has been handed out, whole commits of it. Comes once.
    CaughtUp,
}

impl Followed {
    /// The message, if it is one.
    pub fn into_message(self) -> Option<StoredMessage> {
        match self {
            Self::Message(message) => Some(message),
            Self::CaughtUp => None,
        }
    }
}

/// Up to which moment a read looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bound {
    /// What is stored now.
    #[default]
    Newest,
    /// What was stored up to this position, and including it. The position may be to come.
    Position(Position),
    /// What was stored before this time, not at it, by the server's clock. The time may be to come.
    Time(Timestamp),
}

/// The most subjects that one answer to a pattern holds, as the server has it.
pub const MAX_MATCHING: usize = 1024;

/// What matches a pattern, if it is few enough for one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matching<T> {
    /// All of it.
    All(Vec<T>),
    /// More than one answer holds, or what it was to hold changed too often while it came; follow from [`Start::Latest`] up
    /// to [`Followed::CaughtUp`].
    TooMany,
}

impl<T> Matching<T> {
    /// All of it, where no more was named than one answer holds.
    pub(crate) fn all(self) -> Result<Vec<T>, BackendError> {
        match self {
            Self::All(found) => Ok(found),
            Self::TooMany => {
                Err(BackendError::unavailable("what was to be read changed while it was read"))
            }
        }
    }
}

/// How many match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// So many.
    Exactly(u64),
    /// More than so many.
    MoreThan(u64),
}
