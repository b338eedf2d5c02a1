//! Effects outside: handlers that send mails, call other services, and cannot be rolled back or rebuilt.
//!
//! A projection can be rebuilt because its models can be made again. An effect cannot be taken back, so how far a handler is
//! belongs to its name alone: a new version of the code, and the rebuild of any projection, go on where the version before
//! was. An effect happens at least once; the event's position tells a repetition.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use super::definition::read_today;
use super::error::ProjectionError;
use super::feed::{Delivered, Feed, PAUSE, Selection};
use super::generations::check_log;
use super::records::{Checkpoint, FORMAT, Keys, Parked, put, read};
use super::running::flatten;
use super::session::panic_text;
use super::{EventSet, ProjectionOptions, Rejection, Then};
use crate::backend::{BackendError, Position};
use crate::event::NonEmpty;
use crate::lease::Lease;
use crate::state::{Expected, KeyWrite};
use crate::store::{Context, EventFilter, StoredEvent};
use crate::subject::AggregateType;

/// Does something outside for the events of a context.
pub trait Effects: Send + Sync + 'static {
    /// Its name in the context: `A-Z a-z 0-9 _ -`, at most 64 bytes. Under another name it begins anew.
    const NAME: &'static str;

    /// The events it handles.
    type Event: EventSet;

    /// Which events it handles; an event that passes any of these. Default: all of the context.
    fn filters() -> Vec<EventFilter> {
        vec![EventFilter::all()]
    }

    /// Does it. Called for one event after the other, in order. An event comes again if the process ends before its
    /// position is written down: let the outside recognise `stored.position()`, or `stored.event_id()`.
    ///
    /// # Errors
    /// Why it could not be done; the policy decides what follows.
    fn handle(
        &self,
        event: Self::Event,
        stored: &StoredEvent,
    ) -> impl Future<Output = Result<(), Rejection>> + Send;
}

/// Where a handler begins that has never run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstStart {
    /// With the first event of the context.
    Beginning,
    /// With what is stored from now on.
    Now,
}

/// The most events whose effects are repeated after a crash.
pub const MOST_REPEATED: usize = 64;

/// A handler of effects that runs in the background, in one process at a time. Dropping it ends it at once.
#[derive(Debug)]
pub struct RunningEffects {
    stop: watch::Sender<bool>,
    position: watch::Receiver<Position>,
    task: Option<JoinHandle<Result<(), ProjectionError>>>,
}

impl RunningEffects {
    /// Starts a handler on the current tokio runtime. No round trip.
    ///
    /// # Errors
    /// [`ProjectionError::InvalidToken`] when its name is none, [`ProjectionError::Definition`] when it handles nothing.
    pub fn start<E: Effects>(
        context: &Context,
        effects: E,
        first: FirstStart,
        options: ProjectionOptions,
    ) -> Result<Self, ProjectionError> {
        AggregateType::new(E::NAME)?;
        let selection = Selection::new(&E::filters(), context.scheme())?;
        let (stop, stopping) = watch::channel(false);
        let (reached, position) = watch::channel(Position::START);
        let worker = Worker {
            context: context.clone(),
            effects: Arc::new(effects),
            selection,
            first,
            options,
            keys: Keys::of(E::NAME),
            instance: Uuid::now_v7(),
            stop: stopping,
            reached,
        };
        Ok(Self { stop, position, task: Some(tokio::spawn(worker.run())) })
    }

    /// Whether it runs, active or standing by.
    pub fn is_running(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// The last event that this instance has handled, or passed over.
    pub fn position(&self) -> Position {
        *self.position.borrow()
    }

    /// Waits until this instance has handled the event at a position, or one behind it. Cancel safe.
    ///
    /// # Errors
    /// Why it stopped, if it did.
    pub async fn handled(&mut self, position: Position) -> Result<(), ProjectionError> {
        let mut reached = self.position.clone();
        if reached.wait_for(|at| *at >= position).await.is_ok() {
            return Ok(());
        }
        self.ended().await?;
        let reason = format!("it has ended before it handled position {position}");
        Err(ProjectionError::Definition { reason })
    }

    /// Stops it after the event under way.
    ///
    /// # Errors
    /// Why it had stopped before, if it had.
    pub async fn stop(mut self) -> Result<(), ProjectionError> {
        self.stop.send_replace(true);
        self.ended().await
    }

    async fn ended(&mut self) -> Result<(), ProjectionError> {
        let ended = match self.task.as_mut() {
            Some(task) => flatten(task.await),
            None => Ok(()),
        };
        // It can be told once only.
        self.task = None;
        ended
    }
}

impl Drop for RunningEffects {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Worker<E> {
    context: Context,
    effects: Arc<E>,
    selection: Selection,
    first: FirstStart,
    options: ProjectionOptions,
    keys: Keys,
    instance: Uuid,
    stop: watch::Receiver<bool>,
    reached: watch::Sender<Position>,
}

/// How far a handler is, as it is written down.
struct Place {
    record: Checkpoint,
    revision: u64,
}

impl<E: Effects> Worker<E> {
    async fn run(self) -> Result<(), ProjectionError> {
        loop {
            match self.lead().await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(effects = E::NAME, %error, "effects begin again");
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    tracing::error!(effects = E::NAME, %error, "effects stopped");
                    return Err(error);
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn lead(&self) -> Result<(), ProjectionError> {
        let bucket = self.context.read_models().as_ref();
        let clock = self.context.clock().as_ref();
        let key = self.keys.effects_lease()?;
        let lease = Lease::acquire(bucket, key, self.instance, self.options.lease, clock);
        let mut lease = tokio::select! {
            lease = lease => lease?,
            () = self.stopped() => return Ok(()),
        };
        let outcome = tokio::select! {
            outcome = self.serve() => outcome,
            () = lease.keep() => {
                let detail = "another instance has taken over".to_owned();
                return Err(BackendError::Conflict { detail }.into());
            }
        };
        lease.release().await;
        outcome
    }

    async fn serve(&self) -> Result<(), ProjectionError> {
        let mut place = self.place().await?;
        let mut feed = Feed::open(&self.context, &self.selection, place.record.position);
        loop {
            tokio::select! {
                biased;
                () = self.stopped() => return Ok(()),
                () = feed.ready() => {}
            }
            let at = place.record.position;
            let run = feed.next(MOST_REPEATED).await.map_err(|e| e.following(E::NAME, at))?;
            for delivered in run.events {
                if *self.stop.borrow() {
                    return self.note(&mut place, Vec::new()).await;
                }
                let parked = match self.handle(&delivered).await {
                    Ok(parked) => parked,
                    Err(error) => {
                        // What was handled before it is not repeated when somebody starts again.
                        self.note(&mut place, Vec::new()).await?;
                        return Err(error);
                    }
                };
                place.record.position = delivered.position;
                place.record.mark = delivered.mark();
                place.record.events += 1;
                if let Some(parked) = parked {
                    place.record.parked += 1;
                    let key = self.keys.parked(delivered.position)?;
                    self.note(&mut place, vec![put(key, &parked, Expected::Anything)]).await?;
                }
            }
            if run.position > place.record.position {
                (place.record.position, place.record.mark) = (run.position, run.mark);
            }
            self.note(&mut place, Vec::new()).await?;
        }
    }

    /// Where the handler is, or begins.
    async fn place(&self) -> Result<Place, ProjectionError> {
        let bucket = self.context.read_models().as_ref();
        let (revision, record) = read::<Checkpoint>(bucket, &self.keys.effects()?).await?;
        if let Some(record) = record {
            check_log(&self.context, E::NAME, &record).await?;
            return Ok(Place { record, revision });
        }
        let status = self.context.status().await?;
        let position = match self.first {
            FirstStart::Beginning => Position::START,
            FirstStart::Now => status.last,
        };
        let record = Checkpoint {
            format: FORMAT,
            version: 1,
            position,
            mark: None,
            log_created: status.created,
            events: 0,
            parked: 0,
            rebuild: 0,
            writer: Uuid::new_v4(),
        };
        let mut place = Place { record, revision };
        // From now on a restart goes on here.
        self.note(&mut place, Vec::new()).await?;
        Ok(place)
    }

    /// Writes down how far the handler is.
    async fn note(
        &self,
        place: &mut Place,
        mut also: Vec<KeyWrite>,
    ) -> Result<(), ProjectionError> {
        let bucket = self.context.read_models().as_ref();
        let key = self.keys.effects()?;
        place.record.writer = Uuid::new_v4();
        also.push(put(key.clone(), &place.record, Expected::Revision(place.revision)));
        let writes = NonEmpty::from_vec(also).expect("the place is in it");
        loop {
            match bucket.write(writes.clone()).await {
                Ok(revisions) => {
                    place.revision = *revisions.last().expect("a revision for each write");
                    break;
                }
                Err(
                    error @ (BackendError::Conflict { .. }
                    | BackendError::Duplicate { .. }
                    | BackendError::Unknown { .. }
                    | BackendError::Unavailable { .. }),
                ) => {
                    let (revision, record) = read::<Checkpoint>(bucket, &key).await?;
                    if record.is_some_and(|record| record.writer == place.record.writer) {
                        place.revision = revision;
                        break;
                    }
                    // Who shall stop waits for no server; what is not written down is repeated.
                    if revision != place.revision || *self.stop.borrow() {
                        return Err(error.into());
                    }
                    sleep(PAUSE).await;
                }
                // It would be refused for ever.
                Err(error) => return Err(error.into()),
            }
        }
        self.reached.send_replace(place.record.position);
        Ok(())
    }

    /// Handles an event as the policy says; what is to be parked, if it comes to that.
    async fn handle(&self, delivered: &Delivered) -> Result<Option<Parked>, ProjectionError> {
        let policy = self.options.poison;
        let mut pause = policy.pause;
        let mut tries = 0;
        let reason = loop {
            let reason = match self.try_handle(delivered).await {
                Ok(()) => return Ok(None),
                Err(reason) => reason,
            };
            if tries == policy.retries {
                break reason;
            }
            tries += 1;
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(30));
        };
        match policy.then {
            Then::Stop => Err(ProjectionError::Poison {
                projection: E::NAME.to_owned(),
                position: delivered.position.get(),
                reason: reason.to_string(),
            }),
            Then::Park => Ok(Some(delivered.parked(0, &reason, self.context.clock().now()))),
        }
    }

    async fn try_handle(&self, delivered: &Delivered) -> Result<(), Rejection> {
        let stored = delivered.event.as_ref().map_err(ToString::to_string)?;
        let handling = async {
            for event in read_today::<E::Event>(stored)? {
                self.effects.handle(event, stored).await?;
            }
            Ok(())
        };
        AssertUnwindSafe(handling).catch_unwind().await.map_err(panic_text)?
    }

    async fn stopped(&self) {
        // It fails only when the handle is gone, which ends the task as well.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }
}
