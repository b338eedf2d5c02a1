//! The models of these tests, boards of flights, and the places where they lie.

use std::sync::Arc;

use cim_persistence::backend::ConnectionConfig;
use cim_persistence::backend::nats::Connection;
use cim_persistence::read_model::{IndexSpec, ReadModel, ReadModelStore};
use cim_persistence::server::{PrivateServer, ServerConfig};
use cim_persistence::state::{KeyValue, MemoryKeyValue};
use cim_persistence::subject::{AggregateId, InvalidToken};
use cim_persistence::{Context, NatsRepositoryConfig};
use serde::{Deserialize, Serialize};

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
    pub(crate) server: Option<PrivateServer>,
}

impl Place {
    pub(crate) fn store(&self) -> ReadModelStore {
        ReadModelStore::on(Arc::clone(&self.bucket))
    }
}

/// A bucket on a server and one in memory.
pub(crate) async fn places() -> [Place; 2] {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let connection = Connection::connect(&ConnectionConfig::new(server.url())).await.unwrap();
    let config = NatsRepositoryConfig::for_context("flights");
    let context = Context::provision(&connection, &config).await.unwrap();
    let bucket = Arc::clone(context.read_models());
    let memory = Arc::new(MemoryKeyValue::new("readmodels"));
    [
        Place { name: "server", bucket, server: Some(server) },
        Place { name: "memory", bucket: memory, server: None },
    ]
}
