//! The stores on a real server keep the promises of the ports, and the model in memory does what the server does.

use std::sync::Arc;

use async_nats::jetstream;
use cim_persistence::backend::nats::Connection;
use cim_persistence::event_log::NatsLog;
use cim_persistence::server::{self, Server, ServerConfig};
use cim_persistence::state::NatsKeyValue;
use cim_persistence::subject::{ContextName, SubjectScheme};
use cim_persistence::testing::conformance::event_log::{self, LogUnderTest};
use cim_persistence::testing::conformance::key_value;
use uuid::Uuid;

#[tokio::test]
async fn log_keeps_every_promise() {
    let bench = Bench::start().await;
    let mut broken = Vec::new();
    for case in event_log::cases() {
        let (name, under) = bench.log().await;
        if let Err(how) = case.run(under).await {
            broken.push(format!("{}: {how}", case.name()));
        }
        bench.remove(&name).await;
    }
    assert!(broken.is_empty(), "broken promises:\n{}", broken.join("\n"));
}

#[tokio::test]
async fn bucket_keeps_every_promise() {
    let bench = Bench::start().await;
    let mut broken = Vec::new();
    for case in key_value::cases() {
        let bucket = bench.bucket().await;
        let store = NatsKeyValue::open(&bench.connection, &bucket).await.unwrap();
        if let Err(how) = case.run(Arc::new(store)).await {
            broken.push(format!("{}: {how}", case.name()));
        }
        bench.remove(&format!("KV_{bucket}")).await;
    }
    assert!(broken.is_empty(), "broken promises:\n{}", broken.join("\n"));
}

/// A server, and streams of names that nobody else has.
struct Bench {
    connection: Connection,
    jetstream: jetstream::Context,
    _server: Server,
}

impl Bench {
    async fn start() -> Self {
        let server = server::from_env_or(ServerConfig::Single).await.unwrap();
        let client = async_nats::connect(server.url()).await.unwrap();
        let connection = Connection::from_client(client.clone());
        Self { connection, jetstream: jetstream::new(client), _server: server }
    }

    async fn log(&self) -> (String, LogUnderTest) {
        let context = unique();
        let settings = jetstream::stream::Config {
            name: format!("CIM-EVENTS-{context}"),
            subjects: vec![format!("cim.events.{context}.>")],
            deny_delete: true,
            deny_purge: true,
            allow_direct: true,
            allow_atomic_publish: true,
            max_consumers: 10_000,
            ..Default::default()
        };
        let name = settings.name.clone();
        self.jetstream.create_stream(settings).await.unwrap();
        let log = NatsLog::open(&self.connection, &name).await.unwrap();
        let context = ContextName::new(&context).unwrap();
        let scheme = SubjectScheme::new(context, "cim.events", "cim.aggregates").unwrap();
        (name, LogUnderTest { log: Arc::new(log), scheme })
    }

    async fn bucket(&self) -> String {
        let bucket = unique();
        let settings = jetstream::stream::Config {
            name: format!("KV_{bucket}"),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: 1,
            discard: jetstream::stream::DiscardPolicy::New,
            deny_delete: true,
            allow_rollup: true,
            allow_direct: true,
            allow_atomic_publish: true,
            ..Default::default()
        };
        self.jetstream.create_stream(settings).await.unwrap();
        bucket
    }

    async fn remove(&self, stream: &str) {
        self.jetstream.delete_stream(stream).await.unwrap();
    }
}

fn unique() -> String {
    format!("conformance-{}", Uuid::new_v4().simple())
}
