//! Migrations: what is stored, brought from one version to another and back.
//!
//! A service writes a [`Migration`]; a [`MigrationRunner`] finds the way, runs what is on it and tells what it did. Read models, kept
//! state, snapshots and the settings of streams are changed in place. Events never are: [`reshape`] copies a
//! whole stream into another one. What a single event of an old shape means when it is read is not decided here.
//!
//! # How one runner at a time is made sure of
//! The ledger in the meta bucket names an epoch, and whoever begins raises it. Before a runner looks at any data it writes
//! its epoch into a fence in each bucket, and each of its batches holds that bucket's fence under the revision that it knows.
//! So from the moment a later runner has a fence, no batch of an earlier one is stored there. The lease only keeps
//! runners from taking over from one that is at work.

mod version;
mod path;
mod error;
mod records;
mod report;
mod held;
mod plan;
mod target;
mod migrator;
mod models;
mod kept;
mod settings;
mod nats;
mod definition;
mod runner;
pub mod reshape;
#[cfg(test)]
mod tests;

pub use definition::{Migration, Undo};
pub use error::MigrationError;
pub use kept::{KeptEdit, KeptState};
pub use migrator::Migrator;
pub use models::{ModelDocument, ModelEdit};
pub use nats::{ManagedStream, ManagedStreams};
pub use path::{Direction, PathStep};
pub use records::{AppliedMigration, Outcome, Tally};
pub use report::{DryMigration, DryRun, MigrationReport, Progress, Sample, StepReport};
pub use runner::MigrationRunner;
pub use version::{InvalidVersion, SchemaVersion};

/// Why a function of a migration refuses what it is shown: anything that says so in words.
pub type Refusal = Box<dyn std::error::Error + Send + Sync>;
