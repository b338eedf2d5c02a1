//! A store in memory that fails now and then.

use std::sync::Arc;

use cim_persistence::backend::{BackendError, Guard, NewMessage, Position, Start};
use cim_persistence::event::{Headers, names};
use cim_persistence::event_log::{EventLog, MemoryLog};
use cim_persistence::store::{EventFilter, Ports, StoreError};
use cim_persistence::subscription::SubscriptionQuery;
use cim_persistence::testing::faults::{CallKind, Fault, Faults};
use futures::StreamExt;

use crate::bench::{append, event, event_type, id, in_memory, kind, on, past};

#[tokio::test]
async fn outages_and_stale_replicas_are_waited_out() {
    let log = MemoryLog::new();
    let writing = on(Ports { log: Arc::new(log.clone()), ..Ports::in_memory() });
    let faults = Faults::new();
    let reading = on(Ports { log: Arc::new(log.with_faults(&faults)), ..Ports::in_memory() });
    for _ in 0..600 {
        append(&writing, "order", "1", "placed").await;
    }
    faults.outage_of(5);
    let mut events = reading.subscribe(SubscriptionQuery::all());
    for wanted in 1..=600 {
        if wanted % 100 == 0 {
            faults.plan(Fault::Outage);
        }
        assert_eq!(event(&mut events).await.position().get(), wanted);
    }
    assert!(past(&mut events).await.is_empty());
    for round in 0..50 {
        faults.plan_when(
            |call| call.kind == CallKind::NearestRead,
            if round % 2 == 0 { Fault::StaleRead(1) } else { Fault::Outage },
        );
        let position = append(&writing, "order", "1", "placed").await;
        if round % 2 == 0 {
            // Whoever read a stale replica sees the event with the next one.
            append(&writing, "order", "1", "placed").await;
            assert_eq!(event(&mut events).await.position().get(), position);
            assert_eq!(event(&mut events).await.position().get(), position + 1);
        } else {
            assert_eq!(event(&mut events).await.position().get(), position);
        }
    }
}

#[tokio::test]
async fn a_refused_permission_ends_it() {
    let faults = Faults::new();
    let log = Arc::new(MemoryLog::new().with_faults(&faults));
    let shop = on(Ports { log, ..Ports::in_memory() });
    append(&shop, "order", "1", "placed").await;
    faults.plan(Fault::Denied);
    let mut events = shop.subscribe(SubscriptionQuery::all());
    let error = events.next().await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Backend(BackendError::Denied { .. })), "{error:?}");
    assert!(events.next().await.is_none(), "an error is the last");
}

#[tokio::test]
async fn a_log_that_is_too_short_is_another_one() {
    let shop = in_memory();
    append(&shop, "order", "1", "placed").await;
    let after = Start::After(Position::new(5));
    let mut events = shop.subscribe(SubscriptionQuery::all().from(after));
    let error = events.next().await.unwrap().unwrap_err();
    let truncated =
        matches!(error, StoreError::Backend(BackendError::Truncated { last: 1, after: 5, .. }));
    assert!(truncated, "{error:?}");
}

#[tokio::test]
async fn an_event_that_is_not_what_it_claims_ends_it_for_those_who_select_it_only() {
    let log = Arc::new(MemoryLog::new());
    let shop = on(Ports { log: log.clone(), ..Ports::in_memory() });
    append(&shop, "order", "1", "placed").await;
    let mut headers = Headers::new();
    headers.push(names::EVENT_TYPE, "forged");
    headers.push(names::SCHEMA_VERSION, "1");
    let subject = shop.scheme().events_of(&kind("order"), &id("2"));
    let forged = NewMessage { subject, headers, payload: "{}".into(), guard: Guard::Free };
    log.publish(forged).await.unwrap();
    append(&shop, "order", "1", "placed").await;
    let mut all = shop.subscribe(SubscriptionQuery::all());
    assert_eq!(event(&mut all).await.position().get(), 1);
    let error = all.next().await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Integrity { position: 2, .. }), "{error:?}");
    assert!(all.next().await.is_none(), "an error is the last");
    // The headers tell before anything is decoded.
    let placed = EventFilter::for_event(event_type("placed"));
    assert_eq!(past(&mut shop.subscribe(placed)).await, [1, 3]);
}
