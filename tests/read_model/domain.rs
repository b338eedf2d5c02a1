//! The models of these tests, boards of flights, and the places where they lie.

use std::sync::Arc;

use cim_persistence::backend::ConnectionConfig;
use cim_persistence::backend::nats::Connection;
use cim_persistence::event::NonEmpty;
use cim_persistence::read_model::{IndexSpec, ReadModel, ReadModelStore};
use cim_persistence::server::{PrivateServer, ServerConfig};
use cim_persistence::state::{Change, Expected, Key, KeyValue, KeyWrite, MemoryKeyValue};
use cim_persistence::subject::{AggregateId, InvalidToken};
use cim_persistence::{Context, NatsRepositoryConfig};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::test_server::TestServer;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Board {
    pub(crate) origin: String,
    pub(crate) carrier: String,
    pub(crate) flight: u32,
    pub(crate) delay: i64,
}

impl ReadModel for Board {
    const MODEL_TYPE: &'static str = "board";
    const SCHEMA_VERSION: u32 = 3;
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::from_tokens([&self.origin, &self.carrier, &self.flight.to_string()])
    }
    fn indexes() -> Vec<IndexSpec> {
        vec![IndexSpec::on(["carrier"])]
    }
}

pub(crate) fn board(origin: &str, carrier: &str, flight: u32) -> Board {
    Board { origin: origin.to_owned(), carrier: carrier.to_owned(), flight, delay: 0 }
}

/// Where models lie.
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) bucket: Arc<dyn KeyValue>,
    pub(crate) server: Option<TestServer>,
}

impl Place {
    pub(crate) fn store(&self) -> ReadModelStore {
        ReadModelStore::on(Arc::clone(&self.bucket))
    }

    /// How many consumers there are on the server's bucket.
    pub(crate) async fn watchers(&self) -> usize {
        let client = async_nats::connect(self.server.as_ref().unwrap().url()).await.unwrap();
        let stream = format!("KV_{}", self.bucket.bucket());
        let stream = async_nats::jetstream::new(client).get_stream(stream).await.unwrap();
        stream.consumer_names().try_collect::<Vec<_>>().await.unwrap().len()
    }
}

/// A bucket on a server and one in memory.
pub(crate) async fn places() -> [Place; 2] {
    let server = TestServer::start().await;
    let bucket = bucket(server.url(), server.name("flights")).await;
    let memory = Arc::new(MemoryKeyValue::new("readmodels"));
    [
        Place { name: "server", bucket, server: Some(server) },
        Place { name: "memory", bucket: memory, server: None },
    ]
}

/// A bucket on a server that may be killed.
pub(crate) async fn place_to_kill() -> (Place, PrivateServer) {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let bucket = bucket(server.url(), "flights".to_owned()).await;
    (Place { name: "server", bucket, server: None }, server)
}

async fn bucket(url: &str, context: String) -> Arc<dyn KeyValue> {
    let connection = Connection::connect(&ConnectionConfig::new(url)).await.unwrap();
    let config = NatsRepositoryConfig::for_context(context);
    let context = Context::provision(&connection, &config).await.unwrap();
    Arc::clone(context.read_models())
}

/// Stores any document under any key, as another client may.
pub(crate) async fn put(place: &Place, key: &str, value: serde_json::Value) {
    let value = serde_json::to_vec(&value).unwrap();
    let write =
        KeyWrite::new(Key::new(key).unwrap(), Change::Put(value.into()), Expected::Anything);
    place.bucket.write(NonEmpty::one(write)).await.unwrap();
}

/// Says that a projection keeps boards, and in which generation.
pub(crate) async fn point(place: &Place, generation: Option<u64>) {
    let pointer = json!({
        "format": 1, "projection": "boards", "generation": generation, "schema_version": 3, "building": 1,
    });
    put(place, "=model.board", pointer).await;
}
