//! What is stored, read with nothing but an ordinary NATS client.

#![allow(clippy::unwrap_used)]

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::kv;
use cim_persistence::backend::ReadFrom;
use cim_persistence::backend::nats::Connection;
use cim_persistence::event::{DomainEvent, Metadata};
use cim_persistence::prelude::Aggregate;
use cim_persistence::repository::{Repository, SaveOptions};
use cim_persistence::state::{Key, KeyValue, NatsKeyValue};
use cim_persistence::store::{Context, StoredEvent};
use futures::{StreamExt, TryStreamExt};
use ipld_core::cid::Cid;
use ipld_core::ipld::Ipld;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use test_server::TestServer;

#[path = "support/test_server.rs"]
mod test_server;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    id: String,
    items: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
enum OrderEvent {
    Added { item: String },
}

impl DomainEvent for OrderEvent {
    fn event_type(&self) -> &'static str {
        "added"
    }
    fn schema_version(&self) -> u32 {
        2
    }
}

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Id = String;
    type Event = OrderEvent;
    fn new(id: &String) -> Self {
        Self { id: id.clone(), items: Vec::new() }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, OrderEvent::Added { item }: &OrderEvent) {
        self.items.push(item.clone());
    }
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A server with one order of two events, the events, and a client that knows nothing of this crate.
async fn written() -> (TestServer, Vec<StoredEvent>, async_nats::jetstream::Context) {
    let server = TestServer::start().await;
    let sales = Context::connect(server.url(), &server.name("sales")).await.unwrap();
    let orders = Repository::<Order>::of(&sales).unwrap();
    let options = SaveOptions {
        create_snapshot: true,
        metadata: Metadata::new([("traceparent", TRACE), ("user", "kim")]).unwrap(),
        causation_id: Some(Uuid::now_v7()),
        ..SaveOptions::default()
    };
    let events = ["tea", "milk"].map(|item| OrderEvent::Added { item: item.to_owned() });
    orders.save(&Order::new(&"4.2".to_owned()), events.into(), options).await.unwrap();
    sales.flush().await;
    let history = orders.get_history(&"4.2".into(), None, None).await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    (server, history, async_nats::jetstream::new(client))
}

fn map(bytes: &[u8]) -> std::collections::BTreeMap<String, Ipld> {
    match serde_ipld_dagcbor::from_slice(bytes).unwrap() {
        Ipld::Map(map) => map,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn consumer_reads_events_by_their_headers_and_their_block() {
    let (server, history, jetstream) = written().await;
    let sales = server.name("sales");
    let stream = jetstream.get_stream(format!("CIM-EVENTS-{sales}")).await.unwrap();
    let config = pull::Config {
        filter_subject: format!("cim.events.{sales}.order.>"),
        ack_policy: AckPolicy::None,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    let messages = consumer.fetch().max_messages(2).messages().await.unwrap();
    let messages: Vec<_> = messages.try_collect().await.unwrap();
    assert_eq!(messages.len(), 2);
    for (message, event) in messages.iter().zip(&history) {
        assert_eq!(message.subject.as_str(), format!("cim.events.{sales}.order.4=2E2"));
        let headers = message.headers.as_ref().unwrap();
        let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        assert_eq!(header("Cim-Event-Id"), Some(event.event_id().to_string()));
        assert_eq!(header("Cim-Event-Type").as_deref(), Some("added"));
        assert_eq!(header("Cim-Schema-Version").as_deref(), Some("2"));
        assert_eq!(header("Cim-Version"), Some(event.version().to_string()));
        assert_eq!(header("Cim-Cid"), event.cid().map(Cid::to_string));
        // The event that begins a correlation says so by having no header for it.
        let first = history[0].event_id();
        let correlation = (event.event_id() != first).then(|| first.to_string());
        assert_eq!(header("Cim-Correlation-Id"), correlation);
        assert_eq!(header("Cim-Causation-Id"), event.causation_id().map(|id| id.to_string()));
        assert_eq!(header("traceparent").as_deref(), Some(TRACE));
        let block = map(&message.payload);
        assert_eq!(block["context"], Ipld::from(sales.as_str()));
        assert_eq!(block["aggregate"], Ipld::from("order"));
        assert_eq!(block["version"], Ipld::Integer(event.version().into()));
        assert_eq!(block["type"], Ipld::from("added"));
        let link = event.previous().map_or(Ipld::Null, |cid| Ipld::Link(*cid));
        assert_eq!(block["previous"], link, "the event before is a link");
    }
    let Ipld::Map(data) = &map(&messages[1].payload)["data"] else { panic!("an event is a map") };
    assert_eq!(data["Added"], ipld_core::ipld!({ "item": "milk" }));
}

#[tokio::test]
async fn every_key_of_a_key_value_client_is_read() {
    const KEY: &str = "a/b-c_d=e.F9";
    let server = TestServer::start().await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let bucket = server.name("notes");
    let settings = kv::Config { bucket: bucket.clone(), ..Default::default() };
    let notes =
        async_nats::jetstream::new(client.clone()).create_key_value(settings).await.unwrap();
    let revision = notes.put(KEY, "tea".into()).await.unwrap();
    let ours = NatsKeyValue::open(&Connection::from_client(client), &bucket).await.unwrap();
    let keys = ours.keys(">").await.unwrap();
    assert_eq!(keys.iter().map(Key::as_str).collect::<Vec<_>>(), [KEY]);
    let slot = ours.get(&keys[0], ReadFrom::Leader).await.unwrap();
    assert_eq!((slot.revision, slot.value.as_deref()), (revision, Some(&b"tea"[..])));
}

#[tokio::test]
async fn key_value_client_reads_state_and_snapshots() {
    let (server, history, jetstream) = written().await;
    for (bucket, key) in
        [("cim-state-sales", "order.4=2E2"), ("cim-snapshots-sales", "order.4=2E2.2")]
    {
        let store = jetstream.get_key_value(server.name(bucket)).await.unwrap();
        let keys: Vec<String> = store.keys().await.unwrap().try_collect().await.unwrap();
        assert_eq!(keys, [key]);
        let record = map(&store.get(key).await.unwrap().unwrap());
        assert_eq!(record["version"], Ipld::from(2));
        assert_eq!(record["head"], Ipld::Link(*history[1].cid().unwrap()));
        assert_eq!(record["state"], ipld_core::ipld!({ "id": "4.2", "items": ["tea", "milk"] }));
    }
}

#[tokio::test]
async fn key_value_client_sees_states_written_in_a_batch_as_ordinary_entries() {
    use async_nats::jetstream::kv::Operation;
    const ORDERS: usize = 50;
    let (server, _, jetstream) = written().await;
    let bucket = server.name("cim-state-sales");
    let store = jetstream.get_key_value(&bucket).await.unwrap();
    let mut watch = store.watch("order.*").await.unwrap();
    let sales = Context::connect(server.url(), &server.name("sales")).await.unwrap();
    let orders = Repository::<Order>::of(&sales).unwrap();
    let saving = (0..ORDERS).map(async |number| {
        let order = Order::new(&format!("batch-{number}"));
        let events = vec![OrderEvent::Added { item: "tea".to_owned() }];
        orders.save(&order, events, SaveOptions::default()).await.unwrap();
    });
    futures::future::join_all(saving).await;
    sales.flush().await;
    for _ in 0..ORDERS {
        let seen = tokio::time::timeout(std::time::Duration::from_secs(60), watch.next()).await;
        let entry = seen.expect("the watcher sees every state").unwrap().unwrap();
        assert_eq!((entry.operation, &entry.bucket), (Operation::Put, &bucket));
        let again = store.entry(&entry.key).await.unwrap().unwrap();
        assert_eq!((again.revision, again.value), (entry.revision, entry.value));
    }
    let keys: Vec<String> = store.keys().await.unwrap().try_collect().await.unwrap();
    assert_eq!(keys.len(), ORDERS + 1);
}
