//! What can go wrong with the outbox.

use std::time::Duration;

use super::{InvalidCloudEvent, InvalidTopic};
use crate::backend::BackendError;

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
    /// A stored message is no CloudEvent. It is parked by a relay; look at who wrote it.
    #[error(transparent)]
    CloudEvent(#[from] InvalidCloudEvent),
    /// No answer proved anything until the time for it was over. Save the same messages again with the ids they have, or
    /// look at the stream.
    #[error(
        "after {waited:?} it is unknown whether the messages are stored; save them again with the same ids"
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
