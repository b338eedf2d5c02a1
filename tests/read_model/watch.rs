//! Watching models.

use std::collections::BTreeMap;

use cim_persistence::read_model::{ModelChange, ModelPattern, ReadModel, ReadModelError};
use futures::{StreamExt, TryStreamExt};

use crate::domain::{Board, board, place_to_kill, places};

#[tokio::test]
async fn what_is_there_comes_first_and_then_every_change() {
    for place in places().await {
        let store = place.store();
        store.save(&board("JFK", "B6", 1)).await.unwrap();
        store.save(&board("LGA", "B6", 1)).await.unwrap();
        let pattern = ModelPattern::parse("board", "board.JFK.>").unwrap();
        let mut changes = store.of::<Board>().watch(&pattern).unwrap();
        let mut next = async || changes.try_next().await.unwrap().unwrap();
        assert!(matches!(next().await, ModelChange::Saved(s) if s.model == board("JFK", "B6", 1)));
        assert_eq!(next().await, ModelChange::CaughtUp, "{}", place.name);
        store.save(&board("LGA", "B6", 2)).await.unwrap();
        store.save(&board("JFK", "B6", 2)).await.unwrap();
        assert!(matches!(next().await, ModelChange::Saved(s) if s.model == board("JFK", "B6", 2)));
        let id = board("JFK", "B6", 1).id().unwrap();
        store.delete::<Board>(&id).await.unwrap();
        assert!(matches!(next().await, ModelChange::Deleted { id: gone, .. } if gone == id));
    }
}

#[tokio::test]
async fn a_model_of_another_shape_does_not_end_the_watch() {
    for place in places().await {
        let store = place.store();
        let id = board("JFK", "B6", 1).id().unwrap();
        let boards = store.untyped("board").unwrap();
        boards.save_document(&id, &serde_json::json!(7), Default::default()).await.unwrap();
        let mut changes = store.of::<Board>().watch(&ModelPattern::all("board")).unwrap();
        let first = changes.next().await.unwrap();
        assert!(matches!(first, Err(ReadModelError::Shape { .. })), "{first:?}");
        assert_eq!(changes.next().await.unwrap().unwrap(), ModelChange::CaughtUp);
        store.save(&board("JFK", "B6", 1)).await.unwrap();
        assert!(matches!(changes.next().await, Some(Ok(ModelChange::Saved(_)))));
    }
}

/// A watcher that nobody polled while the server was killed and restarted still sees how every model ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_survives_restarts_without_being_polled() {
    let (place, mut server) = place_to_kill().await;
    let store = place.store();
    let boards = store.of::<Board>();
    let mut changes = boards.watch(&ModelPattern::all("board")).unwrap();
    assert_eq!(changes.try_next().await.unwrap(), Some(ModelChange::CaughtUp));
    for flight in 0..50 {
        store.save(&board("JFK", "B6", flight)).await.unwrap();
    }
    server.kill();
    server.restart().await.unwrap();
    for flight in 25..75 {
        let model = Board { delay: 1, ..board("JFK", "B6", flight) };
        while store.save(&model).await.is_err() {}
    }
    let mut seen = BTreeMap::new();
    while seen.len() < 75 || seen.range(25..).any(|(_, delay)| *delay == 0) {
        if let ModelChange::Saved(stored) = changes.try_next().await.unwrap().unwrap() {
            seen.insert(stored.model.flight, stored.model.delay);
        }
    }
    assert!(seen.iter().all(|(flight, delay)| *delay == i64::from(*flight >= 25)), "{seen:?}");
}
