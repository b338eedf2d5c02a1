//! The work of an instance: it stands by, and once it is active it keeps models current and builds what shall follow them.

use std::sync::Arc;
use std::time::Duration;

use futures::pin_mut;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::control::follow_control;
use super::error::ProjectionError;
use super::feed::{PAUSE, Selection};
use super::generations::{self, Building, Left, Plan};
use super::pointers::{self, Kept};
use super::pump::{Interrupt, Pump, Step};
use super::records::{Checkpoint, Control, Held, Keys, kept, put};
use super::status::{ProjectionReport, ProjectionStatus, progress};
use super::{Projection, ProjectionOptions};
use crate::backend::Position;
use crate::event::NonEmpty;
use crate::lease::Lease;
use crate::state::Expected;
use crate::store::Context;

pub(super) struct Runner<P> {
    pub(super) context: Context,
    pub(super) projection: Arc<P>,
    pub(super) options: ProjectionOptions,
    pub(super) keys: Keys,
    pub(super) instance: Uuid,
    pub(super) report: watch::Sender<Option<ProjectionReport>>,
    pub(super) stop: watch::Receiver<bool>,
}

impl<P: Projection> Runner<P> {
    pub(super) async fn run(self) -> Result<(), ProjectionError> {
        loop {
            let outcome = self.lead().await;
            match outcome {
                Ok(()) => return Ok(()),
                Err(Interrupt::Superseded) => {
                    self.report.send_replace(None);
                    if self.stopped_within(PAUSE).await {
                        return Ok(());
                    }
                }
                Err(Interrupt::Failed(error)) if error.is_transient() => {
                    tracing::warn!(projection = P::NAME, %error, "projection begins again");
                    if self.stopped_within(PAUSE).await {
                        return Ok(());
                    }
                }
                Err(Interrupt::Failed(error)) => {
                    tracing::error!(projection = P::NAME, %error, "projection stopped");
                    let error_text = kept(&error.to_string());
                    self.say(|report| {
                        report.status = ProjectionStatus::Failed { error: error_text }
                    });
                    if !matches!(error, ProjectionError::Outdated { .. }) {
                        self.write_status().await;
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Stands by, leads, and gives the lease back.
    async fn lead(&self) -> Result<(), Interrupt> {
        let bucket = self.context.read_models().as_ref();
        let key = self.keys.lease(P::VERSION)?;
        let clock = self.context.clock().as_ref();
        let acquiring = Lease::acquire(bucket, key, self.instance, self.options.lease, clock);
        let mut lease = tokio::select! {
            lease = acquiring => lease?,
            () = self.stopped() => return Ok(()),
        };
        tracing::info!(projection = P::NAME, instance = %self.instance, "projection is active");
        let outcome = tokio::select! {
            outcome = self.serve() => outcome,
            () = lease.keep() => Err(Interrupt::Superseded),
            () = self.stopped_for(LAST_STEP) => Ok(()),
        };
        if !is_overtaken(&outcome) {
            self.write_status().await;
        }
        if !matches!(outcome, Err(Interrupt::Superseded)) {
            lease.release().await;
        }
        outcome
    }

    async fn serve(&self) -> Result<(), Interrupt> {
        let mut control = follow_control(&self.context, &self.keys).await?;
        let status = self.keep_status();
        pin_mut!(status);
        loop {
            let wish: Control = control.borrow_and_update().clone();
            let work = async {
                if wish.paused {
                    let visible = generations::visible::<P>(&self.context).await?;
                    self.begin(visible, ProjectionStatus::Paused)?;
                    self.stopped().await;
                    return Ok(Ended::Stopped);
                }
                self.work(&wish).await
            };
            tokio::select! {
                ended = work => match ended? {
                    Ended::Stopped => return Ok(()),
                    Ended::Switched => {}
                },
                // A wish drops the work where it is; the checkpoint knows where that was.
                changed = control.changed() => if changed.is_err() {
                    return Err(Interrupt::Superseded);
                },
                () = &mut status => {}
            }
        }
    }

    /// Keeps what readers see current, and builds what shall follow it, until that is done or somebody stops it.
    async fn work(&self, wish: &Control) -> Result<Ended, Interrupt> {
        let Plan { live, building, visible, newer, untidy } =
            generations::plan::<P>(&self.context, wish.rebuild, self.options.lease).await?;
        let status = match (&building, &live) {
            (None, Some((_, checkpoint))) => self.lag(checkpoint.record.position).await,
            _ => ProjectionStatus::Rebuilding,
        };
        self.begin(visible, status)?;
        self.write_status().await;
        let ours = live.is_some();
        let live = async {
            match live {
                Some((generation, checkpoint)) => {
                    let policy = self.options.poison;
                    let pump = Pump::new(
                        &self.context,
                        &self.projection,
                        generation,
                        checkpoint,
                        false,
                        policy,
                    )?;
                    self.keep_current(pump, building.is_none()).await
                }
                None => std::future::pending().await,
            }
        };
        let newer_gone = generations::gone(&self.context, newer, self.options.lease);
        match &building {
            None => tokio::select! {
                ended = live => ended,
                () = newer_gone => Ok(Ended::Switched),
                never = self.tidy(untidy) => never,
            },
            Some(next) => {
                let begun = next.checkpoint.clone();
                let built = tokio::select! {
                    ended = self.while_building(live) => return ended,
                    built = self.build(next, begun, FEW) => built?,
                };
                // Now that readers see no more of the old one, the new one is brought as far.
                let old = generations::left::<P>(&self.context, visible, ours).await?;
                let built = match (built, &old) {
                    (Some(built), Some(old)) if old.is_ahead_of(&built) => {
                        self.build(next, built, u64::MAX).await?
                    }
                    (built, _) => built,
                };
                match built {
                    Some(_) => self.switch(building, old).await,
                    None => Ok(Ended::Stopped),
                }
            }
        }
    }

    async fn keep_current(&self, mut pump: Pump<P>, alone: bool) -> Result<Ended, Interrupt> {
        let (mut current, mut looked) = (false, None);
        loop {
            let Some(step) = self.step(&mut pump).await? else { return Ok(Ended::Stopped) };
            current |= step.caught_up;
            if alone {
                let status = match current && !step.more {
                    true => ProjectionStatus::UpToDate,
                    false => self.behind(step.position, &mut looked).await,
                };
                self.say(|report| {
                    report.count(&step);
                    report.status = status;
                });
            }
        }
    }

    /// What readers see may be broken, which a new generation is to make good: that fails or succeeds by itself.
    async fn while_building(
        &self,
        live: impl Future<Output = Result<Ended, Interrupt>>,
    ) -> Result<Ended, Interrupt> {
        match live.await {
            Err(Interrupt::Failed(error)) if !error.is_transient() => {
                tracing::warn!(projection = P::NAME, %error, "not current while it is rebuilt");
                std::future::pending().await
            }
            ended => ended,
        }
    }

    /// Builds until so few events came meanwhile, and says where that is; `None` when it was stopped.
    async fn build(
        &self,
        building: &Building,
        checkpoint: Held<Checkpoint>,
        few: u64,
    ) -> Result<Option<Held<Checkpoint>>, Interrupt> {
        let generation = building.generation;
        let before = building.checkpoint.record.events;
        let policy = self.options.poison;
        let open = |checkpoint| {
            Pump::new(&self.context, &self.projection, generation, checkpoint, true, policy)
        };
        let mut pass = checkpoint.record.events;
        let mut pump = open(checkpoint)?;
        let begun = Instant::now();
        let mut end = self.context.status().await?.last;
        loop {
            let Some(step) = self.step(&mut pump).await? else { return Ok(None) };
            if step.caught_up && step.events - pass <= few {
                return Ok(Some(pump.checkpoint()));
            }
            if step.caught_up {
                pass = step.events;
                pump = open(pump.checkpoint())?;
            }
            end = end.max(step.position);
            let progress = progress(step.events - before, begun.elapsed(), step.position, end);
            self.say(|report| {
                report.count(&step);
                report.progress = Some(progress);
            });
        }
    }

    async fn switch(
        &self,
        building: Option<Building>,
        left: Option<Left>,
    ) -> Result<Ended, Interrupt> {
        let Some(building) = building else { return Ok(Ended::Switched) };
        let generation = building.generation;
        let bucket = self.context.read_models();
        generations::switch(bucket.as_ref(), building, left).await?;
        tracing::info!(projection = P::NAME, generation, "projection switched to a new generation");
        Ok(Ended::Switched)
    }

    /// Removes what is left of earlier generations, and then waits for ever. It does no harm meanwhile, so a failure only
    /// makes it try again later.
    async fn tidy(&self, mut untidy: Vec<Kept>) -> Result<Ended, Interrupt> {
        let bucket = self.context.read_models().as_ref();
        while let Err(error) = pointers::tidy(bucket, untidy).await {
            tracing::warn!(projection = P::NAME, %error, "old generations not removed yet");
            untidy = loop {
                sleep(UNTIDY_PAUSE).await;
                if let Ok(kept) = pointers::kept::<P>(bucket).await {
                    break pointers::untidy(kept);
                }
            };
        }
        std::future::pending().await
    }

    /// One step, or `None` when it shall stop. A step that has taken events is finished.
    async fn step(&self, pump: &mut Pump<P>) -> Result<Option<Step>, Interrupt> {
        tokio::select! {
            biased;
            () = self.stopped() => Ok(None),
            () = pump.ready() => pump.step().await.map(Some),
        }
    }

    async fn lag(&self, position: Position) -> ProjectionStatus {
        match self.end(position).await.get().saturating_sub(position.get()) {
            0 => ProjectionStatus::UpToDate,
            behind_by => ProjectionStatus::Lagging { behind_by },
        }
    }

    /// How far behind one is for which an event waits, by where the log ended when it was last looked at.
    async fn behind(
        &self,
        position: Position,
        looked: &mut Option<(Instant, Position)>,
    ) -> ProjectionStatus {
        let fresh = looked.filter(|(at, _)| at.elapsed() < STATUS_PAUSE);
        let (at, end) = match fresh {
            Some(fresh) => fresh,
            None => (Instant::now(), self.end(position).await),
        };
        *looked = Some((at, end));
        ProjectionStatus::Lagging { behind_by: end.get().saturating_sub(position.get()).max(1) }
    }

    async fn end(&self, position: Position) -> Position {
        self.context.status().await.map_or(position, |status| status.last)
    }

    async fn stopped(&self) {
        // It fails only when the handle is gone, which stops the runner as well.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }

    async fn stopped_for(&self, time: Duration) {
        self.stopped().await;
        sleep(time).await;
    }

    async fn stopped_within(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.stopped() => true,
            () = sleep(pause) => false,
        }
    }

    fn begin(
        &self,
        generation: Option<u64>,
        status: ProjectionStatus,
    ) -> Result<(), ProjectionError> {
        let reads = Selection::new(&P::filters(), self.context.scheme())?;
        let (instance, updated_at) = (self.instance, self.context.clock().now());
        self.report.send_modify(|report| {
            let report = report.get_or_insert_with(|| {
                ProjectionReport::begun::<P>(reads.clone(), instance, updated_at)
            });
            report.generation = generation;
            report.status = status;
            report.progress = None;
        });
        Ok(())
    }

    fn say(&self, change: impl FnOnce(&mut ProjectionReport)) {
        self.report.send_if_modified(|report| {
            let Some(report) = report else { return false };
            let before = report.clone();
            change(report);
            *report != before
        });
    }

    /// Writes what is said to the bucket, not more often than once in a while.
    async fn keep_status(&self) {
        let mut said = self.report.subscribe();
        loop {
            // Said again from time to time: what a deposed instance said later than this one must not stay.
            let _ = timeout(STATUS_REPEATED, said.changed()).await;
            self.write_status().await;
            sleep(STATUS_PAUSE).await;
        }
    }

    async fn write_status(&self) {
        let Some(mut report) = self.report.borrow().clone() else { return };
        report.updated_at = self.context.clock().now();
        let Ok(key) = self.keys.status() else { return };
        let write = put(key, &report, Expected::Anything);
        let bucket = self.context.read_models();
        if let Err(error) = bucket.write(NonEmpty::one(write)).await {
            tracing::debug!(projection = P::NAME, %error, "status not written");
        }
    }
}

/// How long is waited between two writes of the status.
const STATUS_PAUSE: Duration = Duration::from_secs(1);

/// How long a status stands that does not change.
const STATUS_REPEATED: Duration = Duration::from_secs(15);

/// How long old generations are left after a failure to remove them.
const UNTIDY_PAUSE: Duration = Duration::from_secs(15);

/// How long what is under way may take when it shall stop.
const LAST_STEP: Duration = Duration::from_secs(5);

/// How many events may come while a generation is built for the last bit to be built while nothing is kept current.
const FEW: u64 = 1_000;

enum Ended {
    Stopped,
    Switched,
}

/// Whether others speak for the projection now.
fn is_overtaken(outcome: &Result<(), Interrupt>) -> bool {
    matches!(
        outcome,
        Err(Interrupt::Superseded | Interrupt::Failed(ProjectionError::Outdated { .. }))
    )
}
