//! A context with orders and invoices, and somebody who subscribes to them.

use std::time::Duration;

use cim_persistence::event::NonEmpty;
use cim_persistence::store::{
    CommitInfo, Context, ExpectedVersion, NatsRepositoryConfig, NewEvent, Ports, StoredEvent,
};
use cim_persistence::subject::{AggregateId, AggregateType, EventType};
use cim_persistence::subscription::{Delivered, EventStream};
use futures::StreamExt;
use ipld_core::ipld::Ipld;
use tokio::time::timeout;

/// How long anything may take.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) const CONTEXT: &str = "shop";

pub(crate) fn in_memory() -> Context {
    on(Ports::in_memory())
}

pub(crate) fn on(ports: Ports) -> Context {
    Context::on(ports, &NatsRepositoryConfig::for_context(CONTEXT)).unwrap()
}

pub(crate) fn kind(name: &str) -> AggregateType {
    AggregateType::new(name).unwrap()
}

pub(crate) fn id(name: &str) -> AggregateId {
    AggregateId::new(name).unwrap()
}

pub(crate) fn event_type(name: &str) -> EventType {
    EventType::new(name).unwrap()
}

/// Appends one event of schema version 1 and returns its position.
pub(crate) async fn append(context: &Context, aggregate: &str, of: &str, event: &str) -> u64 {
    append_version(context, aggregate, of, event, 1).await
}

pub(crate) async fn append_version(
    context: &Context,
    aggregate: &str,
    of: &str,
    event: &str,
    schema_version: u32,
) -> u64 {
    let data = Ipld::Map([("cents".to_owned(), Ipld::Integer(7))].into());
    let event = NewEvent { event_type: event_type(event), schema_version, data };
    let (aggregate, of) = (kind(aggregate), id(of));
    let (events, info) = (NonEmpty::one(event), CommitInfo::default());
    let appended = context.append(&aggregate, &of, ExpectedVersion::Any, &events, &info).await;
    appended.unwrap().head.position.get()
}

/// The subject of events in this context that ends so.
pub(crate) fn of_shop(shop: &Context, rest: &str) -> String {
    format!("cim.events.{}.{rest}", shop.scheme().context())
}

pub(crate) async fn next(events: &mut EventStream) -> Delivered {
    timeout(LONG, events.next()).await.expect("something comes").unwrap().unwrap()
}

pub(crate) async fn event(events: &mut EventStream) -> StoredEvent {
    match next(events).await {
        Delivered::Event(event) => event,
        Delivered::CaughtUp => panic!("caught up, instead of an event"),
    }
}

/// The positions of what comes until everything was delivered that was there.
pub(crate) async fn past(events: &mut EventStream) -> Vec<u64> {
    let mut seen = Vec::new();
    while let Delivered::Event(event) = next(events).await {
        seen.push(event.position().get());
    }
    seen
}
