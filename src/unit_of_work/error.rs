//! What can go wrong with a unit of work.

use std::time::Duration;

use super::unique::Owner;
use crate::backend::BackendError;
use crate::outbox::OutboxError;
use crate::repository::RepositoryError;
use crate::store::StoreError;
use crate::subject::InvalidToken;

/// What a hook may fail with.
pub type HookError = Box<dyn std::error::Error + Send + Sync>;

/// Why a unit of work was not committed. Nothing of it is stored, unless it is [`StoreError::OutcomeUnknown`] or
/// [`StoreError::Closed`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// Somebody else changed an aggregate that the unit changes or has read. Begin again, or let
    /// [`UnitOfWork::run`](super::UnitOfWork::run) do that.
    #[error(
        "{aggregate_type} {id} was at version {expected} when the unit read it and is at {actual}; nothing was stored, \
         begin the unit again"
    )]
    Conflict {
        /// The type of the aggregate.
        aggregate_type: String,
        /// Its id.
        id: String,
        /// The version the unit rests on.
        expected: u64,
        /// The version it has.
        actual: u64,
    },
    /// Somebody else was first on something that is not an aggregate: a claim that changed and is free again, or the mark
    /// of another instance. Begin again.
    #[error("{subject} was written by somebody else; nothing was stored, begin the unit again")]
    Overtaken {
        /// Its subject.
        subject: String,
    },
    /// A value that must be unique belongs to another. Choose another value.
    #[error("{constraint} {value:?} belongs to {owner}")]
    UniqueViolation {
        /// The constraint.
        constraint: String,
        /// The value.
        value: String,
        /// Who has it.
        owner: Owner,
    },
    /// A value was to be given back by somebody who does not have it. Look up whose it is.
    #[error("{constraint} {value:?} does not belong to {claimant}{}", match owner {
        Some(owner) => format!(", but to {owner}"),
        None => ", nor to anybody".to_owned(),
    })]
    NotOwned {
        /// The constraint.
        constraint: String,
        /// The value.
        value: String,
        /// Who wanted to give it back.
        claimant: Box<Owner>,
        /// Whose it is.
        owner: Option<Box<Owner>>,
    },
    /// A claim in the log is not one of this crate's. Find out who writes there.
    #[error("the claim on {subject} at position {position} cannot be read: {reason}")]
    Claim {
        /// Where it lies.
        subject: String,
        /// Its position.
        position: u64,
        /// Why not.
        reason: String,
    },
    /// The repository is of another context than the unit, or of another handle of it. One commit holds one context;
    /// open it once and share the handle.
    #[error(
        "a unit of context {unit} cannot hold aggregates of another handle, that of context {other}; open a context \
         once and share it"
    )]
    AnotherContext {
        /// The context of the unit.
        unit: String,
        /// The context of the repository.
        other: String,
    },
    /// The unit holds this aggregate as another Rust type. Use one type for it.
    #[error("the unit holds {aggregate_type} {id} as another type")]
    AnotherType {
        /// The type of the aggregate.
        aggregate_type: String,
        /// Its id.
        id: String,
    },
    /// A hook stopped the commit.
    #[error("{0}; nothing was stored")]
    Hook(HookFailure),
    /// A message for others is refused. Correct it.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// An aggregate could not be loaded or its events not be encoded.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The commit could not be stored, or it is not known whether it is.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl UnitError {
    /// Whether others were first, so that the same work may succeed when it begins again.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::Overtaken { .. })
    }
}

impl From<InvalidToken> for UnitError {
    fn from(error: InvalidToken) -> Self {
        Self::Store(error.into())
    }
}

impl From<BackendError> for UnitError {
    fn from(error: BackendError) -> Self {
        Self::Store(error.into())
    }
}

/// Why a decision in a unit came to nothing. There is no third reason.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError<R> {
    /// The domain said no.
    #[error("rejected: {0}")]
    Rejected(R),
    /// The unit could not load or record.
    #[error("{0}")]
    Unit(#[from] UnitError),
}

/// A hook that did not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookFailure {
    /// It said so.
    #[error("hook {hook} failed: {source}")]
    Failed {
        /// Its name.
        hook: String,
        /// What it said.
        source: HookError,
    },
    /// It panicked.
    #[error("hook {hook} panicked: {message}")]
    Panicked {
        /// Its name.
        hook: String,
        /// The panic's text.
        message: String,
    },
    /// It did not end in time, and was dropped.
    #[error("hook {hook} did not end within {limit:?}")]
    TimedOut {
        /// Its name.
        hook: String,
        /// How long it was waited for.
        limit: Duration,
    },
}
