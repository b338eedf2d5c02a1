//! Where what is stored ends, and where "now" begins, while somebody writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cim_persistence::backend::{Position, Start};
use cim_persistence::event::NonEmpty;
use cim_persistence::event_log::EventLog;
use cim_persistence::server::{PrivateServer, ServerConfig};
use tokio::sync::watch;

use crate::bench::Bench;

/// While a batch is being stored the server says that the stream ends within it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_now_begins_with_a_whole_commit() {
    let server = PrivateServer::start(ServerConfig::DefaultSync).await.unwrap();
    let bench = Bench::start(&[server.url()], 1).await;
    let stop = AtomicBool::new(false);
    let writing = async {
        while !stop.load(Ordering::SeqCst) {
            let messages = (0..1000).map(|number| bench.message(number, number.to_string()));
            let batch = NonEmpty::from_vec(messages.collect()).unwrap();
            bench.log.publish_batch(batch).await.unwrap();
        }
    };
    let following = async {
        for round in 0..150 {
            // Somewhere within the time that a batch takes.
            tokio::time::sleep(Duration::from_micros(round * 197)).await;
            let mut follower = bench.follow(Start::Now);
            follower.until(1).await;
            assert_eq!(follower.seen[0].payload, "0", "the first of its batch");
        }
        stop.store(true, Ordering::SeqCst);
    };
    futures::join!(writing, following);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_ends_with_a_whole_commit() {
    const EVENTS: usize = 1000;
    let server = PrivateServer::start(ServerConfig::DefaultSync).await.unwrap();
    let bench = Bench::start(&[server.url()], 1).await;
    let stop = AtomicBool::new(false);
    let (known, _) = watch::channel(Position::START);
    let writing = async {
        while !stop.load(Ordering::SeqCst) {
            let messages = (0..EVENTS as u64).map(|number| bench.message(number, "x"));
            let batch = NonEmpty::from_vec(messages.collect()).unwrap();
            known.send_replace(bench.log.publish_batch(batch).await.unwrap());
        }
    };
    let following = async {
        for round in 0..100 {
            tokio::time::sleep(Duration::from_micros(round * 197)).await;
            let after = *known.borrow();
            let mut follower = bench.follow(Start::After(after));
            follower.past().await;
            assert_eq!(follower.seen.len() % EVENTS, 0, "messages of whole commits");
        }
        stop.store(true, Ordering::SeqCst);
    };
    futures::join!(writing, following);
}
