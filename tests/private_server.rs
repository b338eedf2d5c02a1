//! What `server` promises: servers that need no installation, are ready when they are handed over,
//! keep what they acknowledged, and are gone when nobody holds them. Where their binary comes from is in
//! `server_binary`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream};
use cim_persistence::server::{Node, PrivateCluster, PrivateServer, Server, ServerConfig};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_started_server_takes_and_returns_a_message_at_once() {
    for config in [ServerConfig::Dev, ServerConfig::Single, ServerConfig::DefaultSync] {
        let server = PrivateServer::start(config).await.unwrap();
        let store = context(server.url()).await;
        make_stream(&store, 1).await;
        assert_eq!(publish(&store, "kept").await, 1, "{config:?}");
        assert_eq!(read(&store, 1).await, "kept", "{config:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_started_at_once_differ_in_port_and_data() {
    let start = || tokio::spawn(PrivateServer::start(ServerConfig::Dev));
    let (one, two) = futures::try_join!(start(), start()).unwrap();
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.url(), two.url());
    make_stream(&context(one.url()).await, 1).await;
    let names: Vec<_> = context(two.url()).await.stream_names().collect().await;
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn the_credentials_of_an_external_server_are_not_shown() {
    for (url, shown) in [
        ("nats://ann:hunter2@host:4222", "nats://***@host:4222"),
        ("nats://ann:hunter2", "nats://***"),
        ("nats://hunter2@a:1,nats://b:2", "nats://***"),
        ("nats://ann:hun,hunter2@b:2", "nats://***@b:2"),
        ("host", "host"),
    ] {
        let server = Server::External { url: url.to_owned() };
        assert_eq!(format!("{server:?}"), format!("External {{ url: {shown:?} }}"));
        assert_eq!(server.url(), url);
    }
}

#[tokio::test]
async fn a_dropped_server_is_gone() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let (url, pid) = (server.url().to_owned(), server.pid().unwrap());
    drop(server);
    assert_gone(&url, pid);
}

#[test]
fn a_server_is_gone_when_its_program_panics() {
    let (send, receive) = std::sync::mpsc::channel();
    let program = std::thread::spawn(move || {
        runtime().block_on(async {
            let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
            send.send((server.url().to_owned(), server.pid().unwrap())).unwrap();
            panic!("on purpose");
        })
    });
    assert!(program.join().is_err());
    let (url, pid) = receive.recv().unwrap();
    assert_gone(&url, pid);
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_a_stop() {
    let mut server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let (url, pid) = (server.url().to_owned(), server.pid().unwrap());
    let store = context(&url).await;
    make_stream(&store, 1).await;
    assert_eq!(publish(&store, "before the kill").await, 1);

    server.kill();
    assert_eq!(server.pid(), None);
    assert_gone(&url, pid);
    server.restart().await.unwrap();
    assert_eq!(server.url(), url);
    let store = context(&url).await;
    assert_eq!(read(&store, 1).await, "before the kill");
    assert_eq!(publish(&store, "before the stop").await, 2);

    let pid = server.pid().unwrap();
    server.stop().await;
    assert_gone(&url, pid);
    server.restart().await.unwrap();
    assert_eq!(read(&context(&url).await, 2).await, "before the stop");
}

#[tokio::test]
async fn a_restart_replaces_a_running_server() {
    let mut server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let first = server.pid().unwrap();
    server.restart().await.unwrap();
    assert_ne!(server.pid().unwrap(), first);
    make_stream(&context(server.url()).await, 1).await;
}

#[tokio::test]
async fn a_taken_port_is_said_to_be_taken() {
    let mut server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    server.kill();
    let _other = std::net::TcpListener::bind(address(server.url())).unwrap();
    let error = server.restart().await.unwrap_err().to_string();
    let expected =
        "a port of nats-server was taken by another process: try again; the end of its log:\n";
    assert!(error.starts_with(expected), "{error}");
    assert!(error.contains("address already in use"), "{error}");
}

#[tokio::test]
async fn a_client_learns_whether_a_server_is_durable() {
    for (config, name, durable) in [
        (ServerConfig::Dev, "cim-dev", true),
        (ServerConfig::Single, "cim-single", true),
        (ServerConfig::DefaultSync, "cim-default-sync", false),
    ] {
        let server = PrivateServer::start(config).await.unwrap();
        let expected = BTreeMap::from([(name.to_owned(), durable)]);
        assert_eq!(durability(server.url(), 1).await, expected);
    }
}

#[tokio::test]
async fn a_cluster_outlives_the_leader_of_a_stream() {
    let mut cluster = PrivateCluster::start().await.unwrap();
    let durable = Node::ALL.map(|node| (node.server_name().to_owned(), true));
    for url in cluster.urls() {
        assert_eq!(durability(url, 3).await, BTreeMap::from(durable.clone()));
    }
    let store = context(cluster.url(Node::One)).await;
    make_stream(&store, 3).await;
    assert_eq!(publish(&store, "before").await, 1);

    let leader = leader(&store).await;
    let (url, pid) = (cluster.url(leader).to_owned(), cluster.pid(leader).unwrap());
    cluster.kill(leader);
    assert_gone(&url, pid);
    let other = Node::ALL.into_iter().find(|node| *node != leader).unwrap();
    let survivor = context(cluster.url(other)).await;
    assert_eq!(read(&survivor, 1).await, "before");
    assert_eq!(publish(&survivor, "meanwhile").await, 2);

    cluster.restart(leader).await.unwrap();
    let back = context(&url).await;
    assert_eq!(read(&back, 2).await, "meanwhile");
    assert_eq!(publish(&back, "after").await, 3);
}

#[tokio::test]
async fn a_cluster_comes_back_from_the_loss_of_all_its_servers() {
    let mut cluster = PrivateCluster::start().await.unwrap();
    let store = context(cluster.url(Node::Two)).await;
    make_stream(&store, 3).await;
    assert_eq!(publish(&store, "on three disks").await, 1);
    let before = cluster.urls().clone();
    for node in Node::ALL {
        cluster.kill(node);
    }
    for node in Node::ALL {
        cluster.restart(node).await.unwrap();
    }
    assert_eq!(cluster.urls(), &before);
    for url in cluster.urls() {
        assert_eq!(read(&context(url).await, 1).await, "on three disks");
    }
}

async fn context(url: &str) -> jetstream::Context {
    jetstream::new(async_nats::connect(url).await.unwrap())
}

async fn make_stream(store: &jetstream::Context, replicas: usize) {
    let config = stream::Config {
        name: "PROMISES".to_owned(),
        subjects: vec!["promises.>".to_owned()],
        num_replicas: replicas,
        ..Default::default()
    };
    store.create_stream(config).await.unwrap();
}

async fn leader(store: &jetstream::Context) -> Node {
    let mut stream = store.get_stream("PROMISES").await.unwrap();
    let cluster = stream.info().await.unwrap().cluster.clone().unwrap();
    let is_leader = |node: &Node| cluster.leader.as_deref() == Some(node.server_name());
    Node::ALL.into_iter().find(is_leader).unwrap()
}

/// Publishes until it is acknowledged, as one must while a cluster elects; one message id makes the
/// repetitions one message.
async fn publish(store: &jetstream::Context, text: &str) -> u64 {
    let deadline = Instant::now() + SOON;
    loop {
        let message = jetstream::message::PublishMessage::build()
            .message_id(text)
            .payload(text.to_owned().into());
        let sent = store.send_publish("promises.one", message).await.unwrap();
        match timeout(Duration::from_secs(1), sent).await {
            Ok(Ok(ack)) => return ack.sequence,
            refused => assert!(Instant::now() < deadline, "{text}: {refused:?}"),
        }
    }
}

/// Reads, repeating the question while a cluster elects.
async fn read(store: &jetstream::Context, sequence: u64) -> String {
    let deadline = Instant::now() + SOON;
    loop {
        let message = async {
            let stream = store.get_stream("PROMISES").await.ok()?;
            stream.get_raw_message(sequence).await.ok()
        };
        if let Ok(Some(message)) = timeout(Duration::from_secs(1), message).await {
            return String::from_utf8(message.payload.to_vec()).unwrap();
        }
        assert!(Instant::now() < deadline, "message {sequence} is not there");
    }
}

/// What each server says of its syncing to an ordinary client: (name, whether every write is synced). A young cluster may
/// not know everywhere where answers are wanted, so it is asked again.
async fn durability(url: &str, servers: usize) -> BTreeMap<String, bool> {
    let client = async_nats::connect(url).await.unwrap();
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    let mut said = BTreeMap::new();
    let asked = async {
        while said.len() < servers {
            let question = json!({ "config": true }).to_string().into();
            let asked =
                client.publish_with_reply("$SYS.REQ.SERVER.PING.JSZ", inbox.clone(), question);
            asked.await.unwrap();
            while said.len() < servers
                && let Ok(Some(message)) = timeout(Duration::from_secs(1), answers.next()).await
            {
                let answer: Value = serde_json::from_slice(&message.payload).unwrap();
                let synced = answer["data"]["config"]["sync_always"] == true;
                said.insert(answer["server"]["name"].as_str().unwrap().to_owned(), synced);
            }
        }
    };
    timeout(SOON, asked).await.unwrap();
    said
}

fn address(url: &str) -> SocketAddr {
    url.strip_prefix("nats://").unwrap().parse().unwrap()
}

fn assert_gone(url: &str, pid: u32) {
    assert!(TcpStream::connect(address(url)).is_err(), "{url} still listens");
    if cfg!(target_os = "linux") {
        let process = format!("/proc/{pid}");
        assert!(!Path::new(&process).exists(), "{process} still runs");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
