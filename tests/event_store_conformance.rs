//! Every event store of the crate keeps the promises that the public suite states.
#![allow(clippy::unwrap_used)]

use cim_persistence::event::Metadata;
use cim_persistence::store::{Context, NatsRepositoryConfig, Ports};
use cim_persistence::subject::AggregateId;
use cim_persistence::testing::conformance::event_store;
use cim_persistence::{Connection, ConnectionConfig};

use test_server::TestServer;

#[path = "support/test_server.rs"]
mod test_server;

fn id(name: &str) -> AggregateId {
    AggregateId::new(name).unwrap()
}

fn metadata(name: &str) -> Metadata {
    Metadata::new([("test", name), ("tenant", "suite")]).unwrap()
}

#[tokio::test]
async fn store_in_memory_keeps_every_promise() {
    let config = NatsRepositoryConfig::for_context("suite");
    event_store::run(&Context::on(Ports::in_memory(), &config).unwrap(), id, metadata).await;
}

#[tokio::test]
async fn store_on_nats_keeps_every_promise() {
    let server = TestServer::start().await;
    let connection =
        Connection::connect(&ConnectionConfig::new(server.url().to_owned())).await.unwrap();
    for (context, enable_ipld) in [("blocks", true), ("json", false)] {
        let context = server.name(context);
        let config = NatsRepositoryConfig { context, enable_ipld, ..Default::default() };
        let store = Context::provision(&connection, &config).await.unwrap();
        event_store::run(&store, id, metadata).await;
    }
}
