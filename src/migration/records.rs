//! What is kept about migrations: the ledger and the history in the meta bucket, a fence in each bucket of data.
//!
//! All are JSON. Their keys begin with `=`, so they are no model's, no state's and no snapshot's.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Direction, SchemaVersion};
use crate::clock::Timestamp;
use crate::state::Key;

/// The form of all these records.
pub(super) const FORMAT: u32 = 1;

/// What is known of all migrations of a context. The one record that says at which version the data is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Ledger {
    pub(super) version: SchemaVersion,
    /// Those in effect, in the order they were applied.
    pub(super) applied: Vec<AppliedMigration>,
    /// The one that was begun and not ended.
    pub(super) running: Option<Running>,
    /// How many entries the history has.
    pub(super) entries: u64,
}

/// A migration that was begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Running {
    pub(super) name: String,
    pub(super) direction: Direction,
    pub(super) from: SchemaVersion,
    pub(super) to: SchemaVersion,
    /// The same in all attempts: by it the fences know what is already done.
    pub(super) run: Uuid,
    /// Whether all steps are done, so that only the validation is left.
    pub(super) changed: bool,
    pub(super) begun_at: Timestamp,
    pub(super) attempts: u32,
}

/// How far a run is with one bucket of data. Every batch that the run writes there holds this record, under its guard.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Fence {
    pub(super) run: Uuid,
    pub(super) at: Option<At>,
    pub(super) tally: Tally,
}

/// A step that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct At {
    pub(super) step: u32,
    pub(super) label: String,
    /// The generation of the models.
    pub(super) generation: u64,
    /// The last key that is done, in the order of their texts.
    pub(super) after: Option<String>,
    pub(super) complete: bool,
}

/// How many keys a migration met and changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Values that were looked at.
    pub seen: u64,
    /// Values that were written in another form, or anew.
    pub written: u64,
    /// Values that were written under another key.
    pub moved: u64,
    /// Values that were removed.
    pub removed: u64,
}

impl Tally {
    /// How many were changed.
    pub fn changed(&self) -> u64 {
        self.written + self.moved + self.removed
    }

    pub(super) fn add(&mut self, other: Self) {
        self.seen += other.seen;
        self.written += other.written;
        self.moved += other.moved;
        self.removed += other.removed;
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcome {
    /// It did what it should.
    Done,
    /// It stopped, for this reason, and waits to be run again.
    Failed(String),
}

/// One run of a migration, as the history tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AppliedMigration {
    /// The migration.
    pub name: String,
    /// Which way it was gone.
    pub direction: Direction,
    /// The version before.
    pub from: SchemaVersion,
    /// The version after.
    pub to: SchemaVersion,
    /// Who ran it, as the runner was told.
    pub by: String,
    /// When it was begun, for the first time.
    pub begun_at: Timestamp,
    /// When it ended. What lies between is how long it took, pauses included.
    pub ended_at: Timestamp,
    /// How often it was begun.
    pub attempts: u32,
    /// What it changed, in all attempts.
    pub tally: Tally,
    /// How it ended.
    pub outcome: Outcome,
}

/// A run, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct HistoryEntry {
    format: u32,
    #[serde(flatten)]
    pub(super) run: AppliedMigration,
}

impl HistoryEntry {
    pub(super) fn new(run: AppliedMigration) -> Self {
        Self { format: FORMAT, run }
    }
}

pub(super) fn ledger_key() -> Key {
    fixed("=migration.ledger")
}

pub(super) fn lease_key() -> Key {
    fixed("=migration.lease")
}

pub(super) fn stream_key() -> Key {
    fixed("=migration.stream")
}

/// Beside the data. One token, so that no pattern of keys of several tokens meets it.
pub(super) fn fence_key() -> Key {
    fixed("=migration")
}

/// Written with leading zeros, so that their texts are ordered as the numbers are.
pub(super) fn history_key(number: u64) -> Key {
    fixed(&format!("=migration.history.{number:010}"))
}

pub(super) const ALL_HISTORY: &str = "=migration.history.*";

fn fixed(text: &str) -> Key {
    Key::new(text).expect("made of letters, digits and the signs that a key may have")
}
