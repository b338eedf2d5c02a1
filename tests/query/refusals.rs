//! What is refused, and in which words.

use cim_persistence::query::{IndexStrategy, QueryError, QueryHint, QueryOptimizer, TimeRange};
use cim_persistence::read_model::IndexSpec;

use crate::domain::{Board, fill, in_memory};

async fn refused(text: &str, hint: QueryHint) -> QueryError {
    let optimizer = QueryOptimizer::new(&in_memory()).knows::<Board>();
    optimizer.create_plan(text, hint).await.unwrap_err()
}

#[tokio::test]
async fn texts_that_mean_nothing_here() {
    let outside = |pattern: &str, reason: &str| {
        format!(
            "pattern {pattern:?} names neither read models nor events of this context: {reason}; write <type>.<ids> or cim.events.flights.<aggregate>.<id>"
        )
    };
    let other = refused("subject:cim.events.sales.order.*", QueryHint::default()).await;
    assert!(
        matches!(&other, QueryError::OutsideStore { pattern, .. } if pattern == "cim.events.sales.order.*")
    );
    let all = refused("subject:>", QueryHint::default()).await.to_string();
    assert!(all.starts_with("pattern \">\" names neither read models nor events"), "{all}");
    let short = refused("subject:board", QueryHint::default()).await.to_string();
    let reason = "pattern \"board\" does not name models of type board; begin it with board.";
    assert_eq!(short, outside("board", reason));
    let nowhere = refused("delay > 30", QueryHint::default()).await;
    assert!(matches!(nowhere, QueryError::NoSubject));
    let text = refused("subject:board.> AND delay >", QueryHint::default()).await;
    assert!(matches!(text, QueryError::Text(error) if error.column == 28));
    let unknown = refused("subject:board.> AND dealy > 1", QueryHint::default()).await;
    assert!(unknown.to_string().starts_with("there is no field \"dealy\"; known are origin"));
    let unknown = refused("subject:cim.events.flights.> AND delay > 1", QueryHint::default()).await;
    assert!(unknown.to_string().starts_with("there is no field \"delay\"; known are aggregate"));
}

#[tokio::test]
async fn hints_that_cannot_be_followed() {
    let (models, events) = ("subject:board.JFK.*.*", "subject:cim.events.flights.>");
    for (text, strategy, reason) in [
        (models, IndexStrategy::KeyValue, "the pattern has wildcards; name one model"),
        (models, IndexStrategy::TimeSeries, "models have no history; ask for events"),
        (
            models,
            IndexStrategy::Composite,
            "no indexes of the models are known; declare them in the type, and let the optimizer know it",
        ),
        (events, IndexStrategy::KeyValue, "events are not stored under keys of their own"),
        (events, IndexStrategy::TimeSeries, "it needs a time range"),
        (events, IndexStrategy::Composite, "events have no indexes"),
    ] {
        let hint = QueryHint { strategy: Some(strategy), ..QueryHint::default() };
        let wanted = format!("strategy {strategy} is not possible here: {reason}");
        assert_eq!(refused(text, hint).await.to_string(), wanted);
    }
    let from = cim_persistence::clock::Timestamp::from_micros(0);
    let range = Some(TimeRange { from, until: None });
    let ranged = refused(models, QueryHint { time_range: range, ..QueryHint::default() }).await;
    let wanted = "strategy TimeSeries is not possible here: models have no history, so a time range has no meaning for them; leave it out";
    assert_eq!(ranged.to_string(), wanted);
}

#[tokio::test]
async fn a_cursor_of_another_query_is_refused_before_anything_is_asked() {
    let context = in_memory();
    fill(&context).await;
    let optimizer = QueryOptimizer::new(&context);
    let text = "subject:board.JFK.*.* LIMIT 2";
    let plan = optimizer.create_plan(text, QueryHint::default()).await.unwrap();
    let (page, _) = optimizer.execute_page(&plan).await.unwrap();
    assert_eq!((page.items.len(), page.total), (2, 6));
    let mut query = plan.query().clone();
    query.options.cursor = page.next;
    let second = optimizer.plan(query.clone(), QueryHint::default()).await.unwrap();
    let (second, _) = optimizer.execute_page(&second).await.unwrap();
    assert_eq!(second.items[0].key, "board.JFK.B6.1");
    query.source = optimizer
        .create_plan("subject:board.LGA.*.*", QueryHint::default())
        .await
        .unwrap()
        .query()
        .source
        .clone();
    let refused = optimizer.plan(query, QueryHint::default()).await.unwrap_err();
    let wanted =
        "the cursor was given out by another query; repeat that one, or start at the first page";
    assert_eq!(refused.to_string(), wanted);
}

#[tokio::test]
async fn indexes_that_cannot_be_kept() {
    let optimizer = QueryOptimizer::new(&in_memory()).knows::<Board>();
    assert!(optimizer.get_index("board").is_empty());
    let refused = optimizer.create_index("board", &IndexSpec::on([""; 0])).await.unwrap_err();
    assert_eq!(refused.to_string(), "index on  cannot be kept: it must have one to four fields");
}
