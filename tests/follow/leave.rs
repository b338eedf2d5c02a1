//! What following costs the server and the process: bounded while it lasts, nothing afterwards.

use std::time::Duration;

use cim_persistence::backend::{Position, Start};
use cim_persistence::event_log::EventLog;
use cim_persistence::server::PrivateServer;
use futures::StreamExt;

use crate::bench::Bench;
use crate::test_server::TestServer;

const BEGINNING: Start = Start::After(Position::START);

#[tokio::test]
async fn a_thousand_followers_leave_no_consumer() {
    let server = TestServer::start().await;
    let bench = Bench::on(&server).await;
    bench.fill(20).await;
    let follows = (0..1000).map(async |number: usize| {
        let start = [BEGINNING, Start::Latest, Start::Now][number % 3];
        let mut follower = bench.follow(start);
        match number % 4 {
            0 => follower.past().await,
            1 => drop(follower.step().await),
            // Given up somewhere on the way to its first message.
            2 => {
                let some_time = Duration::from_micros(number as u64 * 5);
                let _ = tokio::time::timeout(some_time, follower.step()).await;
            }
            _ => {}
        }
    });
    futures::stream::iter(follows).buffer_unordered(50).collect::<Vec<()>>().await;
    let patience = Duration::from_secs(10);
    let gone = bench.until_no_consumer_is_left();
    // Sooner than the server removes what is unused.
    if tokio::time::timeout(patience, gone).await.is_err() {
        panic!("consumers are not deleted: {:?}", bench.consumers().await);
    }
}

#[tokio::test]
async fn nothing_more_is_fetched_while_nobody_polls() {
    let server = TestServer::start().await;
    let bench = Bench::on(&server).await;
    bench.fill(10_000).await;
    let mut small = bench.follow(BEGINNING);
    small.until(1).await;
    assert!(bench.delivered_when_quiet().await <= 2000);
    drop(small);
    bench.until_no_consumer_is_left().await;

    let payload = bytes::Bytes::from(vec![7; 900_000]);
    for number in 0..60 {
        bench.log.publish(bench.message(number, payload.clone())).await.unwrap();
    }
    let mut large = bench.follow(Start::After(Position::new(10_000)));
    large.until(1).await;
    // Two requests of 8 MiB at most are open.
    assert!(bench.delivered_when_quiet().await <= 20);
    large.until(60).await;
    assert!(large.seen.iter().all(|message| message.payload == payload));
}

#[tokio::test]
async fn whoever_does_not_poll_for_long_goes_on_where_it_was() {
    let server = TestServer::start().await;
    let bench = Bench::on(&server).await;
    bench.fill(3000).await;
    let mut half = bench.follow(BEGINNING);
    half.until(10).await;
    let mut whole = bench.follow(BEGINNING);
    whole.past().await;
    // The server gives up consumers that nobody asks.
    bench.until_no_consumer_is_left().await;
    bench.fill(100).await;
    let all = bench.all().await;
    half.saw_exactly(&all).await;
    whole.saw_exactly(&all).await;
}

#[tokio::test]
async fn a_message_larger_than_a_request_comes() {
    let config = "jetstream { store_dir: $CIM_STORE_DIR }, max_payload: 32MB";
    let server = PrivateServer::start_with_config(config).await.unwrap();
    let bench = Bench::start(&[server.url()], 1).await;
    for size in [10, 20_000_000, 10] {
        let payload = bytes::Bytes::from(vec![7; size]);
        bench.log.publish(bench.message(size as u64, payload)).await.unwrap();
    }
    let mut follower = bench.follow(BEGINNING);
    follower.past().await;
    let sizes: Vec<_> = follower.seen.iter().map(|message| message.payload.len()).collect();
    assert_eq!(sizes, [10, 20_000_000, 10]);
}
