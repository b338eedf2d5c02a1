//! Results that are given again, and when they are not.

use cim_persistence::query::{QueryHint, QueryOptimizer};
use cim_persistence::read_model::ReadModelStore;
use serde_json::json;

use crate::domain::{append, board, fill, places};

async fn ask(optimizer: &QueryOptimizer, text: &str) -> (usize, bool, u64) {
    let hint = QueryHint { use_cache: true, ..QueryHint::default() };
    let plan = optimizer.create_plan(text, hint).await.unwrap();
    let (found, measured) = optimizer.execute_plan(&plan).await.unwrap();
    (found.len(), measured.cached, measured.round_trips)
}

#[tokio::test]
async fn models_are_given_again_until_any_is_written() {
    let (contexts, _server) = places().await;
    for context in contexts {
        fill(&context).await;
        let optimizer = QueryOptimizer::new(&context);
        let text = "subject:board.JFK.*.* AND delay > 70";
        assert_eq!(ask(&optimizer, text).await, (4, false, 2));
        assert_eq!(ask(&optimizer, text).await, (4, true, 1));
        // Another query is another result.
        assert_eq!(ask(&optimizer, "subject:board.JFK.*.* AND delay > 90").await, (2, false, 2));
        assert_eq!(ask(&optimizer, "subject:board.JFK.*.* AND delay > 70 LIMIT 1").await.0, 1);
        let store = ReadModelStore::new(&context);
        store.save(&board("JFK", "B6", 9, 500)).await.unwrap();
        assert_eq!(ask(&optimizer, text).await, (5, false, 2));
        let id = cim_persistence::read_model::ReadModel::id(&board("JFK", "B6", 9, 0)).unwrap();
        store.delete::<crate::domain::Board>(&id).await.unwrap();
        assert_eq!(ask(&optimizer, text).await, (4, false, 2));
        assert_eq!(ask(&optimizer, text).await, (4, true, 1));
    }
}

#[tokio::test]
async fn events_are_given_again_until_any_is_appended() {
    let (contexts, _server) = places().await;
    for context in contexts {
        append(&context, ("aircraft", "N1"), ("departed", 1), json!({"delay": 40})).await;
        let optimizer = QueryOptimizer::new(&context);
        let text = "subject:cim.events.flights.aircraft.*.departed AND data.delay > 30";
        let text = &crate::domain::text(&context, text);
        assert_eq!(ask(&optimizer, text).await, (1, false, 2));
        assert_eq!(ask(&optimizer, text).await, (1, true, 1));
        append(&context, ("aircraft", "N1"), ("departed", 1), json!({"delay": 50})).await;
        assert_eq!(ask(&optimizer, text).await, (2, false, 2));
    }
}
