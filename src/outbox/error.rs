//! What can go wrong with the outbox.

use std::time::Duration;

use super::{InvalidTopic, PublishError};
use crate::backend::BackendError;
use crate::store::StoreError;
use crate::subject::InvalidToken;

/// A failure of the outbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// A topic is none. Nothing was sent; name it otherwise.
    #[error(transparent)]
    Topic(#[from] InvalidTopic),
    /// An attribute of a message is refused. Nothing was sent; correct the message.
    #[error("attribute {name:?} of an outbox message is refused: {reason}")]
    Attribute {
        /// Its name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// The data of a message cannot be written. Nothing was sent; correct the data.
    #[error("the data of outbox message {event_type:?} is not JSON: {reason}")]
    Data {
        /// The type of the message.
        event_type: String,
        /// Why not.
        reason: String,
    },
    /// A relay's name is none. Nothing was read; name it otherwise.
    #[error(transparent)]
    Name(#[from] InvalidToken),
    /// No message of this outbox lies there that the relay has not passed, or none that could be marked as failed. Mark what
    /// `get_pending` gave.
    #[error("position {position} holds no message of this outbox that is to be published")]
    NotPending {
        /// The position.
        position: u64,
    },
    /// Too many messages before a marked one are neither published nor failed. Nothing was written; mark those first.
    #[error("more than {limit} messages would be held back; mark the ones before first")]
    TooManyHeld {
        /// How many may be held at a time.
        limit: usize,
    },
    /// The log is not the one that the relay read: it is shorter or was made anew. Nothing was written. After a reshape
    /// call its switch again, which moves the relay's records. Else restore the log, or delete the records to have the relay
    /// begin anew: it publishes everything again.
    #[error(
        "the log was truncated or replaced: the relay stands at position {position}, the log ends at {last}; \
         after a reshape call its switch again; else restore the log, or delete the relay's records to publish everything anew"
    )]
    LogTruncated {
        /// Where the relay stands.
        position: u64,
        /// Where the log ends.
        last: u64,
    },
    /// A record of the relay does not decode. Look at the key.
    #[error("{key} does not hold what a relay writes: {reason}")]
    Record {
        /// The key.
        key: String,
        /// Why not.
        reason: String,
    },
    /// What a publisher took has not arrived, as far as is known. A relay publishes it again by itself.
    #[error("the publisher does not know whether what it took has arrived: {0}")]
    Unsettled(#[source] PublishError),
    /// The relay was stopped before what was waited for came true.
    #[error("the relay was stopped")]
    Stopped,
    /// The relay's task panicked. This is a defect; start the relay again.
    #[error("the relay has panicked: {reason}")]
    Panicked {
        /// What it said.
        reason: String,
    },
    /// The context's stream could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No answer proved anything until the time for it was over. Look at the stream. Messages that were given their ids by
    /// [`with_id`](super::OutboxMessage::with_id) may be saved again as they are, within two minutes of the first try;
    /// others would get new ids, and be there twice.
    #[error(
        "after {waited:?} it is unknown whether the messages are stored; look at the stream, or, within two minutes of the \
         first try, save them again if they were given their ids"
    )]
    OutcomeUnknown {
        /// How long it was tried.
        waited: Duration,
        /// The last failure.
        #[source]
        source: BackendError,
    },
    /// The backend failed; nothing was stored.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl OutboxError {
    /// Whether beginning again may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            // Somebody else was first; what was written is to be read.
            Self::Backend(BackendError::Conflict { .. }) | Self::Unsettled(_) => true,
            Self::Backend(error) | Self::Store(StoreError::Backend(error)) => error.is_transient(),
            _ => false,
        }
    }
}
