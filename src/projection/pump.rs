//! One generation of a projection on its way along the log.
//!
//! What a run of events changes and the checkpoint after it are one atomic batch, guarded by the revision of the
//! checkpoint. A run that changes more than a batch holds is written in several, each guarded by the checkpoint; its
//! position moves with the last, and the models remember what they hold.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use uuid::Uuid;

use super::batches::pack;
use super::error::ProjectionError;
use super::feed::{Delivered, Feed, PAUSE, Selection};
use super::records::{Checkpoint, Held, Keys, put, read};
use super::session::{Effect, Group, Session, panic_text};
use super::{Changes, PoisonPolicy, Projection, Rejection, Then, read_today};
use crate::backend::{BackendError, Position};
use crate::event::NonEmpty;
use crate::state::{Expected, KeyValue, KeyWrite};
use crate::store::Context;

/// How many events a run takes, and how many models it changes, before they are written. A generation that nobody reads
/// yet takes many, so that a model that changes often is written seldom.
const LIVE: Pace = Pace { events: 2_000, models: 450 };
const BUILDING: Pace = Pace { events: 100_000, models: 20_000 };

/// How many messages that mean nothing are passed over before the checkpoint says so.
const PASSED_OVER: u64 = 10_000;

#[derive(Debug, Clone, Copy)]
struct Pace {
    events: usize,
    models: usize,
}

/// Why a pump stopped.
#[derive(Debug)]
pub(super) enum Interrupt {
    /// Another instance has moved the checkpoint, or taken it away.
    Superseded,
    Failed(ProjectionError),
}

impl<E: Into<ProjectionError>> From<E> for Interrupt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Interrupt {
    /// The reason, if it is a model that no message holds; some event made it so.
    fn too_large(self) -> Result<Rejection, Self> {
        match self {
            Self::Failed(ProjectionError::Backend(error @ BackendError::TooLarge { .. })) => {
                Ok(error.into())
            }
            other => Err(other),
        }
    }
}

/// What one step came to.
pub(super) struct Step {
    pub(super) position: Position,
    pub(super) events: u64,
    pub(super) parked: u64,
    /// Whether everything stored when it began has taken effect.
    pub(super) caught_up: bool,
    /// Whether more events wait.
    pub(super) more: bool,
}

pub(super) struct Pump<P> {
    context: Context,
    projection: Arc<P>,
    keys: Keys,
    generation: u64,
    checkpoint: Held<Checkpoint>,
    session: Session,
    selection: Selection,
    feed: Feed,
    pace: Pace,
    policy: PoisonPolicy,
    /// Events one of which cannot be used. Each is tried alone.
    suspects: RangeInclusive<Position>,
    /// What was applied and is not written yet.
    pending: Pending,
}

/// Where the last of some events lies, and its CID.
type Last = (Position, Option<String>);

#[derive(Debug, Default)]
struct Pending {
    events: u64,
    position: Position,
    mark: Option<String>,
}

impl<P: Projection> Pump<P> {
    pub(super) fn new(
        context: &Context,
        projection: &Arc<P>,
        generation: u64,
        checkpoint: Held<Checkpoint>,
        building: bool,
        policy: PoisonPolicy,
    ) -> Result<Self, ProjectionError> {
        let selection = Selection::new(&P::filters(), context.scheme())?;
        Ok(Self {
            feed: Feed::open(context, &selection, checkpoint.record.position),
            pending: Pending { position: checkpoint.record.position, ..Pending::default() },
            session: Session::new(generation, P::models(), context.evolution().cloned())?,
            context: context.clone(),
            projection: Arc::clone(projection),
            keys: Keys::of(P::NAME),
            generation,
            checkpoint,
            selection,
            pace: if building { BUILDING } else { LIVE },
            policy,
            suspects: Position::START..=Position::START,
        })
    }

    /// How far it is.
    pub(super) fn checkpoint(&self) -> Held<Checkpoint> {
        self.checkpoint.clone()
    }

    /// Waits until there is something to do. Cancel safe.
    pub(super) async fn ready(&mut self) {
        self.feed.ready().await;
    }

    /// Waits for events, and lets them take effect. Dropped while it waits it has taken none; dropped later it has
    /// written whole batches only, and the checkpoint tells which.
    pub(super) async fn step(&mut self) -> Result<Step, Interrupt> {
        let at = self.checkpoint.record.position;
        let run = self.feed.next(LIVE.events).await.map_err(|e| e.following(P::NAME, at))?;
        if !self.take(run.events.into()).await? {
            return Ok(self.progress(false));
        }
        if run.position > self.pending.position {
            // The last message meant nothing here; the checkpoint passes it all the same.
            self.pending.position = run.position;
            self.pending.mark = run.mark;
        }
        let passed = self.pending.position.get() - self.checkpoint.record.position.get();
        let due = match self.pending.events {
            0 => passed >= PASSED_OVER || (passed > 0 && run.caught_up),
            events => self.writes_at_once(run.caught_up) || events >= self.pace.events as u64,
        };
        let whole = !due || self.write().await?;
        // Looked at after the write, during which what came meanwhile has arrived.
        let more = !whole || run.more || self.feed.has_more();
        Ok(Step { more, ..self.progress(run.caught_up && whole) })
    }

    /// Whether somebody waits for what was applied: readers of the generation, or whoever switches over to it.
    fn writes_at_once(&self, caught_up: bool) -> bool {
        caught_up || self.pace.events == LIVE.events
    }

    /// Begins again after the checkpoint, for what is at hand cannot be written.
    async fn rewind(&mut self) -> Result<(), Interrupt> {
        sleep(REWIND_PAUSE).await;
        self.session.reset();
        self.pending = Pending { position: self.checkpoint.record.position, ..Pending::default() };
        self.feed = Feed::open(&self.context, &self.selection, self.pending.position);
        Ok(())
    }

    /// How many events are applied before it is looked whether the models are too many for one batch.
    fn room(&self) -> usize {
        self.pace.models.saturating_sub(self.session.touched()).clamp(1, 512)
    }

    fn progress(&self, caught_up: bool) -> Step {
        let Checkpoint { position, events, parked, .. } = self.checkpoint.record;
        Step { position, events, parked, caught_up, more: !caught_up }
    }

    fn bucket(&self) -> &dyn KeyValue {
        self.context.read_models().as_ref()
    }

    /// Applies events, and writes when the models are too many to hold back; false when everything after the
    /// checkpoint comes again.
    async fn take(&mut self, mut queue: VecDeque<Delivered>) -> Result<bool, Interrupt> {
        while let Some(first) = queue.front() {
            if self.suspects.contains(&first.position) {
                // What came before it takes effect first.
                let whole = self.write().await?;
                match queue.pop_front() {
                    Some(suspect) if whole && self.alone(&suspect).await? => continue,
                    _ => return Ok(false),
                }
            }
            let (effects, last) = self.project_many(&mut queue);
            if !self.apply(effects, last).await? {
                return Ok(false);
            }
            if self.session.touched() >= self.pace.models && !self.write().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What the next events change, up to a suspect or a bound, with the position and the CID of the last.
    fn project_many(&mut self, queue: &mut VecDeque<Delivered>) -> (Vec<Effect>, Option<Last>) {
        let (mut effects, mut last) = (Vec::new(), None);
        for _ in 0..self.room() {
            let Some(next) = queue.front().filter(|next| !self.suspects.contains(&next.position))
            else {
                break;
            };
            let position = next.position;
            let Ok(changes) = self.project(next) else {
                self.suspects = position..=position;
                break;
            };
            last = Some((position, next.mark()));
            effects.push(Effect { position, changes });
            queue.pop_front();
        }
        (effects, last)
    }

    async fn apply(&mut self, effects: Vec<Effect>, last: Option<Last>) -> Result<bool, Interrupt> {
        let Some((position, mark)) = last else { return Ok(true) };
        let missing = self.session.missing(&effects)?;
        self.session.fetch(self.context.read_models().as_ref(), missing).await?;
        let count = effects.len() as u64;
        for effect in effects {
            let position = effect.position;
            if self.session.apply(effect).is_err() {
                self.suspects = position..=position;
                self.rewind().await?;
                return Ok(false);
            }
        }
        self.pending = Pending { events: self.pending.events + count, position, mark };
        Ok(true)
    }

    /// What the projection says of an event; nothing for one that means nothing to it.
    fn project(&self, delivered: &Delivered) -> Result<Vec<super::changes::Change>, Rejection> {
        let stored = delivered.event.as_ref().map_err(ToString::to_string)?;
        let mut changes = Changes::default();
        let call = || {
            let mut events = read_today::<P::Event>(stored)?;
            events.try_for_each(|event| self.projection.project(event, stored, &mut changes))
        };
        catch_unwind(AssertUnwindSafe(call)).map_err(panic_text)??;
        changes.list.iter().try_for_each(|change| self.session.declares(&change.target))?;
        Ok(changes.list)
    }

    /// Lets one event take effect that failed before, as the policy says. Nothing else is pending.
    async fn alone(&mut self, delivered: &Delivered) -> Result<bool, Interrupt> {
        let mut pause = self.policy.pause;
        let mut tries = 0;
        let reason = loop {
            let reason = match self.try_alone(delivered).await? {
                Ok(whole) => return Ok(whole),
                Err(reason) => reason,
            };
            self.session.reset();
            if tries == self.policy.retries {
                break reason;
            }
            tries += 1;
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        let position = delivered.position;
        match self.policy.then {
            Then::Stop => Err(Interrupt::Failed(ProjectionError::Poison {
                projection: P::NAME.to_owned(),
                position: position.get(),
                reason: reason.to_string(),
            })),
            Then::Park => self.park(delivered, &reason).await.map(|()| true),
        }
    }

    async fn try_alone(
        &mut self,
        delivered: &Delivered,
    ) -> Result<Result<bool, Rejection>, Interrupt> {
        let changes = match self.project(delivered) {
            Ok(changes) => changes,
            Err(reason) => return Ok(Err(reason)),
        };
        let effects = vec![Effect { position: delivered.position, changes }];
        let missing = self.session.missing(&effects)?;
        self.session.fetch(self.context.read_models().as_ref(), missing).await?;
        for effect in effects {
            if let Err(reason) = self.session.apply(effect) {
                return Ok(Err(reason));
            }
        }
        if let Err(reason) = self.batches() {
            return Ok(Err(reason));
        }
        let mark = delivered.mark();
        let pending =
            Pending { events: self.pending.events + 1, position: delivered.position, mark };
        let before = std::mem::replace(&mut self.pending, pending);
        match self.write_pending().await {
            Err(interrupt) => {
                self.pending = before;
                interrupt.too_large().map(Err)
            }
            written => written.map(Ok),
        }
    }

    async fn park(&mut self, delivered: &Delivered, reason: &Rejection) -> Result<(), Interrupt> {
        tracing::warn!(projection = P::NAME, position = %delivered.position, %reason, "event parked");
        let record = delivered.parked(self.generation, reason, self.context.clock().now());
        let key = self.keys.parked(delivered.position)?;
        let mut next = self.checkpoint.record.clone();
        next.position = delivered.position;
        next.mark = delivered.mark();
        next.parked += 1;
        while self
            .batch(vec![put(key.clone(), &record, Expected::Anything)], next.clone())
            .await?
            .is_none()
        {
            sleep(REWIND_PAUSE).await;
        }
        self.pending.position = delivered.position;
        metrics::counter!("cim_projection_parked_total", "projection" => P::NAME).increment(1);
        Ok(())
    }

    /// Writes what is pending; false when everything after the checkpoint comes again.
    async fn write(&mut self) -> Result<bool, Interrupt> {
        match self.write_pending().await {
            Err(interrupt) => interrupt.too_large().map(drop)?,
            written => return written,
        }
        self.suspect_pending().await
    }

    /// Lets all that is pending come again, each alone.
    async fn suspect_pending(&mut self) -> Result<bool, Interrupt> {
        let first = Position::new(self.checkpoint.record.position.get() + 1);
        self.suspects = first..=self.pending.position;
        self.rewind().await?;
        Ok(false)
    }

    async fn write_pending(&mut self) -> Result<bool, Interrupt> {
        if self.pending.position <= self.checkpoint.record.position {
            return Ok(true);
        }
        if !self.session.confirm_absent(self.context.read_models().as_ref()).await? {
            self.rewind().await?;
            return Ok(false);
        }
        let Ok(mut batches) = self.batches() else {
            return self.suspect_pending().await;
        };
        let last = batches.pop().unwrap_or_default();
        for batch in batches {
            let same = self.checkpoint.record.clone();
            if !self.write_groups(batch, same).await? {
                return Ok(false);
            }
        }
        let mut next = self.checkpoint.record.clone();
        next.position = self.pending.position;
        next.mark = self.pending.mark.take();
        next.events += self.pending.events;
        if !self.write_groups(last, next).await? {
            return Ok(false);
        }
        metrics::counter!("cim_projection_events_total", "projection" => P::NAME)
            .increment(self.pending.events);
        self.pending.events = 0;
        self.session.finish();
        Ok(true)
    }

    fn batches(&self) -> Result<Vec<Vec<Group>>, Rejection> {
        pack(self.session.groups()?, self.bucket())
    }

    async fn write_groups(
        &mut self,
        groups: Vec<Group>,
        next: Checkpoint,
    ) -> Result<bool, Interrupt> {
        let writes = groups.iter().flat_map(|group| group.writes.iter().cloned()).collect();
        match self.batch(writes, next).await? {
            None => {
                self.rewind().await?;
                Ok(false)
            }
            Some(first) => {
                let mut revision = first;
                let written = groups.into_iter().map(|group| {
                    let own = revision;
                    revision += group.writes.len() as u64;
                    (group, own)
                });
                self.session.written(written.collect());
                Ok(true)
            }
        }
    }

    /// One atomic batch with the checkpoint last; the revision of its first write, or `None` when something that was read
    /// before is no longer so.
    async fn batch(
        &mut self,
        mut writes: Vec<KeyWrite>,
        mut next: Checkpoint,
    ) -> Result<Option<u64>, Interrupt> {
        next.writer = Uuid::new_v4();
        let key = self.keys.checkpoint(self.generation)?;
        let before = writes.len() as u64;
        writes.push(put(key.clone(), &next, Expected::Revision(self.checkpoint.revision)));
        let writes = NonEmpty::from_vec(writes).expect("the checkpoint is in it");
        loop {
            let failure = match self.bucket().write(writes.clone()).await {
                Ok(revisions) => {
                    let last = *revisions.last().expect("a revision for each write");
                    self.checkpoint = Held { record: next, revision: last };
                    return Ok(Some(last - before));
                }
                Err(error) => error,
            };
            let unproven = match failure {
                BackendError::Conflict { .. } => false,
                BackendError::Unknown { .. }
                | BackendError::Duplicate { .. }
                | BackendError::Unavailable { .. } => true,
                other => return Err(other.into()),
            };
            match self.look(&key, &next, before).await? {
                Some(first) => return Ok(Some(first)),
                None if unproven => sleep(PAUSE).await,
                None => return Ok(None),
            }
        }
    }

    /// Looks whether the checkpoint is where the batch would have put it. It may be another's, which ends this pump.
    async fn look(
        &mut self,
        key: &crate::state::Key,
        next: &Checkpoint,
        before: u64,
    ) -> Result<Option<u64>, Interrupt> {
        let (revision, record) = loop {
            match read::<Checkpoint>(self.bucket(), key).await {
                Ok(found) => break found,
                Err(error) if error.is_transient() => sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        };
        match record {
            Some(record) if record.writer == next.writer => {
                self.checkpoint = Held { record, revision };
                Ok(Some(revision - before))
            }
            _ if revision == self.checkpoint.revision => Ok(None),
            _ => Err(Interrupt::Superseded),
        }
    }
}

/// How long is waited before what was read is read again, and the longest pause between attempts on one event.
const REWIND_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
