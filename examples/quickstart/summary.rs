//! What a run came to, for people and for programs.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::import::{Read, Recorded};
use crate::queries::Queried;

/// The figures of a run. Those about commits and events are what this run stored.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    rows: u64,
    skipped: u64,
    aircraft: usize,
    commits: u64,
    departed: u64,
    arrived: u64,
    diverted: u64,
    cancelled: u64,
    events: u64,
    chains_verified: u64,
    #[serde(flatten)]
    queried: Queried,
    #[serde(skip)]
    took: Duration,
}

impl Summary {
    pub(crate) fn new(
        read: &Read,
        recorded: &Recorded,
        took: Duration,
        chains: u64,
        queried: Queried,
    ) -> Self {
        Self {
            rows: read.rows,
            skipped: read.skipped,
            aircraft: read.aircraft.len(),
            commits: recorded.commits,
            departed: recorded.departed,
            arrived: recorded.arrived,
            diverted: recorded.diverted,
            cancelled: recorded.cancelled,
            events: recorded.events(),
            chains_verified: chains,
            queried,
            took,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.rows - self.skipped - self.commits;
        let rate = self.commits as f64 / self.took.as_secs_f64();
        writeln!(f, "rows       {:>8}", self.rows)?;
        writeln!(f, "  skipped  {:>8}  without a tail number", self.skipped)?;
        writeln!(f, "  known    {:>8}  recorded before, nothing stored again", known)?;
        writeln!(f, "  commits  {:>8}  in {:.1?}, {rate:.0} commits/s", self.commits, self.took)?;
        writeln!(f, "events     {:>8}", self.events)?;
        writeln!(f, "  departed {:>8}", self.departed)?;
        writeln!(f, "  arrived  {:>8}", self.arrived)?;
        writeln!(f, "  diverted {:>8}", self.diverted)?;
        writeln!(f, "  cancelled{:>8}", self.cancelled)?;
        writeln!(f, "aircraft   {:>8}  {} chains verified", self.aircraft, self.chains_verified)?;
        write!(f, "boards     {:>8}", self.queried.boards)
    }
}
