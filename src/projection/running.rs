//! Running a projection: one instance is active, the others stand by. What an instance does is in `runner`.

use std::sync::Arc;
use std::time::Duration;

use futures::future::Either;
use futures::pin_mut;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::control::Projections;
use super::error::ProjectionError;
use super::records::Keys;
use super::runner::Runner;
use super::status::ProjectionReport;
use super::{Projection, ProjectionOptions};
use crate::store::Context;
use crate::subject::AggregateType;

/// A projection that runs in the background. Dropping it ends it at once, wherever it is; nothing is half done by that.
///
/// Any number of instances may run, in any number of processes: one is active, the others take over within the lease's
/// time when it is gone. Each event takes effect once all the same, also when two believe they are active.
#[derive(Debug)]
pub struct RunningProjection {
    name: &'static str,
    context: Context,
    report: watch::Receiver<Option<ProjectionReport>>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<Result<(), ProjectionError>>>,
}

impl RunningProjection {
    /// Starts a projection on the current tokio runtime. No round trip.
    ///
    /// # Errors
    /// [`ProjectionError::InvalidToken`] when its name, or that of a model, is no name.
    pub fn start<P: Projection>(
        context: &Context,
        projection: P,
        options: ProjectionOptions,
    ) -> Result<Self, ProjectionError> {
        // The alphabet of all names.
        AggregateType::new(P::NAME)?;
        let (report, reports) = watch::channel(None);
        let (stop, stopping) = watch::channel(false);
        let runner = Runner {
            context: context.clone(),
            projection: Arc::new(projection),
            options,
            keys: Keys::of(P::NAME),
            instance: Uuid::now_v7(),
            report,
            stop: stopping,
        };
        let task = Some(tokio::spawn(runner.run()));
        Ok(Self { name: P::NAME, context: context.clone(), report: reports, stop, task })
    }

    /// The projection's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it runs, active or standing by.
    pub fn is_running(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// What this instance last said of itself; `None` while it stands by.
    pub fn report(&self) -> Option<ProjectionReport> {
        self.report.borrow().clone()
    }

    /// Waits until every event stored before this call has taken effect, whichever instance does it.
    ///
    /// # Errors
    /// Why this instance stopped, if it did, and that it did when it is asked again; [`ProjectionError::NotReached`] after
    /// `patience`.
    pub async fn caught_up(&mut self, patience: Duration) -> Result<(), ProjectionError> {
        let last = self.context.status().await?.last;
        let projections = Projections::of(&self.context);
        let waiting = projections.wait_for(self.name, last, patience);
        let ended = async {
            match self.task.as_mut() {
                Some(task) => flatten(task.await),
                None => Ok(()),
            }
        };
        pin_mut!(waiting, ended);
        match futures::future::select(waiting, ended).await {
            Either::Left((reached, _)) => reached,
            Either::Right((ended, _)) => {
                // Why can be told once only.
                self.task = None;
                ended?;
                let reason = format!("{} has ended before; start it again", self.name);
                Err(ProjectionError::Definition { reason })
            }
        }
    }

    /// Stops it: what is under way is finished, the lease is given back.
    ///
    /// What is not finished after five seconds, as when the server is away, is given up: nothing is half done by that, and
    /// whoever starts again goes on from the checkpoint.
    ///
    /// # Errors
    /// Why it had stopped before, if it had.
    pub async fn stop(mut self) -> Result<(), ProjectionError> {
        self.stop.send_replace(true);
        match self.task.as_mut() {
            Some(task) => flatten(task.await),
            None => Ok(()),
        }
    }
}

impl Drop for RunningProjection {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// What a task ended with.
pub(super) fn flatten(
    ended: Result<Result<(), ProjectionError>, tokio::task::JoinError>,
) -> Result<(), ProjectionError> {
    ended.unwrap_or_else(|error| {
        Err(ProjectionError::Definition { reason: format!("its task ended: {error}") })
    })
}
