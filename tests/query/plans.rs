//! Which way is taken, what a plan says of itself, and that every way gives the same.

use cim_persistence::query::{IndexStrategy, QueryHint, QueryOptimizer};
use cim_persistence::specification::Field;
use serde_json::json;

use crate::domain::{Board, fill, found, in_memory, keys, places};

const LATE: &str = "subject:board.JFK.*.* AND delay > 70 ORDER BY -delay LIMIT 3";

#[tokio::test]
async fn every_way_finds_the_same_models() {
    let (contexts, _server) = places().await;
    for context in contexts {
        fill(&context).await;
        let optimizer = QueryOptimizer::new(&context).knows::<Board>();
        for strategy in [None, Some(IndexStrategy::SubjectPattern), Some(IndexStrategy::FullScan)] {
            let found = found(&optimizer, LATE, strategy).await;
            assert_eq!(keys(&found), ["board.JFK.UA.2", "board.JFK.UA.1", "board.JFK.B6.2"]);
            assert_eq!(found[0].document["delay"], 110);
            assert!(found[0].revision > 0);
        }
        let one = "subject:cim.readmodels.board.JFK.B6.1 AND delay >= 0";
        for strategy in [
            None,
            Some(IndexStrategy::KeyValue),
            Some(IndexStrategy::SubjectPattern),
            Some(IndexStrategy::FullScan),
        ] {
            assert_eq!(keys(&found(&optimizer, one, strategy).await), ["board.JFK.B6.1"]);
        }
    }
}

#[tokio::test]
async fn the_cheapest_way_is_taken_and_measured() {
    let context = in_memory();
    fill(&context).await;
    let optimizer = QueryOptimizer::new(&context);
    let plan = optimizer.create_plan(LATE, QueryHint::default()).await.unwrap();
    assert_eq!(plan.strategy(), IndexStrategy::SubjectPattern);
    let (results, measured) = optimizer.execute_plan(&plan).await.unwrap();
    assert_eq!((results.len(), measured.read, measured.matched), (3, 6, 4));
    assert_eq!((measured.returned, measured.round_trips, measured.cached), (3, 1, false));
    let scan = QueryHint { strategy: Some(IndexStrategy::FullScan), ..QueryHint::default() };
    let plan = optimizer.create_plan(LATE, scan).await.unwrap();
    let (_, measured) = optimizer.execute_plan(&plan).await.unwrap();
    assert_eq!((measured.read, measured.matched), (24, 4));
    let one = optimizer.create_plan("subject:board.JFK.B6.1", QueryHint::default()).await.unwrap();
    assert_eq!(one.strategy(), IndexStrategy::KeyValue);
}

#[tokio::test]
async fn a_plan_explains_itself() {
    let context = in_memory();
    fill(&context).await;
    let optimizer = QueryOptimizer::new(&context);
    let text = "subject:board.JFK.*.* AND delay > 70 ORDER BY -delay LIMIT 3 OFFSET 1";
    let hint = QueryHint {
        strategy: Some(IndexStrategy::FullScan),
        projection: vec![Field::new("delay")],
        ..QueryHint::default()
    };
    let plan = optimizer.create_plan(text, hint).await.unwrap();
    let explained = "\
query     subject:board.JFK.*.* AND delay > 70 ORDER BY -delay LIMIT 3 OFFSET 1
strategy  FullScan
server    read all of board.>
client    within board.JFK.*.*
          filter delay > 70
          order by -delay
          at most 3 after 1
          give delay
expected  24 read, 0.3 ms
also      SubjectPattern: 6 read, 0.2 ms
";
    assert_eq!(plan.explain(None), explained);
    let (found, measured) = optimizer.execute_plan(&plan).await.unwrap();
    assert_eq!(found[0].document, json!({"delay": 100}));
    let with_measured = plan.explain(Some(&measured));
    let last = with_measured.strip_prefix(explained).unwrap();
    let wanted = "measured  24 read, 4 matched, 3 returned, 1 round trips, ";
    assert!(last.starts_with(wanted), "{last}");
}

#[tokio::test]
async fn an_expected_size_is_believed() {
    let optimizer = QueryOptimizer::new(&in_memory());
    let hint = QueryHint { expected_size: Some(20_000), ..QueryHint::default() };
    let plan = optimizer.create_plan("subject:board.>", hint).await.unwrap();
    let explained = plan.explain(None);
    assert!(explained.contains("scan board.> by a consumer"), "{explained}");
    assert!(explained.contains("20000 read, 62.2 ms"), "{explained}");
}

#[tokio::test]
async fn what_was_asked_is_remembered_by_pattern_and_fields() {
    let context = in_memory();
    fill(&context).await;
    let optimizer = QueryOptimizer::new(&context);
    for limit in 1..=3 {
        let text = format!("subject:board.JFK.*.* AND delay > 70 AND carrier:B6 LIMIT {limit}");
        found(&optimizer.clone(), &text, None).await;
    }
    found(&optimizer, "subject:board.JFK.*.*", None).await;
    let seen = optimizer.analyze_patterns();
    assert_eq!(seen.len(), 2);
    let late = seen.iter().find(|used| !used.fields.is_empty()).unwrap();
    assert_eq!(late.pattern, "board.JFK.*.*");
    assert_eq!(late.fields, ["carrier", "delay"]);
    assert_eq!((late.queries, late.read, late.returned, late.cached), (3, 18, 5, 0));
    assert!(late.total >= late.longest && late.longest > std::time::Duration::ZERO);
}
