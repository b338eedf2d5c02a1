//! What a runner tells: how far it is, what a dry run would change, what was done.

use std::time::Duration;

use super::records::{AppliedMigration, Tally};
use super::{PathStep, SchemaVersion, Undo};

/// How far a step is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The migration.
    pub migration: String,
    /// The step, in words.
    pub step: String,
    /// How many keys are done.
    pub done: u64,
    /// How many there are.
    pub total: u64,
    /// How many are done in a second, since the step was begun or taken up again.
    pub per_second: f64,
    /// How long the rest will take at this rate; `None` before anything is done.
    pub left: Option<Duration>,
}

impl Progress {
    pub(super) fn new(
        migration: &str,
        step: &str,
        done: u64,
        total: u64,
        now: u64,
        took: Duration,
    ) -> Self {
        let per_second = now as f64 / took.as_secs_f64().max(1e-9);
        let rest = total.saturating_sub(done) as f64 / per_second;
        let left = Duration::try_from_secs_f64(rest).ok().filter(|_| now > 0);
        let (migration, step) = (migration.to_owned(), step.to_owned());
        Self { migration, step, done, total, per_second, left }
    }
}

/// What a dry run found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DryRun {
    /// The version of the data.
    pub from: SchemaVersion,
    /// The version it would get.
    pub to: SchemaVersion,
    /// The migrations on the way, in order.
    pub migrations: Vec<DryMigration>,
}

impl DryRun {
    /// How many values would be changed.
    pub fn changed(&self) -> u64 {
        let steps = self.migrations.iter().flat_map(|migration| &migration.steps);
        steps.map(|step| step.tally.changed()).sum()
    }
}

/// What one migration would change.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DryMigration {
    /// The migration and its way.
    pub path: PathStep,
    /// What can be undone afterwards.
    pub undo: Undo,
    /// Its steps.
    pub steps: Vec<StepReport>,
}

/// What one step would change, or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepReport {
    /// The step, in words.
    pub step: String,
    /// How much.
    pub tally: Tally,
    /// The first few changes.
    pub samples: Vec<Sample>,
}

impl StepReport {
    pub(super) fn new(step: &str) -> Self {
        Self { step: step.to_owned(), tally: Tally::default(), samples: Vec::new() }
    }
}

/// One change, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// The key, or the name of a stream.
    pub key: String,
    /// Where the value would lie afterwards, if elsewhere.
    pub moved_to: Option<String>,
    /// What is there.
    pub before: Option<String>,
    /// What would be there; `None` when it would be removed.
    pub after: Option<String>,
}

/// What a runner did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MigrationReport {
    /// The version of the data before.
    pub from: SchemaVersion,
    /// The version of the data now.
    pub to: SchemaVersion,
    /// The migrations that were run, in order. None when the data was there already.
    pub migrations: Vec<AppliedMigration>,
}
