//! The event store, on a real server and in memory: the same promises on both.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use cim_persistence::backend::nats::Connection;
use cim_persistence::backend::{ConnectionConfig, Position};
use cim_persistence::event::{Metadata, NonEmpty};
use cim_persistence::event_log::MemoryLog;
use cim_persistence::ipld::{BlockFormat, Codec, Hash};
use cim_persistence::prelude::{EventStore, StoreFailure};
use cim_persistence::state::MemoryKeyValue;
use cim_persistence::store::{
    CommitInfo, Context, EventFilter, ExpectedVersion, NatsRepositoryConfig, NewEvent, Optimistic,
    Ports, StoreError, StoredEvent, StreamId, Unchecked,
};
use cim_persistence::subject::{AggregateId, AggregateType, EventType};
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults};
use futures::TryStreamExt;
use ipld_core::ipld;
use uuid::Uuid;

use test_server::TestServer;

#[path = "support/test_server.rs"]
mod test_server;

/// A context, and the server it lives on if it has one.
struct Place {
    name: &'static str,
    context: Context,
    server: Option<TestServer>,
}

impl Place {
    /// The same context as another process has it.
    async fn another(&self) -> Context {
        match &self.server {
            Some(server) => open(server).await,
            None => self.context.clone(),
        }
    }
}

async fn open(server: &TestServer) -> Context {
    let connection = Connection::connect(&ConnectionConfig::new(server.url())).await.unwrap();
    let config = NatsRepositoryConfig { context: server.name("sales"), ..config() };
    Context::provision(&connection, &config).await.unwrap()
}

fn config() -> NatsRepositoryConfig {
    NatsRepositoryConfig::for_context("sales")
}

/// A context on a server and one in memory.
async fn places() -> [Place; 2] {
    let server = TestServer::start().await;
    [
        Place { name: "server", context: open(&server).await, server: Some(server) },
        Place { name: "memory", context: on(MemoryLog::new()), server: None },
    ]
}

/// A context in memory.
fn on(log: MemoryLog) -> Context {
    let ports = Ports::new(
        Arc::new(log),
        Arc::new(MemoryKeyValue::new("state")),
        Arc::new(MemoryKeyValue::new("snapshots")),
        Arc::new(MemoryKeyValue::new("readmodels")),
    );
    Context::on(ports, &config()).unwrap()
}

fn kind(name: &str) -> AggregateType {
    AggregateType::new(name).unwrap()
}

fn id(text: &str) -> AggregateId {
    AggregateId::new(text).unwrap()
}

fn stream(aggregate: &str, text: &str) -> StreamId<AggregateId> {
    StreamId::new(kind(aggregate), id(text))
}

fn event(event_type: &str) -> NewEvent {
    NewEvent {
        event_type: EventType::new(event_type).unwrap(),
        schema_version: 1,
        data: ipld!({ "n": 1 }),
    }
}

fn placed(count: usize) -> NonEmpty<NewEvent> {
    NonEmpty::from_vec(vec![event("placed"); count]).unwrap()
}

async fn append(context: &Context, aggregate: &str, text: &str, events: &[&str]) -> Position {
    let events = NonEmpty::from_vec(events.iter().map(|name| event(name)).collect()).unwrap();
    let stream = stream(aggregate, text);
    EventStore::append(context, &stream, ExpectedVersion::Any, events, Metadata::default())
        .await
        .unwrap()
        .1
}

async fn count(context: &Context) -> u64 {
    context.status().await.unwrap().messages
}

#[tokio::test]
async fn transaction_is_stored_whole_when_it_is_committed_and_not_at_all_when_it_is_dropped() {
    for place in places().await {
        let store = &place.context;
        let mut transaction = store.begin::<Optimistic>(stream("order", "1"), 0);
        transaction.append(event("placed")).append(event("paid"));
        drop(transaction);
        assert_eq!(count(store).await, 0, "{}", place.name);
        assert_eq!(store.stream_version(&stream("order", "1")).await.unwrap(), None);
        let mut transaction = store.begin::<Optimistic>(stream("order", "1"), 0);
        transaction.append(event("placed")).append(event("paid"));
        let (version, position) =
            transaction.commit(Metadata::default()).await.unwrap().expect("two events");
        assert_eq!((version, position), (2, Position::new(2)), "{}", place.name);
        let version = place.another().await.stream_version(&stream("order", "1")).await.unwrap();
        assert_eq!(version, Some(2), "{}", place.name);
        let empty = store.begin::<Optimistic>(stream("order", "1"), 2);
        assert_eq!(empty.commit(Metadata::default()).await.unwrap(), None);
        assert_eq!(count(store).await, 2, "{}", place.name);
    }
}

#[tokio::test]
async fn optimistic_transaction_is_refused_where_another_was_first_and_an_unchecked_one_is_not() {
    for place in places().await {
        let (store, other) = (&place.context, place.another().await);
        let mut optimistic = store.begin::<Optimistic>(stream("order", "1"), 0);
        let mut unchecked = store.begin::<Unchecked>(stream("order", "1"), ());
        optimistic.append(event("placed"));
        unchecked.append(event("noted"));
        append(&other, "order", "1", &["placed", "paid"]).await;
        let error = optimistic.commit(Metadata::default()).await.unwrap_err();
        assert_eq!(error.conflict(), Some((0, 2)), "{}", place.name);
        assert_eq!(
            error.to_string(),
            "version conflict: expected version 0, but the aggregate has version 2; load it again"
        );
        assert_eq!(unchecked.commit(Metadata::default()).await.unwrap().unwrap().0, 3);
        let mut stale = store.begin::<Optimistic>(stream("order", "1"), 2);
        stale.append(event("paid"));
        let error = stale.commit(Metadata::default()).await.unwrap_err();
        assert_eq!(error.conflict(), Some((2, 3)), "{}", place.name);
        assert_eq!(count(store).await, 3, "{}", place.name);
    }
}

#[tokio::test]
async fn append_expecting_new_creates_once() {
    for place in places().await {
        let (store, stream) = (&place.context, stream("order", "1"));
        let first = store.append_expecting_new(&stream, placed(2), Metadata::default()).await;
        assert_eq!(first.unwrap(), (2, Position::new(2)), "{}", place.name);
        let error =
            store.append_expecting_new(&stream, placed(1), Metadata::default()).await.unwrap_err();
        assert_eq!(error.conflict(), Some((0, 2)), "{}", place.name);
        assert_eq!(count(store).await, 2, "{}", place.name);
    }
}

#[tokio::test]
async fn filters_are_ored_deduplicated_and_ordered() {
    for place in places().await {
        let store = place.another().await;
        append(&store, "order", "1", &["placed", "paid"]).await;
        append(&store, "invoice", "1", &["paid"]).await;
        let middle = append(&store, "order", "2", &["placed"]).await;
        append(&store, "order", "1", &["shipped"]).await;
        append(&store, "invoice", "2", &["written", "paid"]).await;
        let found = async |filters: &[EventFilter]| -> Vec<u64> {
            let events = store.load_events(filters).await.unwrap();
            let through_the_trait = EventStore::load_events(&store, filters).await.unwrap();
            let positions: Vec<u64> = events.iter().map(|e| e.position().get()).collect();
            let same: Vec<u64> = through_the_trait.iter().map(|e| e.position.get()).collect();
            assert_eq!(positions, same);
            positions
        };
        let paid = || EventFilter::for_event(EventType::new("paid").unwrap());
        let order_1 = || EventFilter::for_aggregate(kind("order"), id("1"));
        let orders = || EventFilter::for_type(kind("order"));
        let name = place.name;
        assert_eq!(found(&[]).await, [0; 0], "{name}");
        assert_eq!(found(&[EventFilter::all()]).await, [1, 2, 3, 4, 5, 6, 7], "{name}");
        assert_eq!(found(&[paid()]).await, [2, 3, 7], "{name}");
        assert_eq!(found(&[order_1()]).await, [1, 2, 5], "{name}");
        assert_eq!(found(&[orders()]).await, [1, 2, 4, 5], "{name}");
        assert_eq!(found(&[paid(), order_1()]).await, [1, 2, 3, 5, 7], "{name}");
        assert_eq!(found(&[order_1(), orders(), paid()]).await, [1, 2, 3, 4, 5, 7], "{name}");
        assert_eq!(found(&[paid().after(Position::new(2))]).await, [3, 7], "{name}");
        assert_eq!(found(&[orders().after(middle), paid()]).await, [2, 3, 5, 7], "{name}");
        let both = order_1().and_event(EventType::new("paid").unwrap());
        assert_eq!(found(&[both]).await, [2], "{name}");
        for end in [7, u64::MAX].map(Position::new) {
            assert_eq!(found(&[EventFilter::all().after(end)]).await, [0; 0], "{name}");
            assert_eq!(found(&[order_1().after(end)]).await, [0; 0], "{name}");
        }
    }
}

#[tokio::test]
async fn batch_over_several_aggregates_is_stored_whole_or_not_at_all() {
    for place in places().await {
        let (store, name) = (&place.context, place.name);
        let part = |text: &str, expected, count| (kind("order"), id(text), expected, placed(count));
        let info = CommitInfo::default();
        let new = ExpectedVersion::NoStream;
        let parts = NonEmpty::from([part("1", new, 2), part("2", new, 1), part("3", new, 3)]);
        let appended = store.append_batch(&parts, &info).await.unwrap();
        let ends: Vec<_> =
            appended.iter().map(|a| (a.head.version, a.head.position.get())).collect();
        assert_eq!(ends, [(2, 2), (1, 3), (3, 6)], "{name}");
        for (aggregate, appended) in ["1", "2", "3"].iter().zip(&appended) {
            let head = store
                .head(&kind("order"), &id(aggregate), cim_persistence::backend::ReadFrom::Leader)
                .await
                .unwrap();
            assert_eq!(head, appended.head, "{name}");
        }
        // One conflict, wherever it stands, and nothing of the others is stored.
        let exact = ExpectedVersion::Exact;
        for (parts, wanted) in [
            ([part("4", new, 2), part("2", new, 1), part("1", exact(2), 1)], (0, 1)),
            ([part("1", exact(1), 1), part("4", new, 2), part("2", exact(1), 1)], (1, 2)),
            ([part("4", new, 2), part("5", new, 1), part("3", exact(9), 1)], (9, 3)),
        ] {
            let error = store.append_batch(&NonEmpty::from(parts), &info).await.unwrap_err();
            assert_eq!(error.conflict(), Some(wanted), "{name}");
            assert_eq!(count(store).await, 6, "{name}");
        }
        let parts = NonEmpty::from([part("1", exact(2), 1), part("2", ExpectedVersion::Any, 1)]);
        place.another().await.append_batch(&parts, &info).await.unwrap();
        assert_eq!(count(store).await, 8, "{name}");
    }
}

/// Whoever expects any version of one aggregate tries again when others were first there, and only then.
#[tokio::test]
async fn a_conflict_that_another_try_would_meet_again_is_told_at_once() {
    let faults = Faults::new();
    let context = on(MemoryLog::new().with_faults(&faults));
    append(&context, "order", "1", &["placed", "paid"]).await;
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    let count = move |call: &Call<'_>| {
        counted.fetch_add(usize::from(call.kind == CallKind::Write), Relaxed);
        false
    };
    faults.plan_when(count, Fault::Outage);
    let part = |text: &str, expected| (kind("order"), id(text), expected, placed(1));
    let parts =
        NonEmpty::from([part("2", ExpectedVersion::Any), part("1", ExpectedVersion::NoStream)]);
    let error = context.append_batch(&parts, &CommitInfo::default()).await.unwrap_err();
    assert_eq!((error.conflict(), writes.load(Relaxed)), (Some((0, 2)), 1));
}

#[tokio::test]
async fn events_are_read_from_a_version_and_from_a_position() {
    for place in places().await {
        let (store, name) = (place.another().await, place.name);
        for aggregate in ["1", "2", "1", "2", "1"] {
            append(&store, "order", aggregate, &["placed", "noted"]).await;
        }
        let versions = async |after| -> Vec<u64> {
            let events = store.get_events(&kind("order"), &id("1"), after).await.unwrap();
            events.iter().map(StoredEvent::version).collect()
        };
        assert_eq!(versions(0).await, [1, 2, 3, 4, 5, 6], "{name}");
        assert_eq!(versions(4).await, [5, 6], "{name}");
        assert_eq!(versions(6).await, [0; 0], "{name}");
        let positions = async |after, limit| -> Vec<u64> {
            let events = store.get_events_after(Position::new(after), limit).await.unwrap();
            events.iter().map(|event| event.position().get()).collect()
        };
        assert_eq!(positions(0, 3).await, [1, 2, 3], "{name}");
        assert_eq!(positions(3, 100).await, [4, 5, 6, 7, 8, 9, 10], "{name}");
        assert_eq!(positions(10, 5).await, [0; 0], "{name}");
        assert_eq!(positions(0, 0).await, [0; 0], "{name}");
        let streamed: Vec<StoredEvent> =
            store.stream_after(Position::new(8)).try_collect().await.unwrap();
        assert_eq!(streamed.len(), 2, "{name}");
    }
}

#[tokio::test]
async fn stream_of_more_than_one_request_has_no_gap_and_no_double() {
    let [server, _] = places().await;
    let parts = |batch: u64| {
        let part = |order: u64| {
            let text = (batch * 5 + order).to_string();
            (kind("order"), id(&text), ExpectedVersion::NoStream, placed(190))
        };
        NonEmpty::from_vec((0..5).map(part).collect()).unwrap()
    };
    for batch in 0..4 {
        server.context.append_batch(&parts(batch), &CommitInfo::default()).await.unwrap();
    }
    let positions: Vec<u64> = server
        .another()
        .await
        .stream_after(Position::START)
        .map_ok(|event| event.position().get())
        .try_collect()
        .await
        .unwrap();
    assert_eq!(positions, (1..=3800).collect::<Vec<_>>());
}

#[tokio::test]
async fn stored_event_carries_everything_about_itself() {
    for place in places().await {
        let store = &place.context;
        let info = CommitInfo {
            metadata: Metadata::new([("tenant", "acme"), ("user", "kim")]).unwrap(),
            correlation_id: Some(Uuid::now_v7()),
            causation_id: Some(Uuid::now_v7()),
        };
        let events = NonEmpty::from([
            NewEvent { schema_version: 3, data: ipld!({ "item": "tea" }), ..event("placed") },
            event("paid"),
        ]);
        let before = cim_persistence::clock::Timestamp::now();
        let (order, one) = (kind("order"), id("1"));
        store.append(&order, &one, ExpectedVersion::NoStream, &events, &info).await.unwrap();
        let after = cim_persistence::clock::Timestamp::now();
        let stored = place.another().await.get_events(&order, &one, 0).await.unwrap();
        let first = &stored[0];
        assert_eq!(first.event_id().get_version_num(), 7);
        assert_ne!(first.event_id(), stored[1].event_id());
        assert_eq!(first.event_type().as_str(), "placed");
        assert_eq!((first.aggregate_type(), first.aggregate_id()), (&order, &one));
        assert_eq!((first.version(), first.schema_version()), (1, 3));
        assert_eq!(first.data::<serde_json::Value>().unwrap()["item"], "tea");
        assert_eq!(first.metadata(), &info.metadata);
        assert_eq!(first.tenant(), Some("acme"));
        assert!((before..=after).contains(&first.occurred_at()));
        assert!(first.recorded_at() >= first.occurred_at(), "{}", place.name);
        assert_eq!(first.correlation_id(), info.correlation_id.unwrap());
        assert_eq!(first.causation_id(), info.causation_id);
        assert_eq!(first.position(), Position::new(1));
        assert_eq!((first.previous(), stored[1].previous()), (None, first.cid()));
        cim_persistence::ipld::verify_cid(first.cid().unwrap(), first.block()).unwrap();
        assert!(!first.is_tombstone());
    }
}

#[tokio::test]
async fn store_names_its_codec() {
    let [server, _] = places().await;
    assert_eq!(*server.context.codec(), BlockFormat::Ipld(Codec::DagCbor, Hash::Sha2));
}

#[tokio::test]
async fn aggregate_that_is_named_twice_in_a_batch_is_refused() {
    for place in places().await {
        let part = |expected| (kind("order"), id("1"), expected, placed(1));
        for expected in [ExpectedVersion::NoStream, ExpectedVersion::Any] {
            let parts = NonEmpty::from([part(expected), part(expected)]);
            let error =
                place.context.append_batch(&parts, &CommitInfo::default()).await.unwrap_err();
            assert!(matches!(&error, StoreError::Repeated { .. }), "{}: {error}", place.name);
            assert_eq!(
                error.to_string(),
                "order 1 is named twice in one batch; put its events into one part"
            );
        }
        assert_eq!(count(&place.context).await, 0, "{}", place.name);
    }
}

#[tokio::test]
async fn only_a_deletion_writes_a_tombstone() {
    for place in places().await {
        let order = AggregateType::new("order").unwrap();
        let id = AggregateId::new("a").unwrap();
        let events = NonEmpty::one(event("cim-tombstone"));
        let (new, info) = (ExpectedVersion::NoStream, CommitInfo::default());
        let refused = place.context.append(&order, &id, new, &events, &info).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "event type \"cim-tombstone\" is reserved; name the event otherwise"
        );
    }
}
