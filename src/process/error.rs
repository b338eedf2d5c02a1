//! What can go wrong with process managers.

use std::error::Error;

use crate::backend::BackendError;
use crate::clock::Timestamp;
use crate::content_store::ContentError;
use crate::outbox::OutboxError;
use crate::projection::{ProjectionError, Rejection};
use crate::read_model::ReadModelError;
use crate::repository::RepositoryError;
use crate::state::InvalidKey;
use crate::store::StoreError;
use crate::subject::InvalidToken;
use crate::timeouts::MAX_TIMEOUT;
use crate::unit_of_work::UnitError;

/// Why a process manager stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// It cannot be run as it is written. Nothing was read or written; change its definition.
    #[error("process manager cannot run: {reason}")]
    Definition {
        /// What is wrong.
        reason: String,
    },
    /// It cannot react to an event and the policy says to stop. Nothing of it took effect. Correct it and start it again,
    /// or skip the event by the policy.
    #[error("process {process} cannot react to the event at position {position}: {reason}")]
    Poison {
        /// The process manager.
        process: String,
        /// Where the event lies.
        position: u64,
        /// Why not.
        reason: String,
    },
    /// It cannot react to a timeout and the policy says to stop. Nothing of it took effect. Correct it and start it again,
    /// or skip the timeout by the policy.
    #[error("process {process} cannot react to timeout {name} of {instance}: {reason}")]
    PoisonedTimeout {
        /// The process manager.
        process: String,
        /// Its instance.
        instance: String,
        /// The timeout.
        name: String,
        /// Why not.
        reason: String,
    },
    /// What a reaction reads or writes cannot be used, whatever is reacted to: a permission or a stream is missing, say. The
    /// policy is not asked, nothing is parked. Correct what the error says and start it again.
    #[error(
        "process {process} is hindered by what it reads and writes, not by what it reacts to: {source}; correct that and \
         start it again"
    )]
    Hindered {
        /// The process manager.
        process: String,
        /// What is wrong.
        source: Rejection,
    },
    /// The log is not the one that was read: it is shorter, was made anew, or holds another event there. Nothing was
    /// written. After a reshape call its switch again, which moves the process's record. Else restore the log.
    #[error(
        "the log was truncated or replaced: process {process} stands at position {position}, {reason}; \
         after a reshape call its switch again, else restore the log"
    )]
    LogTruncated {
        /// The process manager.
        process: String,
        /// Where it stands.
        position: u64,
        /// What differs.
        reason: String,
    },
    /// A record of the process does not decode. Look at it; find out who writes there.
    #[error("{place} does not hold what a process manager writes: {reason}")]
    Record {
        /// The key, or the subject and the position.
        place: String,
        /// Why not.
        reason: String,
    },
    /// A name cannot be used.
    #[error(transparent)]
    InvalidToken(#[from] InvalidToken),
    /// A key cannot be used.
    #[error(transparent)]
    InvalidKey(#[from] InvalidKey),
    /// The event store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl ProcessError {
    /// Whether beginning again may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Backend(error) => Ground::of(error) == Ground::Passes,
            Self::Store(error) => Ground::of(error) == Ground::Passes,
            _ => false,
        }
    }
}

impl From<ProjectionError> for ProcessError {
    fn from(error: ProjectionError) -> Self {
        match error {
            ProjectionError::LogTruncated { projection: process, position, reason } => {
                Self::LogTruncated { process, position, reason }
            }
            ProjectionError::Record { key: place, reason } => Self::Record { place, reason },
            ProjectionError::Backend(error) => Self::Backend(error),
            ProjectionError::Store(error) => Self::Store(error),
            other => Self::Definition { reason: other.to_string() },
        }
    }
}

/// Why a timeout cannot be scheduled or cancelled. Nothing was noted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TimeoutError {
    /// The context was opened without timeouts. Set [`Ports::timeouts`](crate::store::Ports::timeouts).
    #[error("this context has no timeouts; set them in its ports")]
    None,
    /// The time is further ahead than a server can count. Choose an earlier one.
    #[error("{at} is after {MAX_TIMEOUT}, the last time that a timeout can have")]
    TooFar {
        /// The time.
        at: Timestamp,
    },
    /// The name cannot be used.
    #[error(transparent)]
    InvalidToken(#[from] InvalidToken),
    /// What is to be said cannot be written as JSON.
    #[error("what timeout {name} is to say is not JSON: {reason}")]
    Data {
        /// The timeout.
        name: String,
        /// Why not.
        reason: String,
    },
}

/// What a reaction failed of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ground {
    /// A conflict, or something that may pass.
    Passes,
    /// What it reads or writes, whatever it reacts to.
    Store,
    /// Anything else, so what it reacts to.
    Own,
}

impl Ground {
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(ground) = Self::alone(error) {
                return ground;
            }
            next = hidden(error).or_else(|| error.source());
        }
        Self::Own
    }

    /// What is known of an error by itself. `None` where another one may stand behind it.
    fn alone(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(error) = error.downcast_ref() {
            return Some(Self::of_backend(error));
        }
        if let Some(error) = error.downcast_ref() {
            return match error {
                StoreError::Conflict { .. } | StoreError::OutcomeUnknown { .. } => {
                    Some(Self::Passes)
                }
                StoreError::Connect(_) | StoreError::Topology(_) | StoreError::Closed => {
                    Some(Self::Store)
                }
                _ => None,
            };
        }
        let conflict = if let Some(error) = error.downcast_ref::<UnitError>() {
            error.is_conflict()
        } else if let Some(error) = error.downcast_ref() {
            matches!(error, RepositoryError::VersionConflict { .. })
        } else if let Some(error) = error.downcast_ref() {
            matches!(error, ReadModelError::Conflict { .. })
        } else if let Some(error) = error.downcast_ref() {
            matches!(error, OutboxError::OutcomeUnknown { .. })
        } else {
            false
        };
        conflict.then_some(Self::Passes)
    }

    fn of_backend(error: &BackendError) -> Self {
        match error {
            // Another instance was first; what it wrote is to be read.
            BackendError::Conflict { .. }
            | BackendError::Unavailable { .. }
            | BackendError::Unknown { .. } => Self::Passes,
            BackendError::Denied { .. }
            | BackendError::NotFound { .. }
            | BackendError::Corrupt { .. }
            | BackendError::Truncated { .. }
            | BackendError::Unsupported { .. } => Self::Store,
            BackendError::Duplicate { .. }
            | BackendError::Invalid { .. }
            | BackendError::TooLarge { .. }
            | BackendError::TooMany { .. } => Self::Own,
        }
    }
}

/// What a transparent variant of this crate holds: it is not among the sources, only what is behind it is.
fn hidden<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(error) = error.downcast_ref::<UnitError>() {
        return match error {
            UnitError::Repository(error) => Some(error),
            UnitError::Store(error) => Some(error),
            UnitError::Outbox(error) => Some(error),
            _ => None,
        };
    }
    if let Some(RepositoryError::Store(error)) = error.downcast_ref() {
        return Some(error);
    }
    if let Some(StoreError::Backend(error)) = error.downcast_ref() {
        return Some(error);
    }
    if let Some(ReadModelError::Backend(error)) = error.downcast_ref() {
        return Some(error);
    }
    if let Some(ContentError::Backend(error)) = error.downcast_ref() {
        return Some(error);
    }
    if let Some(error) = error.downcast_ref::<ProjectionError>() {
        return match error {
            ProjectionError::Model(error) => Some(error),
            ProjectionError::Store(error) => Some(error),
            ProjectionError::Backend(error) => Some(error),
            _ => None,
        };
    }
    match error.downcast_ref()? {
        OutboxError::Backend(error) => Some(error),
        OutboxError::Store(error) => Some(error),
        _ => None,
    }
}
