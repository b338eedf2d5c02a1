//! Projections from the outside: how one is doing, waiting for it, pausing it, rebuilding it.
//!
//! From any process; the instance that runs it follows the wishes that are written here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::error::ProjectionError;
use super::feed::Selection;
use super::generations::first_from;
use super::pointers;
use super::records::{Checkpoint, Control, FORMAT, Keys, Parked, decode, put, read};
use super::status::{ProjectionReport, ProjectionStatus};
use crate::backend::{BackendError, Position, ReadFrom, Start};
use crate::event::NonEmpty;
use crate::event_log::LogQuery;
use crate::read_model::layout::{self, Pointer};
use crate::state::{Change, Expected, Key, KeyValue, KeyWrite, Watched};
use crate::store::Context;
use crate::subject::Pattern;

/// The projections of a context. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Projections {
    context: Context,
    /// What was last said of each projection that was waited for.
    seen: Arc<Mutex<HashMap<String, ProjectionReport>>>,
}

impl Projections {
    /// Those of this context.
    pub fn of(context: &Context) -> Self {
        Self { context: context.clone(), seen: Arc::default() }
    }

    /// How a projection is doing. A few round trips, to the leaders.
    ///
    /// What the active instance last said, at most a second old, except that whether it is up to date is looked up now.
    ///
    /// # Errors
    /// [`ProjectionError::Unknown`] when nobody has run it here; [`ProjectionError::Backend`].
    pub async fn report(&self, name: &str) -> Result<ProjectionReport, ProjectionError> {
        let mut report = self.said(name).await?;
        let looks =
            matches!(report.status, ProjectionStatus::UpToDate | ProjectionStatus::Lagging { .. });
        let paused = report.status == ProjectionStatus::Paused;
        if let (true, Some(generation)) = (looks || paused, report.generation) {
            let (_, checkpoint) =
                read::<Checkpoint>(self.bucket(), &Keys::of(name).checkpoint(generation)?).await?;
            if let Some(checkpoint) = checkpoint {
                report.position = checkpoint.position;
                report.events = checkpoint.events;
                report.parked = checkpoint.parked;
                if looks {
                    report.status = self.lag(&report).await?;
                }
            }
        }
        Ok(report)
    }

    async fn lag(&self, report: &ProjectionReport) -> Result<ProjectionStatus, ProjectionError> {
        let last = self.context.status().await?.last;
        match self.has_passed(&report.reads, report.position, last).await? {
            true => Ok(ProjectionStatus::UpToDate),
            false => {
                Ok(ProjectionStatus::Lagging { behind_by: last.get() - report.position.get() })
            }
        }
    }

    /// The names of all projections that were run here.
    ///
    /// # Errors
    /// [`ProjectionError::Backend`].
    pub async fn list(&self) -> Result<Vec<String>, ProjectionError> {
        let keys = self.bucket().keys("=projection.*").await?;
        let mut names: Vec<String> = keys
            .iter()
            .filter_map(|key| key.as_str().split_once('.').map(|(_, name)| name.to_owned()))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Waits until a projection has passed a position, so that what was committed there shows in its models. One round trip
    /// when it has already; else it looks again, after half a millisecond at first and every 50 ms at last.
    ///
    /// # Errors
    /// [`ProjectionError::NotReached`] after `patience`; [`ProjectionError::Unknown`] when nobody has run it here until then.
    pub async fn wait_for(
        &self,
        name: &str,
        position: Position,
        patience: Duration,
    ) -> Result<(), ProjectionError> {
        let begun = Instant::now();
        let mut pause = SHORTEST_PAUSE;
        let mut looked = None;
        loop {
            let at = self.stands_at(name).await?;
            if at.is_some_and(|at| at >= position) {
                return Ok(());
            }
            // Most waits are over soon. A longer one may be for a position at which nothing is projected.
            if let Some(at) = at
                && begun.elapsed() >= SOON
                && looked != Some(at)
            {
                let reads = self.said(name).await?.reads;
                // A replica that has not come there cannot tell; nor can anybody of what is not stored yet.
                if let Some(message) = first_from(self.context.log().as_ref(), position).await? {
                    looked = Some(at);
                    let meant = message.position == position && reads.passes(&message);
                    if !meant && self.has_passed(&reads, at, position).await? {
                        return Ok(());
                    }
                }
            }
            if begun.elapsed() + pause > patience {
                return Err(self.not_reached(name, position, patience).await?);
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// The position of the generation that readers see, if there is one. One round trip, more after a switch.
    async fn stands_at(&self, name: &str) -> Result<Option<Position>, ProjectionError> {
        let seen = self.seen().get(name).and_then(|report| report.generation);
        if let Some(generation) = seen
            && let Some(position) = self.checkpoint(name, generation).await?
        {
            return Ok(Some(position));
        }
        // Nothing is known of it yet, or its generation was followed by another.
        let report = match self.said(name).await {
            Ok(report) => report,
            Err(ProjectionError::Unknown { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let generation = report.generation;
        self.seen().insert(name.to_owned(), report);
        match generation {
            Some(generation) => self.checkpoint(name, generation).await,
            None => Ok(None),
        }
    }

    /// Where a generation stands as any replica knows; one that is behind makes a wait longer, nothing else.
    async fn checkpoint(
        &self,
        name: &str,
        generation: u64,
    ) -> Result<Option<Position>, ProjectionError> {
        let key = Keys::of(name).checkpoint(generation)?;
        let slot = self.bucket().get(&key, ReadFrom::Nearest).await?;
        let record = slot.value.map(|value| decode::<Checkpoint>(&key, &value)).transpose()?;
        Ok(record.map(|record| record.position))
    }

    async fn not_reached(
        &self,
        name: &str,
        wanted: Position,
        waited: Duration,
    ) -> Result<ProjectionError, ProjectionError> {
        let (projection, wanted) = (name.to_owned(), wanted.get());
        Ok(match self.said(name).await {
            Err(ProjectionError::Unknown { .. }) => ProjectionError::Unknown { projection },
            _ => {
                let reached = self.stands_at(name).await?.unwrap_or_default().get();
                ProjectionError::NotReached { projection, reached, wanted, waited }
            }
        })
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<String, ProjectionReport>> {
        // Nothing panics while it is held.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing that a projection reads lies after one position, up to another that is stored. One round trip to the
    /// leader for each pattern of the projection, and those of reading what it reads.
    async fn has_passed(
        &self,
        reads: &Selection,
        at: Position,
        position: Position,
    ) -> Result<bool, ProjectionError> {
        for pattern in &reads.patterns() {
            let mut at = at;
            while at < position {
                let seen = self.read_up_to(reads, pattern, at, position).await?;
                let Some(seen) = seen else { return Ok(false) };
                // A replica that is behind has nothing more; the leader knows.
                let next = match seen < position {
                    true => self.context.log().first_matching(pattern, seen).await?,
                    false => None,
                };
                at = match next.filter(|message| message.position <= position) {
                    Some(message) if reads.passes(&message) => return Ok(false),
                    Some(message) => message.position,
                    None => position,
                };
            }
        }
        Ok(true)
    }

    /// Up to where a replica knows that a projection reads nothing on one of its patterns; `None` when it reads something.
    async fn read_up_to(
        &self,
        reads: &Selection,
        pattern: &Pattern,
        at: Position,
        position: Position,
    ) -> Result<Option<Position>, ProjectionError> {
        let (mut seen, filter) = (at, Some(pattern.as_str().to_owned()));
        let mut messages = self.context.log().read(LogQuery { filter, after: at });
        while seen < position
            && let Some(message) = messages.next().await.transpose()?
        {
            seen = message.position;
            if seen <= position && reads.passes(&message) {
                return Ok(None);
            }
        }
        Ok(Some(seen))
    }

    /// Pauses a projection: the active instance stops where it is, and goes on after [`resume`](Self::resume).
    ///
    /// # Errors
    /// [`ProjectionError::Backend`].
    pub async fn pause(&self, name: &str) -> Result<(), ProjectionError> {
        self.wish(name, |control| control.paused = true).await
    }

    /// Lets a paused projection go on.
    ///
    /// # Errors
    /// [`ProjectionError::Backend`].
    pub async fn resume(&self, name: &str) -> Result<(), ProjectionError> {
        self.wish(name, |control| control.paused = false).await
    }

    /// Lets a projection build all its models anew, beside those that readers see, and show them when they are complete.
    /// Returns at once.
    ///
    /// # Errors
    /// [`ProjectionError::Backend`].
    pub async fn rebuild(&self, name: &str) -> Result<(), ProjectionError> {
        let done = self.rebuilt(name).await?;
        self.wish(name, |control| control.rebuild = control.rebuild.max(done) + 1).await
    }

    /// Which wish the generation has fulfilled that readers see. The record of wishes may have been deleted since.
    async fn rebuilt(&self, name: &str) -> Result<u64, ProjectionError> {
        let generation = match self.said(name).await {
            Ok(report) => report.generation,
            Err(ProjectionError::Unknown { .. }) => None,
            Err(error) => return Err(error),
        };
        let Some(generation) = generation else { return Ok(0) };
        let key = Keys::of(name).checkpoint(generation)?;
        let (_, checkpoint) = read::<Checkpoint>(self.bucket(), &key).await?;
        Ok(checkpoint.map_or(0, |checkpoint| checkpoint.rebuild))
    }

    async fn wish(&self, name: &str, wish: impl Fn(&mut Control)) -> Result<(), ProjectionError> {
        let key = Keys::of(name).control()?;
        loop {
            let (revision, control) = read::<Control>(self.bucket(), &key).await?;
            let mut control = control.unwrap_or_default();
            control.format = FORMAT;
            wish(&mut control);
            let write = put(key.clone(), &control, Expected::Revision(revision));
            match self.bucket().write(NonEmpty::one(write)).await {
                Err(BackendError::Conflict { .. }) => {}
                outcome => return Ok(outcome.map(drop)?),
            }
        }
    }

    /// The events that a projection has parked, in order.
    ///
    /// # Errors
    /// [`ProjectionError::Backend`].
    pub async fn parked(&self, name: &str) -> Result<Vec<Parked>, ProjectionError> {
        let keys = self.bucket().keys(&Keys::of(name).all_parked()).await?;
        let mut parked = Vec::with_capacity(keys.len());
        for keys in keys.chunks(ASKED) {
            for (key, slot) in keys.iter().zip(self.bucket().get_many(keys).await?) {
                parked.extend(slot.value.map(|value| decode::<Parked>(key, &value)).transpose()?);
            }
        }
        parked.sort_by_key(|event| event.position);
        Ok(parked)
    }

    /// Forgets a parked event. Its effect is not made good: a rebuild with a projection that can use it does that.
    ///
    /// # Errors
    /// [`ProjectionError::Backend`].
    pub async fn forget_parked(
        &self,
        name: &str,
        position: Position,
    ) -> Result<(), ProjectionError> {
        let key = Keys::of(name).parked(position)?;
        let write = KeyWrite::new(key, Change::Delete, Expected::Anything);
        self.bucket().write(NonEmpty::one(write)).await?;
        Ok(())
    }

    /// What the active instance last said, except for the generation: an instance that was deposed may have said that, so the
    /// pointers are asked, which nothing but a switch moves.
    async fn said(&self, name: &str) -> Result<ProjectionReport, ProjectionError> {
        let (_, report) = read(self.bucket(), &Keys::of(name).status()?).await?;
        let unknown = || ProjectionError::Unknown { projection: name.to_owned() };
        let mut report: ProjectionReport = report.ok_or_else(unknown)?;
        let pointers = report.models.iter().map(|model| self.seen_of(model));
        // They move together, but for one that a new version adds or drops. One that keeps other types altogether is building.
        report.generation = match try_join_all(pointers).await?.into_iter().flatten().max() {
            None => pointers::visible_of(self.bucket(), name).await?,
            seen => seen,
        };
        Ok(report)
    }

    /// The generation of a type that readers see.
    async fn seen_of(&self, model: &str) -> Result<Option<u64>, ProjectionError> {
        let (_, pointer) = read::<Pointer>(self.bucket(), &layout::pointer_key(model)?).await?;
        Ok(pointer.and_then(|pointer| pointer.generation))
    }

    fn bucket(&self) -> &dyn KeyValue {
        self.context.read_models().as_ref()
    }
}

/// How many keys one request asks for.
const ASKED: usize = 1000;

/// How long a wait rests between two looks, at first and at last, and how long one is that is over soon.
const SHORTEST_PAUSE: Duration = Duration::from_micros(500);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_millis(50);

/// What is wished of a projection, kept current by a task that ends with the receiver.
pub(super) async fn follow_control(
    context: &Context,
    keys: &Keys,
) -> Result<watch::Receiver<Control>, ProjectionError> {
    let key = keys.control()?;
    let pattern = Pattern::parse(key.as_str())
        .map_err(|error| ProjectionError::Definition { reason: error.to_string() })?;
    let mut changes = context.read_models().watch(NonEmpty::one(pattern), Start::Latest);
    let mut control = Control::default();
    // The first wish is known before anything is done.
    while let Some(Watched::Entry(entry)) = changes.next().await.transpose()? {
        control = wished(&key, entry.value.as_deref());
    }
    let (sender, receiver) = watch::channel(control);
    tokio::spawn(async move {
        loop {
            let change = tokio::select! {
                change = changes.next() => change,
                () = sender.closed() => return,
            };
            match change {
                Some(Ok(Watched::Entry(entry))) => {
                    sender.send_replace(wished(&key, entry.value.as_deref()));
                }
                Some(Ok(Watched::CaughtUp)) => {}
                // Without wishes the projection begins again, and meets the same failure by itself.
                Some(Err(_)) | None => return,
            }
        }
    });
    Ok(receiver)
}

/// A wish that nobody can read is none.
fn wished(key: &Key, value: Option<&[u8]>) -> Control {
    let decoded = value.map(|value| decode::<Control>(key, value)).transpose();
    decoded
        .unwrap_or_else(|error| {
            tracing::warn!(%error, "unreadable wish");
            None
        })
        .unwrap_or_default()
}
