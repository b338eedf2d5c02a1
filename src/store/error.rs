//! What can go wrong when events are stored or read.

use std::time::Duration;

use crate::backend::{BackendError, ConfigError, ConnectError, TopologyError};
use crate::event::{HeaderMismatch, InvalidMetadata};
use crate::event_log::CommitError;
use crate::evolution::UpcastError;
use crate::ipld::{BlockError, ChainError, EncodeError};
use crate::state::InvalidKey;
use crate::subject::InvalidToken;

/// Why a stored event cannot be trusted. Nothing of it is used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntegrityError {
    /// The block is not what its CID covers, or not an event.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A header contradicts the block.
    #[error(transparent)]
    Header(#[from] HeaderMismatch),
    /// The block names another aggregate than the subject it lies on.
    #[error("the block belongs to {found}")]
    Foreign {
        /// The aggregate that the block names.
        found: String,
    },
    /// The event does not continue its aggregate's history.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl IntegrityError {
    /// What to do, where the error itself does not say it.
    fn advice(&self) -> &'static str {
        match self {
            Self::Block(BlockError::UnsupportedCid { .. } | BlockError::UnknownFormat { .. }) => "",
            Self::Block(BlockError::NoCid) => {
                "; keep it false where events were written so, else compare the event with a copy of the stream"
            }
            _ => "; compare it with a copy of the stream",
        }
    }
}

/// A failure of the event store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another writer was first; nothing was stored. Load again and decide again.
    #[error(
        "version conflict: expected version {expected}, but the aggregate has version {actual}; load it again"
    )]
    Conflict {
        /// The version that was expected; 0 for none.
        expected: u64,
        /// The version that is stored; 0 for none.
        actual: u64,
    },
    /// There is nothing to append. Append at least one event.
    #[error("nothing to append: a commit needs at least one event")]
    Empty,
    /// A batch names an aggregate twice. Nothing was sent. Put its events into one part.
    #[error("{aggregate_type} {id} is named twice in one batch; put its events into one part")]
    Repeated {
        /// The kind of aggregate.
        aggregate_type: String,
        /// Its id.
        id: String,
    },
    /// A name, an id or a tag is refused. Nothing was sent.
    #[error(transparent)]
    InvalidToken(#[from] InvalidToken),
    /// Metadata is refused. Nothing was sent.
    #[error(transparent)]
    InvalidMetadata(#[from] InvalidMetadata),
    /// A key is refused. Nothing was sent.
    #[error(transparent)]
    InvalidKey(#[from] InvalidKey),
    /// An event type is reserved. Name the event otherwise.
    #[error("event type {name:?} is reserved; name the event otherwise")]
    ReservedType {
        /// The name.
        name: String,
    },
    /// An event cannot be written as a block. Nothing was sent.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// An event's block is larger than the server accepts. Nothing was sent.
    #[error(
        "a block of {actual} bytes, headers included, is over the server's limit of {limit}; nothing was sent; keep what is \
         large elsewhere, or raise max_payload"
    )]
    TooLarge {
        /// Its size in bytes.
        actual: usize,
        /// The server's `max_payload` in bytes.
        limit: usize,
    },
    /// More events than one commit may hold. Nothing was sent. Split the command.
    #[error(
        "{actual} events are more than the {limit} that one commit may hold; nothing was sent; split the command"
    )]
    TooMany {
        /// How many events there are.
        actual: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Stored data contradicts itself. Compare with a copy of the stream; see `ARCHITECTURE.md`.
    #[error(
        "event at position {position} on {subject}: {source}{}", source.advice()
    )]
    Integrity {
        /// Where the event lies.
        subject: String,
        /// Its position.
        position: u64,
        /// What is wrong.
        #[source]
        source: IntegrityError,
    },
    /// A stored event does not have the shape the code expects. Add an upcaster or restore the old shape.
    #[error(
        "event {event_type} version {schema_version} at position {position} does not decode: {reason}"
    )]
    Shape {
        /// The event's type.
        event_type: String,
        /// The version of its shape.
        schema_version: u32,
        /// Its position.
        position: u64,
        /// Why not, and what to do.
        reason: String,
    },
    /// A stored event cannot be changed into the newest shape; see the error.
    #[error("event {event_type} at position {position} is not read: {source}")]
    Upcast {
        /// The event's type, as it is stored.
        event_type: String,
        /// Its position.
        position: u64,
        /// Why not.
        #[source]
        source: UpcastError,
    },
    /// A stored event is several events today, or none, and one was asked for. Ask for all of them: `StoredEvent::events`.
    #[error(
        "event {event_type} version {schema_version} at position {position} is {count} events today, not one; read it with events()"
    )]
    NotOne {
        /// The event's type, as it is stored.
        event_type: String,
        /// The version of its shape, as it is stored.
        schema_version: u32,
        /// Its position.
        position: u64,
        /// How many events it is.
        count: usize,
    },
    /// It is not known whether the commit is stored. Load the aggregate to see.
    #[error(
        "after {waited:?} it is unknown whether the commit is stored; load the aggregate to see"
    )]
    OutcomeUnknown {
        /// How long it was tried.
        waited: Duration,
        /// The last failure.
        #[source]
        source: BackendError,
    },
    /// The backend failed; see its error. Nothing was stored.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The server cannot be reached or is not one that can be used; see the error.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A stream or bucket is missing, or is set so that it can lose events; see the error.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The runtime that the context was opened on has ended, and it is not known whether the commit is stored. Open the
    /// context on a runtime that lives on, and load the aggregate to see.
    #[error(
        "the runtime that the context was opened on has ended, it is unknown whether the commit is stored; \
         open the context on a runtime that lives on"
    )]
    Closed,
}

impl From<ConfigError> for StoreError {
    fn from(error: ConfigError) -> Self {
        Self::Connect(error.into())
    }
}

impl StoreError {
    /// What a failed commit means, apart from a conflict, which needs a look at the aggregate first.
    pub(crate) fn of_commit(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } => Self::Conflict { expected: 0, actual: 0 },
            CommitError::Refused(BackendError::TooLarge { actual, limit, .. }) => {
                Self::TooLarge { actual, limit }
            }
            CommitError::Refused(BackendError::TooMany { actual, limit }) => {
                Self::TooMany { actual, limit }
            }
            CommitError::Refused(error) => Self::Backend(error),
            CommitError::Unknown { waited, source } => Self::OutcomeUnknown { waited, source },
            CommitError::Closed => Self::Closed,
        }
    }
}
