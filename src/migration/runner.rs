//! Runs migrations: one runner at a time, resumed where the last one stopped, told in the history.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use uuid::Uuid;

use super::definition::AnyMigration;
use super::held::{Held, epoch_of, look, patiently};
use super::migrator::{Migrator, Settings};
use super::nats::ManagedStreams;
use super::path::{newest, shortest};
use super::plan::{Goal, plan};
use super::records::{
    ALL_HISTORY, AppliedMigration, HistoryEntry, Ledger, Outcome, Running, fence_key, history_key,
    lease_key, ledger_key,
};
use super::report::{DryMigration, DryRun, MigrationReport, Progress};
use super::target::{Place, Target};
use super::{Direction, Migration, MigrationError, PathStep, SchemaVersion};
use crate::lease::Lease;
use crate::state::{Change, Expected, KeyWrite};
use crate::store::Context;

/// Runs the migrations of one context.
///
/// Several runners may be started at once, on any machines: one works, the others wait for it and find the work done. One
/// that dies is followed by the next one after the lease's time, and that one goes on after the last batch that was stored.
/// A runner that merely looked dead notices at its next write, which is refused.
///
/// ```
/// # use cim_persistence::migration::{Migration, MigrationError, MigrationRunner, Migrator, SchemaVersion};
/// # use cim_persistence::store::Context;
/// # async fn example(context: &Context, cents_not_euros: impl Migration) -> Result<(), MigrationError> {
/// let mut runner = MigrationRunner::new(context, "deploy 42");
/// runner.add_migration(cents_not_euros)?;
/// let target = SchemaVersion::new(1, 0, 0);
/// println!("{} values would change", runner.dry_run(target).await?.changed());
/// runner.migrate_to(target).await?;
/// runner.rollback_to(SchemaVersion::NONE).await?;
/// # Ok(())
/// # }
/// ```
pub struct MigrationRunner {
    context: Context,
    by: String,
    migrations: Vec<Arc<dyn AnyMigration>>,
    streams: Option<ManagedStreams>,
    settings: Settings,
    lease: Duration,
}

/// How many keys one page has.
const BATCH: usize = 200;
/// How long a bucket that fails is asked again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a runner that says nothing is taken for alive.
const LEASE: Duration = Duration::from_secs(10);
/// The pause before a record is written again that was refused for no reason that can be seen.
const PAUSE: Duration = Duration::from_millis(20);

impl MigrationRunner {
    /// A runner without migrations. `by` says in the history who ran them.
    pub fn new(context: &Context, by: impl Into<String>) -> Self {
        let settings = Settings { batch: BATCH, patience: PATIENCE, observer: None };
        let (context, by, migrations) = (context.clone(), by.into(), Vec::new());
        Self { context, by, migrations, streams: None, settings, lease: LEASE }
    }

    /// Lets migrations change the settings of these streams.
    pub fn with_streams(mut self, streams: ManagedStreams) -> Self {
        self.streams = Some(streams);
        self
    }

    /// How many keys are read at once, and written at most, from 1 to 500. Default 200. Fewer burden a busy server less.
    pub fn with_batch(mut self, keys: usize) -> Self {
        self.settings.batch = keys.clamp(1, 500);
        self
    }

    /// How long another runner that says nothing is taken for alive. Default ten seconds.
    pub fn with_lease(mut self, time: Duration) -> Self {
        self.lease = time;
        self
    }

    /// How long a bucket that does not answer is asked again before the run fails. Default 30 seconds.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }

    /// Calls a function after each page of keys with how far the step is. It should return quickly.
    pub fn on_progress(mut self, observer: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.settings.observer = Some(Arc::new(observer));
        self
    }

    /// Adds a migration. Where several lead from or to one version, the shortest way is taken.
    ///
    /// # Errors
    /// [`MigrationError::Order`] when it does not lead to a later version; [`MigrationError::Repeated`] when one that was added
    /// has its name or its two versions.
    pub fn add_migration(&mut self, migration: impl Migration) -> Result<(), MigrationError> {
        let migration: Arc<dyn AnyMigration> = Arc::new(migration);
        let (from, to) = migration.versions();
        let name = migration.name().to_owned();
        if from >= to {
            return Err(MigrationError::Order { name, from, to });
        }
        let same =
            |other: &&Arc<dyn AnyMigration>| other.name() == name || other.versions() == (from, to);
        if let Some(other) = self.migrations.iter().find(same) {
            return Err(MigrationError::Repeated { name, other: other.name().to_owned() });
        }
        self.migrations.push(migration);
        Ok(())
    }

    /// The shortest way from one version to another, up or down. Of several that are equally short the one whose migrations
    /// were added first. No I/O.
    ///
    /// A rollback does not ask this: it goes back the way the data came.
    ///
    /// # Errors
    /// [`MigrationError::NoPath`].
    pub fn find_migration_path(
        &self,
        from: SchemaVersion,
        to: SchemaVersion,
    ) -> Result<Vec<PathStep>, MigrationError> {
        let direction = if from <= to { Direction::Up } else { Direction::Down };
        let edges = self.edges(direction);
        let way = shortest(&edges, from, to).ok_or(MigrationError::NoPath { from, to })?;
        let step = |place: usize| PathStep {
            name: self.migrations[place].name().to_owned(),
            direction,
            from: edges[place].0,
            to: edges[place].1,
        };
        Ok(way.into_iter().map(step).collect())
    }

    /// The version of the data. One round trip.
    ///
    /// # Errors
    /// [`MigrationError::Backend`]; [`MigrationError::Unreadable`].
    pub async fn current_version(&self) -> Result<SchemaVersion, MigrationError> {
        Ok(self.ledger().await?.version)
    }

    /// The migrations in effect, in the order they were applied. One round trip.
    ///
    /// # Errors
    /// As [`current_version`](Self::current_version).
    pub async fn applied_migrations(&self) -> Result<Vec<AppliedMigration>, MigrationError> {
        Ok(self.ledger().await?.applied)
    }

    /// The migrations on the way from the data's version to the latest that can be reached. One round trip.
    ///
    /// # Errors
    /// As [`current_version`](Self::current_version).
    pub async fn pending_migrations(&self) -> Result<Vec<PathStep>, MigrationError> {
        let current = self.ledger().await?.version;
        self.find_migration_path(current, newest(&self.edges(Direction::Up), current))
    }

    /// Every run there was, the failed ones and the rollbacks too, oldest first. A round trip for each thousand, and one more.
    ///
    /// # Errors
    /// As [`current_version`](Self::current_version).
    pub async fn history(&self) -> Result<Vec<AppliedMigration>, MigrationError> {
        let (meta, patience) = (self.context.meta(), self.settings.patience);
        let mut keys = patiently(patience, || meta.keys(ALL_HISTORY)).await?;
        keys.sort_unstable();
        let mut history = Vec::with_capacity(keys.len());
        for keys in keys.chunks(1000) {
            let slots = patiently(patience, || meta.get_many(keys)).await?;
            for (key, slot) in keys.iter().zip(slots) {
                let Some(value) = slot.value else { continue };
                let entry: HistoryEntry = serde_json::from_slice(&value)
                    .map_err(|error| super::models::unreadable(key, &error))?;
                history.push(entry.run);
            }
        }
        Ok(history)
    }

    /// What [`migrate_to`](Self::migrate_to) or [`rollback_to`](Self::rollback_to) would change. Writes nothing.
    ///
    /// Every step is done in memory, the later ones on what the earlier ones made, so memory grows with what is changed. What
    /// would be refused is refused here. Any replica may answer, so what was written in the last moment may be missing.
    ///
    /// # Errors
    /// As they; [`MigrationError::Unfinished`] also where they would go on with what was interrupted.
    pub async fn dry_run(&self, target: SchemaVersion) -> Result<DryRun, MigrationError> {
        let ledger = self.ledger().await?;
        if let Some(running) = &ledger.running {
            return Err(running.unfinished());
        }
        let from = ledger.version;
        let goal = if target >= from { Goal::Up(target) } else { Goal::Down(target) };
        let mut migrations = Vec::new();
        let mut migrator = self.migrator(Target::imagined(&self.context), Uuid::new_v4(), "");
        for path in self.plan(&ledger, goal)? {
            let migration = self.find(&path.name)?;
            migrator.restart(&path.name);
            go(migration.as_ref(), path.direction, &mut migrator).await?;
            if path.direction == Direction::Up {
                migrator.only_validate();
                migration.validate(&mut migrator).await?;
            }
            let (undo, steps) = (migration.undo(), migrator.take_reports());
            migrations.push(DryMigration { path, undo, steps });
        }
        Ok(DryRun { from, to: target, migrations })
    }

    /// Brings the data to a later version, after waiting for any runner that is at work. What was interrupted on the way up is
    /// finished first. Each migration is validated before the next one begins. Nothing happens where the data is there already.
    ///
    /// Cancel safe: what was interrupted is unfinished, and the next call goes on with it.
    ///
    /// # Errors
    /// [`MigrationError::NoPath`], [`MigrationError::Later`], [`MigrationError::Unregistered`], [`MigrationError::Unfinished`]
    /// before anything is written; [`MigrationError::Superseded`] when another runner took over; any other.
    pub async fn migrate_to(
        &self,
        target: SchemaVersion,
    ) -> Result<MigrationReport, MigrationError> {
        self.alone(Goal::Up(target)).await
    }

    /// Brings the data back to an earlier version, by the way it came. A migration whose changes were made and not validated can
    /// be rolled back too; one that was interrupted before that has to be finished first. Otherwise as
    /// [`migrate_to`](Self::migrate_to).
    ///
    /// # Errors
    /// [`MigrationError::NotOnTheWay`], [`MigrationError::Irreversible`], [`MigrationError::Unregistered`],
    /// [`MigrationError::Unfinished`] before anything is written; any other.
    pub async fn rollback_to(
        &self,
        target: SchemaVersion,
    ) -> Result<MigrationReport, MigrationError> {
        self.alone(Goal::Down(target)).await
    }

    async fn alone(&self, goal: Goal) -> Result<MigrationReport, MigrationError> {
        let (meta, clock) = (self.context.meta().as_ref(), self.context.clock().as_ref());
        let mut lease =
            Lease::acquire(meta, lease_key(), Uuid::new_v4(), self.lease, clock).await?;
        let outcome = tokio::select! {
            outcome = self.run(goal) => outcome,
            () = lease.keep() => Err(MigrationError::Superseded),
        };
        lease.release().await;
        outcome
    }

    async fn run(&self, goal: Goal) -> Result<MigrationReport, MigrationError> {
        let patience = self.settings.patience;
        // A ledger that was restored from a copy may be behind the fences.
        let mut floor = 0;
        for bucket in Place::ALL.into_iter().filter_map(|place| place.bucket(&self.context)) {
            floor = floor.max(epoch_of(bucket.as_ref(), &fence_key(), patience).await?);
        }
        let meta = Arc::clone(self.context.meta());
        let body = Option::<Ledger>::unwrap_or_default;
        let mut ledger = Held::take_over(meta, ledger_key(), patience, floor, body).await?;
        let from = ledger.body().version;
        let mut migrations = Vec::new();
        for step in self.plan(ledger.body(), goal)? {
            migrations.push(self.perform(&mut ledger, step).await?);
        }
        Ok(MigrationReport { from, to: ledger.body().version, migrations })
    }

    /// Begins one migration, or takes it up again, and ends it.
    async fn perform(
        &self,
        ledger: &mut Held<Ledger>,
        step: PathStep,
    ) -> Result<AppliedMigration, MigrationError> {
        let migration = self.find(&step.name)?;
        let now = self.context.clock().now();
        let mut running = ledger.body().running_again(&step, now);
        let mut body = ledger.body().clone();
        if let Some(before) = body.running.take().filter(|before| before.run != running.run) {
            // Its changes were made and not accepted; going back over them is all that is left to do.
            let tally = Default::default();
            let outcome = Outcome::Failed("it was rolled back before it was validated".to_owned());
            body.version = before.to;
            body.applied.push(before.ended(&self.by, now, tally, outcome));
        }
        body.running = Some(running.clone());
        write(ledger, Vec::new(), body).await?;
        let (epoch, patience) = (ledger.epoch(), self.settings.patience);
        let target = Target::fenced(&self.context, epoch, running.run, patience).await?;
        let mut migrator = self.migrator(target, running.run, &step.name);
        let done = self.change(migration.as_ref(), ledger, &mut running, &mut migrator).await;
        let outcome = match &done {
            Ok(()) => Outcome::Done,
            Err(MigrationError::Superseded) => return Err(MigrationError::Superseded),
            Err(error) => Outcome::Failed(error.to_string()),
        };
        let now = self.context.clock().now();
        let run = running.ended(&self.by, now, migrator.tally(), outcome);
        let mut body = ledger.body().clone();
        body.entries += 1;
        let entry = HistoryEntry::new(run.clone());
        let json = serde_json::to_vec(&entry).expect("records have string keys and no floats");
        let change = Change::Put(json.into());
        let history = KeyWrite::new(history_key(body.entries), change, Expected::Anything);
        if done.is_ok() {
            body.version = step.to;
            body.running = None;
            match step.direction {
                Direction::Up => body.applied.push(run.clone()),
                Direction::Down => drop(body.applied.pop()),
            }
        } else if migrator.is_untouched() && !running.changed {
            // Nothing is in the way of another one.
            body.give_up();
        }
        let written = write(ledger, vec![history], body).await;
        // Why the run failed matters more than that nobody could be told.
        done?;
        written?;
        tracing::info!(migration = %run.name, direction = %run.direction, changed = run.tally.changed(), "migrated");
        Ok(run)
    }

    async fn change(
        &self,
        migration: &dyn AnyMigration,
        ledger: &mut Held<Ledger>,
        running: &mut Running,
        migrator: &mut Migrator,
    ) -> Result<(), MigrationError> {
        if !running.changed {
            go(migration, running.direction, migrator).await?;
            running.changed = true;
            let mut body = ledger.body().clone();
            body.running = Some(running.clone());
            write(ledger, Vec::new(), body).await?;
        }
        if running.direction == Direction::Up {
            migrator.only_validate();
            migration.validate(migrator).await?;
        }
        Ok(())
    }

    fn plan(&self, ledger: &Ledger, goal: Goal) -> Result<Vec<PathStep>, MigrationError> {
        let path = |from, to| self.find_migration_path(from, to);
        let steps = plan(ledger, goal, path)?;
        for step in &steps {
            let migration = self.find(&step.name)?;
            if let (Direction::Down, super::Undo::Irreversible(reason)) =
                (step.direction, migration.undo())
            {
                let (name, reason) = (step.name.clone(), reason.to_owned());
                return Err(MigrationError::Irreversible { name, reason });
            }
        }
        Ok(steps)
    }

    fn migrator(&self, target: Target, run: Uuid, migration: &str) -> Migrator {
        Migrator::new(&self.context, target, self.streams.clone(), &self.settings, run, migration)
    }

    async fn ledger(&self) -> Result<Ledger, MigrationError> {
        let meta = self.context.meta().as_ref();
        Ok(look(meta, &ledger_key(), self.settings.patience).await?.unwrap_or_default())
    }

    fn find(&self, name: &str) -> Result<&Arc<dyn AnyMigration>, MigrationError> {
        let found = self.migrations.iter().find(|migration| migration.name() == name);
        found.ok_or_else(|| MigrationError::Unregistered { name: name.to_owned() })
    }

    fn edges(&self, direction: Direction) -> Vec<(SchemaVersion, SchemaVersion)> {
        let versions = self.migrations.iter().map(|migration| migration.versions());
        match direction {
            Direction::Up => versions.collect(),
            Direction::Down => versions.map(|(from, to)| (to, from)).collect(),
        }
    }
}

async fn go(
    migration: &dyn AnyMigration,
    direction: Direction,
    migrator: &mut Migrator,
) -> Result<(), MigrationError> {
    match direction {
        Direction::Up => migration.up(migrator).await,
        Direction::Down => migration.down(migrator).await,
    }
}

async fn write(
    ledger: &mut Held<Ledger>,
    writes: Vec<KeyWrite>,
    body: Ledger,
) -> Result<(), MigrationError> {
    while !ledger.commit(writes.clone(), body.clone()).await? {
        sleep(PAUSE).await;
    }
    Ok(())
}
