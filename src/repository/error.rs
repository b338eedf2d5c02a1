//! What can go wrong with aggregates.

use crate::lifecycle::InvalidTransition;
use crate::specification::SpecificationError;
use crate::store::StoreError;
use crate::subject::{InvalidPattern, InvalidToken};

/// A failure of a repository.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// The aggregate has no events, or was deleted. Create it, or check the id.
    #[error("{aggregate_type} {id} does not exist{}", deleted.map(|v| format!(", it was deleted at version {v}")).unwrap_or_default())]
    NotFound {
        /// The kind of aggregate.
        aggregate_type: String,
        /// Its id.
        id: String,
        /// The version of its tombstone, if it was deleted.
        deleted: Option<u64>,
    },
    /// Another writer was first; nothing was stored. Load again and decide again, as `transact` does by itself.
    #[error(
        "version conflict: expected version {expected}, but the aggregate has version {actual}; load it again"
    )]
    VersionConflict {
        /// The version that was expected; 0 for none.
        expected: u64,
        /// The version that is stored; 0 for none.
        actual: u64,
    },
    /// There is nothing to save. Save at least one event.
    #[error("nothing to save: give at least one event")]
    NoEvents,
    /// The events lead the aggregate to a stage that its lifecycle forbids; nothing was stored. Decide otherwise.
    #[error("{aggregate_type} {id}: {source}; nothing was stored")]
    Transition {
        /// The kind of aggregate.
        aggregate_type: String,
        /// Its id.
        id: String,
        /// What is forbidden.
        source: InvalidTransition,
    },
    /// The aggregate has fewer versions than asked for. Ask for a version it has.
    #[error("{aggregate_type} {id} has version {actual}, not yet {requested}")]
    NoSuchVersion {
        /// The kind of aggregate.
        aggregate_type: String,
        /// Its id.
        id: String,
        /// The version asked for.
        requested: u64,
        /// The version it has.
        actual: u64,
    },
    /// More events would be replayed than the caller allows. Allow more, or take snapshots.
    #[error(
        "loading {aggregate_type} {id} replays more than {limit} events; allow more or take snapshots"
    )]
    TooManyEvents {
        /// The kind of aggregate.
        aggregate_type: String,
        /// Its id.
        id: String,
        /// The limit that was given.
        limit: usize,
    },
    /// The aggregate's state cannot be encoded, so there is no snapshot of it. Its events are stored all the same. Change the
    /// state's type.
    #[error(
        "the state of {aggregate_type} {id} cannot be encoded: {reason}; change its type, its events are stored all the same"
    )]
    State {
        /// The kind of aggregate.
        aggregate_type: String,
        /// Its id.
        id: String,
        /// Why not.
        reason: String,
    },
    /// A pattern is none, or means none of the repository's aggregates. Correct it.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// Aggregates of another type are asked for. Ask their repository.
    #[error("this repository holds {aggregate_type}, not {asked}; ask the repository of {asked}")]
    OtherType {
        /// The type that was asked for.
        asked: String,
        /// The type that the repository holds.
        aggregate_type: String,
    },
    /// What is asked of aggregates cannot be asked: it names a field they do not have, for instance. Correct it.
    #[error(transparent)]
    Specification(#[from] SpecificationError),
    /// The event store failed; see its error.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for RepositoryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { expected, actual } => Self::VersionConflict { expected, actual },
            StoreError::Empty => Self::NoEvents,
            other => Self::Store(other),
        }
    }
}

impl From<InvalidToken> for RepositoryError {
    fn from(error: InvalidToken) -> Self {
        Self::Store(error.into())
    }
}

/// Why a transaction came to nothing: the domain said no, or the repository failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactError<R> {
    /// The decision was a rejection; nothing was stored. It was made on the aggregate's newest state.
    #[error("rejected: {0}")]
    Rejected(R),
    /// The repository failed.
    #[error("{0}")]
    Repository(#[from] RepositoryError),
}

impl<R> From<StoreError> for TransactError<R> {
    fn from(error: StoreError) -> Self {
        Self::Repository(error.into())
    }
}
