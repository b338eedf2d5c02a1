//! What the derive macro accepts, and what it makes of it. What it refuses is tested in `derive/`, where that is quick.
//!
//! The schema lock, which looks at the same types, is in `lock.rs`.
#![allow(clippy::unwrap_used)]

mod lock;

use cim_persistence::event::Shape;
use cim_persistence::store::Ports;
use cim_persistence::{
    Context, DomainEvent, NatsRepositoryConfig, Repository, SaveOptions, prelude::*,
};
use ipld_core::ipld;
use ipld_core::ipld::Ipld;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const fn shape(name: &'static str, version: u32) -> Shape {
    Shape { name, version }
}

#[derive(Serialize, Deserialize, DomainEvent)]
enum OrderEvent {
    OrderPlaced {
        customer: String,
    },
    #[event(name = "sent", version = 3)]
    OrderShipped(String, u32),
    #[event(version = 4294967295)]
    HTTPCalled,
    #[event(name = "a123456789b123456789c123456789d123456789e123456789f123456789-_Z0")]
    Longest {},
    Tuple(),
    r#Type,
    #[deprecated]
    Old,
}

#[test]
#[allow(deprecated)]
fn variants_of_every_form_have_names_and_versions() {
    let longest = "a123456789b123456789c123456789d123456789e123456789f123456789-_Z0";
    let events = [
        (OrderEvent::OrderPlaced { customer: "kim".to_owned() }, shape("order_placed", 1)),
        (OrderEvent::OrderShipped("DHL".to_owned(), 7), shape("sent", 3)),
        (OrderEvent::HTTPCalled, shape("http_called", u32::MAX)),
        (OrderEvent::Longest {}, shape(longest, 1)),
        (OrderEvent::Tuple(), shape("tuple", 1)),
        (OrderEvent::r#Type, shape("type", 1)),
        (OrderEvent::Old, shape("old", 1)),
    ];
    for (event, wanted) in &events {
        assert_eq!(shape(event.event_type(), event.schema_version()), *wanted);
        assert_eq!(OrderEvent::shape_of(wanted.name), Some(wanted));
    }
    let shapes: Vec<Shape> = events.into_iter().map(|(_, shape)| shape).collect();
    assert_eq!(OrderEvent::shapes(), shapes);
    for unknown in ["OrderPlaced", "order_shipped", "", "sent "] {
        assert_eq!(OrderEvent::shape_of(unknown), None, "{unknown:?}");
    }
}

#[derive(Serialize, Deserialize, DomainEvent)]
struct AmountBooked {
    cents: i64,
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(name = "named", version = 2)]
struct Tuple(u8, u8);

#[derive(Serialize, Deserialize, DomainEvent)]
struct Unit;

#[test]
fn a_struct_is_one_event() {
    assert_eq!(AmountBooked { cents: 1 }.event_type(), "amount_booked");
    assert_eq!(AmountBooked::shapes(), [shape("amount_booked", 1)]);
    assert_eq!((Tuple(1, 2).event_type(), Tuple(1, 2).schema_version()), ("named", 2));
    assert_eq!(Tuple::shapes(), [shape("named", 2)]);
    assert_eq!((Unit.event_type(), Unit.schema_version()), ("unit", 1));
}

#[derive(Serialize, Deserialize, DomainEvent)]
enum Noted<T, const N: usize>
where
    T: Clone,
{
    Noted(T),
    Sized { name: String },
}

#[derive(Serialize, Deserialize, DomainEvent)]
struct Wrapped<T = u8>(T);

/// Nobody can say of this one that it is an event, which is for whoever uses it to notice.
#[derive(Clone, Serialize)]
struct OnlyWritten;

fn shapes_of<E: DomainEvent>() -> &'static [Shape] {
    E::shapes()
}

fn is_event<T: Clone + Serialize + DeserializeOwned>(noted: &Noted<T, 2>) -> &'static str {
    noted.event_type()
}

#[test]
fn a_type_with_parameters_is_an_event_where_it_can_be_stored() {
    assert_eq!(shapes_of::<Noted<String, 1>>(), [shape("noted", 1), shape("sized", 1)]);
    assert_eq!(is_event(&Noted::Noted(7)), "noted");
    assert_eq!(is_event::<u8>(&Noted::Sized { name: String::new() }), "sized");
    assert_eq!(Wrapped(1).event_type(), "wrapped");
    let _still_a_type = Wrapped(OnlyWritten);
}

/// Names that a user may have for something else do not get in the way.
mod among_other_names {
    #![allow(dead_code)] // The names are what is tested.
    type String = u8;
    struct Shape;
    struct SchemaVersion;
    trait DomainEvent {}

    #[derive(serde::Serialize, serde::Deserialize, cim_persistence::DomainEvent)]
    pub(super) enum Self_ {
        Shape,
        SchemaVersion(String),
    }
}

#[test]
fn names_of_the_module_around_it_do_not_matter() {
    let wanted = [shape("shape", 1), shape("schema_version", 1)];
    assert_eq!(shapes_of::<among_other_names::Self_>(), wanted);
}

#[derive(Clone, Serialize, Deserialize)]
struct Order(String, u32);

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Id = String;
    type Event = OrderEvent;
    fn new(id: &String) -> Self {
        Self(id.clone(), 0)
    }
    fn id(&self) -> &String {
        &self.0
    }
    fn apply(&mut self, _: &OrderEvent) {
        self.1 += 1;
    }
}

/// The names stand beside the data, which is what serde makes of the type.
#[tokio::test]
async fn what_is_stored_is_the_name_the_version_and_what_serde_writes() {
    let config = NatsRepositoryConfig::for_context("sales");
    let sales = Context::on(Ports::in_memory(), &config).unwrap();
    let orders = Repository::<Order>::of(&sales).unwrap();
    let id = "1".to_owned();
    let events = vec![OrderEvent::OrderShipped("DHL".to_owned(), 7), OrderEvent::HTTPCalled];
    orders.save(&Order::new(&id), events, SaveOptions::default()).await.unwrap();

    let stored = orders.get_history(&id, None, None).await.unwrap();
    let read = |at: usize| {
        let event = &stored[at];
        let data: Ipld = event.data().unwrap();
        (event.event_type().as_str().to_owned(), event.schema_version(), data)
    };
    assert_eq!(read(0), ("sent".to_owned(), 3, ipld!({ "OrderShipped": ["DHL", 7] })));
    assert_eq!(read(1), ("http_called".to_owned(), u32::MAX, ipld!("HTTPCalled")));
    let back: OrderEvent = stored[0].data().unwrap();
    assert!(matches!(back, OrderEvent::OrderShipped(by, 7) if by == "DHL"));
}
