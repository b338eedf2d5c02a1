//! What can go wrong with projections.

use crate::backend::{BackendError, Position};
use crate::read_model::ReadModelError;
use crate::state::InvalidKey;
use crate::store::StoreError;
use crate::subject::InvalidToken;

/// A failure of a projection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// The projection cannot be run as it is written. Nothing was read or written; change its definition.
    #[error("projection cannot run: {reason}")]
    Definition {
        /// What is wrong.
        reason: String,
    },
    /// A newer version of the projection has taken over. Nothing was written; stop this one.
    #[error(
        "projection {projection} is at version {newer}, newer than this instance's {own}; stop the old one"
    )]
    Outdated {
        /// The projection.
        projection: String,
        /// The version of this code.
        own: u32,
        /// The version that has taken over.
        newer: u32,
    },
    /// Another projection keeps one of the models. Rename the model type, or stop keeping it here.
    #[error(
        "models of type {model_type} are kept by projection {owner}; a type has one projection"
    )]
    OwnedByAnother {
        /// The model type.
        model_type: String,
        /// Who keeps it.
        owner: String,
    },
    /// The log is not the one that the checkpoint was made on: it is shorter, was made anew, or holds another event there.
    /// Nothing was written. Restore the log, or rebuild the projection.
    #[error(
        "the log was truncated or replaced: projection {projection} stands at position {position}, {reason}; \
         restore the log or rebuild the projection"
    )]
    LogTruncated {
        /// The projection.
        projection: String,
        /// The position of its checkpoint.
        position: u64,
        /// What differs.
        reason: String,
    },
    /// An event cannot be used and the policy says to stop. Nothing of it took effect. Correct the projection and start it
    /// again, or skip the event by the policy.
    #[error("projection {projection} cannot use the event at position {position}: {reason}")]
    Poison {
        /// The projection.
        projection: String,
        /// Where the event lies.
        position: u64,
        /// Why not.
        reason: String,
    },
    /// The wait was longer than allowed; the projection has not passed the position yet. Look at its status.
    #[error(
        "projection {projection} stands at {reached} and did not pass {wanted} within {waited:?}"
    )]
    NotReached {
        /// The projection.
        projection: String,
        /// The position it stands at.
        reached: u64,
        /// The position that was waited for.
        wanted: u64,
        /// How long was waited.
        waited: std::time::Duration,
    },
    /// Nobody has run a projection of this name here. Start it, or check the name.
    #[error("there is no projection {projection}; start it or check the name")]
    Unknown {
        /// The name.
        projection: String,
    },
    /// A record of the projection in the bucket does not decode. Find out who wrote it, and delete the key: without its
    /// pointer (`=model`) or its checkpoint a projection builds its models anew, without a position (`=effects`) effects
    /// begin as they did at first.
    #[error("{key} does not hold what a projection writes: {reason}; {}", way_out(.key))]
    Record {
        /// The key.
        key: String,
        /// Why not.
        reason: String,
    },
    /// An event of the log could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A model could not be read or written.
    #[error(transparent)]
    Model(#[from] ReadModelError),
    /// A name cannot be used.
    #[error(transparent)]
    InvalidToken(#[from] InvalidToken),
    /// A key cannot be used.
    #[error(transparent)]
    InvalidKey(#[from] InvalidKey),
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

fn way_out(key: &str) -> &'static str {
    match key.starts_with("=effects.") {
        true => {
            "delete the key to let the effects begin as they did at first, those that are done included"
        }
        false => "delete the key to have it made anew",
    }
}

impl ProjectionError {
    /// The failure of following a log from a checkpoint here, where a log that is another one by now has to be told.
    pub(crate) fn following(self, projection: &str, position: Position) -> Self {
        match self {
            Self::Backend(BackendError::Truncated { last, after, .. }) => Self::LogTruncated {
                projection: projection.to_owned(),
                position: position.get(),
                reason: match last < after {
                    true => format!("but it ends at {last}"),
                    false => "but it was made anew, or holds other events now".to_owned(),
                },
            },
            other => other,
        }
    }

    /// Whether beginning again may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            // Another instance was first; what it wrote is to be read.
            Self::Backend(BackendError::Conflict { .. }) => true,
            Self::Backend(error) => error.is_transient(),
            Self::Store(StoreError::Backend(error)) => error.is_transient(),
            _ => false,
        }
    }
}
