//! What can go wrong with a backend, in terms of what a caller can do about it.

use std::error::Error;

use crate::subject::Subject;

/// A failure of a stream or a bucket. A foreign error becomes one of these where it enters, once.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// A guard did not hold; nothing was stored. Read again and decide again.
    #[error("a guard did not hold, nothing was stored: {detail}; read again and decide again")]
    Conflict {
        /// What the server said.
        detail: String,
    },
    /// The server knows the message id. That proves nothing about this write: read what is stored.
    #[error("the message id is known to {stream}; read what is stored")]
    Duplicate {
        /// The stream.
        stream: String,
    },
    /// The stream, bucket or consumer does not exist. Provision it, or check the configured name.
    #[error("{what} does not exist; provision it or check the configured name")]
    NotFound {
        /// What is missing.
        what: String,
    },
    /// The request itself is wrong; nothing was stored. Retrying does not help.
    #[error("refused as invalid, as it would be again: {detail}")]
    Invalid {
        /// What is wrong.
        detail: String,
    },
    /// A message is larger than the server accepts; nothing was sent. Make it smaller or raise `max_payload`.
    #[error(
        "a message of {actual} bytes for {subject} is over the server's limit of {limit}; nothing was sent; make it smaller \
         or raise max_payload"
    )]
    TooLarge {
        /// Where the message should go.
        subject: Subject,
        /// Its size with headers, in bytes.
        actual: usize,
        /// The server's `max_payload`, in bytes.
        limit: usize,
    },
    /// More messages than one atomic batch may hold; nothing was sent. Split the work.
    #[error(
        "{actual} messages are more than the {limit} that one atomic batch may hold; nothing was sent; split the work"
    )]
    TooMany {
        /// How many there are.
        actual: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The server refused the permission. Grant it.
    #[error("permission denied on {subject}: {detail}; grant it to this user")]
    Denied {
        /// What was asked.
        subject: String,
        /// What the server said.
        detail: String,
    },
    /// The backend cannot serve the request now; nothing was stored. Retry later.
    #[error("unavailable, nothing was stored: {detail}; try again later")]
    Unavailable {
        /// What is known.
        detail: String,
        /// The error behind it.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// No answer came: the write may be stored, now or later. Read what is stored, or repeat the identical write.
    #[error(
        "no answer, it is unknown whether anything was stored: {detail}; read what is stored, or repeat the same write"
    )]
    Unknown {
        /// What is known.
        detail: String,
        /// The error behind it.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The backend answered what it must never answer. Its data or its version needs a look.
    #[error("the backend's answer makes no sense: {detail}; look at its data and its version")]
    Corrupt {
        /// What was found.
        detail: String,
    },
    /// The log ends before a position that was read from it, holds another message there, or was made anew: it is another
    /// one. Begin again from its start.
    #[error(
        "{stream} is not the log it was: {after} was read from it and now it ends at {last}; read it from the start"
    )]
    Truncated {
        /// The stream.
        stream: String,
        /// Where it ends now.
        last: u64,
        /// What was read.
        after: u64,
    },
    /// The server lacks what this crate needs. Upgrade or reconfigure it.
    #[error("the server does not support what is needed: {detail}")]
    Unsupported {
        /// What is missing and what to do.
        detail: String,
    },
}

impl BackendError {
    /// Whether the same read may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Unknown { .. })
    }

    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::Unavailable { detail: detail.into(), source: None }
    }

    pub(crate) fn unknown(detail: impl Into<String>) -> Self {
        Self::Unknown { detail: detail.into(), source: None }
    }
}
