//! Running a process manager: one instance of the program is active, the others stand by.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use uuid::Uuid;

use super::error::ProcessError;
use super::records::{ParkedReaction, all_parked, lease_key};
use super::worker::Worker;
use super::{ProcessManager, ProcessOptions};
use crate::backend::{BackendError, Position};
use crate::lease::Lease;
use crate::projection::Selection;
use crate::store::Context;
use crate::subject::AggregateType;

/// A process manager that runs in the background. Dropping it ends it at once, wherever it is; a commit under way is stored
/// whole or not at all.
///
/// Any number of instances may run, in any number of processes: one is active, the others take over within the lease's
/// time when it is gone. Each event and each timeout takes effect once all the same, also when two believe they are active.
#[derive(Debug)]
pub struct RunningProcess {
    name: &'static str,
    context: Context,
    stop: watch::Sender<bool>,
    position: watch::Receiver<Position>,
    task: Option<JoinHandle<Result<(), ProcessError>>>,
}

impl RunningProcess {
    /// Starts a process manager on the current tokio runtime. No round trip.
    ///
    /// # Errors
    /// [`ProcessError::InvalidToken`] when its name is none, [`ProcessError::Definition`] when it reads nothing.
    pub fn start<P: ProcessManager>(
        context: &Context,
        manager: P,
        options: ProcessOptions,
    ) -> Result<Self, ProcessError> {
        // The alphabet of all names.
        AggregateType::new(P::NAME)?;
        let selection = Selection::new(&P::filters(), context.scheme())?;
        let (stop, stopping) = watch::channel(false);
        let (reached, position) = watch::channel(Position::START);
        let worker = Worker {
            context: context.clone(),
            manager: Arc::new(manager),
            selection,
            options,
            stop: stopping,
            reached,
        };
        let task = Some(tokio::spawn(run(worker, Uuid::now_v7())));
        Ok(Self { name: P::NAME, context: context.clone(), stop, position, task })
    }

    /// The process manager's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it runs, active or standing by.
    pub fn is_running(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// The last event that this instance has reacted to, or passed over.
    pub fn position(&self) -> Position {
        *self.position.borrow()
    }

    /// Waits until this instance has reacted to the event at a position, or to one behind it. Cancel safe.
    ///
    /// # Errors
    /// Why it stopped, if it did.
    pub async fn handled(&mut self, position: Position) -> Result<(), ProcessError> {
        let mut reached = self.position.clone();
        if reached.wait_for(|at| *at >= position).await.is_ok() {
            return Ok(());
        }
        self.ended().await?;
        let reason = format!("it has ended before it reacted to position {position}");
        Err(ProcessError::Definition { reason })
    }

    /// What this process manager could not react to and parked, in no order; by whichever instance. A few round trips.
    ///
    /// # Errors
    /// [`ProcessError::Record`] when a record does not decode; what can happen to a read.
    pub async fn parked(&self) -> Result<Vec<ParkedReaction>, ProcessError> {
        let bucket = self.context.read_models();
        let keys = bucket.keys(&all_parked(self.name)).await?;
        let mut parked = Vec::with_capacity(keys.len());
        for keys in keys.chunks(1000) {
            for (key, slot) in keys.iter().zip(bucket.get_many(keys).await?) {
                let Some(value) = slot.value else { continue };
                parked.push(serde_json::from_slice(&value).map_err(|error| {
                    ProcessError::Record { place: key.to_string(), reason: error.to_string() }
                })?);
            }
        }
        Ok(parked)
    }

    /// Stops it after the reaction under way. One that was refused is not tried again; it comes again after a start.
    ///
    /// # Errors
    /// Why it had stopped before, if it had.
    pub async fn stop(mut self) -> Result<(), ProcessError> {
        self.stop.send_replace(true);
        self.ended().await
    }

    async fn ended(&mut self) -> Result<(), ProcessError> {
        let ended = match self.task.as_mut() {
            Some(task) => flatten(task.await),
            None => Ok(()),
        };
        // It can be told once only.
        self.task = None;
        ended
    }
}

impl Drop for RunningProcess {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn flatten(ended: Result<Result<(), ProcessError>, JoinError>) -> Result<(), ProcessError> {
    ended.unwrap_or_else(|error| {
        Err(ProcessError::Definition { reason: format!("its task ended: {error}") })
    })
}

async fn run<P: ProcessManager>(worker: Worker<P>, instance: Uuid) -> Result<(), ProcessError> {
    loop {
        match lead(&worker, instance).await {
            Err(error) if error.is_transient() => {
                tracing::warn!(process = P::NAME, %error, "process manager begins again");
                worker.pause().await;
            }
            Err(error) => {
                tracing::error!(process = P::NAME, %error, "process manager stopped");
                return Err(error);
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// Stands by, works, and gives the lease back.
async fn lead<P: ProcessManager>(worker: &Worker<P>, instance: Uuid) -> Result<(), ProcessError> {
    let bucket = worker.context.read_models().as_ref();
    let clock = worker.context.clock().as_ref();
    let acquiring =
        Lease::acquire(bucket, lease_key(P::NAME)?, instance, worker.options.lease, clock);
    let mut lease = tokio::select! {
        lease = acquiring => lease?,
        () = worker.stopped() => return Ok(()),
    };
    tracing::info!(process = P::NAME, %instance, "process manager is active");
    let outcome = tokio::select! {
        outcome = worker.work() => outcome,
        () = lease.keep() => {
            let detail = "another instance has taken over".to_owned();
            return Err(BackendError::Conflict { detail }.into());
        }
    };
    lease.release().await;
    outcome
}
