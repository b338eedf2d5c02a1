//! From stored events to those of the domain, in the order of each aggregate.

use cim_persistence::store::{StoreError, StoredEvent};
use cim_persistence::subscription::{
    Admission, DispatchError, Dispatched, Dispatcher, Projector, SubscriptionQuery, Unmapped,
};
use serde::Deserialize;

use crate::bench::{append, event, in_memory};

#[derive(Deserialize)]
struct Amount {
    cents: i64,
}

#[derive(Debug, Deserialize)]
struct Other {
    _euros: i64,
}

#[derive(Debug, PartialEq)]
enum Money {
    Owed(i64),
    Paid(i64, u64),
}

fn dispatcher(unmapped: Unmapped) -> Dispatcher<Money> {
    let owed = |amount: Amount, _: &StoredEvent| Money::Owed(amount.cents);
    let paid = |amount: Amount, about: &StoredEvent| Money::Paid(amount.cents, about.version());
    Dispatcher::new(unmapped)
        .on("order", ["placed", "changed"], owed)
        .unwrap()
        .on("invoice", ["paid"], paid)
        .unwrap()
}

async fn stored() -> Vec<StoredEvent> {
    let shop = in_memory();
    for (aggregate, event) in
        [("order", "placed"), ("invoice", "placed"), ("order", "changed"), ("invoice", "paid")]
    {
        append(&shop, aggregate, "1", event).await;
    }
    let mut events = shop.subscribe(SubscriptionQuery::all());
    let mut stored = Vec::new();
    for _ in 0..4 {
        stored.push(event(&mut events).await);
    }
    stored
}

#[tokio::test]
async fn events_are_mapped_by_aggregate_type_and_event_type() {
    let stored = stored().await;
    let dispatcher = dispatcher(Unmapped::Skip);
    let dispatched: Vec<_> = stored.iter().map(|e| dispatcher.dispatch(e).unwrap()).collect();
    let wanted = [
        Dispatched::Mapped(Money::Owed(7)),
        Dispatched::Skipped,
        Dispatched::Mapped(Money::Owed(7)),
        Dispatched::Mapped(Money::Paid(7, 2)),
    ];
    assert_eq!(dispatched, wanted);
}

#[tokio::test]
async fn what_is_unmapped_is_what_was_chosen() {
    let stored = stored().await;
    let raw = dispatcher(Unmapped::KeepRaw).dispatch(&stored[1]).unwrap();
    assert_eq!(raw, Dispatched::Raw(serde_json::json!({ "cents": 7 })));
    let error = dispatcher(Unmapped::default()).dispatch(&stored[1]).unwrap_err();
    let DispatchError::Unmapped { aggregate_type, event_type, position: 2 } = error else {
        panic!("{error:?}")
    };
    assert_eq!((aggregate_type.as_str(), event_type.as_str()), ("invoice", "placed"));
}

#[tokio::test]
async fn wrong_mappings_are_refused() {
    let stored = stored().await;
    let other = Dispatcher::new(Unmapped::Skip).on("order", ["placed"], |o: Other, _| o).unwrap();
    let error = other.dispatch(&stored[0]).unwrap_err();
    assert!(
        matches!(error, DispatchError::Shape(StoreError::Shape { position: 1, .. })),
        "{error:?}"
    );
    let twice = dispatcher(Unmapped::Skip)
        .on("order", ["shipped", "changed"], |a: Amount, _| Money::Owed(a.cents));
    let Err(DispatchError::Twice { aggregate_type, event_type }) = twice else {
        panic!("{twice:?}")
    };
    assert_eq!((aggregate_type.as_str(), event_type.as_str()), ("order", "changed"));
    let nameless = Dispatcher::new(Unmapped::Skip).on("or.der", ["a"], |a: Amount, _| a.cents);
    assert!(matches!(nameless, Err(DispatchError::Name(_))), "{nameless:?}");
}

#[tokio::test]
async fn projector_takes_each_event_of_an_aggregate_once_and_in_order() {
    let stored = stored().await;
    let mut projector = Projector::new();
    for event in [&stored[0], &stored[1], &stored[2], &stored[3]] {
        assert_eq!(projector.admit(event), Ok(Admission::Next));
    }
    assert_eq!(projector.admit(&stored[0]), Ok(Admission::Duplicate));
    let gap = Projector::new().admit(&stored[3]).unwrap_err();
    assert_eq!((gap.aggregate.aggregate.as_str(), gap.expected, gap.found), ("invoice", 1, 2));
}
