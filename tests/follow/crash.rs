//! Servers that end while they are followed, and consumers that vanish.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cim_persistence::backend::nats::Connection;
use cim_persistence::backend::{Position, Start};
use cim_persistence::clock::Timestamp;
use cim_persistence::event::NonEmpty;
use cim_persistence::event_log::EventLog;
use cim_persistence::server::{Node, PrivateCluster, PrivateServer, ServerConfig};
use cim_persistence::state::{Change, Expected, Key, KeyValue, KeyWrite, NatsKeyValue, Watched};
use cim_persistence::subject::Pattern;
use futures::StreamExt;
use tokio::time::timeout;

use crate::bench::{Bench, LONG, ONE_CLUSTER, connect, progress};
use crate::test_server::TestServer;

const BEGINNING: Start = Start::After(Position::START);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_costs_nothing() {
    let mut server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let bench = Bench::start(&[server.url()], 1).await;
    bench.fill(3000).await;
    let (stop, stored, seen) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut follower = bench.follow(BEGINNING);
    // These are not polled any more once they are caught up, until it is over.
    let mut idle = Vec::new();
    for start in [Start::Latest, Start::Now, Start::Since(Timestamp::from_micros(0))] {
        let mut follower = bench.follow(start);
        follower.past().await;
        idle.push((follower, if start == Start::Now { 3000 } else { 0 }));
    }
    let crashing = async {
        for _ in 0..5 {
            progress(&stored, 300).await;
            progress(&seen, 300).await;
            server.kill();
            server.restart().await.unwrap();
        }
        progress(&stored, 300).await;
        stop.store(true, Ordering::SeqCst);
    };
    let following = async {
        while !stop.load(Ordering::SeqCst) {
            assert!(follower.step().await.is_none());
            seen.fetch_add(1, Ordering::SeqCst);
        }
    };
    futures::join!(bench.write(&stop, &stored), following, crashing);
    let all = bench.all().await;
    follower.saw_exactly(&all).await;
    for (mut follower, skipped) in idle {
        follower.saw_exactly(&all[skipped..]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_under_load_costs_nothing() {
    let _alone = ONE_CLUSTER.lock().await;
    let mut cluster = PrivateCluster::start().await.unwrap();
    let urls = cluster.urls().clone();
    let urls = urls.each_ref().map(String::as_str);
    let bench = Bench::start(&urls, 3).await;
    bench.fill(1000).await;
    let (stop, stored) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut followers: Vec<_> = (0..4).map(|_| bench.follow(BEGINNING)).collect();
    let crashing = async {
        for round in 0..3 {
            progress(&stored, 200).await;
            let leader = bench.leader().await;
            let leads = |node: &Node| node.server_name() == leader;
            // Twice the leader, and once a server that only follows.
            let node = Node::ALL.into_iter().find(|node| leads(node) == (round != 1)).unwrap();
            cluster.kill(node);
            progress(&stored, 200).await;
            cluster.restart(node).await.unwrap();
        }
        progress(&stored, 200).await;
        stop.store(true, Ordering::SeqCst);
    };
    let following = futures::future::join_all(followers.iter_mut().map(async |follower| {
        while !stop.load(Ordering::SeqCst) {
            assert!(follower.step().await.is_none());
        }
    }));
    futures::join!(bench.write(&stop, &stored), following, crashing);
    let all = bench.all().await;
    for follower in &mut followers {
        follower.saw_exactly(&all).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_and_a_deleted_consumer_cost_nothing() {
    let _alone = ONE_CLUSTER.lock().await;
    let cluster = PrivateCluster::start().await.unwrap();
    let urls = cluster.urls().each_ref().map(String::as_str);
    let bench = Bench::start(&urls, 3).await;
    bench.fill(500).await;
    let (stop, stored) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut follower = bench.follow(BEGINNING);
    let disturbing = async {
        for round in 0..6 {
            progress(&stored, 100).await;
            match round % 2 {
                0 => {
                    let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{}", bench.name);
                    bench.jetstream.client().request(subject, "".into()).await.unwrap();
                }
                _ => bench.delete_consumers().await,
            }
        }
        progress(&stored, 100).await;
        stop.store(true, Ordering::SeqCst);
    };
    let following = async {
        while !stop.load(Ordering::SeqCst) {
            assert!(follower.step().await.is_none());
        }
    };
    futures::join!(bench.write(&stop, &stored), following, disturbing);
    follower.saw_exactly(&bench.all().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_comes_before_caught_up_on_three_servers() {
    let _alone = ONE_CLUSTER.lock().await;
    let cluster = PrivateCluster::start().await.unwrap();
    let urls = cluster.urls().each_ref().map(String::as_str);
    let bench = Bench::start(&urls, 3).await;
    for round in 1..=30 {
        bench.fill(20).await;
        for start in [BEGINNING, Start::Latest] {
            let mut follower = bench.follow(start);
            follower.past().await;
            let last = follower.seen.last().map(|message| message.position.get());
            assert_eq!(last, Some(round * 20), "from {start:?}");
        }
    }
}

#[tokio::test]
async fn messages_lost_on_the_way_are_fetched_again() {
    let server = TestServer::start().await;
    let bench = Bench::on(&server).await;
    bench.fill(4000).await;
    // The client drops what it has no room for.
    let options = async_nats::ConnectOptions::new().subscription_capacity(100);
    let client = options.connect(server.url()).await.unwrap();
    let small = bench.through(&Connection::from_client(client)).await;
    let mut follower = small.follow(BEGINNING);
    follower.saw_exactly(&bench.all().await).await;
}

#[tokio::test]
async fn a_sweep_that_is_interrupted_goes_on() {
    let server = TestServer::start().await;
    let bench = Bench::on(&server).await;
    bench.fill(4000).await;
    bench.fill(4000).await;
    let mut follower = bench.follow(Start::Latest);
    follower.until(100).await;
    bench.delete_consumers().await;
    // Two messages on the last subject: what is stored from now on comes whole.
    for payload in ["first", "second"] {
        bench.log.publish(bench.message(3999, payload)).await.unwrap();
    }
    follower.until(4001).await;
    let seen: Vec<u64> = follower.seen.iter().map(|message| message.position.get()).collect();
    let wanted: Vec<u64> = (4001..8000).chain([8001, 8002]).collect();
    assert!(seen == wanted, "{} messages end with {:?}", seen.len(), &seen[seen.len() - 4..]);
    assert_eq!(follower.caught_up, 1);
}

#[tokio::test]
async fn keys_changed_while_disconnected_come_with_their_last_change() {
    let mut server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let bench = Bench::start(&[server.url()], 1).await;
    let settings =
        async_nats::jetstream::kv::Config { bucket: "follow".into(), ..Default::default() };
    bench.jetstream.create_key_value(settings).await.unwrap();
    let bucket = async |url: &str| {
        let connection = Connection::from_client(connect(&[url]).await);
        NatsKeyValue::open(&connection, "follow").await.unwrap()
    };
    let (writer, reader) = (bucket(server.url()).await, bucket(server.url()).await);
    let change = async |name: &str, change: Change| {
        let write = KeyWrite::new(Key::new(name).unwrap(), change, Expected::Anything);
        // The connection of the writer may still be on its way back.
        let written = async {
            loop {
                match writer.write(NonEmpty::one(write.clone())).await {
                    Ok(revisions) => return revisions[0],
                    Err(error) => assert!(error.is_transient(), "{error:?}"),
                }
            }
        };
        timeout(LONG, written).await.unwrap()
    };
    for name in ["a", "b", "c"] {
        change(name, Change::Put("old".into())).await;
    }
    let everything = NonEmpty::one(Pattern::parse(">").unwrap());
    let mut watching = reader.watch(everything, Start::Latest);
    let mut next = async || timeout(LONG, watching.next()).await.unwrap().unwrap().unwrap();
    while next().await != Watched::CaughtUp {}
    server.kill();
    server.restart().await.unwrap();
    let mut wanted = Vec::new();
    for round in 0..20 {
        let a = change("a", Change::Put(round.to_string().into())).await;
        let b = change("b", Change::Delete).await;
        wanted = vec![("a", a, true), ("b", b, false)];
    }
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let Watched::Entry(entry) = next().await else { panic!("caught up twice") };
        seen.push((entry.key, entry.revision, entry.value.is_some()));
    }
    let seen: Vec<_> = seen.iter().map(|(k, r, v)| (k.as_str(), *r, *v)).collect();
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn a_deleted_consumer_is_noticed() {
    let server = TestServer::start().await;
    let bench = Bench::on(&server).await;
    let mut follower = bench.follow(BEGINNING);
    follower.past().await;
    bench.delete_consumers().await;
    let position = bench.log.publish(bench.message(1, "x")).await.unwrap();
    timeout(LONG, follower.until(1)).await.expect("it is noticed");
    assert_eq!(follower.seen[0].position, position);
}

/// The connection is sound, the stream takes messages, and the consumer says nothing at all any more.
#[cfg(unix)]
#[tokio::test]
async fn a_consumer_that_falls_silent_is_noticed() {
    let _alone = ONE_CLUSTER.lock().await;
    let cluster = PrivateCluster::start().await.unwrap();
    let bench = Bench::start(&[cluster.url(Node::One)], 3).await;
    bench.fill(10).await;
    let (stream, leader) = (bench.stream().await, bench.leader().await);
    // Where a consumer lives is up to the servers. It is wanted where nobody else depends on it.
    let (mut follower, node) = loop {
        let mut follower = bench.follow(BEGINNING);
        follower.past().await;
        let [name] = bench.consumers().await.try_into().unwrap();
        let home = stream.consumer_info(&name).await.unwrap().cluster.unwrap().leader;
        let node = Node::ALL.into_iter().find(|node| home.as_deref() == Some(node.server_name()));
        if node != Some(Node::One) && home.as_deref() != Some(leader.as_str()) {
            break (follower, node.unwrap());
        }
        drop(follower);
        bench.until_no_consumer_is_left().await;
    };
    let signal = |name: &str| {
        let pid = cluster.pid(node).unwrap().to_string();
        assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    signal("-STOP");
    let stored = bench.log.publish(bench.message(1, "x")).await.unwrap();
    let noticed = timeout(LONG, follower.until(11)).await;
    signal("-CONT");
    noticed.expect("it is noticed");
    assert_eq!(follower.seen[10].position, stored);
    follower.saw_exactly(&bench.all_with(stored).await).await;
}
