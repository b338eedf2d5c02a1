//! Written by the old service, read by the new one: on a server, and in memory where a case needs a store of its own.

use std::time::Duration;

use cim_persistence::backend::Bound;
use cim_persistence::backend::ConnectionConfig;
use cim_persistence::backend::nats::Connection;
use cim_persistence::evolution::{Evolution, Upcast};
use cim_persistence::ipld::Codec;
use cim_persistence::projection::{
    Changes, Declared, Fold, ModelsAsOf, PoisonPolicy, Projection, ProjectionOptions, Rejection,
    RunningProjection, load_projection,
};
use cim_persistence::read_model::ReadModelStore;
use cim_persistence::store::{EventFilter, StoreError};
use cim_persistence::subject::AggregateId;
use cim_persistence::subscription::{Delivered, SubscriptionQuery};
use cim_persistence::{
    Aggregate, Context, LoadOptions, NatsRepositoryConfig, Repository, RepositoryError,
    SaveOptions, StoredEvent,
};
use futures::StreamExt;

use crate::domain::{
    Board, Boards, FROM_EVENTS, Order, OrderEvent, UPCAST, config, events, evolution, in_memory,
    life,
};
use crate::old;
use crate::test_server::TestServer;

const PATIENCE: Duration = Duration::from_secs(60);

async fn write_life(old: &Context, id: &str) {
    let orders = Repository::<old::Order>::of(old).unwrap();
    let (id, options) = (id.to_owned(), SaveOptions::default());
    let new = old::Order::new(&id);
    orders.save(&new, old::life(), options).await.unwrap();
    old.flush().await;
}

async fn load(context: &Context, id: &str, options: LoadOptions) -> Order {
    let orders = Repository::<Order>::of(context).unwrap();
    orders.load(&id.to_owned(), options).await.unwrap().0
}

fn types(events: &[OrderEvent]) -> Vec<String> {
    use cim_persistence::DomainEvent;
    events.iter().map(|event| event.event_type().to_owned()).collect()
}

async fn delivered(context: &Context, query: impl Into<SubscriptionQuery>) -> Vec<StoredEvent> {
    let mut events = context.subscribe(query);
    let mut all = Vec::new();
    while let Delivered::Event(event) = events.next().await.unwrap().unwrap() {
        all.push(event);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_first_version_wrote_the_third_reads_everywhere() {
    let server = TestServer::start().await;
    let connection = Connection::connect(&ConnectionConfig::new(server.url())).await.unwrap();
    let config = NatsRepositoryConfig { context: server.name("shop"), ..config() };
    let old = Context::provision(&connection, &config).await.unwrap();
    let new = Context::open(&connection, &config).await.unwrap().with_evolution(evolution());
    write_life(&old, "1").await;
    let before = old.get_events_after(Default::default(), 10).await.unwrap();

    // An aggregate, replayed: what was dropped is not applied, what was split is applied in parts.
    let replayed = LoadOptions { use_snapshot: false, ..LoadOptions::default() };
    let order = load(&new, "1", replayed).await;
    assert_eq!((order.cents, order.city.as_str()), (1200, "ulm"));
    assert_eq!((order.origin.as_str(), order.applied), (FROM_EVENTS, types(&life())));
    // From kept state, and from a snapshot of the old service.
    let kept = load(&new, "1", LoadOptions::default()).await;
    assert_eq!((kept.cents, kept.origin.as_str(), kept.applied.len()), (1200, UPCAST, 0));

    // Projected, subscribed, and in the history, which shows what is stored.
    let mut running = RunningProjection::start(&new, Boards, ProjectionOptions::default()).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    let boards = ReadModelStore::new(&new);
    let board = boards.load::<Board>(&AggregateId::new("1").unwrap()).await.unwrap().unwrap().model;
    assert_eq!((board.cents, board.city.as_str(), board.events), (1200, "ULM", types(&life())));
    let events = delivered(&new, SubscriptionQuery::all()).await;
    let read: Vec<OrderEvent> = events.iter().flat_map(|e| e.events().unwrap()).collect();
    assert_eq!(read, life());
    let orders = Repository::<Order>::of(&new).unwrap();
    let history = orders.get_history(&"1".to_owned(), None, None).await.unwrap();
    let stored: Vec<old::OrderEvent> = history.iter().map(|e| e.stored_data().unwrap()).collect();
    assert_eq!(stored, old::life());
    let names: Vec<_> = history.iter().map(|event| event.event_type().as_str()).collect();
    assert_eq!(names, ["placed", "pinged", "relocated", "pinged"]);

    // The new service goes on where the old one stopped, in one chain, and nothing that is stored has changed.
    let more = |order: &Order| {
        Ok::<_, ()>(vec![OrderEvent::CityChanged { city: order.city.to_uppercase() }])
    };
    orders.transact(&"1".to_owned(), more).await.unwrap();
    assert_eq!(orders.verify(&"1".to_owned()).await.unwrap().version, 5);
    let after = old.get_events_after(Default::default(), 10).await.unwrap();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((before.cid(), before.block()), (after.cid(), after.block()));
    }
    assert_eq!(after.len(), 5);
    assert_eq!(
        after[4].data::<OrderEvent>().unwrap(),
        OrderEvent::CityChanged { city: "ULM".into() }
    );
    assert_eq!((after[4].schema_version(), after[0].schema_version()), (1, 1));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn snapshots_are_upcast_and_ignored_only_without_a_path() {
    let config = NatsRepositoryConfig { keep_state: false, ..config() };
    let (old, new) = in_memory(&config);
    write_life(&old, "1").await;
    Repository::<old::Order>::of(&old).unwrap().create_snapshot(&"1".to_owned()).await.unwrap();
    let upcast = load(&new, "1", LoadOptions::default()).await;
    assert_eq!((upcast.cents, upcast.origin.as_str()), (1200, UPCAST));
    let at = LoadOptions { version: Some(4), ..LoadOptions::default() };
    assert_eq!(load(&new, "1", at).await.origin, UPCAST);
    let without = new.clone().with_evolution(events().build().unwrap());
    let replayed = load(&without, "1", LoadOptions::default()).await;
    assert_eq!((replayed.cents, replayed.origin.as_str()), (1200, FROM_EVENTS));
}

#[tokio::test]
async fn kept_state_is_upcast_in_every_format() {
    let (cbor, json) = (Codec::DagCbor, Codec::DagJson);
    for (codec, enable_ipld) in [(cbor, true), (json, true), (cbor, false)] {
        let (old, new) = in_memory(&NatsRepositoryConfig { codec, enable_ipld, ..config() });
        write_life(&old, "1").await;
        let kept = load(&new, "1", LoadOptions::default()).await;
        let wanted = Order {
            id: "1".to_owned(),
            cents: 1200,
            city: "ulm".to_owned(),
            customer: old::KIM,
            origin: UPCAST.to_owned(),
            applied: vec![],
        };
        assert_eq!(kept, wanted, "{codec:?} {enable_ipld}");
        let wanted: Vec<OrderEvent> = life();
        let events = delivered(&new, SubscriptionQuery::all()).await;
        let read: Vec<OrderEvent> = events.iter().flat_map(|e| e.events().unwrap()).collect();
        assert_eq!(read, wanted, "{codec:?} {enable_ipld}");
    }
}

#[tokio::test]
async fn an_upcaster_that_panics_is_poison_and_no_end() {
    let (old, _) = in_memory(&config());
    write_life(&old, "1").await;
    let panics = Evolution::builder()
        .event("placed", 2)
        .upcast(Upcast::event("placed", 1, |_| panic!("no such order")))
        .build()
        .unwrap();
    let new = old.with_evolution(panics);
    let mut running = RunningProjection::start(&new, Boards, ProjectionOptions::default()).unwrap();
    let error = running.caught_up(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("it panicked: no such order"), "{error}");
}

#[tokio::test]
async fn without_upcasters_old_events_are_refused_as_before() {
    let (old, new) = in_memory(&config());
    write_life(&old, "1").await;
    let plain = new.clone().with_evolution(Evolution::builder().build().unwrap());
    let orders = Repository::<Order>::of(&plain).unwrap();
    let options = LoadOptions { use_snapshot: false, ..LoadOptions::default() };
    let error = orders.load(&"1".to_owned(), options).await.unwrap_err();
    let RepositoryError::Store(StoreError::Shape { event_type, schema_version: 1, .. }) = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(event_type, "placed");
}

#[tokio::test]
async fn newer_events_than_the_code_are_refused() {
    let (old, new) = in_memory(&config());
    let orders = Repository::<Order>::of(&new).unwrap();
    let new_order = Order::new(&"1".to_owned());
    orders.save(&new_order, life(), SaveOptions::default()).await.unwrap();
    let behind = Evolution::builder()
        .event("placed", 2)
        .upcast(Upcast::event("placed", 1, Ok))
        .build()
        .unwrap();
    let behind = old.with_evolution(behind);
    let event = behind.get_events_after(Default::default(), 1).await.unwrap().remove(0);
    let text = event.data::<serde_json::Value>().unwrap_err().to_string();
    assert_eq!(
        text,
        "event placed at position 1 is not read: event placed has version 3, and this code knows versions up \
         to 2; bring it up to date"
    );
    assert!(event.stored_data::<OrderEvent>().is_ok());
}

#[tokio::test]
async fn one_is_asked_for_where_there_is_one() {
    let (old, new) = in_memory(&config());
    write_life(&old, "1").await;
    let events = delivered(&new, EventFilter::all()).await;
    assert_eq!(events[0].data::<OrderEvent>().unwrap(), life()[0]);
    assert_eq!(events[1].events::<OrderEvent>().unwrap(), []);
    for (place, count) in [(1, 0), (2, 2)] {
        let error = events[place].data::<OrderEvent>().unwrap_err();
        assert!(
            matches!(error, StoreError::NotOne { count: found, .. } if found == count),
            "{error:?}"
        );
    }
    let parts = events[2].evolved().unwrap();
    let names: Vec<_> = parts.iter().map(|part| part.event_type().as_str()).collect();
    assert_eq!(names, ["street_changed", "city_changed"]);
    for part in &parts {
        assert_eq!((part.event_id(), part.cid()), (events[2].event_id(), events[2].cid()));
    }
    assert_eq!(parts[1].data::<OrderEvent>().unwrap(), life()[2]);
}

/// The types of the events it is given.
struct Count(Vec<String>);

impl Fold for Count {
    type Event = OrderEvent;
    fn filters(&self) -> Vec<EventFilter> {
        vec![EventFilter::all()]
    }
    fn apply(&mut self, event: OrderEvent, _: &StoredEvent) {
        self.0.extend(types(&[event]));
    }
}

/// As [`Boards`], and refuses the second part of what was split.
struct Refusing;

impl Projection for Refusing {
    const NAME: &'static str = "boards";
    type Event = OrderEvent;
    fn models() -> Vec<Declared> {
        Boards::models()
    }
    fn project(
        &self,
        event: OrderEvent,
        stored: &StoredEvent,
        changes: &mut Changes,
    ) -> Result<(), Rejection> {
        if matches!(event, OrderEvent::CityChanged { .. }) {
            return Err("no cities".into());
        }
        Boards.project(event, stored, changes)
    }
}

#[tokio::test]
async fn parts_take_effect_together_or_not_at_all() {
    let (old, new) = in_memory(&config());
    write_life(&old, "1").await;
    let folded = load_projection(&new, Count(Vec::new())).await.unwrap();
    assert_eq!(folded.state.0, types(&life()));
    let models = ModelsAsOf::load(&new, &Boards, Bound::Newest).await.unwrap();
    let id = AggregateId::new("1").unwrap();
    assert_eq!(models.get::<Board>(&id).unwrap().events, types(&life()));

    let options = ProjectionOptions { poison: PoisonPolicy::PARK, ..ProjectionOptions::default() };
    let mut running = RunningProjection::start(&new, Refusing, options).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    running.stop().await.unwrap();
    let board = ReadModelStore::new(&new).load::<Board>(&id).await.unwrap().unwrap().model;
    assert_eq!(board.events, ["placed"]);
}
