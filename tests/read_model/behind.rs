//! Replicas that are behind, and writers that come between, at moments that a test chooses.

use std::sync::Arc;

use cim_persistence::read_model::{
    ExpectedRevision, ReadModel, ReadModelError, ReadModelStore, SaveModel, ViewDefinition,
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

fn is_write_of(prefix: &str) -> impl Fn(&Call<'_>) -> bool + Send + Sync + 'static {
    let prefix = format!("$KV.readmodels.{prefix}");
    move |call| call.kind == CallKind::Write && call.subjects.iter().any(|s| s.starts_with(&prefix))
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
