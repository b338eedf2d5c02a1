//! Replicas that are behind: what an event does to a model is not lost because one did not know the model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cim_persistence::backend::Position;
use cim_persistence::projection::{
    Changes, Declared, Projection, ProjectionOptions, Projections, Rejection, RunningProjection,
};
use cim_persistence::read_model::ReadModel;
use cim_persistence::state::{Key, KeyValue, MemoryKeyValue};
use cim_persistence::store::StoredEvent;
use cim_persistence::subject::{AggregateId, InvalidToken};
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults, Rates};
use serde::{Deserialize, Serialize};

use crate::domain::{Moved, PATIENCE, Store, last, moves, options};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Note {
    name: String,
    written: Vec<u64>,
}

impl ReadModel for Note {
    const MODEL_TYPE: &'static str = "note";
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new(&self.name)
    }
}

/// Sums that are positive write a note, zero adds to one that is there, negative ones remove it.
struct Notes;

impl Projection for Notes {
    const NAME: &'static str = "notes";
    type Event = Moved;

    fn models() -> Vec<Declared> {
        vec![Declared::of::<Note>()]
    }

    fn project(
        &self,
        event: Moved,
        stored: &StoredEvent,
        changes: &mut Changes,
    ) -> Result<(), Rejection> {
        let (id, position) = (AggregateId::new(&event.to)?, stored.position().get());
        match event.cents.signum() {
            1 => changes.upsert(&id, move |note: &mut Note| {
                note.name = event.to;
                note.written.push(position);
            }),
            0 => changes.update(&id, move |note: &mut Note| note.written.push(position)),
            _ => changes.delete::<Note>(&id),
        }
        Ok(())
    }
}

fn start(context: &cim_persistence::Context) -> RunningProjection {
    RunningProjection::start(context, Notes, options()).unwrap()
}

async fn note(models: &MemoryKeyValue, name: &str) -> Option<Note> {
    let key = Key::new(format!("note.{name}")).unwrap();
    let slot = models.get(&key, Default::default()).await.unwrap();
    slot.value.map(|value| serde_json::from_slice(&value).unwrap())
}

fn asks_for(call: &Call<'_>, key: &str) -> bool {
    call.stream == "KV_readmodels" && call.subjects.iter().any(|subject| subject.ends_with(key))
}

#[tokio::test(start_paused = true)]
async fn what_a_replica_does_not_know_is_changed_and_deleted_all_the_same() {
    let cases: [(&[i64], Option<Vec<u64>>); 3] =
        [(&[0], Some(vec![1, 2])), (&[-1], None), (&[5, -1], None)];
    for (later, expected) in cases {
        let store = Store::new();
        let context = store.healthy();
        moves(&context, "x", "a", 1).await;
        let mut running = start(&context);
        running.caught_up(PATIENCE).await.unwrap();
        running.stop().await.unwrap();
        for cents in later {
            moves(&context, "x", "a", *cents).await;
        }
        // The replica has nothing of what the first run wrote.
        let faults = Faults::new();
        faults.plan_when(|call| asks_for(call, ".note.a"), Fault::StaleRead(100));
        let mut running = start(&store.process(&faults));
        running.caught_up(PATIENCE).await.unwrap();
        assert_eq!(faults.planned(), 0);
        let found = note(&store.models, "a").await.map(|note| note.written);
        assert_eq!(found, expected, "after {later:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_leader_is_asked_once_for_what_is_not_there_and_never_for_what_was_written() {
    let store = Store::new();
    let faults = Faults::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    // It meets nothing; its condition counts.
    let never = move |call: &Call<'_>| {
        let counts = call.kind == CallKind::LeaderRead && asks_for(call, ".note.a");
        counted.fetch_add(usize::from(counts), Ordering::SeqCst);
        false
    };
    faults.plan_when(never, Fault::Outage);
    let context = store.healthy();
    let mut running = start(&store.process(&faults));
    running.caught_up(PATIENCE).await.unwrap();
    for (cents, expected) in [(0, 1), (-1, 1), (1, 1), (0, 1), (-1, 1), (0, 1)] {
        moves(&context, "x", "a", cents).await;
        running.caught_up(PATIENCE).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), expected, "after {cents}");
    }
    assert_eq!(note(&store.models, "a").await, None);
}

/// Each note as the log says.
async fn expected(context: &cim_persistence::Context) -> BTreeMap<String, Note> {
    let mut notes: BTreeMap<String, Note> = BTreeMap::new();
    for stored in context.get_events_after(Position::START, usize::MAX).await.unwrap() {
        let (event, position): (Moved, u64) = (stored.data().unwrap(), stored.position().get());
        match event.cents.signum() {
            1 => {
                let note = notes.entry(event.to.clone()).or_default();
                note.name = event.to;
                note.written.push(position);
            }
            0 => {
                if let Some(note) = notes.get_mut(&event.to) {
                    note.written.push(position);
                }
            }
            _ => drop(notes.remove(&event.to)),
        }
    }
    notes
}

/// Stale reads, lost answers, late writes and crashes, drawn from seeds.
#[tokio::test(start_paused = true)]
async fn whatever_is_drawn_nothing_that_events_do_is_lost() {
    let rates = Rates {
        stale_read: 400,
        lost_ack: 40,
        lost_write: 40,
        late_write: 40,
        conflict: 150,
        ..Rates::default()
    };
    for seed in 0..60 {
        let store = Store::new();
        let healthy = store.healthy();
        let process = store.process(&Faults::random(seed, rates));
        let options =
            || ProjectionOptions { lease: Duration::from_millis(1 + seed % 40), ..options() };
        for round in 0..8 {
            let running = RunningProjection::start(&process, Notes, options()).unwrap();
            for n in 0..12 {
                let cents = i64::try_from((seed + round * 5 + n * 7) % 3).unwrap() - 1;
                moves(&healthy, "x", &format!("n{}", (n + round) % 5), cents).await;
                tokio::time::sleep(Duration::from_millis(seed * 7 % 5)).await;
            }
            drop(running);
        }
        let healed = start(&healthy);
        let end = last(&healthy).await;
        let reached = Projections::of(&healthy).wait_for("notes", end, PATIENCE).await;
        reached.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        healed.stop().await.unwrap();
        let expected = expected(&healthy).await;
        for n in 0..5 {
            let name = format!("n{n}");
            assert_eq!(
                note(&store.models, &name).await.as_ref(),
                expected.get(&name),
                "seed {seed}"
            );
        }
    }
}
