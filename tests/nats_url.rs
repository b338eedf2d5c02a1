//! A test on somebody else's server takes nothing of theirs and leaves nothing of its own, also when it fails.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use async_nats::jetstream;
use cim_persistence::Context;
use cim_persistence::server::{PrivateServer, ServerConfig};
use futures::TryStreamExt;

use test_server::TestServer;

#[path = "support/test_server.rs"]
mod test_server;

/// What the test is told that runs on the server of this one: how it is to end.
const VISIT: &str = "CIM_TEST_VISIT";

#[tokio::test]
async fn somebody_elses_server_is_left_as_it_was() {
    // The visitor is this test once more, and is told so.
    if let Ok(end) = std::env::var(VISIT) {
        return visit(&end).await;
    }
    let theirs = PrivateServer::start(ServerConfig::Single).await.unwrap();
    Context::connect(theirs.url(), "sales").await.unwrap();
    let before = streams(theirs.url()).await;
    assert!(before.iter().any(|(name, _)| name == "CIM-EVENTS-sales"), "{before:?}");
    for (end, passes) in [("passes", true), ("fails", false)] {
        let mut visitor = Command::new(std::env::current_exe().unwrap());
        visitor.args(["somebody_elses_server_is_left_as_it_was", "--exact"]);
        let output = visitor.env("NATS_URL", theirs.url()).env(VISIT, end).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), passes, "{text}");
        assert!(passes || text.contains("as it was told to"), "{text}");
        assert_eq!(streams(theirs.url()).await, before, "after one that {end}");
    }
}

/// A test that makes a context and a stream of its own, as it does on a private server.
async fn visit(end: &str) {
    let server = TestServer::start().await;
    assert_eq!(server.url(), std::env::var("NATS_URL").unwrap());
    let context = Context::connect(server.url(), &server.name("sales")).await.unwrap();
    assert_eq!(context.status().await.unwrap().messages, 0);
    let (name, subjects) = (server.name("SHOP"), vec![server.name("shop")]);
    let settings = jetstream::stream::Config { name, subjects, ..Default::default() };
    let jetstream = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    jetstream.create_stream(settings).await.unwrap();
    assert_eq!(end, "passes", "it fails as it was told to");
}

/// The names of all streams, and when they were made.
async fn streams(url: &str) -> Vec<(String, String)> {
    let jetstream = jetstream::new(async_nats::connect(url).await.unwrap());
    let streams = jetstream.streams().map_ok(|info| (info.config.name, info.created.to_string()));
    let mut streams: Vec<_> = streams.try_collect().await.unwrap();
    streams.sort();
    streams
}
