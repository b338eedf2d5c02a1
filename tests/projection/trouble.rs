//! What passes, what stays, and who has the last word.

use std::time::Duration;

use cim_persistence::event::NonEmpty;
use cim_persistence::projection::{
    Changes, Declared, PoisonPolicy, Projection, ProjectionError, ProjectionOptions,
    ProjectionStatus, Projections, Rejection, RunningProjection,
};
use cim_persistence::read_model::ReadModel;
use cim_persistence::state::{Change, Expected, Key, KeyValue, KeyWrite};
use cim_persistence::store::{CommitInfo, ExpectedVersion, NewEvent, StoredEvent};
use cim_persistence::subject::{AggregateId, AggregateType, InvalidToken};
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults, Gate};
use serde::{Deserialize, Serialize};

use crate::domain::{
    Balances, Moved, PATIENCE, Store, expected, last, many_moves, moves, options, stored,
};
use crate::generations::{until_generation, value_of};
use crate::new_leader::NewLeader;

fn start(context: &cim_persistence::Context) -> RunningProjection {
    RunningProjection::start(context, Balances::<1>, options()).unwrap()
}

pub(crate) fn writes(call: &Call<'_>, key: &str) -> bool {
    call.kind == CallKind::Write && call.subjects.iter().any(|s| s.ends_with(key))
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_behind_is_no_other_log() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 10).await;
    let mut running = start(&context);
    running.caught_up(PATIENCE).await.unwrap();
    running.stop().await.unwrap();
    let faults = Faults::new();
    faults.plan_when(
        |call| call.kind == CallKind::NearestRead && call.stream == "memory",
        Fault::StaleRead(3),
    );
    let mut running = start(&store.process(&faults));
    let position = moves(&context, "a1", "a2", 1).await;
    running.caught_up(PATIENCE).await.unwrap();
    assert_eq!((position, faults.planned()), (last(&context).await, 0));
    assert_eq!(stored(&store.models, 1).await, expected(&context, 1).await);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_has_not_applied_everything_is_no_other_log() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 10).await;
    let mut running = start(&context);
    running.caught_up(PATIENCE).await.unwrap();
    running.stop().await.unwrap();
    let position = moves(&context, "a1", "a2", 1).await;
    let leader = NewLeader::of(&store.log, 5, 3);
    let running = start(&store.on_log(leader, &Faults::new()));
    let reached = Projections::of(&context).wait_for("balances", position, PATIENCE).await;
    running.stop().await.unwrap();
    reached.unwrap();
    // A log that stays short is believed.
    let leader = NewLeader::of(&store.log, 5, u32::MAX);
    let running = start(&store.on_log(leader, &Faults::new()));
    while running.is_running() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ended = running.stop().await;
    assert!(matches!(ended, Err(ProjectionError::LogTruncated { position: 11, .. })), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn another_that_was_first_to_begin_or_to_switch_stops_nobody() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 10).await;
    let faults = Faults::new();
    let begins = |call: &Call<'_>| writes(call, "=model.total") && writes(call, "balances.1");
    let switches = move |call: &Call<'_>| writes(call, "=model.total") && !begins(call);
    faults.plan_when(begins, Fault::Conflict);
    faults.plan_when(switches, Fault::Conflict);
    let mut running = start(&store.process(&faults));
    running.caught_up(PATIENCE).await.unwrap();
    assert_eq!(faults.planned(), 0);
    assert_eq!(stored(&store.models, 1).await, expected(&context, 1).await);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_overtaken_does_not_speak_for_the_others() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 10).await;
    let mut old = start(&context);
    old.caught_up(PATIENCE).await.unwrap();
    let new = RunningProjection::start(&store.healthy(), Balances::<2>, options()).unwrap();
    until_generation(&store.models, 2).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    // The old one meets the new generation.
    let position = moves(&context, "a1", "a2", 9).await;
    while old.is_running() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let projections = Projections::of(&context);
    let report = projections.report("balances").await.unwrap();
    assert_eq!((report.version, report.generation), (2, Some(2)));
    projections.wait_for("balances", position, PATIENCE).await.unwrap();
    new.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wait_goes_on_in_the_next_generation_also_when_the_old_one_was_left_behind() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 10).await;
    let projections = Projections::of(&context);
    let faults = Faults::new();
    let _running = start(&store.process(&faults));
    projections.wait_for("balances", last(&context).await, PATIENCE).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Whoever switches ends before it has tidied up.
    faults.plan_when(
        |call| call.subjects.len() == 1 && writes(call, "=checkpoint.balances.1"),
        Fault::Outage,
    );
    projections.rebuild("balances").await.unwrap();
    until_generation(&store.models, 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let position = moves(&context, "a1", "a2", 9).await;
    projections.wait_for("balances", position, Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn readers_never_go_back_when_a_generation_follows_another() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 50).await;
    let projections = Projections::of(&context);
    let faults = Faults::new();
    let _running = start(&store.process(&faults));
    projections.wait_for("balances", last(&context).await, PATIENCE).await.unwrap();
    let (builds, switched) = (Gate::new(), Gate::new());
    faults.plan_when(
        |call| writes(call, "balance=2.a1") && writes(call, "=checkpoint.balances.2"),
        Fault::PauseBefore(builds.clone()),
    );
    faults.plan_when(
        |call| writes(call, "=model.total") && !writes(call, "=checkpoint.balances.2"),
        Fault::PauseAfter(switched.clone()),
    );
    projections.rebuild("balances").await.unwrap();
    builds.reached().await;
    // While it is built, readers see more.
    many_moves(&context, 50).await;
    projections.wait_for("balances", last(&context).await, PATIENCE).await.unwrap();
    builds.open();
    switched.reached().await;
    assert_eq!(stored(&store.models, 2).await, expected(&context, 1).await);
    switched.open();
}

#[tokio::test(start_paused = true)]
async fn what_readers_see_may_be_broken_and_is_built_anew() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 20).await;
    let mut running = start(&context);
    running.caught_up(PATIENCE).await.unwrap();
    running.stop().await.unwrap();
    let broken = KeyWrite::new(
        Key::new("balance.a1").unwrap(),
        Change::Put("[7]".into()),
        Expected::Anything,
    );
    store.models.write(NonEmpty::one(broken)).await.unwrap();
    moves(&context, "a1", "a2", 9).await;
    Projections::of(&context).rebuild("balances").await.unwrap();
    let mut running = start(&context);
    running.caught_up(PATIENCE).await.unwrap();
    assert_eq!(stored(&store.models, 2).await, expected(&context, 1).await);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_paused_before_it_starts_says_so() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 10).await;
    let projections = Projections::of(&context);
    projections.pause("balances").await.unwrap();
    let running = start(&context);
    let said = async {
        loop {
            match projections.report("balances").await {
                Ok(report) => return report,
                // It is said within a second or two, whoever is asked first.
                Err(error) => assert!(matches!(error, ProjectionError::Unknown { .. }), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let report = tokio::time::timeout(PATIENCE, said).await.unwrap();
    assert_eq!((report.status, report.generation), (ProjectionStatus::Paused, None));
    assert_eq!(running.report().unwrap().status, ProjectionStatus::Paused);
}

#[tokio::test(start_paused = true)]
async fn a_wait_does_not_believe_a_replica_that_is_behind() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 10).await;
    let mut running = start(&context);
    running.caught_up(PATIENCE).await.unwrap();
    running.stop().await.unwrap();
    let position = moves(&context, "a1", "a2", 9).await;
    let faults = Faults::new();
    faults.plan_when(|call| call.stream == "memory", Fault::StaleRead(1));
    let projections = Projections::of(&store.process(&faults));
    let waited = projections.wait_for("balances", position, Duration::from_secs(1)).await;
    assert!(matches!(waited, Err(ProjectionError::NotReached { .. })), "{waited:?}");
    assert_eq!(faults.planned(), 0);
}

/// Where an account has moved a sum that is not read yet, a wait for something later must not be told that nothing is left
/// by a replica that knows neither.
#[tokio::test(start_paused = true)]
async fn nothing_is_left_only_if_the_leader_says_so() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 10).await;
    let mut running = start(&context);
    running.caught_up(PATIENCE).await.unwrap();
    running.stop().await.unwrap();
    let missed = moves(&context, "a1", "a2", 9).await;
    let (teller, id) = (AggregateType::new("teller").unwrap(), AggregateId::new("t").unwrap());
    let event = NewEvent::of(&Moved { to: "a1".to_owned(), cents: 1 }).unwrap();
    let (event, info) = (NonEmpty::one(event), CommitInfo::default());
    let appended = context.append(&teller, &id, ExpectedVersion::Any, &event, &info).await;
    let position = appended.unwrap().head.position;
    let reads = |call: &Call<'_>| {
        call.stream == "memory" && call.subjects.iter().any(|s| s.contains("account"))
    };
    let faults = Faults::new();
    let projections = Projections::of(&store.process(&faults));
    faults.plan_when(reads, Fault::StaleRead(2));
    let waited = projections.wait_for("balances", position, Duration::from_secs(1)).await;
    assert!(matches!(waited, Err(ProjectionError::NotReached { .. })), "{waited:?}");
    assert_eq!(faults.planned(), 0);
    faults.plan_when(reads, Fault::StaleRead(2));
    let report = projections.report("balances").await.unwrap();
    assert_eq!(report.status, ProjectionStatus::Lagging { behind_by: 2 });
    assert_eq!(faults.planned(), 0);
    // What is not meant for it keeps nobody waiting.
    let mut running = start(&context);
    projections.wait_for("balances", missed, PATIENCE).await.unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    running.stop().await.unwrap();
    context.append(&teller, &id, ExpectedVersion::Any, &event, &info).await.unwrap();
    projections.wait_for("balances", last(&context).await, PATIENCE).await.unwrap();
    let report = projections.report("balances").await.unwrap();
    assert_eq!(report.status, ProjectionStatus::UpToDate);
}

#[tokio::test(start_paused = true)]
async fn it_is_not_up_to_date_while_events_wait() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 10).await;
    let faults = Faults::new();
    let mut running = start(&store.process(&faults));
    running.caught_up(PATIENCE).await.unwrap();
    let (first, second) = (Gate::new(), Gate::new());
    for gate in [&first, &second] {
        let written = |call: &Call<'_>| writes(call, "total.all");
        faults.plan_when(written, Fault::PauseBefore(gate.clone()));
    }
    moves(&context, "a1", "a2", 1).await;
    first.reached().await;
    many_moves(&context, 3).await;
    first.open();
    second.reached().await;
    assert_eq!(running.report().unwrap().status, ProjectionStatus::Lagging { behind_by: 3 });
    second.open();
    running.caught_up(PATIENCE).await.unwrap();
    while running.report().unwrap().status != ProjectionStatus::UpToDate {
        tokio::task::yield_now().await;
    }
}

/// A sum of which the models cannot be written, because the server goes away when it is applied.
struct Cut(Faults);

impl Projection for Cut {
    const NAME: &'static str = "cut";
    type Event = Moved;

    fn models() -> Vec<Declared> {
        vec![Declared::of::<Hoard>()]
    }

    fn project(&self, _: Moved, _: &StoredEvent, changes: &mut Changes) -> Result<(), Rejection> {
        let faults = self.0.clone();
        changes.upsert(&AggregateId::new("all")?, move |hoard: &mut Hoard| {
            hoard.text.push('x');
            faults.begin_outage();
        });
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn one_is_stopped_also_while_the_server_is_away() {
    // While a batch is written, and while it waits to hear what is wished.
    for early in [false, true] {
        let store = Store::new();
        let context = store.healthy();
        let faults = Faults::new();
        let leads = Gate::new();
        let leases = |call: &Call<'_>| writes(call, "=lease.cut.1");
        faults.plan_when(leases, Fault::PauseAfter(leads.clone()));
        let process = store.process(&faults);
        let running = RunningProjection::start(&process, Cut(faults.clone()), options()).unwrap();
        leads.reached().await;
        if early {
            faults.begin_outage();
        }
        leads.open();
        if !early {
            let position = moves(&context, "a1", "a2", 1).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(position, last(&context).await);
        }
        let stopped = tokio::time::timeout(PATIENCE, running.stop()).await;
        stopped.expect("it stops").unwrap();
        faults.end_outage();
        assert_eq!(store.models.keys("hoard.>").await.unwrap(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_meets_a_renewal_gives_the_lease_back() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 10).await;
    let (faults, renewed) = (Faults::new(), Gate::new());
    let mut running = start(&store.process(&faults));
    running.caught_up(PATIENCE).await.unwrap();
    faults.plan_when(|call| writes(call, "=lease.balances.1"), Fault::PauseAfter(renewed.clone()));
    renewed.reached().await;
    running.stop().await.unwrap();
    assert!(value_of(&store.models, "=lease.balances.1").await.is_null());
}

/// As large as an event says.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Hoard {
    text: String,
}

impl ReadModel for Hoard {
    const MODEL_TYPE: &'static str = "hoard";
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new("all")
    }
}

struct Hoards;

impl Projection for Hoards {
    const NAME: &'static str = "hoards";
    type Event = Moved;

    fn models() -> Vec<Declared> {
        vec![Declared::of::<Hoard>()]
    }

    fn project(
        &self,
        event: Moved,
        _: &StoredEvent,
        changes: &mut Changes,
    ) -> Result<(), Rejection> {
        changes.upsert(&AggregateId::new("all")?, move |hoard: &mut Hoard| {
            hoard.text.push_str(&"x".repeat(event.cents.unsigned_abs() as usize));
        });
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_model_no_message_holds_is_parked() {
    let store = Store::new();
    let context = store.healthy();
    moves(&context, "a1", "a2", 3).await;
    let large = moves(&context, "a1", "a2", 2_000_000).await;
    moves(&context, "a1", "a2", 4).await;
    let options = ProjectionOptions { poison: PoisonPolicy::PARK, ..options() };
    let mut running = RunningProjection::start(&context, Hoards, options).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    let parked = Projections::of(&context).parked("hoards").await.unwrap();
    assert_eq!(parked.iter().map(|event| event.position).collect::<Vec<_>>(), [large]);
    let slot = store.models.get(&Key::new("hoard.all").unwrap(), Default::default()).await.unwrap();
    assert_eq!(slot.value.unwrap(), r#"{"text":"xxxxxxx"}"#);
}

/// An event that fills the shelves, and one that does not fit into the last of them.
struct Shelves;

const SHELVES: usize = 1_200;

impl Projection for Shelves {
    const NAME: &'static str = "shelves";
    type Event = Moved;

    fn models() -> Vec<Declared> {
        vec![Declared::of::<Hoard>()]
    }

    fn project(
        &self,
        event: Moved,
        _: &StoredEvent,
        changes: &mut Changes,
    ) -> Result<(), Rejection> {
        for shelf in 0..SHELVES {
            let id = AggregateId::new(format!("s{shelf}"))?;
            match (event.cents, shelf + 1 == SHELVES) {
                (0, _) => changes.upsert(&id, |hoard: &mut Hoard| hoard.text.push('a')),
                (_, true) => changes.upsert(&id, |hoard: &mut Hoard| {
                    hoard.text.push_str(&"b".repeat(2_000_000));
                }),
                (_, false) => changes.upsert(&id, |hoard: &mut Hoard| hoard.text.push('b')),
            }
        }
        Ok(())
    }
}

/// The writes of such a run travel in several batches, and the one that is too large is in the last.
#[tokio::test(start_paused = true)]
async fn an_event_that_does_not_fit_leaves_nothing_in_any_model() {
    let store = Store::new();
    let context = store.healthy();
    moves(&context, "a1", "a2", 0).await;
    let large = moves(&context, "a1", "a2", 1).await;
    moves(&context, "a1", "a2", 0).await;
    let options = ProjectionOptions { poison: PoisonPolicy::PARK, ..options() };
    let mut running = RunningProjection::start(&context, Shelves, options).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    let parked = Projections::of(&context).parked("shelves").await.unwrap();
    assert_eq!(parked.iter().map(|event| event.position).collect::<Vec<_>>(), [large]);
    assert!(parked[0].reason.contains("2000"), "{}", parked[0].reason);
    for shelf in [0, SHELVES - 1] {
        let key = Key::new(format!("hoard.s{shelf}")).unwrap();
        let slot = store.models.get(&key, Default::default()).await.unwrap();
        assert_eq!(slot.value.unwrap(), r#"{"text":"aa"}"#, "shelf {shelf}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pointer_that_nobody_can_read_is_deleted_and_made_anew() {
    let store = Store::new();
    let context = store.healthy();
    moves(&context, "a1", "a2", 3).await;
    let projections = Projections::of(&context);
    let running = RunningProjection::start(&context, Hoards, options()).unwrap();
    projections.wait_for("hoards", last(&context).await, PATIENCE).await.unwrap();
    running.stop().await.unwrap();
    let change = async |change| {
        let write = KeyWrite::new(Key::new("=model.hoard").unwrap(), change, Expected::Anything);
        store.models.write(NonEmpty::one(write)).await.unwrap();
    };
    change(Change::Put("nonsense".into())).await;
    let mut running = RunningProjection::start(&context, Hoards, options()).unwrap();
    let error = running.caught_up(PATIENCE).await.unwrap_err();
    assert!(matches!(error, ProjectionError::Record { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with("=model.hoard ") && text.contains("delete the key"), "{text}");
    change(Change::Delete).await;
    let running = RunningProjection::start(&context, Hoards, options()).unwrap();
    let position = moves(&context, "a1", "a2", 4).await;
    projections.wait_for("hoards", position, PATIENCE).await.unwrap();
    assert_eq!(value_of(&store.models, "=model.hoard").await["generation"], 2);
    assert_eq!(value_of(&store.models, "hoard=2.all").await["text"], "xxxxxxx");
    while !value_of(&store.models, "hoard.all").await.is_null() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.stop().await.unwrap();
}
