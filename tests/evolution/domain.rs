//! The service as it is today, and how it came to be from what it was.

use cim_persistence::event::{DomainEvent, SchemaVersion, Shape};
use cim_persistence::evolution::{Evolution, EvolutionBuilder, Reshape, Upcast};
use cim_persistence::projection::{Changes, Declared, Projection, Rejection};
use cim_persistence::read_model::{IndexSpec, ReadModel};
use cim_persistence::store::Ports;
use cim_persistence::subject::{AggregateId, InvalidToken};
use cim_persistence::{Aggregate, Context, NatsRepositoryConfig, StoredEvent};
use ipld_core::ipld;
use ipld_core::ipld::Ipld;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::old::KIM;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum OrderEvent {
    Placed { customer: Uuid, cents: i64, currency: String },
    StreetChanged { street: String },
    CityChanged { city: String },
    Cancelled,
}

impl DomainEvent for OrderEvent {
    fn event_type(&self) -> &'static str {
        match self {
            OrderEvent::Placed { .. } => "placed",
            OrderEvent::StreetChanged { .. } => "street_changed",
            OrderEvent::CityChanged { .. } => "city_changed",
            OrderEvent::Cancelled => "cancelled",
        }
    }
    fn schema_version(&self) -> SchemaVersion {
        if self.event_type() == "placed" { 3 } else { 1 }
    }
    fn shapes() -> &'static [Shape] {
        &[
            Shape { name: "placed", version: 3 },
            Shape { name: "street_changed", version: 1 },
            Shape { name: "city_changed", version: 1 },
            Shape { name: "cancelled", version: 1 },
        ]
    }
}

/// How a state came to be.
pub(crate) const FROM_EVENTS: &str = "events";
pub(crate) const UPCAST: &str = "upcast";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) cents: i64,
    pub(crate) city: String,
    pub(crate) customer: Uuid,
    pub(crate) origin: String,
    /// The types of the events applied since.
    pub(crate) applied: Vec<String>,
}

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    const STATE_VERSION: SchemaVersion = 3;
    type Id = String;
    type Event = OrderEvent;
    fn new(id: &String) -> Self {
        let (city, origin) = (String::new(), FROM_EVENTS.to_owned());
        Order { id: id.clone(), cents: 0, city, customer: Uuid::nil(), origin, applied: Vec::new() }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, event: &OrderEvent) {
        self.applied.push(event.event_type().to_owned());
        match event {
            OrderEvent::Placed { cents, customer, .. } => {
                (self.cents, self.customer) = (*cents, *customer);
            }
            OrderEvent::CityChanged { city } => self.city = city.clone(),
            OrderEvent::StreetChanged { .. } | OrderEvent::Cancelled => {}
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Board {
    pub(crate) order: String,
    pub(crate) city: String,
    pub(crate) cents: i64,
    pub(crate) events: Vec<String>,
}

impl ReadModel for Board {
    const MODEL_TYPE: &'static str = "board";
    const SCHEMA_VERSION: u32 = 2;
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new(&self.order)
    }
    fn indexes() -> Vec<IndexSpec> {
        vec![IndexSpec::on(["city"])]
    }
}

pub(crate) struct Boards;

impl Projection for Boards {
    const NAME: &'static str = "boards";
    type Event = OrderEvent;
    fn models() -> Vec<Declared> {
        vec![Declared::of::<Board>()]
    }
    fn project(
        &self,
        event: OrderEvent,
        stored: &StoredEvent,
        changes: &mut Changes,
    ) -> Result<(), Rejection> {
        let order = stored.aggregate_id().as_str().to_owned();
        changes.upsert(stored.aggregate_id(), move |board: &mut Board| {
            board.order = order;
            board.events.push(event.event_type().to_owned());
            match event {
                OrderEvent::Placed { cents, .. } => board.cents += cents,
                OrderEvent::CityChanged { city } => board.city = city.to_uppercase(),
                OrderEvent::StreetChanged { .. } | OrderEvent::Cancelled => {}
            }
        });
        Ok(())
    }
}

/// The steps of the events.
pub(crate) fn events() -> EvolutionBuilder {
    Evolution::builder()
        .events::<OrderEvent>()
        .upcast(Upcast::event("placed", 1, |mut value| {
            in_cents(value.within("Placed")?)?;
            Ok(value)
        }))
        .upcast(Upcast::event("placed", 2, |mut value| {
            value.within("Placed")?.put("currency", "EUR")?;
            Ok(value)
        }))
        .upcast(Upcast::split(
            ("relocated", 1),
            [("street_changed", 1), ("city_changed", 1)],
            |mut value| {
                let place = value.within("Relocated")?;
                let (street, city) = (place.remove("street")?, place.remove("city")?);
                Ok(vec![
                    (("street_changed", 1), ipld!({ "StreetChanged": { "street": street } })),
                    (("city_changed", 1), ipld!({ "CityChanged": { "city": city } })),
                ])
            },
        ))
        .upcast(Upcast::dropped(("pinged", 1)))
}

/// All steps.
pub(crate) fn evolution() -> Evolution {
    events()
        .state(Order::TYPE, Order::STATE_VERSION)
        .upcast(Upcast::state("order", 1, |mut state| {
            in_cents(&mut state)?;
            Ok(state)
        }))
        .upcast(Upcast::state("order", 2, |mut state| {
            state.put("origin", UPCAST)?;
            state.put("applied", Ipld::List(vec![]))?;
            Ok(state)
        }))
        .model(Board::MODEL_TYPE, Board::SCHEMA_VERSION)
        .upcast(Upcast::model("board", 1, |mut board| {
            in_cents(&mut board)?;
            let Ipld::String(city) = board.remove("city")? else { return Err("no city".into()) };
            board.put("city", city.to_uppercase())?;
            board.put("events", vec![Ipld::String("before".to_owned())])?;
            Ok(board)
        }))
        .build()
        .unwrap()
}

fn in_cents(value: &mut Ipld) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Ipld::Integer(total) = value.remove("total")? else { return Err("no total".into()) };
    Ok(value.put("cents", total * 100)?)
}

pub(crate) fn config() -> NatsRepositoryConfig {
    NatsRepositoryConfig { cache_size: 0, ..NatsRepositoryConfig::for_context("shop") }
}

/// A service as it was and as it is, on the same store in memory.
pub(crate) fn in_memory(config: &NatsRepositoryConfig) -> (Context, Context) {
    let ports = Ports::in_memory();
    let old = Context::on(ports.clone(), config).unwrap();
    (old, Context::on(ports, config).unwrap().with_evolution(evolution()))
}

/// What the events of [`old::life`](crate::old::life) are today.
pub(crate) fn life() -> Vec<OrderEvent> {
    vec![
        OrderEvent::Placed { customer: KIM, cents: 1200, currency: "EUR".into() },
        OrderEvent::StreetChanged { street: "Hauptstrasse".into() },
        OrderEvent::CityChanged { city: "ulm".into() },
    ]
}
