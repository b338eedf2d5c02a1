//! Queries over events.

use cim_persistence::Context;
use cim_persistence::clock::Timestamp;
use cim_persistence::query::{IndexStrategy, QueryHint, QueryOptimizer, TimeRange};
use serde_json::json;

use crate::domain::{append, found, in_memory, keys, places, text};

const LATE: &str =
    "subject:cim.events.flights.aircraft.*.departed AND data.delay > 30 ORDER BY -position LIMIT 5";

/// Thirty departures of three aircraft with delays from 10 to 300, an arrival after each, and gates between them.
async fn fly(context: &Context) {
    for number in 1..=30 {
        let aircraft = format!("N{}", number % 3);
        let delay = json!({"delay": number * 10});
        append(context, ("aircraft", &aircraft), ("departed", 1 + number % 2), delay.clone()).await;
        append(context, ("aircraft", &aircraft), ("arrived", 1), delay.clone()).await;
        append(context, ("gate", "A1"), ("departed", 1), delay).await;
    }
}

#[tokio::test]
async fn every_way_finds_the_same_events() {
    let (contexts, _server) = places().await;
    for context in contexts {
        fly(&context).await;
        let optimizer = QueryOptimizer::new(&context);
        for strategy in [None, Some(IndexStrategy::SubjectPattern), Some(IndexStrategy::FullScan)] {
            let found = found(&optimizer, &text(&context, LATE), strategy).await;
            let delays: Vec<_> =
                found.iter().map(|event| &event.document["data"]["delay"]).collect();
            assert_eq!(delays, [300, 290, 280, 270, 260], "{strategy:?}");
            assert_eq!(found[0].key, text(&context, "cim.events.flights.aircraft.N0"));
            assert_eq!(found[0].document["position"], found[0].revision);
        }
        let second = "subject:cim.events.flights.aircraft.N1.departed.v2 LIMIT 2";
        let second = found(&optimizer, &text(&context, second), None).await;
        let delays: Vec<_> = second.iter().map(|event| &event.document["data"]["delay"]).collect();
        assert_eq!(delays, [10, 70]);
    }
}

#[tokio::test]
async fn a_document_has_everything_that_is_known_of_an_event() {
    let context = in_memory();
    append(&context, ("aircraft", "N=1"), ("departed", 2), json!({"delay": 1.5})).await;
    let optimizer = QueryOptimizer::new(&context);
    let found = found(&optimizer, "subject:cim.events.flights.>", None).await;
    assert_eq!(keys(&found), ["cim.events.flights.aircraft.N=3D1"]);
    let event = &context.get_events_after(cim_persistence::Position::START, 1).await.unwrap()[0];
    let wanted = json!({
        "aggregate": "aircraft",
        "id": "N=3D1",
        "version": 1,
        "type": "departed",
        "schema": 2,
        "event_id": event.event_id().to_string(),
        "occurred_at": event.occurred_at().as_micros(),
        "correlation_id": event.correlation_id().to_string(),
        "causation_id": null,
        "position": 1,
        "metadata": {},
        "data": {"delay": 1.5},
    });
    assert_eq!(found[0].document, wanted);
}

#[tokio::test]
async fn a_time_range_means_the_same_by_every_way() {
    let (contexts, _server) = places().await;
    for context in contexts {
        fly(&context).await;
        let all = context.get_events_after(cim_persistence::Position::START, 90).await.unwrap();
        let (from, until) = (all[30].recorded_at(), all[60].recorded_at());
        let wanted: Vec<u64> = all
            .iter()
            .filter(|event| event.recorded_at() >= from && event.recorded_at() < until)
            .filter(|event| event.aggregate_type().as_str() == "aircraft")
            .map(|event| event.position().get())
            .collect();
        let optimizer = QueryOptimizer::new(&context);
        for (strategy, reads_all) in [
            (IndexStrategy::TimeSeries, false),
            (IndexStrategy::SubjectPattern, true),
            (IndexStrategy::FullScan, true),
        ] {
            let time_range = Some(TimeRange { from, until: Some(until) });
            let hint = QueryHint { strategy: Some(strategy), time_range, ..QueryHint::default() };
            let text = text(&context, "subject:cim.events.flights.aircraft.>");
            let plan = optimizer.create_plan(&text, hint).await.unwrap();
            let (found, measured) = optimizer.execute_plan(&plan).await.unwrap();
            let positions: Vec<_> = found.iter().map(|event| event.revision).collect();
            assert_eq!(positions, wanted, "{strategy}");
            assert_eq!(measured.read > wanted.len() as u64, reads_all, "{strategy}: {measured}");
        }
    }
}

#[tokio::test]
async fn a_range_without_events_has_an_end() {
    let (contexts, _server) = places().await;
    for context in contexts {
        append(&context, ("aircraft", "N1"), ("departed", 1), json!({})).await;
        let from = Timestamp::from_micros(Timestamp::now().as_micros() + 3_600_000_000);
        for strategy in [None, Some(IndexStrategy::TimeSeries)] {
            let time_range = Some(TimeRange { from, until: None });
            let hint = QueryHint { strategy, time_range, ..QueryHint::default() };
            let text = text(&context, "subject:cim.events.flights.>");
            let plan = QueryOptimizer::new(&context).create_plan(&text, hint).await.unwrap();
            let (found, _) = QueryOptimizer::new(&context).execute_plan(&plan).await.unwrap();
            assert_eq!(found, []);
        }
    }
}

#[tokio::test]
async fn a_plan_over_events_explains_itself() {
    let context = in_memory();
    fly(&context).await;
    let optimizer = QueryOptimizer::new(&context);
    let plan = optimizer.create_plan(LATE, QueryHint::default()).await.unwrap();
    // Three of four aggregates are aircraft: so many of the 90 events, as if each had as many.
    let explained = "\
query     subject:cim.events.flights.aircraft.*.departed AND data.delay > 30 ORDER BY -position LIMIT 5
strategy  SubjectPattern
server    read events cim.events.flights.aircraft.*
client    headers say type departed
          filter data.delay > 30
          order by -position
          at most 5
expected  67 read, 0.9 ms
also      FullScan: 90 read, 1.1 ms
";
    assert_eq!(plan.explain(None), explained);
    let (_, measured) = optimizer.execute_plan(&plan).await.unwrap();
    assert_eq!((measured.read, measured.matched, measured.returned), (60, 27, 5));
}
