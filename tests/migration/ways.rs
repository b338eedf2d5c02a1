//! Ways up and down, dry runs, validation, the history, and what is refused.

use std::sync::{Arc, Mutex};

use cim_persistence::Context;
use cim_persistence::migration::{
    Direction, ManagedStream, Migration, MigrationError, MigrationRunner, Migrator, ModelDocument,
    ModelEdit, Outcome, Refusal, SchemaVersion, Tally, Undo,
};
use cim_persistence::repository::{LoadOptions, Repository};
use cim_persistence::store::Ports;
use cim_persistence::subject::AggregateId;
use cim_persistence::testing::faults::Faults;
use serde_json::json;

use super::domain::*;

/// Adds its own number to every person's list.
struct Mark {
    name: &'static str,
    from: u32,
    to: u32,
    undo: Undo,
    /// What it does not want to see afterwards.
    dislikes: Option<u32>,
}

fn mark(name: &'static str, from: u32, to: u32) -> Mark {
    Mark { name, from, to, undo: Undo::Everything, dislikes: None }
}

impl Migration for Mark {
    fn name(&self) -> &str {
        self.name
    }
    fn from(&self) -> SchemaVersion {
        v(self.from)
    }
    fn to(&self) -> SchemaVersion {
        v(self.to)
    }
    fn undo(&self) -> Undo {
        self.undo
    }
    async fn up(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        migrator
            .models("person.>", self.to, |person| {
                let mut document = person.document.clone();
                let marks = document["marks"].as_array().cloned().unwrap_or_default();
                document["marks"] = marks.into_iter().chain([json!(self.name)]).collect();
                Ok(ModelEdit::Put(document))
            })
            .await
    }
    async fn down(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        migrator
            .models("person.>", self.from, |person| {
                let mut document = person.document.clone();
                let marks = document["marks"].as_array_mut().ok_or("no marks")?;
                if marks.pop() != Some(json!(self.name)) {
                    return Err(format!("the last mark is not {}", self.name).into());
                }
                Ok(ModelEdit::Put(document))
            })
            .await
    }
    async fn validate(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        let Some(number) = self.dislikes else { return Ok(()) };
        let key = format!("p{number:04}");
        migrator
            .check_models("person.>", |person| match person.id.as_str().ends_with(&key) {
                true => Err("nobody likes it".into()),
                false => Ok(()),
            })
            .await
    }
}

fn runner_of(context: &Context, marks: impl IntoIterator<Item = Mark>) -> MigrationRunner {
    let mut runner = MigrationRunner::new(context, "kim").with_batch(5);
    marks.into_iter().for_each(|mark| runner.add_migration(mark).unwrap());
    runner
}

async fn marks(world: &World) -> serde_json::Value {
    value(&world.models, "person.team0.p0000").await.unwrap()["marks"].clone()
}

#[tokio::test(start_paused = true)]
async fn data_goes_up_the_shortest_way_and_back_the_way_it_came() {
    let world = World::filled(6).await;
    let context = world.context(&Faults::new());
    let first = runner_of(&context, [mark("a", 0, 1), mark("b", 1, 2), mark("c", 2, 3)]);
    let names = |steps: Vec<cim_persistence::migration::PathStep>| -> Vec<String> {
        steps.into_iter().map(|step| step.name).collect()
    };
    assert_eq!(names(first.pending_migrations().await.unwrap()), ["a", "b", "c"]);
    let report = first.migrate_to(v(3)).await.unwrap();
    assert_eq!((report.from, report.to, report.migrations.len()), (v(0), v(3), 3));
    assert_eq!(marks(&world).await, json!(["a", "b", "c"]));
    assert!(first.migrate_to(v(3)).await.unwrap().migrations.is_empty());

    // A later release knows a shorter way, which this data did not come.
    let all = [mark("a", 0, 1), mark("b", 1, 2), mark("c", 2, 3), mark("d", 0, 3), mark("e", 3, 4)];
    let later = runner_of(&context, all);
    assert_eq!(names(later.find_migration_path(v(3), v(0)).unwrap()), ["d"]);
    assert_eq!(names(later.find_migration_path(v(0), v(4)).unwrap()), ["d", "e"]);
    assert_eq!(names(later.pending_migrations().await.unwrap()), ["e"]);
    let report = later.rollback_to(v(1)).await.unwrap();
    let ran: Vec<_> = report.migrations.iter().map(|run| (&run.name[..], run.direction)).collect();
    assert_eq!(ran, [("c", Direction::Down), ("b", Direction::Down)]);
    assert_eq!(marks(&world).await, json!(["a"]));
    let applied = later.applied_migrations().await.unwrap();
    assert_eq!(applied.iter().map(|run| &run.name[..]).collect::<Vec<_>>(), ["a"]);
    assert_eq!(later.current_version().await.unwrap(), v(1));

    let history = later.history().await.unwrap();
    let ran: Vec<_> = history.iter().map(|run| (&run.name[..], run.direction)).collect();
    use Direction::{Down, Up};
    assert_eq!(ran, [("a", Up), ("b", Up), ("c", Up), ("c", Down), ("b", Down)]);
    for run in &history {
        assert_eq!((&run.by[..], &run.outcome, run.attempts), ("kim", &Outcome::Done, 1));
        assert_eq!((run.tally.seen, run.tally.written), (6, 6));
        assert!(run.ended_at >= run.begun_at);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_restores_what_was_there() {
    let world = World::filled(7).await;
    let before = world.contents().await;
    let context = world.context(&Faults::new());
    let runner = runner(&context);
    runner.migrate_to(v(1)).await.unwrap();
    let moved = value(&world.models, "person.team9.p0002").await.unwrap();
    assert_eq!(moved, json!({ "first": "First2", "last": "Last2", "edits": 1 }));
    assert_eq!(value(&world.models, "person.team2.p0002").await, None);
    runner.rollback_to(v(0)).await.unwrap();
    let mut after = world.contents().await;
    // A model saved by hand without a version has one after it was migrated.
    for (key, value) in &mut after {
        if key.starts_with("readmodels/person.") {
            *value = value.replacen("1 ", "- ", 1);
        }
    }
    assert_eq!(after, before);
    assert!(people(&context).verify_index(&by_name()).await.unwrap().is_sound());
}

#[tokio::test(start_paused = true)]
async fn migrated_state_is_what_the_next_version_of_an_aggregate_loads() {
    use cim_persistence::prelude::*;
    use serde::{Deserialize, Serialize};

    /// It knows a currency only from its kept state, never from its events.
    #[derive(Clone, Serialize, Deserialize)]
    struct AccountOf2 {
        id: String,
        cents: i64,
        currency: String,
    }
    impl Aggregate for AccountOf2 {
        const TYPE: &'static str = "account";
        const STATE_VERSION: u32 = 2;
        type Id = String;
        type Event = Deposited;
        fn new(id: &String) -> Self {
            Self { id: id.clone(), cents: 0, currency: "replayed".to_owned() }
        }
        fn id(&self) -> &String {
            &self.id
        }
        fn apply(&mut self, event: &Deposited) {
            self.cents += event.cents;
        }
    }

    let world = World::filled(0).await;
    let context = world.context(&Faults::new());
    let kim = "kim".to_owned();
    runner(&context).migrate_to(v(1)).await.unwrap();
    let accounts = Repository::<AccountOf2>::of(&context).unwrap();
    let loaded = accounts.load(&kim, LoadOptions::default()).await.unwrap().0;
    assert_eq!((loaded.cents, &loaded.currency[..]), (125, "EUR"));
    let first = accounts
        .load(&kim, LoadOptions { version: Some(2), ..LoadOptions::default() })
        .await
        .unwrap()
        .0;
    assert_eq!((first.cents, &first.currency[..]), (125, "EUR"), "by the snapshot");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_tells_what_would_change_and_writes_nothing() {
    let world = World::filled(17).await;
    let (contents, writes) = (world.contents().await, world.writes().await);
    let context = world.context(&Faults::new());
    let mut runner = runner(&context);
    runner.add_migration(mark("then", 1, 2)).unwrap();
    let dry = runner.dry_run(v(2)).await.unwrap();
    assert_eq!(world.contents().await, contents);
    assert_eq!(world.writes().await, writes, "not even a record");
    assert_eq!(runner.current_version().await.unwrap(), v(0));

    assert_eq!((dry.from, dry.to, dry.migrations.len()), (v(0), v(2), 2));
    let first = &dry.migrations[0];
    assert_eq!(first.undo, Undo::Except("people that were removed"));
    assert_eq!(first.path.name, "split names");
    let steps: Vec<_> = first.steps.iter().map(|step| (&step.step[..], step.tally)).collect();
    let tally = |seen, written, moved, removed| Tally { seen, written, moved, removed };
    let wanted = [
        ("models person.> to schema version 2", tally(17, 10, 5, 2)),
        ("model note.split of schema version 1", tally(1, 1, 0, 0)),
        ("state account.* to schema version 2", tally(3, 3, 0, 0)),
        ("snapshots account.> to schema version 2", tally(3, 3, 0, 0)),
        // Seen as the steps before left them.
        ("models person.team0.* to schema version 3", tally(5, 5, 0, 0)),
    ];
    assert_eq!(steps, wanted);
    let sample = &first.steps[0].samples[0];
    assert_eq!(sample.key, "person.team0.p0000");
    assert_eq!(sample.before.as_deref(), Some(r#"{"edits":0,"name":"First0 Last0"}"#));
    assert_eq!(sample.after.as_deref(), Some(r#"{"edits":1,"first":"First0","last":"Last0"}"#));
    assert_eq!(first.steps[0].samples.len(), 3);
    let second = &dry.migrations[1].steps[0];
    assert_eq!(second.tally, tally(15, 15, 0, 0));
    assert_eq!(dry.changed(), 17 + 1 + 6 + 5 + 15);

    // What it said is what happens.
    let report = runner.migrate_to(v(2)).await.unwrap();
    let mut sum = Tally::default();
    for step in &first.steps {
        sum.seen += step.tally.seen;
        sum.written += step.tally.written;
        sum.moved += step.tally.moved;
        sum.removed += step.tally.removed;
    }
    assert_eq!(report.migrations[0].tally, sum);
    assert_eq!(report.migrations[1].tally, second.tally);
    let back = runner.dry_run(v(1)).await.unwrap();
    assert_eq!(back.migrations[0].path.direction, Direction::Down);
    assert_eq!(back.changed(), 15);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_valid_is_not_applied_and_can_be_mended_or_rolled_back() {
    let world = World::filled(6).await;
    let context = world.context(&Faults::new());
    let picky = || Mark { dislikes: Some(4), ..mark("a", 0, 1) };
    let refused = runner_of(&context, [picky()]).migrate_to(v(1)).await.unwrap_err();
    let text = "person.team1.p0004 is not as the migration should have left it: nobody likes it";
    assert_eq!(refused.to_string(), text);
    let runner = runner_of(&context, [picky(), mark("b", 1, 2)]);
    assert_eq!(runner.current_version().await.unwrap(), v(0));
    assert!(runner.applied_migrations().await.unwrap().is_empty());
    assert_eq!(runner.history().await.unwrap()[0].outcome, Outcome::Failed(text.to_owned()));
    let unfinished = runner.dry_run(v(1)).await.unwrap_err().to_string();
    let wanted =
        "migration a was interrupted on its way up to 1.0.0; finish it first, by migrate_to";
    assert_eq!(unfinished, wanted);

    // Tried again, its steps are not done twice.
    assert_eq!(runner.migrate_to(v(2)).await.unwrap_err().to_string(), text);
    assert_eq!(marks(&world).await, json!(["a"]));
    runner.rollback_to(v(0)).await.unwrap();
    assert_eq!(marks(&world).await, json!([]));
    // Up again, by code that accepts it: another run, with all its steps.
    runner_of(&context, [mark("a", 0, 1)]).migrate_to(v(1)).await.unwrap();
    assert_eq!(marks(&world).await, json!(["a"]));
}

/// Says that it can be undone, as the one it wraps does not.
struct NoWayDown(Mark);

impl Migration for NoWayDown {
    fn name(&self) -> &str {
        self.0.name
    }
    fn from(&self) -> SchemaVersion {
        v(self.0.from)
    }
    fn to(&self) -> SchemaVersion {
        v(self.0.to)
    }
    fn undo(&self) -> Undo {
        Undo::Everything
    }
    async fn up(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        self.0.up(migrator).await
    }
    async fn validate(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        self.0.validate(migrator).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_valid_is_not_applied_by_a_rollback_that_changes_nothing() {
    let world = World::filled(6).await;
    let context = world.context(&Faults::new());
    let picky = || Mark { dislikes: Some(4), ..mark("a", 0, 1) };
    let mut stuck = runner_of(&context, [mark("b", 1, 2)]);
    stuck.add_migration(NoWayDown(picky())).unwrap();
    let refused = stuck.migrate_to(v(1)).await.unwrap_err().to_string();
    for _ in 0..2 {
        let back = stuck.rollback_to(v(0)).await.unwrap_err().to_string();
        assert!(back.ends_with("it says that it can be undone, and has no way down"), "{back}");
        assert_eq!(stuck.current_version().await.unwrap(), v(0));
        assert!(stuck.applied_migrations().await.unwrap().is_empty());
        // Neither accepted, nor built upon, nor done twice.
        assert_eq!(stuck.migrate_to(v(1)).await.unwrap_err().to_string(), refused);
        assert_eq!(stuck.migrate_to(v(2)).await.unwrap_err().to_string(), refused);
        assert_eq!(marks(&world).await, json!(["a"]));
    }
    // A release that has a way down, and then one whose validation accepts it.
    runner_of(&context, [picky()]).rollback_to(v(0)).await.unwrap();
    assert_eq!(marks(&world).await, json!([]));
    assert_eq!(stuck.migrate_to(v(1)).await.unwrap_err().to_string(), refused);
    stuck.rollback_to(v(0)).await.unwrap_err();
    let runner = runner_of(&context, [mark("a", 0, 1)]);
    runner.migrate_to(v(1)).await.unwrap();
    assert_eq!(runner.applied_migrations().await.unwrap()[0].outcome, Outcome::Done);
    assert_eq!(marks(&world).await, json!(["a"]));
}

#[tokio::test(start_paused = true)]
async fn wrong_ways_are_refused_before_anything_is_written() {
    let world = World::filled(3).await;
    let context = world.context(&Faults::new());
    let forever = Mark { undo: Undo::Irreversible("marks stay"), ..mark("b", 1, 2) };
    let runner = runner_of(&context, [mark("a", 0, 1), forever, mark("c", 2, 3)]);
    runner.migrate_to(v(3)).await.unwrap();
    let contents = world.contents().await;
    let refusals = [
        (
            runner.migrate_to(v(2)).await,
            "the data is at version 3.0.0, later than 2.0.0; roll it back if that is meant",
        ),
        (
            runner.migrate_to(v(7)).await,
            "no migrations lead from 3.0.0 to 7.0.0; add those that are missing",
        ),
        (runner.rollback_to(v(1)).await, "migration b cannot be undone: marks stay"),
        (
            runner.rollback_to(v(4)).await,
            "the data at version 3.0.0 did not come by version 4.0.0; nothing was rolled back",
        ),
        (
            runner_of(&context, []).rollback_to(v(2)).await,
            "migration c is needed, and this runner does not have it; add it",
        ),
    ];
    for (refused, text) in refusals {
        assert_eq!(refused.unwrap_err().to_string(), text);
    }
    assert_eq!(world.contents().await, contents);
    assert_eq!(runner.history().await.unwrap().len(), 3);
    let mut runner = runner;
    let text = |outcome: Result<(), MigrationError>| outcome.unwrap_err().to_string();
    assert_eq!(
        text(runner.add_migration(mark("x", 4, 4))),
        "migration x leads from 4.0.0 to 4.0.0; it must lead to a later version"
    );
    let own = "has the name or the two versions of a; each needs its own";
    assert_eq!(text(runner.add_migration(mark("a", 4, 5))), format!("migration a {own}"));
    assert_eq!(text(runner.add_migration(mark("x", 0, 1))), format!("migration x {own}"));
}

/// Does what is not possible.
#[derive(Clone, Copy)]
enum Does {
    Nothing,
    MoveAllToOne,
    RefuseTheLast,
    AnotherStep,
    SettingsWithoutStreams,
}

impl Migration for Does {
    fn name(&self) -> &str {
        "does"
    }
    fn from(&self) -> SchemaVersion {
        v(0)
    }
    fn to(&self) -> SchemaVersion {
        v(1)
    }
    async fn up(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        match self {
            Self::Nothing => Ok(()),
            Self::MoveAllToOne => migrator.models("person.>", 2, to_one).await,
            Self::RefuseTheLast => {
                let refuse = |person: &ModelDocument| match person.id.as_str() {
                    "team2.p0005" => Err("not today".into()),
                    _ => Ok(ModelEdit::Keep),
                };
                migrator.models("person.>", 2, refuse).await
            }
            Self::AnotherStep => migrator.models("person.>", 3, |_| Ok(ModelEdit::Keep)).await,
            Self::SettingsWithoutStreams => migrator.settings(ManagedStream::Meta, |_| {}).await,
        }
    }
    async fn validate(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        migrator.models("stranger.>", 1, |_| Ok(ModelEdit::Keep)).await
    }
}

fn to_one(person: &ModelDocument) -> Result<ModelEdit, Refusal> {
    let (model_type, id) = ("person".to_owned(), AggregateId::new("all")?);
    Ok(ModelEdit::Move { model_type, id, document: person.document.clone() })
}

async fn refusal_of(world: &World, what: Does) -> String {
    let context = world.context(&Faults::new());
    let mut runner = MigrationRunner::new(&context, "test").with_batch(3);
    runner.add_migration(what).unwrap();
    runner.migrate_to(v(1)).await.unwrap_err().to_string()
}

#[tokio::test(start_paused = true)]
async fn what_a_migration_cannot_do_is_said_of_what_it_met() {
    let world = World::filled(6).await;
    let contents = world.contents().await;
    let refusals = [
        // Two of one page.
        (
            Does::MoveAllToOne,
            "person.team0.p0003 cannot be moved to person.all, where there is a model already",
        ),
        (Does::RefuseTheLast, "person.team2.p0005 cannot be migrated: not today"),
        // A page was done.
        (
            Does::AnotherStep,
            "step 0 of the interrupted migration was models person.> to schema version 2, and is \
             models person.> to schema version 3; finish it with the code that began it",
        ),
    ];
    for (does, text) in refusals {
        assert_eq!(refusal_of(&world, does).await, text);
    }
    // What is half done has no way back.
    let context = world.context(&Faults::new());
    let back = runner_of(&context, []).rollback_to(v(0)).await.unwrap_err().to_string();
    let text =
        "migration does was interrupted on its way up to 1.0.0; finish it first, by migrate_to";
    assert_eq!(back, text);
    assert_eq!(world.contents().await, contents);
    assert_eq!(
        refusal_of(&World::filled(0).await, Does::SettingsWithoutStreams).await,
        "this runner cannot change the settings of streams; make it with with_streams"
    );
    assert_eq!(
        refusal_of(&World::filled(0).await, Does::Nothing).await,
        "a validation must not change anything: models stranger.> to schema version 1"
    );
}

/// Such ports were made before there was anything in the meta bucket.
#[tokio::test(start_paused = true)]
async fn without_a_meta_bucket_the_ledger_lies_with_the_read_models() {
    let ports = Ports::in_memory();
    let ports = Ports::new(ports.log, ports.state, ports.snapshots, ports.read_models);
    let context = Context::on(ports, &bank()).unwrap();
    fill(&context, 6).await;
    let before = contents_of(context.read_models().as_ref()).await;
    let runner = runner(&context);
    runner.migrate_to(v(1)).await.unwrap();
    runner.rollback_to(v(0)).await.unwrap();
    let mut after = contents_of(context.read_models().as_ref()).await;
    let records: Vec<String> =
        after.keys().filter(|key| !before.contains_key(*key)).cloned().collect();
    let names = ["history.0000000001", "history.0000000002", "ledger"];
    assert_eq!(records, names.map(|name| format!("readmodels/=migration.{name}")));
    after.retain(|key, _| before.contains_key(key));
    assert_eq!(after.len(), before.len());
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_after_each_page() {
    let world = World::filled(17).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let context = world.context(&Faults::new());
    let runner = runner(&context).on_progress(move |progress| {
        let (step, done, total) = (progress.step.clone(), progress.done, progress.total);
        assert!(progress.per_second > 0.0 && progress.left.is_some(), "{progress:?}");
        tell.lock().unwrap().push((progress.migration.clone(), step, done, total));
    });
    runner.migrate_to(v(1)).await.unwrap();
    let told = told.lock().unwrap();
    let step = "models person.> to schema version 2";
    let first: Vec<_> = told.iter().filter(|told| told.1 == step).map(|t| (t.2, t.3)).collect();
    assert_eq!(first, [(4, 17), (8, 17), (12, 17), (16, 17), (17, 17)]);
    assert!(told.iter().all(|told| told.0 == "split names"));
}
