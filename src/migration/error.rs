//! What can go wrong with migrations.

use super::{Direction, SchemaVersion};
use crate::backend::{BackendError, TopologyError};
use crate::read_model::ReadModelError;
use crate::state::InvalidKey;
use crate::store::StoreError;
use crate::subject::{InvalidPattern, InvalidToken};

/// A failure of a migration.
///
/// What was written before it stays written; the run is unfinished, and the same call goes on with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// A migration does not lead to a later version. Correct its versions.
    #[error("migration {name} leads from {from} to {to}; it must lead to a later version")]
    Order {
        /// The migration.
        name: String,
        /// The version before it.
        from: SchemaVersion,
        /// The version after it.
        to: SchemaVersion,
    },
    /// Two migrations have one name, or lead from the same version to the same one. Correct one of them.
    #[error("migration {name} has the name or the two versions of {other}; each needs its own")]
    Repeated {
        /// The migration.
        name: String,
        /// The one that was added before.
        other: String,
    },
    /// No migrations that were added lead there. Nothing was written. Add those that are missing.
    #[error("no migrations lead from {from} to {to}; add those that are missing")]
    NoPath {
        /// Where the way begins.
        from: SchemaVersion,
        /// Where it should end.
        to: SchemaVersion,
    },
    /// The data is at a later version than wanted. Nothing was written. Roll back, if that is meant.
    #[error("the data is at version {current}, later than {target}; roll it back if that is meant")]
    Later {
        /// The version of the data.
        current: SchemaVersion,
        /// The version that was wanted.
        target: SchemaVersion,
    },
    /// A rollback should end at a version that the data did not come by. Nothing was written. Choose one of those that
    /// `applied_migrations` tells.
    #[error(
        "the data at version {current} did not come by version {target}; nothing was rolled back"
    )]
    NotOnTheWay {
        /// The version of the data.
        current: SchemaVersion,
        /// The version that was wanted.
        target: SchemaVersion,
    },
    /// A migration was interrupted, and the call would go another way. Nothing was written. Finish it first.
    #[error(
        "migration {name} was interrupted on its way {direction} to {to}; finish it first, by {}",
        match direction { Direction::Up => "migrate_to", Direction::Down => "rollback_to" }
    )]
    Unfinished {
        /// The migration.
        name: String,
        /// Which way it was gone.
        direction: Direction,
        /// Where it leads.
        to: SchemaVersion,
    },
    /// The data met a migration that this runner does not have. Nothing was written. Add it.
    #[error("migration {name} is needed, and this runner does not have it; add it")]
    Unregistered {
        /// The migration.
        name: String,
    },
    /// A migration on the way back cannot be undone. Nothing was written. Restore a backup, or go on to a later version.
    #[error("migration {name} cannot be undone: {reason}")]
    Irreversible {
        /// The migration.
        name: String,
        /// Why not, as the migration says.
        reason: String,
    },
    /// The migration's own function refuses what is stored. Correct the migration or the data and run it again.
    #[error("{key} cannot be migrated: {reason}")]
    Refused {
        /// The key, or the place of the event.
        key: String,
        /// Why not, as the function says.
        reason: String,
    },
    /// Validation does not accept what the migration made of something. Correct the data and migrate again, or roll back.
    #[error("{key} is not as the migration should have left it: {reason}")]
    Invalid {
        /// The key.
        key: String,
        /// Why not, as the validation says.
        reason: String,
    },
    /// A model would be moved to where another one is. Nothing of its batch was written. Decide in the migration which stays.
    #[error("{key} cannot be moved to {target}, where there is a model already")]
    Occupied {
        /// The key.
        key: String,
        /// Where it should go.
        target: String,
    },
    /// Another runner has taken over, and this one writes nothing any more. Wait for the other one.
    #[error("another runner has taken over the migrations; this one has stopped")]
    Superseded,
    /// A migration that was interrupted does not take the steps that it took before. Run the code that began it.
    #[error(
        "step {step} of the interrupted migration was {before}, and is {now}; finish it with the code that began it"
    )]
    Changed {
        /// The number of the step, from 0.
        step: u32,
        /// What it was.
        before: String,
        /// What it is now.
        now: String,
    },
    /// A validation changes something. Correct the migration.
    #[error("a validation must not change anything: {step}")]
    ReadOnly {
        /// The step it tried to take.
        step: String,
    },
    /// A value or a record is not what it should be. Correct it or remove it, and run the migration again.
    #[error("{key} cannot be read: {reason}")]
    Unreadable {
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Settings of streams are to be changed, and the runner was not told where the streams are. Use `with_streams`.
    #[error("this runner cannot change the settings of streams; make it with with_streams")]
    NoStreams,
    /// A stream cannot be looked at or changed, or would lose events with the new settings. Nothing was changed.
    #[error(transparent)]
    Stream(#[from] TopologyError),
    /// What was copied from one stream to another is not what the transform makes of it. Do not use the copy; make another.
    #[error("the copy cannot be used: {reason}")]
    Copy {
        /// What differs, and where.
        reason: String,
    },
    /// A bucket failed for longer than it was waited for, or refused. Run the migration again.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The event store failed, in a migration that reads it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A model, its key or its index entries cannot be made.
    #[error(transparent)]
    ReadModel(#[from] ReadModelError),
    /// A name or an id is refused. Nothing was written.
    #[error(transparent)]
    InvalidToken(#[from] InvalidToken),
    /// A pattern is refused. Nothing was written.
    #[error(transparent)]
    InvalidPattern(#[from] InvalidPattern),
    /// A key is refused. Nothing was written.
    #[error(transparent)]
    InvalidKey(#[from] InvalidKey),
}
