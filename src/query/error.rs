//! What can go wrong with a query.

use crate::backend::BackendError;
use crate::read_model::ReadModelError;
use crate::specification::{InvalidText, SpecificationError};
use crate::store::StoreError;
use crate::subject::InvalidPattern;

use super::IndexStrategy;

/// A failure of planning or running a query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The text is no query. Correct it at the column.
    #[error(transparent)]
    Text(#[from] InvalidText),
    /// The specification, the options or the cursor are refused. Correct them as the source says.
    #[error(transparent)]
    Specification(#[from] SpecificationError),
    /// The query does not say where to look. Begin it with a `subject:` term.
    #[error(
        "the query does not say where to look; begin it with subject: and a pattern, as in subject:board.JFK.>"
    )]
    NoSubject,
    /// The pattern names neither read models nor events of this context. Correct the pattern.
    #[error(
        "pattern {pattern:?} names neither read models nor events of this context: {reason}; write <type>.<ids> or {events}<aggregate>.<id>"
    )]
    OutsideStore {
        /// The pattern.
        pattern: String,
        /// Why it names nothing here.
        reason: String,
        /// What patterns of events begin with.
        events: String,
    },
    /// A pattern is none. Correct it as the source says.
    #[error(transparent)]
    InvalidPattern(#[from] InvalidPattern),
    /// The hint asks for a way that does not lead there. Leave the strategy out, or change what the reason says.
    #[error("strategy {strategy} is not possible here: {reason}")]
    StrategyNotPossible {
        /// The strategy.
        strategy: IndexStrategy,
        /// Why not.
        reason: &'static str,
    },
    /// The models cannot be read. What to do depends on the source.
    #[error("{0}")]
    Model(#[from] ReadModelError),
    /// The events cannot be read. What to do depends on the source.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl From<BackendError> for QueryError {
    fn from(error: BackendError) -> Self {
        Self::Store(error.into())
    }
}
