//! Replicas that are behind, and writers that come between, at moments that a test chooses.

use std::sync::Arc;

use cim_persistence::read_model::{
    ExpectedRevision, IndexCheck, IndexLookup, IndexSpec, ReadModel, ReadModelError,
    ReadModelStore, SaveModel, ViewDefinition,
};
use cim_persistence::specification::{SearchOptions, field};
use cim_persistence::state::MemoryKeyValue;
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults, Gate};

use crate::domain::{Board, board};

/// What the replica that answers does not know yet: the last write.
const ONE_BEHIND: Fault = Fault::StaleRead(1);

fn faulty() -> (ReadModelStore, Faults) {
    let faults = Faults::new();
    let bucket = MemoryKeyValue::new("readmodels").with_faults(&faults);
    (ReadModelStore::on(Arc::new(bucket)), faults)
}

fn expecting(expected: ExpectedRevision) -> SaveModel {
    SaveModel { expected, ..SaveModel::default() }
}

#[tokio::test]
async fn what_a_replica_has_not_seen_yet_is_deleted_all_the_same() {
    let (store, faults) = faulty();
    let model = board("JFK", "B6", 1);
    store.save(&model).await.unwrap();
    faults.plan(ONE_BEHIND);
    store.delete::<Board>(&model.id().unwrap()).await.unwrap();
    assert_eq!(store.load::<Board>(&model.id().unwrap()).await.unwrap(), None);
    assert_eq!(faults.planned(), 0);
}

#[tokio::test]
async fn a_replica_that_is_behind_is_no_reason_for_a_conflict() {
    let (store, faults) = faulty();
    let (boards, model) = (store.of::<Board>(), board("JFK", "B6", 1));
    let id = model.id().unwrap();
    let first = boards.save(&model, SaveModel::default()).await.unwrap();
    faults.plan(ONE_BEHIND);
    let second = boards.save(&model, expecting(ExpectedRevision::Exact(first))).await.unwrap();
    faults.plan(ONE_BEHIND);
    boards.delete(&id, ExpectedRevision::Exact(second)).await.unwrap();
    faults.plan(ONE_BEHIND);
    boards.save(&model, expecting(ExpectedRevision::New)).await.unwrap();
    assert_eq!(faults.planned(), 0);
}

/// What is refused is refused by what the leader knows, not by what a replica knew.
#[tokio::test]
async fn a_conflict_names_the_newest_revision() {
    let (store, faults) = faulty();
    let (boards, model) = (store.of::<Board>(), board("JFK", "B6", 1));
    let first = boards.save(&model, SaveModel::default()).await.unwrap();
    boards.save(&model, SaveModel::default()).await.unwrap();
    let last = boards.save(&model, SaveModel::default()).await.unwrap();
    faults.plan(ONE_BEHIND);
    let late = boards.save(&model, expecting(ExpectedRevision::Exact(first))).await.unwrap_err();
    assert!(matches!(late, ReadModelError::Conflict { actual, .. } if actual == last), "{late}");
}

fn by_carrier() -> IndexSpec {
    IndexSpec::on(["carrier"])
}

fn is_write_of(prefix: &str) -> impl Fn(&Call<'_>) -> bool + Send + Sync + 'static {
    let prefix = format!("$KV.readmodels.{prefix}");
    move |call| call.kind == CallKind::Write && call.subjects.iter().any(|s| s.starts_with(&prefix))
}

/// The keys are listed by the leader and read from any replica.
#[tokio::test]
async fn an_index_has_the_models_that_a_replica_has_not_seen_yet() {
    for deleted_before in [false, true] {
        let (store, faults) = faulty();
        let (boards, plain) = (store.of::<Board>(), store.untyped("board").unwrap());
        let model = board("JFK", "B6", 1);
        let (id, document) = (model.id().unwrap(), serde_json::to_value(&model).unwrap());
        if deleted_before {
            plain.save_document(&id, &document, Default::default()).await.unwrap();
            plain.delete(&id, ExpectedRevision::Any).await.unwrap();
        }
        plain.save_document(&id, &document, Default::default()).await.unwrap();
        let reads_models = |call: &Call<'_>| {
            call.kind == CallKind::NearestRead
                && call.subjects.contains(&"$KV.readmodels.board.JFK.B6.1")
        };
        // The last write says that the index is being built, the one before saved the model.
        faults.plan_when(reads_models, Fault::StaleRead(2));
        assert_eq!(boards.build_index(&by_carrier()).await.unwrap(), 1);
        assert_eq!(faults.planned(), 0);
        assert_eq!(boards.verify_index(&by_carrier()).await.unwrap(), IndexCheck::default());
    }
}

/// Code that does not declare an index looks for its state before it writes, and writes later.
#[tokio::test]
async fn an_index_has_what_was_saved_by_a_save_that_began_before_it() {
    let (store, faults) = faulty();
    let (boards, plain) = (store.of::<Board>(), store.untyped("board").unwrap());
    let old = board("JFK", "B6", 1);
    let document = serde_json::to_value(&old).unwrap();
    plain.save_document(&old.id().unwrap(), &document, Default::default()).await.unwrap();

    let (saves, fills) = (Gate::new(), Gate::new());
    faults.plan_when(is_write_of("board.JFK.B6.2"), Fault::PauseBefore(saves.clone()));
    faults.plan_when(is_write_of("=index.board"), Fault::PauseAfter(fills.clone()));
    let new = board("JFK", "B6", 2);
    let (id, document) = (new.id().unwrap(), serde_json::to_value(&new).unwrap());
    let save = plain.save_document(&id, &document, SaveModel::default());
    let spec = by_carrier();
    let build = async {
        saves.reached().await;
        boards.build_index(&spec).await.unwrap()
    };
    let between = async {
        fills.reached().await;
        saves.open();
        while store.load::<Board>(&id).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        fills.open();
    };
    let (saved, written, ()) = tokio::join!(save, build, between);
    saved.unwrap();
    assert_eq!(written, 2);
    let found = boards.load_where(&spec, &IndexLookup::equal(["B6"])).await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(boards.verify_index(&spec).await.unwrap(), IndexCheck::default());
}

fn late(minutes: i64) -> ViewDefinition {
    let options = SearchOptions::default().limit(10);
    ViewDefinition::new("board.>", field("delay").gt(minutes), options)
}

/// Two instances that start together make the same view.
#[tokio::test]
async fn a_view_that_another_one_makes_meanwhile_is_the_same_view() {
    let (store, faults) = faulty();
    let gate = Gate::new();
    faults.plan_when(is_write_of("=view.late"), Fault::PauseBefore(gate.clone()));
    let slow = store.create_view("late", late(30));
    let fast = async {
        gate.reached().await;
        store.create_view("late", late(30)).await.unwrap();
        gate.open();
    };
    let (slow, ()) = tokio::join!(slow, fast);
    slow.unwrap();

    let gate = Gate::new();
    faults.plan_when(is_write_of("=view.other"), Fault::PauseBefore(gate.clone()));
    let slow = store.create_view("other", late(30));
    let fast = async {
        gate.reached().await;
        store.create_view("other", late(60)).await.unwrap();
        gate.open();
    };
    let (slow, ()) = tokio::join!(slow, fast);
    assert!(matches!(slow, Err(ReadModelError::ViewExists { .. })), "{slow:?}");
    assert_eq!(store.get_view("other").await.unwrap().unwrap().definition, late(60));
}
