//! The handle through which a migration changes what is stored: steps, counted, fenced, resumed where they were.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::MigrationError;
use super::nats::ManagedStreams;
use super::records::{At, Tally};
use super::report::{Progress, Sample, StepReport};
use super::target::{Place, Target};
use crate::state::{Entry, Key, KeyWrite};
use crate::store::Context;
use crate::subject::Pattern;

/// What a migration changes things with. See [`Migration`](super::Migration).
pub struct Migrator {
    pub(super) context: Context,
    pub(super) target: Target,
    pub(super) streams: Option<ManagedStreams>,
    pub(super) settings: Settings,
    pub(super) migration: String,
    /// The same in all attempts at one run.
    pub(super) run: Uuid,
    /// The number of the next step.
    step: u32,
    read_only: bool,
    reports: Vec<StepReport>,
}

/// Who wants to know how far a step is.
type Observer = Arc<dyn Fn(&Progress) + Send + Sync>;

/// How a runner works.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) batch: usize,
    pub(super) patience: Duration,
    pub(super) observer: Option<Observer>,
}

/// The most keys of one batch, with the fence.
const MOST_WRITES: usize = 1000;
/// A batch is closed once it has so many bytes.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// How long is waited before what another one changed is read again.
const PAUSE: Duration = Duration::from_millis(20);
/// How many samples a dry run keeps of each step.
const SAMPLES: usize = 3;

/// A walk over the keys of a pattern.
pub(super) struct Walk {
    place: Place,
    pattern: Pattern,
    at: At,
    keys: Vec<Key>,
    /// How many of them are done.
    done: usize,
    /// How many were done before this walk began.
    skipped: usize,
    begun: Instant,
}

impl Walk {
    pub(super) fn generation(&self) -> u64 {
        self.at.generation
    }
}

/// What becomes of one value.
pub(super) struct Edited {
    pub(super) key: Key,
    /// Nothing for a value that stays as it is.
    pub(super) writes: Vec<KeyWrite>,
    pub(super) tally: Tally,
    pub(super) sample: Option<Sample>,
}

impl Migrator {
    pub(super) fn new(
        context: &Context,
        target: Target,
        streams: Option<ManagedStreams>,
        settings: &Settings,
        run: Uuid,
        migration: &str,
    ) -> Self {
        Self {
            context: context.clone(),
            target,
            streams,
            settings: settings.clone(),
            migration: migration.to_owned(),
            run,
            step: 0,
            read_only: false,
            reports: Vec::new(),
        }
    }

    /// The context, for what a migration wants to read beside what it changes. What is written through it is neither fenced
    /// nor counted, and a dry run would write it.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Whether nothing is written.
    pub fn is_dry_run(&self) -> bool {
        self.target.is_imagined()
    }

    /// From now on nothing may be changed.
    pub(super) fn only_validate(&mut self) {
        self.read_only = true;
    }

    /// Goes on with another migration, in a dry run.
    pub(super) fn restart(&mut self, migration: &str) {
        self.migration = migration.to_owned();
        self.run = Uuid::new_v4();
        self.step = 0;
        self.read_only = false;
    }

    /// What the steps since the last call did.
    pub(super) fn take_reports(&mut self) -> Vec<StepReport> {
        std::mem::take(&mut self.reports)
    }

    /// Whether no batch of this run was ever written, for certain.
    pub(super) fn is_untouched(&self) -> bool {
        let untouched = |place| self.target.at(place).is_none() && !self.target.is_open(place);
        Place::ALL.into_iter().all(untouched)
    }

    pub(super) fn tally(&self) -> Tally {
        self.target.tally()
    }

    /// Begins a step, or goes on with it; `None` when it is done already.
    pub(super) fn begin_step(
        &mut self,
        place: Place,
        label: &str,
    ) -> Result<Option<At>, MigrationError> {
        if self.read_only {
            return Err(MigrationError::ReadOnly { step: label.to_owned() });
        }
        let step = self.step;
        self.step += 1;
        self.reports.push(StepReport::new(label));
        let (label, generation) = (label.to_owned(), 0);
        let fresh = At { step, label, generation, after: None, complete: false };
        // In a dry run nothing was interrupted.
        let Some(at) = self.target.at(place).filter(|_| !self.target.is_imagined()) else {
            return Ok(Some(fresh));
        };
        if at.step == step && at.label != fresh.label {
            let (before, now) = (at.label.clone(), fresh.label);
            return Err(MigrationError::Changed { step, before, now });
        }
        Ok(match at.step.cmp(&step) {
            std::cmp::Ordering::Less => Some(fresh),
            std::cmp::Ordering::Equal => Some(at.clone()).filter(|at| !at.complete),
            std::cmp::Ordering::Greater => None,
        })
    }

    /// Goes over the keys of a pattern, from where the step is.
    pub(super) async fn walk(
        &self,
        place: Place,
        pattern: Pattern,
        generation: u64,
        at: At,
    ) -> Result<Walk, MigrationError> {
        let keys = self.target.keys(place, &pattern, self.settings.patience).await?;
        // The keys of another generation were gone over in vain.
        let after = at.after.filter(|_| at.generation == generation);
        let at = At { after, generation, ..at };
        let done = done(&keys, at.after.as_deref());
        let begun = Instant::now();
        Ok(Walk { place, pattern, at, keys, done, skipped: done, begun })
    }

    /// The values of the next keys; `None` at the end.
    pub(super) async fn page(&self, walk: &Walk) -> Result<Option<Vec<Entry>>, MigrationError> {
        let page = self.page_of(walk);
        if page.is_empty() {
            return Ok(None);
        }
        self.target.entries(walk.place, page, self.settings.patience).await.map(Some)
    }

    fn page_of<'w>(&self, walk: &'w Walk) -> &'w [Key] {
        let rest = &walk.keys[walk.done..];
        &rest[..rest.len().min(self.settings.batch)]
    }

    /// Writes what became of a page, in as many batches as it takes, each with how far the walk is. Where another one has
    /// changed something, the walk goes back to what is certainly done.
    pub(super) async fn flush(
        &mut self,
        walk: &mut Walk,
        edited: Vec<Edited>,
    ) -> Result<(), MigrationError> {
        let end = self.page_of(walk).last().cloned();
        let mut rest = edited.into_iter().peekable();
        loop {
            let (mut writes, mut tally, mut samples) = (Vec::new(), Tally::default(), Vec::new());
            let mut bytes = 0;
            let mut after = None;
            while let Some(next) = rest.next_if(|next: &Edited| {
                bytes += size(&next.writes);
                writes.is_empty()
                    || (writes.len() + next.writes.len() < MOST_WRITES && bytes <= MOST_BYTES)
            }) {
                writes.extend(next.writes);
                tally.add(next.tally);
                samples.extend(next.sample);
                after = Some(next.key);
            }
            let last = rest.peek().is_none();
            let after = if last { end.clone() } else { after };
            walk.at.after = after.map(|key| key.to_string());
            // A page without values needs no batch of its own; the next one tells how far the walk is.
            if !writes.is_empty() || tally.seen > 0 {
                let (place, at) = (walk.place, walk.at.clone());
                if !self.target.write(place, writes, at, tally).await? {
                    sleep(PAUSE).await;
                    return self.go_back(walk).await;
                }
                self.report(tally, samples);
            }
            if last {
                break;
            }
        }
        walk.done = done(&walk.keys, walk.at.after.as_deref());
        self.observe(walk);
        Ok(())
    }

    /// Reads the keys again and goes on after the last that is done.
    async fn go_back(&self, walk: &mut Walk) -> Result<(), MigrationError> {
        let own = self.target.at(walk.place).filter(|at| at.step == walk.at.step);
        walk.at.after =
            own.filter(|at| at.generation == walk.at.generation).and_then(|at| at.after.clone());
        walk.keys = self.target.keys(walk.place, &walk.pattern, self.settings.patience).await?;
        walk.done = done(&walk.keys, walk.at.after.as_deref());
        Ok(())
    }

    /// Ends a step.
    pub(super) async fn finish(&mut self, place: Place, at: At) -> Result<(), MigrationError> {
        let at = At { complete: true, ..at };
        while !self.target.write(place, Vec::new(), at.clone(), Tally::default()).await? {
            sleep(PAUSE).await;
        }
        Ok(())
    }

    pub(super) async fn end(&mut self, walk: Walk) -> Result<(), MigrationError> {
        self.finish(walk.place, walk.at).await
    }

    pub(super) fn at_of(walk: Walk) -> At {
        walk.at
    }

    pub(super) fn report(&mut self, tally: Tally, samples: Vec<Sample>) {
        if let Some(report) = self.reports.last_mut() {
            report.tally.add(tally);
            let room = SAMPLES.saturating_sub(report.samples.len());
            report.samples.extend(samples.into_iter().take(room));
        }
    }

    fn observe(&self, walk: &Walk) {
        let progress = Progress::new(
            &self.migration,
            &walk.at.label,
            walk.done as u64,
            walk.keys.len() as u64,
            (walk.done - walk.skipped.min(walk.done)) as u64,
            walk.begun.elapsed(),
        );
        tracing::debug!(migration = %self.migration, step = %walk.at.label, done = walk.done, total = walk.keys.len(), "migrating");
        if let Some(observer) = &self.settings.observer {
            observer(&progress);
        }
    }
}

/// How many keys are done when those up to `after` are.
fn done(keys: &[Key], after: Option<&str>) -> usize {
    after.map_or(0, |after| keys.partition_point(|key| key.as_str() <= after))
}

fn size(writes: &[KeyWrite]) -> usize {
    let value = |write: &KeyWrite| match &write.change {
        crate::state::Change::Put(value) => value.len(),
        crate::state::Change::Delete => 0,
    };
    writes.iter().map(|write| write.key.as_str().len() + value(write)).sum()
}
