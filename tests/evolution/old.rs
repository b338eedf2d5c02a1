//! The service as it was: amounts in euros, an order's place in one event, a ping that nobody needs any more.

use cim_persistence::event::DomainEvent;
use cim_persistence::projection::{Changes, Declared, Projection, Rejection};
use cim_persistence::read_model::{IndexSpec, ReadModel};
use cim_persistence::subject::{AggregateId, InvalidToken};
use cim_persistence::{Aggregate, StoredEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Ids are bytes in DAG-CBOR and text in plain JSON.
pub(crate) const KIM: Uuid = Uuid::from_u128(7);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum OrderEvent {
    Placed { customer: Uuid, total: i64 },
    Relocated { street: String, city: String },
    Pinged,
    Cancelled,
}

impl DomainEvent for OrderEvent {
    fn event_type(&self) -> &'static str {
        match self {
            OrderEvent::Placed { .. } => "placed",
            OrderEvent::Relocated { .. } => "relocated",
            OrderEvent::Pinged => "pinged",
            OrderEvent::Cancelled => "cancelled",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) total: i64,
    pub(crate) city: String,
    pub(crate) customer: Uuid,
}

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Id = String;
    type Event = OrderEvent;
    fn new(id: &String) -> Self {
        Order { id: id.clone(), total: 0, city: String::new(), customer: Uuid::nil() }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed { total, customer } => {
                (self.total, self.customer) = (*total, *customer);
            }
            OrderEvent::Relocated { city, .. } => self.city = city.clone(),
            OrderEvent::Pinged | OrderEvent::Cancelled => {}
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Board {
    pub(crate) order: String,
    pub(crate) city: String,
    pub(crate) total: i64,
}

impl ReadModel for Board {
    const MODEL_TYPE: &'static str = "board";
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
            match event {
                OrderEvent::Placed { total, .. } => board.total += total,
                OrderEvent::Relocated { city, .. } => board.city = city,
                OrderEvent::Pinged | OrderEvent::Cancelled => {}
            }
        });
        Ok(())
    }
}

/// What an order lived through, as it was stored then.
pub(crate) fn life() -> Vec<OrderEvent> {
    let place = |street: &str, city: &str| OrderEvent::Relocated {
        street: street.to_owned(),
        city: city.to_owned(),
    };
    vec![
        OrderEvent::Placed { customer: KIM, total: 12 },
        OrderEvent::Pinged,
        place("Hauptstrasse", "ulm"),
        OrderEvent::Pinged,
    ]
}
