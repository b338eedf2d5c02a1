//! Clients that a service has connected itself: they are checked when a context is opened on them, and only then.

use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use cim_persistence::backend::nats::{Connection, provision, verify};
use cim_persistence::backend::{ConnectError, ConnectionConfig};
use cim_persistence::repository::RepositoryError;
use cim_persistence::store::{Context, NatsRepositoryConfig, StoreError};
use cim_persistence::{Aggregate, DomainEvent, Repository};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::support::{DURABLE, start};
use super::{PATIENCE, accepted, topology};

const NOT_CONNECTED: &str = "the client that was handed in is not connected yet; is a NATS server running, and is the \
                             client's URL right?";

fn sales() -> NatsRepositoryConfig {
    NatsRepositoryConfig::for_context("sales")
}

async fn client_of(url: &str, user: &str) -> Client {
    let options = ConnectOptions::with_user_and_password(user.to_owned(), user.to_owned());
    options.connect(url).await.unwrap()
}

/// A client that is handed out before it is connected.
async fn client_to_be(address: &str) -> Client {
    ConnectOptions::new().retry_on_initial_connect().connect(address).await.unwrap()
}

#[tokio::test]
async fn a_client_without_jetstream_is_told_what_to_do_when_a_context_is_opened() {
    const THEN: &str =
        "enable it for the server and the account, or correct the domain or API prefix";
    let without = start("").await;
    let server = start(DURABLE).await;
    for (client, detail) in [
        (async_nats::connect(without.url()).await.unwrap(), "nothing answers on $JS.API.INFO"),
        (client_of(server.url(), "plain").await, "JetStream not enabled for account (10039)"),
    ] {
        let wanted = format!("JetStream is not enabled: {detail}; {THEN}");
        let connection = Connection::from_client(client);
        for outcome in [
            Context::provision(&connection, &sales()).await,
            Context::open(&connection, &sales()).await,
        ] {
            let error = outcome.unwrap_err();
            assert!(matches!(error, StoreError::Connect(ConnectError::NoJetStream { .. })));
            assert_eq!(error.to_string(), wanted);
        }
    }
}

/// How many requests of an account JetStream has answered so far, with this one.
async fn answered(client: &Client) -> u64 {
    let answer = client.request("$JS.API.INFO", "".into()).await.unwrap();
    let info: Value = serde_json::from_slice(&answer.payload).unwrap();
    info["api"]["total"].as_u64().unwrap()
}

#[tokio::test]
async fn jetstream_is_asked_for_once_per_connection() {
    let server = start(DURABLE).await;
    let own = async_nats::connect(server.url()).await.unwrap();
    let streams = topology().streams().len() as u64;
    let connected = accepted(ConnectionConfig::new(server.url())).await;
    provision(&connected, &topology()).await.unwrap();
    let handed_in = Connection::from_client(own.clone());
    for (connection, questions) in [(&connected, 0), (&handed_in, 1), (&handed_in, 0)] {
        let before = answered(&own).await;
        Context::open(connection, &sales()).await.unwrap();
        assert_eq!(answered(&own).await - before, streams + questions + 1);
    }
}

/// What it may not ask looks like silence here, and the server's greeting has to do.
#[tokio::test]
async fn a_client_that_may_not_ask_for_jetstream_works_all_the_same() {
    let server = start(DURABLE).await;
    let app = accepted(ConnectionConfig::new(server.url())).await;
    provision(&app, &topology()).await.unwrap();
    let viewer = Connection::from_client(client_of(server.url(), "viewer").await);
    let viewer = viewer.with_timeout(Duration::from_millis(300));
    Context::open(&viewer, &sales()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_is_not_connected_is_not_taken_for_an_old_one() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = client_to_be(&address.to_string()).await;
    let connection = Connection::from_client(client).with_timeout(Duration::from_millis(100));
    let error = Context::open(&connection, &sales()).await.unwrap_err();
    assert!(matches!(error, StoreError::Connect(ConnectError::NotConnected)), "{error:?}");
    assert_eq!(error.to_string(), NOT_CONNECTED);
}

#[tokio::test]
async fn a_client_that_is_about_to_be_connected_is_waited_for() {
    let server = start(DURABLE).await;
    let upstream = server.url().trim_start_matches("nats://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client_to_be(&listener.local_addr().unwrap().to_string()).await;
    assert_eq!(client.server_info().version, "");
    let connection = Connection::from_client(client).with_timeout(PATIENCE);
    let config = sales();
    let opening = Context::provision(&connection, &config);
    // Nobody answers the client before the context is being opened.
    let serving = async {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(upstream).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    };
    tokio::select! {
        biased;
        outcome = timeout(PATIENCE, opening) => { outcome.unwrap().unwrap(); }
        () = serving => panic!("the connection is closed"),
    }
}

#[tokio::test]
async fn a_timeout_without_end_is_possible() {
    let server = start(DURABLE).await;
    let own = async_nats::connect(server.url()).await.unwrap();
    let own = Connection::from_client(own).with_timeout(Duration::MAX);
    Context::provision(&own, &sales()).await.unwrap();
    let config = ConnectionConfig::new(server.url()).request_timeout(Duration::MAX);
    verify(&accepted(config).await, &topology()).await.unwrap();
}

#[derive(Clone, Serialize, Deserialize)]
struct Order(String);

#[derive(Serialize, Deserialize)]
struct Placed;

impl DomainEvent for Placed {
    fn event_type(&self) -> &'static str {
        "placed"
    }
}

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Id = String;
    type Event = Placed;
    fn new(id: &String) -> Self {
        Self(id.clone())
    }
    fn id(&self) -> &String {
        &self.0
    }
    fn apply(&mut self, _: &Placed) {}
}

#[tokio::test]
async fn a_repository_on_a_client_without_jetstream_is_refused_like_a_connection() {
    let without = start("").await;
    let client = async_nats::connect(without.url()).await.unwrap();
    let outcome = Repository::<Order>::new(client, sales(), "order".to_owned()).await;
    let error = outcome.err().unwrap();
    let of_store = matches!(
        error,
        RepositoryError::Store(StoreError::Connect(ConnectError::NoJetStream { .. }))
    );
    assert!(of_store, "{error:?}");
}
