//! Recording a file of flights: the rows of one aircraft one after the other, aircraft side by side.
//!
//! A few hundred workers each own some of the aircraft and have a short queue, so a file of any length is in memory only
//! by the rows that are being stored.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::ops::AddAssign;
use std::path::PathBuf;
use std::time::Duration;

use cim_persistence::repository::{Freshness, Repository, TransactError, TransactOptions};
use indicatif::ProgressBar;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

use crate::domain::{Aircraft, Flight, FlightEvent};
use crate::rows::{RowError, Rows};

/// How many commits may be on their way at once.
const WORKERS: usize = 512;

/// How many rows may wait for one worker.
const QUEUE: usize = 16;

/// What a file held.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) rows: u64,
    /// Rows without an aircraft.
    pub(crate) skipped: u64,
    /// How many rows each aircraft has.
    pub(crate) aircraft: HashMap<String, u64>,
}

/// What was stored.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) commits: u64,
    pub(crate) departed: u64,
    pub(crate) arrived: u64,
    pub(crate) diverted: u64,
    pub(crate) cancelled: u64,
}

/// Why a file was not recorded to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error(transparent)]
    Rows(#[from] RowError),
    #[error("a flight of {tailnum} was not recorded: {source}")]
    Record { tailnum: String, source: TransactError<Infallible> },
    #[error("a task ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

type Report = (String, Flight);

/// Records every flight of a file.
pub(crate) async fn import(
    repository: &Repository<Aircraft>,
    path: PathBuf,
    progress: ProgressBar,
) -> Result<(Read, Recorded), ImportError> {
    let mut workers = JoinSet::new();
    let mut queues = Vec::with_capacity(WORKERS);
    for _ in 0..WORKERS {
        let (queue, reports) = channel(QUEUE);
        workers.spawn(work(repository.clone(), reports));
        queues.push(queue);
    }
    let reader = tokio::task::spawn_blocking(move || read(Rows::open(&path)?, &queues, &progress));
    let mut recorded = Recorded::default();
    while let Some(done) = workers.join_next().await {
        recorded += done??;
    }
    Ok((reader.await??, recorded))
}

/// Hands each row to the worker of its aircraft.
fn read(
    mut rows: Rows,
    queues: &[Sender<Report>],
    progress: &ProgressBar,
) -> Result<Read, RowError> {
    let mut read = Read::default();
    while let Some(row) = rows.next() {
        let row = row?;
        read.rows += 1;
        progress.set_position(rows.bytes());
        let Some(tailnum) = row.tailnum else {
            read.skipped += 1;
            continue;
        };
        *read.aircraft.entry(tailnum.clone()).or_default() += 1;
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&tailnum);
        let queue = &queues[(hash % queues.len() as u64) as usize];
        if queue.blocking_send((tailnum, row.flight)).is_err() {
            // The worker has failed and says why.
            break;
        }
    }
    Ok(read)
}

async fn work(
    repository: Repository<Aircraft>,
    mut reports: Receiver<Report>,
) -> Result<Recorded, ImportError> {
    // What the cache holds is enough to decide on: should it be outdated, the commit notices.
    let options = || TransactOptions {
        freshness: Freshness::Cached(Duration::MAX),
        ..TransactOptions::default()
    };
    let mut recorded = Recorded::default();
    while let Some((tailnum, flight)) = reports.recv().await {
        let decide = |aircraft: &Aircraft| {
            let events = aircraft.record(&flight);
            let counted = Recorded::of(&events);
            Ok((events, counted))
        };
        match repository.transact_with(&tailnum, options(), decide).await {
            Ok(done) => recorded += done.reply,
            Err(source) => return Err(ImportError::Record { tailnum, source }),
        }
    }
    Ok(recorded)
}

impl Read {
    /// The aircraft with the most rows, and how many; of several the first by name.
    pub(crate) fn busiest(&self) -> Option<(&String, u64)> {
        let most = self.aircraft.iter().max_by_key(|(name, rows)| (**rows, Reverse(*name)))?;
        Some((most.0, *most.1))
    }
}

impl Recorded {
    /// How many events that is.
    pub(crate) fn events(&self) -> u64 {
        self.departed + self.arrived + self.diverted + self.cancelled
    }

    /// The events of one decision, which are one commit, or none.
    fn of(events: &[FlightEvent]) -> Self {
        let mut counted = Self { commits: u64::from(!events.is_empty()), ..Self::default() };
        for event in events {
            match event {
                FlightEvent::Departed { .. } => counted.departed += 1,
                FlightEvent::Arrived { .. } => counted.arrived += 1,
                FlightEvent::Diverted { .. } => counted.diverted += 1,
                FlightEvent::Cancelled { .. } => counted.cancelled += 1,
            }
        }
        counted
    }
}

impl AddAssign for Recorded {
    fn add_assign(&mut self, other: Self) {
        self.commits += other.commits;
        self.departed += other.departed;
        self.arrived += other.arrived;
        self.diverted += other.diverted;
        self.cancelled += other.cancelled;
    }
}
