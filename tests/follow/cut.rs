//! Logs that are not what they were.

use cim_persistence::backend::{BackendError, Position, Start};
use cim_persistence::server::{PrivateServer, ServerConfig};

use crate::bench::{Bench, STREAM, make};

const BEGINNING: Start = Start::After(Position::START);

#[tokio::test]
async fn a_log_made_anew_is_another_one() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let bench = Bench::start(&[server.url()], 1).await;
    bench.fill(10).await;
    for count in [3, 20] {
        let mut follower = bench.follow(BEGINNING);
        follower.past().await;
        let after = follower.seen.len() as u64;
        bench.jetstream.delete_stream(STREAM).await.unwrap();
        make(&bench.jetstream, 1).await;
        bench.fill(count).await;
        let error = loop {
            if let Some(error) = follower.step().await {
                break error;
            }
        };
        let BackendError::Truncated { stream, last, after: read } = error else {
            panic!("{error:?}")
        };
        assert_eq!((stream.as_str(), last, read), (STREAM, count, after));
        assert_eq!(follower.seen.len() as u64, after, "nothing of the other log was handed out");
    }
}

#[tokio::test]
async fn a_log_that_is_gone_ends_following() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let bench = Bench::start(&[server.url()], 1).await;
    bench.fill(3).await;
    let mut follower = bench.follow(BEGINNING);
    follower.past().await;
    bench.jetstream.delete_stream(STREAM).await.unwrap();
    for mut follower in [follower, bench.follow(BEGINNING)] {
        let error = follower.step().await;
        assert!(matches!(error, Some(BackendError::NotFound { .. })), "{error:?}");
    }
}

#[tokio::test]
async fn messages_removed_before_their_turn_hold_nobody_up() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let bench = Bench::start(&[server.url()], 1).await;
    bench.fill(5000).await;
    let mut follower = bench.follow(BEGINNING);
    follower.until(1).await;
    bench.jetstream.get_stream(STREAM).await.unwrap().purge().await.unwrap();
    follower.past().await;
    assert!(follower.seen.len() < 5000);
    let before = follower.seen.len();
    bench.fill(1).await;
    follower.until(before + 1).await;
    assert_eq!(follower.seen[before].position, Position::new(5001));
    assert_eq!(follower.caught_up, 1);
}
