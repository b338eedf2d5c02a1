//! What readers see while a projection builds models anew.

use cim_persistence::event::NonEmpty;
use cim_persistence::read_model::{ReadModel, ReadModelError};
use cim_persistence::state::{Change, Expected, Key, KeyWrite};
use futures::TryStreamExt;
use serde_json::json;

use crate::domain::{Board, board, places, point, put};

#[tokio::test]
async fn a_switch_is_seen_at_once_by_those_who_had_read_before() {
    for place in places().await {
        let store = place.store();
        let model = board("JFK", "B6", 1);
        put(&place, "board.JFK.B6.1", json!(model)).await;
        let id = model.id().unwrap();
        assert_eq!(store.load::<Board>(&id).await.unwrap().unwrap().model, model);
        let newer = Board { delay: 5, ..model };
        put(&place, "board=2.JFK.B6.1", json!(newer)).await;
        assert_eq!(store.load::<Board>(&id).await.unwrap().unwrap().model.delay, 0);
        point(&place, Some(2)).await;
        assert_eq!(
            store.load::<Board>(&id).await.unwrap().unwrap().model.delay,
            5,
            "{}",
            place.name
        );
        let found: Vec<_> =
            store.query::<Board>(Some("board.JFK.>")).await.unwrap().try_collect().await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].model.delay, &found[0].metadata.id), (5, &id));
    }
}

#[tokio::test]
async fn models_that_are_built_for_the_first_time_are_not_shown() {
    for place in places().await {
        let store = place.store();
        put(&place, "board.JFK.B6.1", json!(board("JFK", "B6", 1))).await;
        point(&place, None).await;
        let id = board("JFK", "B6", 1).id().unwrap();
        match store.load::<Board>(&id).await {
            Err(ReadModelError::NotBuilt { model_type, projection }) => {
                assert_eq!((model_type.as_str(), projection.as_str()), ("board", "boards"));
            }
            other => panic!("{other:?}"),
        }
        let kept = store.save(&board("JFK", "B6", 1)).await.unwrap_err();
        let text = "models of type board are kept by projection boards; save under another type";
        assert_eq!(kept.to_string(), text);
        put(&place, "=model.board", json!("nonsense")).await;
        let unreadable = store.load::<Board>(&id).await;
        assert!(matches!(unreadable, Err(ReadModelError::Pointer { .. })), "{unreadable:?}");
    }
}

/// Whoever tidies up behind a rebuild says so, and no watcher takes it for the end of a model.
#[tokio::test]
async fn what_is_tidied_up_is_not_deleted() {
    use cim_persistence::read_model::{ModelChange, ModelPattern};
    for place in places().await {
        let boards = place.store().of::<Board>();
        let (one, two) = (board("JFK", "B6", 1), board("JFK", "B6", 2));
        put(&place, "board.JFK.B6.1", json!(one)).await;
        let mut changes = boards.watch(&ModelPattern::all("board")).unwrap();
        let mut next = async || changes.try_next().await.unwrap().unwrap();
        assert!(matches!(next().await, ModelChange::Saved(_)));
        assert_eq!(next().await, ModelChange::CaughtUp);
        let key = Key::new("board.JFK.B6.1").unwrap();
        let mut tidied = KeyWrite::new(key, Change::Delete, Expected::Anything);
        tidied.headers.push("Cim-Cleared", "1");
        place.bucket.write(NonEmpty::one(tidied)).await.unwrap();
        put(&place, "board.JFK.B6.2", json!(two)).await;
        assert!(matches!(next().await, ModelChange::Saved(s) if s.model == two), "{}", place.name);
    }
}

#[tokio::test]
async fn a_watch_begins_anew_with_a_new_generation() {
    use cim_persistence::read_model::{ModelChange, ModelPattern};
    for place in places().await {
        let boards = place.store().of::<Board>();
        let mut changes = boards.watch(&ModelPattern::all("board")).unwrap();
        put(&place, "board.JFK.B6.1", json!(board("JFK", "B6", 1))).await;
        put(&place, "board=2.JFK.B6.2", json!(board("JFK", "B6", 2))).await;
        let mut seen = Vec::new();
        while seen.last() != Some(&"JFK.B6.2".to_owned()) {
            match changes.try_next().await.unwrap().unwrap() {
                ModelChange::Saved(stored) => {
                    seen.push(stored.metadata.id.as_str().to_owned());
                    point(&place, Some(2)).await;
                }
                ModelChange::Reset => seen.push("reset".to_owned()),
                _ => {}
            }
        }
        assert_eq!(seen, ["JFK.B6.1", "reset", "JFK.B6.2"], "{}", place.name);
    }
}
