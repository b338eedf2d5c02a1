//! Services and projections that go on while models are migrated.

use cim_persistence::event::NonEmpty;
use cim_persistence::read_model::SaveModel;
use cim_persistence::state::{Change, Expected, Key, KeyValue, KeyWrite};
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults, Gate};
use serde_json::{Value, json};

use super::domain::*;

/// A runner that waits before its first batch of data.
async fn waiting(
    world: &World,
) -> (Gate, tokio::task::JoinHandle<cim_persistence::migration::MigrationReport>) {
    let (faults, gate) = (Faults::new(), Gate::new());
    let data = |call: &Call<'_>| call.kind == CallKind::Write && call.subjects.len() > 1;
    faults.plan_when(data, Fault::PauseBefore(gate.clone()));
    let context = world.context(&faults);
    let run = tokio::spawn(async move { runner(&context).migrate_to(v(1)).await.unwrap() });
    gate.reached().await;
    (gate, run)
}

#[tokio::test(start_paused = true)]
async fn what_a_service_saves_and_deletes_meanwhile_is_not_lost() {
    let world = World::filled(12).await;
    let (gate, run) = waiting(&world).await;
    let models = people(&world.context(&Faults::new()));
    // Both were read, and are about to be written.
    let renamed = json!({ "name": "New Name", "edits": 5 });
    models.save_document(&id(0), &renamed, SaveModel::default()).await.unwrap();
    models.delete(&id(3), cim_persistence::read_model::ExpectedRevision::Any).await.unwrap();
    gate.open();
    let report = run.await.unwrap();
    let person = value(&world.models, "person.team0.p0000").await.unwrap();
    assert_eq!(person, json!({ "first": "New", "last": "Name", "edits": 5 + 1 + 10 }));
    assert_eq!(value(&world.models, "person.team0.p0003").await, None);
    assert!(models.verify_index(&by_name()).await.unwrap().is_sound());
    // Counted once, as they were in the end: 11 people, a note, 3 states and snapshots, and 3 people again.
    assert_eq!(report.migrations[0].tally.seen, 11 + 1 + 6 + 3);
}

async fn put(world: &World, key: &str, value: Value) {
    let (key, value) = (Key::new(key).unwrap(), value.to_string());
    let write = KeyWrite::new(key, Change::Put(value.into()), Expected::Anything);
    world.models.write(NonEmpty::one(write)).await.unwrap();
}

async fn point(world: &World, generation: u64) {
    let pointer = json!({
        "format": 1, "projection": "people", "generation": generation, "schema_version": 1, "building": null,
    });
    put(world, "=model.person", pointer).await;
}

#[tokio::test(start_paused = true)]
async fn models_of_a_generation_that_readers_are_switched_to_meanwhile_are_migrated_as_well() {
    let world = World::filled(12).await;
    point(&world, 1).await;
    let (gate, run) = waiting(&world).await;
    for number in [0, 1] {
        let key = format!("person=2.{}", id(number).as_str());
        put(&world, &key, json!({ "name": "Second Build", "edits": 0 })).await;
    }
    put(&world, "person=3.team0.p0000", json!({ "name": "Not Shown", "edits": 0 })).await;
    point(&world, 2).await;
    gate.open();
    run.await.unwrap();
    let built = |edits| Some(json!({ "first": "Second", "last": "Build", "edits": edits }));
    assert_eq!(value(&world.models, "person=2.team0.p0000").await, built(11));
    assert_eq!(value(&world.models, "person=2.team1.p0001").await, built(1));
    let other = value(&world.models, "person=3.team0.p0000").await.unwrap();
    assert_eq!(other["name"], "Not Shown");
}
