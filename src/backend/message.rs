//! Messages on their way to a stream and out of it.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::event::Headers;
use crate::subject::Subject;

/// A place in a context's stream: the stream sequence of a message.
///
/// Positions grow and may have gaps. [`Position::START`] stands before the first message.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(u64);

impl Position {
    /// Before the first message: nothing yet.
    pub const START: Self = Self(0);

    /// The position of the message with this stream sequence.
    pub const fn new(sequence: u64) -> Self {
        Self(sequence)
    }

    /// The stream sequence.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The first sequence behind it. No stream gets as far as the last one, behind which there is none.
    pub(crate) const fn next(self) -> u64 {
        self.0.saturating_add(1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What must be true of the stream at the moment a message is stored, else nothing of its batch is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    Free,
    /// The last message on the message's own subject is at this position; `START` for none.
    Last(Position),
    /// The last message on another subject is at this position; `START` for none.
    LastOf(Subject, Position),
}

/// A message to be stored.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// Where it goes.
    pub subject: Subject,
    /// Its headers, without those of the protocol.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
    /// What must be true for it to be stored.
    pub guard: Guard,
}

/// A message as a stream holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Where it lies.
    pub subject: Subject,
    /// Its stream sequence.
    pub position: Position,
    /// When the server stored it.
    pub time: Timestamp,
    /// Its headers; those of the protocol may be among them.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
}

/// Who may answer a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadFrom {
    /// Any replica. It may be a moment behind; an expectation at commit catches that.
    #[default]
    Nearest,
    /// The stream's leader: everything acknowledged before is seen.
    Leader,
}
