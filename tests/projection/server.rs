//! Projections on real servers: killed runners, restarted servers, several processes.

use std::time::Duration;

use cim_persistence::backend::ConnectionConfig;
use cim_persistence::backend::nats::Connection;
use cim_persistence::projection::{ProjectionError, Projections, RunningProjection};
use cim_persistence::server::{PrivateServer, ServerConfig};
use cim_persistence::{Context, NatsRepositoryConfig};

use crate::domain::{
    Balances, PATIENCE, config, expected, last, many_at_once, moves, options, stored,
};
use crate::test_server::TestServer;

async fn process(url: &str, context: String) -> Context {
    let config = NatsRepositoryConfig { context, patience_ms: 60_000, ..config() };
    let connection = Connection::connect(&ConnectionConfig::new(url)).await.unwrap();
    Context::provision(&connection, &config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn models_follow_commits_on_a_server() {
    let server = TestServer::start().await;
    let context = process(server.url(), server.name("bank")).await;
    many_at_once(&context, 500).await;
    let mut running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    let models = context.read_models().as_ref();
    assert_eq!(stored(models, 1).await, expected(&context, 1).await);
    for cents in 0..20 {
        let position = moves(&context, "a1", "a2", cents).await;
        Projections::of(&context).wait_for("balances", position, PATIENCE).await.unwrap();
    }
    assert_eq!(stored(models, 1).await, expected(&context, 1).await);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_made_anew_under_a_running_projection_stops_it() {
    let server = TestServer::start().await;
    let context = process(server.url(), server.name("bank")).await;
    many_at_once(&context, 20).await;
    let mut running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    // What was stored before is built; from here on the log is followed for those who read.
    moves(&context, "a1", "a2", 1).await;
    running.caught_up(PATIENCE).await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let stream = jetstream.get_stream(server.name("CIM-EVENTS-bank")).await.unwrap();
    let config = stream.cached_info().config.clone();
    jetstream.delete_stream(&config.name).await.unwrap();
    jetstream.create_stream(config).await.unwrap();
    many_at_once(&context, 30).await;
    // Nothing of the other log takes effect, and what to do is said.
    match running.caught_up(PATIENCE).await {
        Err(ProjectionError::LogTruncated { projection, position, .. }) => {
            assert_eq!((projection.as_str(), position), ("balances", 21));
        }
        other => panic!("{other:?}"),
    }
}

/// A run of 20,000 events, its runner killed fifty times and the server ten times: the models are byte for byte what a
/// rebuild without any of that gives.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_killed_runners_and_ten_restarts_change_nothing() {
    let mut server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let context = process(server.url(), "bank".to_owned()).await;
    many_at_once(&context, 10_000).await;
    let writer = {
        let context = context.clone();
        tokio::spawn(async move { many_at_once(&context, 10_000).await })
    };
    let other = process(server.url(), "bank".to_owned()).await;
    let mut running = None;
    for kill in 0..50_u64 {
        let process = if kill % 2 == 0 { &context } else { &other };
        // Dropped wherever it is: before a batch, in it, after it.
        running = Some(RunningProjection::start(process, Balances::<1>, options()).unwrap());
        tokio::time::sleep(Duration::from_millis(20 + kill * 13 % 90)).await;
        if kill % 5 == 4 {
            server.kill();
            server.restart().await.unwrap();
        }
    }
    writer.await.unwrap();
    let end = last(&context).await;
    Projections::of(&context).wait_for("balances", end, PATIENCE).await.unwrap();
    let models = context.read_models().as_ref();
    let survived = stored(models, 1).await;
    assert_eq!(survived, expected(&context, 1).await);
    Projections::of(&context).rebuild("balances").await.unwrap();
    crate::generations::until_generation(models, 2).await;
    assert_eq!(stored(models, 2).await, survived);
    drop(running);
}
