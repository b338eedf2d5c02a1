//! What a projection says of itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::pump::Step;
use super::records::FORMAT;
use super::{Projection, Selection};
use crate::backend::Position;
use crate::clock::Timestamp;

/// How a projection is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[non_exhaustive]
pub enum ProjectionStatus {
    /// Every event that was there when it last looked has taken effect.
    UpToDate,
    /// A new generation is being built. Readers see the one before, if there is one.
    Rebuilding,
    /// Events wait.
    Lagging {
        /// How many positions the log is ahead: at least the number of events that wait.
        behind_by: u64,
    },
    /// It stopped.
    Failed {
        /// Why.
        error: String,
    },
    /// An operator paused it.
    Paused,
}

/// A projection's status with its figures. The active instance writes it to the key `=projection.<name>`, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProjectionReport {
    /// The wire format: 1.
    pub format: u32,
    /// The projection's name.
    pub projection: String,
    /// The version of the code that runs.
    pub version: u32,
    /// How it is doing.
    #[serde(flatten)]
    pub status: ProjectionStatus,
    /// The generation that readers see; none while the first one is built.
    pub generation: Option<u64>,
    /// The kinds of models it keeps.
    pub models: Vec<String>,
    /// Which events it reads.
    pub reads: Selection,
    /// The last event that took effect or was passed over, in the generation that is written.
    pub position: Position,
    /// How many events took effect in that generation.
    pub events: u64,
    /// How many events were parked in that generation.
    pub parked: u64,
    /// How far a rebuild is.
    pub progress: Option<RebuildProgress>,
    /// The instance that is active.
    pub instance: Uuid,
    /// When this was written.
    pub updated_at: Timestamp,
}

impl ProjectionReport {
    /// What an instance says that has just begun.
    pub(super) fn begun<P: Projection>(
        reads: Selection,
        instance: Uuid,
        updated_at: Timestamp,
    ) -> Self {
        Self {
            format: FORMAT,
            projection: P::NAME.to_owned(),
            version: P::VERSION,
            status: ProjectionStatus::Rebuilding,
            generation: None,
            models: P::models().iter().map(|kind| kind.model.to_owned()).collect(),
            reads,
            position: Position::START,
            events: 0,
            parked: 0,
            progress: None,
            instance,
            updated_at,
        }
    }

    pub(super) fn count(&mut self, step: &Step) {
        self.position = step.position;
        self.events = step.events;
        self.parked = step.parked;
    }
}

/// How far a rebuild is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RebuildProgress {
    /// Events that took effect since this instance began.
    pub events: u64,
    /// How many of them in a second.
    pub per_second: f64,
    /// Positions that are still to be read.
    pub positions_left: u64,
    /// How long that takes at the speed so far.
    pub time_left: Option<Duration>,
}

/// A rebuild after so many events and so much time, at a position of a log that ends there.
pub(super) fn progress(
    events: u64,
    took: Duration,
    position: Position,
    end: Position,
) -> RebuildProgress {
    let per_second = events as f64 / took.as_secs_f64().max(1e-9);
    let positions_left = end.get().saturating_sub(position.get());
    let pace = position.get() as f64 / took.as_secs_f64().max(1e-9);
    let left = positions_left as f64 / pace;
    RebuildProgress {
        events,
        per_second,
        positions_left,
        time_left: Duration::try_from_secs_f64(left).ok(),
    }
}
