//! Finding by index, and indexes for what is there already.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cim_persistence::event::NonEmpty;
use cim_persistence::read_model::{
    IndexCheck, IndexLookup, IndexSpec, Models, ReadModel, ReadModelError, ReadModelStore,
};
use cim_persistence::state::{Change, Expected, Key, KeyWrite};
use cim_persistence::subject::{AggregateId, InvalidToken};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::domain::{Board, board, places};

fn by_carrier() -> IndexSpec {
    IndexSpec::on(["carrier"])
}

async fn flights(boards: &Models<Board>, lookup: IndexLookup) -> Vec<u32> {
    let found = boards.load_where(&by_carrier(), &lookup).await.unwrap();
    let mut flights: Vec<u32> = found.iter().map(|stored| stored.model.flight).collect();
    flights.sort_unstable();
    flights
}

async fn fill(store: &ReadModelStore, flights: u32) {
    for flight in 0..flights {
        let carrier = ["B6", "AA", "UA"][flight as usize % 3];
        store.save(&board("JFK", carrier, flight)).await.unwrap();
    }
}

#[tokio::test]
async fn an_index_follows_what_is_saved_changed_and_deleted() {
    for place in places().await {
        let store = place.store();
        let boards = store.of::<Board>();
        boards.build_index(&by_carrier()).await.unwrap();
        fill(&store, 9).await;
        let jet_blue = || IndexLookup::equal(["B6"]);
        assert_eq!(flights(&boards, jet_blue()).await, [0, 3, 6], "{}", place.name);
        store.delete::<Board>(&board("JFK", "B6", 3).id().unwrap()).await.unwrap();
        assert_eq!(flights(&boards, jet_blue()).await, [0, 6]);
        let range = IndexLookup::range(json!("AA")..json!("UA"));
        assert_eq!(flights(&boards, range).await, [0, 1, 4, 6, 7]);
        let check = boards.verify_index(&by_carrier()).await.unwrap();
        assert_eq!(check, IndexCheck::default());
    }
}

#[tokio::test]
async fn an_index_that_nobody_built_is_not_used() {
    for place in places().await {
        let store = place.store();
        let boards = store.of::<Board>();
        fill(&store, 3).await;
        let found = boards.load_where(&by_carrier(), &IndexLookup::equal(["B6"])).await;
        let text = "the index on carrier of models of type board is not complete; build it first";
        assert_eq!(found.unwrap_err().to_string(), text, "{}", place.name);
        let other = IndexSpec::on(["delay"]);
        assert_eq!(boards.ready_indexes().await.unwrap(), []);
        assert_eq!(boards.build_index(&other).await.unwrap(), 3);
        assert_eq!(boards.build_index(&by_carrier()).await.unwrap(), 3);
        assert_eq!(boards.ready_indexes().await.unwrap(), [by_carrier()]);
        let on_time = boards.load_where(&other, &IndexLookup::equal([0])).await.unwrap();
        assert_eq!(on_time.len(), 3);
        boards.drop_index(&other).await.unwrap();
        let dropped = boards.load_where(&other, &IndexLookup::equal([0])).await;
        assert!(matches!(dropped, Err(ReadModelError::IndexNotReady { .. })), "{dropped:?}");
    }
}

/// Documents written by somebody who knows of no index, and changed by somebody who does while it is built.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_sound_after_it_was_built_among_writers() {
    for place in places().await {
        let store = place.store();
        let plain = store.untyped("board").unwrap();
        let boards = store.of::<Board>();
        for flight in 0..200 {
            let model = board("JFK", "B6", flight);
            let document = serde_json::to_value(&model).unwrap();
            plain.save_document(&model.id().unwrap(), &document, Default::default()).await.unwrap();
        }
        let check = boards.verify_index(&by_carrier()).await.unwrap();
        assert_eq!(check, IndexCheck { missing: 200, stray: 0 });
        let built = Arc::new(AtomicBool::new(false));
        let writer = {
            let store = store.clone();
            let built = Arc::clone(&built);
            tokio::spawn(async move {
                for flight in (0..200).rev().cycle() {
                    let model = Board { delay: 7, ..board("JFK", "B6", flight) };
                    store.save(&model).await.unwrap();
                    // In memory a writer without a pause leaves a single core to nobody else.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    if built.load(Ordering::Relaxed) {
                        break;
                    }
                }
            })
        };
        boards.build_index(&by_carrier()).await.unwrap();
        built.store(true, Ordering::Relaxed);
        writer.await.unwrap();
        let check = boards.verify_index(&by_carrier()).await.unwrap();
        assert!(check.is_sound(), "{}: {check:?}", place.name);
        assert_eq!(flights(&boards, IndexLookup::equal(["B6"])).await.len(), 200);
    }
}

#[tokio::test]
async fn more_entries_than_one_answer_holds_are_found() {
    let [_, place] = places().await;
    let store = place.store();
    let boards = store.of::<Board>();
    boards.build_index(&by_carrier()).await.unwrap();
    for flight in 0..1100 {
        store.save(&board("JFK", "B6", flight)).await.unwrap();
    }
    assert_eq!(flights(&boards, IndexLookup::equal(["B6"])).await.len(), 1100);
}

#[tokio::test]
async fn what_an_index_cannot_do_it_says() {
    let [_, place] = places().await;
    let boards = place.store().of::<Board>();
    for (spec, text) in [
        (IndexSpec::on([""; 0]), "index on  cannot be kept: it must have one to four fields"),
        (IndexSpec::on(["a", "a"]), "index on a, a cannot be kept: it names a field twice"),
        (IndexSpec::on(["a..b"]), "index on a..b cannot be kept: a path has an empty part"),
    ] {
        assert_eq!(boards.build_index(&spec).await.unwrap_err().to_string(), text);
    }
    boards.build_index(&by_carrier()).await.unwrap();
    for (lookup, text) in [
        (
            IndexLookup::equal(["B6", "JFK"]),
            "index on carrier cannot be asked this: it names more values than the index has fields",
        ),
        (
            IndexLookup::equal([json!([])]),
            "index on carrier cannot be asked this: arrays and objects are not indexed",
        ),
    ] {
        let refused = boards.load_where(&by_carrier(), &lookup).await.unwrap_err();
        assert_eq!(refused.to_string(), text);
    }
}

/// Whoever saves keeps what somebody has built, whether the type says so or not.
#[tokio::test]
async fn an_index_that_was_built_is_kept_by_all_who_save() {
    for place in places().await {
        let store = place.store();
        let (boards, documents) = (store.of::<Board>(), store.untyped("board").unwrap());
        let by_delay = IndexSpec::on(["delay"]);
        boards.build_index(&by_carrier()).await.unwrap();
        boards.build_index(&by_delay).await.unwrap();
        fill(&store, 3).await;
        let id = board("JFK", "B6", 0).id().unwrap();
        let changed = json!({ "origin": "JFK", "carrier": "DL", "flight": 0, "delay": 9 });
        documents.save_document(&id, &changed, Default::default()).await.unwrap();
        documents.delete(&board("JFK", "UA", 2).id().unwrap(), Default::default()).await.unwrap();
        for spec in [by_carrier(), by_delay.clone()] {
            let check = boards.verify_index(&spec).await.unwrap();
            assert!(check.is_sound(), "{}: {spec}: {check:?}", place.name);
        }
        let late = boards.load_where(&by_delay, &IndexLookup::equal([9])).await.unwrap();
        assert_eq!(late.len(), 1);
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Share {
    name: String,
    share: f32,
}

impl ReadModel for Share {
    const MODEL_TYPE: &'static str = "share";
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new(&self.name)
    }
    fn indexes() -> Vec<IndexSpec> {
        vec![IndexSpec::on(["share"])]
    }
}

/// An index holds what is stored, which for a short float is not what it is as a long one.
#[tokio::test]
async fn a_number_is_found_as_it_is_stored() {
    let [_, place] = places().await;
    let store = place.store();
    let (shares, spec) = (store.of::<Share>(), IndexSpec::on(["share"]));
    shares.build_index(&spec).await.unwrap();
    for share in [0.1, 0.2] {
        store.save(&Share { name: "a".to_owned(), share }).await.unwrap();
    }
    assert_eq!(shares.load_where(&spec, &IndexLookup::equal([0.2])).await.unwrap().len(), 1);
    assert_eq!(shares.verify_index(&spec).await.unwrap(), IndexCheck::default());
}

#[tokio::test]
async fn an_index_that_a_projection_does_not_know_of_is_refused() {
    let [_, place] = places().await;
    let pointer = json!({
        "format": 1, "projection": "boards", "generation": 1, "schema_version": 3, "building": null,
    });
    let key = Key::new("=model.board").unwrap();
    let put = Change::Put(pointer.to_string().into());
    place.bucket.write(NonEmpty::one(KeyWrite::new(key, put, Expected::Anything))).await.unwrap();
    let boards = place.store().of::<Board>();
    let refused = boards.build_index(&IndexSpec::on(["delay"])).await.unwrap_err().to_string();
    let text =
        "index on delay cannot be kept: projection boards keeps the models and must declare it";
    assert_eq!(refused, text);
    boards.build_index(&by_carrier()).await.unwrap();
}
