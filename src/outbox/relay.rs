//! Running a relay: one instance is active, the others stand by.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use super::pump::Pump;
use super::{Outbox, OutboxError, Publisher};
use crate::backend::{BackendError, Position};
use crate::lease::Lease;

/// How a relay is run. How often a failed message is tried belongs to the [`Outbox`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayOptions {
    /// How many messages are published at a time, each of another key. Default 128, at least 1.
    pub concurrency: usize,
    /// How long one publish may take. Default 10 s. Also how long a stop waits for what is under way.
    pub timeout: Duration,
    /// How long an active instance that is not heard of is waited for before another takes over. Default 5 s.
    pub lease: Duration,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self { concurrency: 128, timeout: Duration::from_secs(10), lease: Duration::from_secs(5) }
    }
}

/// What a relay is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayPhase {
    /// Another instance is active, or it is not known yet whether one is.
    StandingBy,
    /// It publishes what there is.
    Publishing,
    /// The receiver is not available. It is tried again and again, nothing is counted as failed, nothing more is read than
    /// fits into memory.
    ReceiverUnavailable,
    /// The context's own stream or bucket is not available, or somebody else changed the relay's records. It begins again.
    Recovering,
}

/// What one instance of a relay says of itself. Of what is only stored, and not read yet, it knows nothing: see
/// [`Outbox::backlog`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayStatus {
    /// What it is doing.
    pub phase: RelayPhase,
    /// Everything up to here is published or held, and that is written down.
    pub position: Position,
    /// How many messages were published, by all instances; a repetition counts again.
    pub published: u64,
    /// How many messages wait to be tried again, or behind such a one.
    pub waiting: usize,
    /// How many messages are parked.
    pub parked: u64,
    /// How many messages are read and not published, those that wait among them.
    pub unpublished: usize,
    /// How long ago the oldest of these was stored, by the server's clock and this process's; zero when there is none.
    pub lag: Duration,
    /// What went wrong last.
    pub trouble: Option<String>,
}

/// A relay that runs in the background. Dropping it ends it at once; what was under way may be published again.
///
/// Any number of instances may run, in any number of processes: one is active, the others take over within the lease's
/// time when it is gone. Each message is published at least once, those of one key in the order they were stored: whoever
/// drops repetitions by their id sees each once and in order.
///
/// ```no_run
/// # use cim_persistence::outbox::{Outbox, PendingMessage, PublishError, Publisher, Relay, RelayOptions};
/// # struct Audit;
/// # impl Publisher for Audit {
/// #     async fn publish(&self, _: &PendingMessage) -> Result<(), PublishError> { Ok(()) }
/// # }
/// # async fn example(context: cim_persistence::Context) -> Result<(), Box<dyn std::error::Error>> {
/// let relay = Relay::start(&Outbox::of(&context), Audit, RelayOptions::default());
/// // … and when the service ends:
/// relay.stop().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Relay {
    status: watch::Receiver<RelayStatus>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<Result<(), OutboxError>>>,
}

impl Relay {
    /// Starts a relay on the current tokio runtime. No round trip.
    pub fn start<P: Publisher>(outbox: &Outbox, publisher: P, options: RelayOptions) -> Self {
        let (stop, stopping) = watch::channel(false);
        let (report, status) = watch::channel(RelayStatus {
            phase: RelayPhase::StandingBy,
            position: Position::START,
            published: 0,
            waiting: 0,
            parked: 0,
            unpublished: 0,
            lag: Duration::ZERO,
            trouble: None,
        });
        let runner = Runner {
            pump: Pump::new(outbox.clone(), Arc::new(publisher), options, report, stopping.clone()),
            outbox: outbox.clone(),
            lease: options.lease,
            instance: Uuid::now_v7(),
            stop: stopping,
        };
        Self { status, stop, task: Some(tokio::spawn(runner.run())) }
    }

    /// Whether it runs, active or standing by.
    pub fn is_running(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// What this instance last said of itself, at most a second ago. No round trip.
    pub fn status(&self) -> RelayStatus {
        self.status.borrow().clone()
    }

    /// Waits until what this instance says of itself is as wanted. Cancel safe.
    ///
    /// # Errors
    /// Why it stopped before, if it did.
    pub async fn wait_until(
        &mut self,
        wanted: impl FnMut(&RelayStatus) -> bool,
    ) -> Result<RelayStatus, OutboxError> {
        let mut status = self.status.clone();
        if let Ok(status) = status.wait_for(wanted).await {
            return Ok(status.clone());
        }
        self.ended().await?;
        Err(OutboxError::Stopped)
    }

    /// Stops it: nothing more is begun, what is under way is waited for and written down, at most for the
    /// [timeout](RelayOptions::timeout) each. What could not be written down is published again by the next.
    ///
    /// # Errors
    /// Why it had stopped before, if it had.
    pub async fn stop(mut self) -> Result<(), OutboxError> {
        self.stop.send_replace(true);
        self.ended().await
    }

    async fn ended(&mut self) -> Result<(), OutboxError> {
        let ended = match self.task.as_mut() {
            Some(task) => task.await,
            None => return Ok(()),
        };
        // It can be told once only.
        self.task = None;
        ended.unwrap_or_else(|error| Err(OutboxError::Panicked { reason: error.to_string() }))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Runner<P> {
    pump: Pump<P>,
    outbox: Outbox,
    lease: Duration,
    instance: Uuid,
    stop: watch::Receiver<bool>,
}

/// How long is waited before a relay begins again.
const PAUSE: Duration = Duration::from_millis(200);

impl<P: Publisher> Runner<P> {
    async fn run(mut self) -> Result<(), OutboxError> {
        loop {
            match self.lead().await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(relay = self.outbox.name(), %error, "the relay begins again");
                    self.pump.trouble(RelayPhase::Recovering, Some(error.to_string()));
                }
                ended => return ended,
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = stopped(&self.stop) => return Ok(()),
            }
        }
    }

    /// Waits until this instance is the active one, and is it until it is stopped or another takes over.
    async fn lead(&mut self) -> Result<(), OutboxError> {
        let context = self.outbox.context.clone();
        let (bucket, clock) = (context.read_models().as_ref(), context.clock().as_ref());
        let key = self.outbox.book.keys.lease.clone();
        let mut lease = tokio::select! {
            lease = Lease::acquire(bucket, key, self.instance, self.lease, clock) => lease?,
            () = stopped(&self.stop) => return Ok(()),
        };
        let outcome = tokio::select! {
            outcome = self.pump.serve() => outcome,
            () = lease.keep() => {
                self.pump.trouble(RelayPhase::StandingBy, None);
                let detail = "another instance has taken over".to_owned();
                return Err(BackendError::Conflict { detail }.into());
            }
        };
        lease.release().await;
        outcome
    }
}

/// Waits until the relay is to stop.
pub(super) async fn stopped(stop: &watch::Receiver<bool>) {
    // It fails only when the handle is gone, which ends the task as well.
    let _ = stop.clone().wait_for(|stop| *stop).await;
}
