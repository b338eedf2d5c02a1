//! Event types by name, over the types of several modules.

use cim_persistence::event::{DomainEvent, NonEmpty, Shape};
use cim_persistence::store::{CommitInfo, ExpectedVersion, NewEvent, StoredEvent};
use cim_persistence::subject::{AggregateId, AggregateType};
use cim_persistence::subscription::{
    AnyEvent, DispatchError, Dispatched, Dispatcher, EventRegistry, Unmapped,
};
use cim_persistence::{Aggregate, Context, Repository, SaveOptions};
use serde::{Deserialize, Serialize};

use crate::domain::{OrderEvent, config, in_memory, life};
use crate::old;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum InvoiceEvent {
    Paid { cents: i64 },
}

impl DomainEvent for InvoiceEvent {
    fn event_type(&self) -> &'static str {
        "paid"
    }
    fn shapes() -> &'static [Shape] {
        &[Shape { name: "paid", version: 1 }]
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Unknown {
    what: u64,
}

impl DomainEvent for Unknown {
    fn event_type(&self) -> &'static str {
        "unknown"
    }
}

async fn append<E: DomainEvent>(context: &Context, aggregate: &str, event: &E) {
    let events = NonEmpty::one(NewEvent::of(event).unwrap());
    let (kind, id) = (AggregateType::new(aggregate).unwrap(), AggregateId::new("1").unwrap());
    let info = CommitInfo::default();
    context.append(&kind, &id, ExpectedVersion::Any, &events, &info).await.unwrap();
}

/// An old order's life, a payment, something nobody knows, and a deletion.
async fn stored() -> (Vec<StoredEvent>, Vec<StoredEvent>) {
    let (old, new) = in_memory(&config());
    let orders = Repository::<old::Order>::of(&old).unwrap();
    let order = old::Order::new(&"1".to_owned());
    orders.save(&order, old::life(), SaveOptions::default()).await.unwrap();
    append(&new, "invoice", &InvoiceEvent::Paid { cents: 5 }).await;
    append(&new, "other", &Unknown { what: 7 }).await;
    orders.delete(&"1".to_owned(), ExpectedVersion::Exact(4)).await.unwrap();
    let read = |context: Context| async move {
        context.get_events_after(Default::default(), 100).await.unwrap()
    };
    (read(old).await, read(new).await)
}

#[derive(Debug, PartialEq)]
enum Seen {
    Order(OrderEvent, u64),
    Invoice(InvoiceEvent),
}

fn registry(unknown: Unmapped) -> EventRegistry<Seen> {
    EventRegistry::new(unknown)
        .on(|event: OrderEvent, stored| Seen::Order(event, stored.version()))
        .unwrap()
        .on(|event: InvoiceEvent, _| Seen::Invoice(event))
        .unwrap()
}

#[tokio::test]
async fn events_are_dispatched_as_what_they_are_today() {
    let (_, stored) = stored().await;
    let registry = registry(Unmapped::Skip);
    let dispatched = stored.iter().flat_map(|event| registry.dispatch(event).unwrap());
    let [placed, street, city] = <[OrderEvent; 3]>::try_from(life()).unwrap();
    let wanted = [
        Dispatched::Mapped(Seen::Order(placed, 1)),
        Dispatched::Mapped(Seen::Order(street, 3)),
        Dispatched::Mapped(Seen::Order(city, 3)),
        Dispatched::Mapped(Seen::Invoice(InvoiceEvent::Paid { cents: 5 })),
        Dispatched::Skipped,
        Dispatched::Skipped,
    ];
    assert_eq!(dispatched.collect::<Vec<_>>(), wanted);
}

#[tokio::test]
async fn unknown_types_are_what_was_chosen() {
    let (_, stored) = stored().await;
    let unknown = &stored[5];
    let raw = registry(Unmapped::KeepRaw).dispatch(unknown).unwrap();
    assert_eq!(raw, [Dispatched::Raw(serde_json::json!({ "what": 7 }))]);
    assert_eq!(registry(Unmapped::Skip).dispatch(unknown).unwrap(), [Dispatched::Skipped]);
    let error = registry(Unmapped::Error).dispatch(unknown).unwrap_err();
    let DispatchError::Unmapped { aggregate_type, event_type, position: 6 } = error else {
        panic!("{error:?}")
    };
    assert_eq!((aggregate_type.as_str(), event_type.as_str()), ("other", "unknown"));
    // A tombstone is nobody's event and no error.
    assert_eq!(registry(Unmapped::Error).dispatch(&stored[6]).unwrap(), [Dispatched::Skipped]);
}

#[tokio::test]
async fn versions_that_nobody_upcasts_are_refused() {
    let (plain, _) = stored().await;
    let error = registry(Unmapped::Skip).dispatch(&plain[0]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "event placed at position 1 has schema version 1, and 3 is registered; upcast it, or bring this code up to date"
    );
}

#[tokio::test]
async fn events_of_any_type_are_kept_as_they_are_decoded() {
    let (_, stored) = stored().await;
    let registry = EventRegistry::<AnyEvent>::new(Unmapped::Skip);
    let registry = registry.register::<OrderEvent>().unwrap().register::<InvoiceEvent>().unwrap();
    let mut paid = registry.dispatch(&stored[4]).unwrap();
    let Some(Dispatched::Mapped(any)) = paid.pop() else { panic!("{paid:?}") };
    assert_eq!(any.downcast_ref::<InvoiceEvent>(), Some(&InvoiceEvent::Paid { cents: 5 }));
    let twice = registry.register::<InvoiceEvent>().unwrap_err();
    assert!(matches!(twice, DispatchError::Registered { event_type: "paid" }));
    let silent = EventRegistry::<AnyEvent>::new(Unmapped::Skip).register::<Unknown>().unwrap_err();
    assert!(matches!(silent, DispatchError::NoShapes { .. }));
}

#[tokio::test]
async fn a_dispatcher_maps_what_events_are_today() {
    let (_, stored) = stored().await;
    let dispatcher = Dispatcher::new(Unmapped::Error)
        .on("order", ["placed", "street_changed", "city_changed"], |event: OrderEvent, _| event)
        .unwrap();
    let [placed, street, city] = <[OrderEvent; 3]>::try_from(life()).unwrap();
    assert_eq!(dispatcher.dispatch(&stored[0]).unwrap(), Dispatched::Mapped(placed));
    assert_eq!(dispatcher.dispatch(&stored[1]).unwrap(), Dispatched::Skipped);
    assert!(matches!(dispatcher.dispatch(&stored[2]), Err(DispatchError::Shape(_))));
    let parts = [Dispatched::Mapped(street), Dispatched::Mapped(city)];
    assert_eq!(dispatcher.dispatch_all(&stored[2]).unwrap(), parts);
}
