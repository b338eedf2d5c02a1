//! Connecting to real servers: every way in and every refusal with its exact text. Credentials files that let somebody
//! in are in `creds`, TLS is in `tls`, that no secret is shown in `secrets`, clients that a service hands in are in
//! `handed_in`, answers that a real server gives only now and then in `answers`.
#![allow(clippy::unwrap_used)]

mod answers;
mod creds;
mod handed_in;
mod name;
mod secrets;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod traces;

use std::time::Duration;

use cim_persistence::backend::nats::{Connection, verify};
use cim_persistence::backend::{
    BackendError, ConnectError, ConnectionConfig, Durability, DurabilityReport, Guard,
    JetStreamLocation, NewMessage, Replicas, Topology, TopologyError,
};
use cim_persistence::event::{Headers, NonEmpty};
use cim_persistence::event_log::{EventLog, NatsLog};
use cim_persistence::server::{Node, PrivateCluster, PrivateServer, ServerConfig};
use cim_persistence::store::{Context, NatsRepositoryConfig, StoreError};
use cim_persistence::subject::{AggregateId, AggregateType, ContextName, Names, SubjectScheme};
use support::{DURABLE, start, url_of};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Longer than anything here takes; only to end a test that hangs.
const PATIENCE: Duration = Duration::from_secs(20);

async fn refused(config: ConnectionConfig) -> ConnectError {
    let outcome = timeout(PATIENCE, Connection::connect(&config)).await.expect("it must not hang");
    outcome.expect_err("it must be refused")
}

async fn accepted(config: ConnectionConfig) -> Connection {
    let outcome = timeout(PATIENCE, Connection::connect(&config)).await.expect("it must not hang");
    outcome.expect("it must be accepted")
}

fn required(url: impl Into<secrecy::SecretString>) -> ConnectionConfig {
    ConnectionConfig::new(url).durability(Durability::Required)
}

fn scheme() -> SubjectScheme {
    SubjectScheme::new(ContextName::new("sales").unwrap(), "cim.events", "cim.aggregates").unwrap()
}

fn topology() -> Topology {
    let scheme = scheme();
    Topology::new(&scheme, &Names::of(scheme.context()), Replicas::One).unwrap()
}

#[tokio::test]
async fn a_durable_server_is_accepted_where_durability_is_required() {
    let server = start(DURABLE).await;
    let connection = accepted(required(server.url())).await;
    assert_eq!(connection.durability().await, DurabilityReport::Durable);
    let own = async_nats::connect(server.url()).await.unwrap();
    assert_eq!(Connection::from_client(own).durability().await, DurabilityReport::Durable);
}

#[tokio::test]
async fn the_settings_in_nats_config_are_told_apart() {
    let single = PrivateServer::start(ServerConfig::Single).await.unwrap();
    accepted(required(single.url())).await;
    let cluster = PrivateCluster::start().await.unwrap();
    accepted(required(cluster.url(Node::Two))).await;
    let loose = PrivateServer::start(ServerConfig::DefaultSync).await.unwrap();
    let error = refused(required(loose.url())).await;
    assert!(matches!(error, ConnectError::NotDurable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_of_a_cluster_that_is_silent_leaves_durability_unknown() {
    let mut cluster = PrivateCluster::start().await.unwrap();
    let config = ConnectionConfig::new(cluster.url(Node::One));
    let connection = accepted(config.request_timeout(Duration::from_secs(1))).await;
    assert_eq!(connection.durability().await, DurabilityReport::Durable);
    cluster.kill(Node::Three);
    let reason = "2 of 3 JetStream servers answered on $SYS.REQ.SERVER.PING.JSZ; start the others or remove them from \
                  the cluster";
    assert_eq!(
        connection.durability().await,
        DurabilityReport::Unverified { reason: reason.to_owned() }
    );
}

#[tokio::test]
async fn a_server_that_syncs_now_and_then_is_refused_or_reported() {
    let config = DURABLE.replace("sync_interval: always", "");
    let server = start(&format!("server_name: loose\n{config}")).await;
    assert_eq!(
        refused(required(server.url())).await.to_string(),
        "acknowledged writes are not durable: server loose syncs every 120s; set `sync_interval: always` in the server's \
         jetstream block"
    );
    traces::start();
    accepted(ConnectionConfig::new(server.url())).await;
    assert!(
        traces::captured()
            .contains("acknowledged writes are not durable: server loose syncs every 120s")
    );
}

/// A client that was handed in, and a context on it.
async fn opened(url: &str, durability: Durability) -> Result<Context, StoreError> {
    let client = async_nats::connect(url).await.unwrap();
    let config = NatsRepositoryConfig { durability, ..NatsRepositoryConfig::for_context("sales") };
    Context::provision(&Connection::from_client(client), &config).await
}

#[tokio::test]
async fn a_client_of_the_services_own_is_refused_or_reported_when_a_context_is_opened() {
    let durable = PrivateServer::start(ServerConfig::Single).await.unwrap();
    opened(durable.url(), Durability::Required).await.unwrap();
    let loose = DURABLE.replace("sync_interval: always", "");
    let loose = start(&format!("server_name: handed_in\n{loose}")).await;
    assert_eq!(
        opened(loose.url(), Durability::Required).await.unwrap_err().to_string(),
        "acknowledged writes are not durable: server handed_in syncs every 120s; set `sync_interval: always` in the \
         server's jetstream block"
    );
    let client = async_nats::connect(loose.url()).await.unwrap();
    let error = verify(&Connection::from_client(client), &topology()).await.unwrap_err();
    assert!(matches!(error, TopologyError::Missing { .. }), "nothing is made then: {error:?}");
    traces::start();
    opened(loose.url(), Durability::Reported).await.unwrap();
    assert!(
        traces::captured()
            .contains("acknowledged writes are not durable: server handed_in syncs every 120s")
    );
}

/// Who accepted late syncing for a connection may still require the opposite of a context.
#[tokio::test]
async fn a_context_may_require_more_than_its_connection() {
    let config = DURABLE.replace("sync_interval: always", "");
    let server = start(&config).await;
    let connection = accepted(ConnectionConfig::new(server.url())).await;
    let sales = NatsRepositoryConfig::for_context("sales");
    let strict = NatsRepositoryConfig { durability: Durability::Required, ..sales.clone() };
    let error = Context::provision(&connection, &strict).await.unwrap_err();
    assert!(matches!(error, StoreError::Connect(ConnectError::NotDurable { .. })), "{error:?}");
    Context::provision(&connection, &sales).await.unwrap();
}

#[tokio::test]
async fn durability_that_cannot_be_verified_is_refused_or_reported() {
    let alone = start("jetstream { store_dir: $CIM_STORE_DIR, sync_interval: always }").await;
    assert_eq!(
        refused(required(alone.url())).await.to_string(),
        "whether acknowledged writes are durable cannot be verified: nothing answers on $SYS.REQ.SERVER.PING.JSZ; export \
         that service from the system account with `response: stream` and import it into this account"
    );
    accepted(ConnectionConfig::new(alone.url())).await;
    let server = start(DURABLE).await;
    assert_eq!(
        refused(required(url_of(&server, "viewer:viewer"))).await.to_string(),
        "whether acknowledged writes are durable cannot be verified: Permissions Violation for Publish to \
         \"$SYS.REQ.SERVER.PING.JSZ\"; allow this user to publish to $SYS.REQ.SERVER.PING.JSZ and to receive answers"
    );
    accepted(ConnectionConfig::new(url_of(&server, "viewer:viewer"))).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_refused_at_once() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = ConnectionConfig::new(format!("nats://ann:hunter2@{address}"));
    assert_eq!(
        refused(config).await.to_string(),
        format!(
            "no NATS server can be reached at nats://{address}; is it running, and is the URL right?"
        )
    );
    let server = start(DURABLE).await;
    accepted(ConnectionConfig::new(format!("nats://{address}")).url(server.url())).await;
}

#[tokio::test]
async fn a_first_connection_is_retried_where_that_is_configured() {
    let server = start(DURABLE).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = server.url().trim_start_matches("nats://").to_owned();
    tokio::spawn(async move {
        for _ in 0..2 {
            drop(listener.accept().await.unwrap());
        }
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(upstream).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let config = required(format!("nats://{address}")).retry_on_initial_connect(true);
    accepted(config).await;
}

#[tokio::test]
async fn a_refusal_is_not_retried() {
    let server = start(DURABLE).await;
    let config =
        ConnectionConfig::new(url_of(&server, "app:hunter2")).retry_on_initial_connect(true);
    assert_eq!(
        refused(config).await.to_string(),
        format!(
            "the NATS server at {} refuses to authorize user \"app\"; check the credentials",
            server.url()
        )
    );
}

#[tokio::test]
async fn every_kind_of_identity_gets_in_and_a_wrong_one_does_not() {
    let user = nkeys::KeyPair::new_user();
    let other = nkeys::KeyPair::new_user();
    let seed = user.seed().unwrap();
    let users = format!("authorization {{ users: [{{nkey: {}}}] }}", user.public_key());
    let nkey = start(&format!("jetstream {{ store_dir: $CIM_STORE_DIR }}\n{users}")).await;
    accepted(ConnectionConfig::new(nkey.url()).nkey(seed)).await;
    assert_eq!(
        refused(ConnectionConfig::new(nkey.url()).nkey(other.seed().unwrap())).await.to_string(),
        format!(
            "the NATS server at {} refuses to authorize the nkey; check the credentials",
            nkey.url()
        )
    );
    let damaged = format!("SU{}", "A".repeat(56));
    assert_eq!(
        refused(ConnectionConfig::new(nkey.url()).nkey(damaged)).await.to_string(),
        "the nkey seed cannot be used; a user's seed starts with SU and has 58 characters of A-Z and 2-7"
    );

    let token =
        start("jetstream { store_dir: $CIM_STORE_DIR }\nauthorization { token: hunter2 }").await;
    accepted(ConnectionConfig::new(token.url()).token("hunter2")).await;
    accepted(ConnectionConfig::new(url_of(&token, "hunter2"))).await;
    for (config, who) in [
        (ConnectionConfig::new(token.url()).token("hunter3"), "the token"),
        (ConnectionConfig::new(token.url()), "a client without credentials"),
    ] {
        assert_eq!(
            refused(config).await.to_string(),
            format!(
                "the NATS server at {} refuses to authorize {who}; check the credentials",
                token.url()
            )
        );
    }

    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("x.creds");
    std::fs::write(&path, "hunter2").unwrap();
    assert_eq!(
        refused(ConnectionConfig::new(token.url()).credentials_file(&path)).await.to_string(),
        format!(
            "{} is not a credentials file: it must hold a user JWT and its nkey seed",
            path.display()
        )
    );
    assert_eq!(
        refused(ConnectionConfig::new(token.url()).credentials_file("no/such.creds"))
            .await
            .to_string(),
        "credentials file no/such.creds cannot be read; check its path and its permissions"
    );
}

#[tokio::test]
async fn an_old_server_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let info = r#"{"server_id":"x","version":"2.12.4","headers":true,"max_payload":1048576,"jetstream":true}"#;
        socket.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        let (read, mut write) = socket.split();
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line == "PING" {
                write.write_all(b"PONG\r\n").await.unwrap();
            }
        }
    });
    assert_eq!(
        refused(ConnectionConfig::new(format!("nats://{address}"))).await.to_string(),
        "nats-server 2.12.4 is too old; upgrade every server to 2.15.1 or later"
    );
}

#[tokio::test]
async fn jetstream_must_be_there() {
    const THEN: &str =
        "enable it for the server and the account, or correct the domain or API prefix";
    let without = start("").await;
    assert_eq!(
        refused(ConnectionConfig::new(without.url())).await.to_string(),
        format!("JetStream is not enabled: nothing answers on $JS.API.INFO; {THEN}")
    );
    let server = start(DURABLE).await;
    assert_eq!(
        refused(ConnectionConfig::new(url_of(&server, "plain:plain"))).await.to_string(),
        format!("JetStream is not enabled: JetStream not enabled for account (10039); {THEN}")
    );
    let hub = JetStreamLocation::Domain("hub".into());
    assert_eq!(
        refused(ConnectionConfig::new(server.url()).jetstream(hub.clone())).await.to_string(),
        format!("JetStream is not enabled: nothing answers on $JS.hub.API.INFO; {THEN}")
    );
    let there = start(&DURABLE.replace("jetstream {", "jetstream { domain: hub,")).await;
    accepted(required(there.url()).jetstream(hub.clone())).await;
    let prefix = JetStreamLocation::ApiPrefix("$JS.hub.API".into());
    accepted(required(there.url()).jetstream(prefix)).await;
    let own = async_nats::connect(there.url()).await.unwrap();
    let own = Connection::from_client(own).with_jetstream(hub).unwrap();
    let missing = verify(&own, &topology()).await.unwrap_err();
    assert!(matches!(missing, TopologyError::Missing { .. }), "{missing:?}");
    let wrong = own.with_jetstream(JetStreamLocation::Domain("a b".into())).unwrap_err();
    assert!(wrong.to_string().starts_with("JetStream domain \"a b\" cannot stand in a subject"));
}

fn message(order: &str) -> NewMessage {
    let subject = scheme()
        .events_of(&AggregateType::new("order").unwrap(), &AggregateId::new(order).unwrap());
    let payload = bytes::Bytes::from_static(b"x");
    NewMessage { subject, headers: Headers::new(), payload, guard: Guard::Free }
}

#[tokio::test]
async fn a_refused_permission_is_said_at_once() {
    let server = start(DURABLE).await;
    let app = accepted(ConnectionConfig::new(server.url())).await;
    cim_persistence::backend::nats::provision(&app, &topology()).await.unwrap();

    // The request would time out after PATIENCE * 2; `timeout` ends the test before.
    let config =
        ConnectionConfig::new(url_of(&server, "viewer:viewer")).request_timeout(PATIENCE * 2);
    let viewer = accepted(config).await;
    let log = NatsLog::open(&viewer, "CIM-EVENTS-sales").await.unwrap();
    let error = timeout(PATIENCE, log.publish(message("42"))).await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "permission denied on cim.events.sales.order.42: Permissions Violation for Publish to \
         \"cim.events.sales.order.42\"; grant it to this user"
    );
    assert_eq!(
        NatsLog::open(&app, "CIM-EVENTS-sales").await.unwrap().status().await.unwrap().messages,
        0
    );
}

#[tokio::test]
async fn a_batch_with_a_refused_message_stores_nothing_and_is_denied() {
    let server = start(DURABLE).await;
    let app = accepted(ConnectionConfig::new(server.url())).await;
    cim_persistence::backend::nats::provision(&app, &topology()).await.unwrap();
    let clerk = accepted(ConnectionConfig::new(url_of(&server, "clerk:clerk"))).await;
    let log = NatsLog::open(&clerk, "CIM-EVENTS-sales").await.unwrap();
    let batch = || NonEmpty::from([message("1"), message("2"), message("1")]);
    // The refusal travels beside the answer: the first attempt may be too early to know of it, the second is not.
    let mut error = log.publish_batch(batch()).await.unwrap_err();
    if matches!(error, BackendError::Unknown { .. }) {
        error = log.publish_batch(batch()).await.unwrap_err();
    }
    assert_eq!(
        error.to_string(),
        "permission denied on cim.events.sales.order.2: Permissions Violation for Publish to \
         \"cim.events.sales.order.2\"; grant it to this user"
    );
    assert_eq!(log.status().await.unwrap().messages, 0);
    log.publish(message("1")).await.unwrap();
}

#[tokio::test]
async fn whoever_may_not_receive_answers_is_told_so() {
    let server = start(DURABLE).await;
    let config = ConnectionConfig::new(url_of(&server, "mute:mute")).request_timeout(PATIENCE * 2);
    let mute = accepted(config.clone()).await;
    let error = timeout(PATIENCE, NatsLog::open(&mute, "X")).await.unwrap().unwrap_err();
    let BackendError::Denied { subject, detail } = error else { panic!("{error:?}") };
    assert_eq!(subject, "$JS.API.STREAM.INFO.X");
    assert!(detail.starts_with("Permissions Violation for Subscription to \"_INBOX."), "{detail}");

    let boxed = |prefix: &str| required(url_of(&server, "boxed:boxed")).inbox_prefix(prefix);
    accepted(boxed("_BOX")).await;
    let error = refused(boxed("_OTHER").request_timeout(PATIENCE * 2)).await.to_string();
    assert!(error.contains("Permissions Violation for Subscription to \"_OTHER."), "{error}");
}

#[tokio::test]
async fn a_client_of_the_services_own_sees_a_refusal_as_silence() {
    let server = start(DURABLE).await;
    let app = accepted(ConnectionConfig::new(server.url())).await;
    cim_persistence::backend::nats::provision(&app, &topology()).await.unwrap();
    let options =
        async_nats::ConnectOptions::with_user_and_password("viewer".into(), "viewer".into());
    let own = options.connect(server.url()).await.unwrap();
    let own = Connection::from_client(own).with_timeout(Duration::from_millis(300));
    let log = NatsLog::open(&own, "CIM-EVENTS-sales").await.unwrap();
    let error = log.publish(message("42")).await.unwrap_err();
    assert!(matches!(error, BackendError::Unknown { .. }), "{error:?}");
}
