//! Following from now on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cim_persistence::backend::Start;
use cim_persistence::event::NonEmpty;
use cim_persistence::event_log::EventLog;
use cim_persistence::server::{PrivateServer, ServerConfig};

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
