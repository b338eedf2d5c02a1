//! Logs that are not what they were.

use std::path::Path;
use std::{fs, io};

use cim_persistence::backend::{BackendError, Position, Start};
use cim_persistence::server::PrivateServer;

use crate::bench::Bench;
use crate::test_server::TestServer;

const BEGINNING: Start = Start::After(Position::START);

#[tokio::test]
async fn a_log_made_anew_is_another_one() {
    let server = TestServer::start().await;
    let bench = Bench::on(&server).await;
    bench.fill(10).await;
    for count in [3, 20] {
        let mut follower = bench.follow(BEGINNING);
        follower.past().await;
        let after = follower.seen.len() as u64;
        bench.make_anew().await;
        bench.fill(count).await;
        let error = loop {
            if let Some(error) = follower.step().await {
                break error;
            }
        };
        let BackendError::Truncated { stream, last, after: read } = error else {
            panic!("{error:?}")
        };
        assert_eq!((&stream, last, read), (&bench.name, count, after));
        assert_eq!(follower.seen.len() as u64, after, "nothing of the other log was handed out");
    }
}

#[tokio::test]
async fn a_log_that_is_gone_ends_following() {
    let server = TestServer::start().await;
    let bench = Bench::on(&server).await;
    bench.fill(3).await;
    let mut follower = bench.follow(BEGINNING);
    follower.past().await;
    bench.jetstream.delete_stream(&bench.name).await.unwrap();
    for mut follower in [follower, bench.follow(BEGINNING)] {
        let error = follower.step().await;
        assert!(matches!(error, Some(BackendError::NotFound { .. })), "{error:?}");
    }
}

#[tokio::test]
async fn messages_removed_before_their_turn_hold_nobody_up() {
    let server = TestServer::start().await;
    let bench = Bench::on(&server).await;
    bench.fill(5000).await;
    let mut follower = bench.follow(BEGINNING);
    follower.until(1).await;
    bench.stream().await.purge().await.unwrap();
    follower.past().await;
    assert!(follower.seen.len() < 5000);
    let before = follower.seen.len();
    bench.fill(1).await;
    follower.until(before + 1).await;
    assert_eq!(follower.seen[before].position, Position::new(5001));
    assert_eq!(follower.caught_up, 1);
}

/// As after a restore, or after a server that met corruption: positions are given out a second time.
#[tokio::test]
async fn a_log_that_lost_its_end_and_grew_again_is_another_one() {
    let store = tempfile::tempdir().unwrap();
    let (live, copy) = (store.path().join("live"), store.path().join("copy"));
    let config = format!("jetstream {{ store_dir: {:?} }}", live.to_str().unwrap());
    let mut server = PrivateServer::start_with_config(&config).await.unwrap();
    let bench = Bench::start(&[server.url()], 1).await;
    bench.fill(10).await;
    server.stop().await;
    copied(&live, &copy).unwrap();
    server.restart().await.unwrap();
    bench.stream().await;
    bench.fill(5).await;
    let mut follower = bench.follow(BEGINNING);
    follower.until(15).await;
    server.stop().await;
    fs::remove_dir_all(&live).unwrap();
    copied(&copy, &live).unwrap();
    server.restart().await.unwrap();
    bench.stream().await;
    bench.fill(20).await;
    let error = loop {
        if let Some(error) = follower.step().await {
            break error;
        }
    };
    assert!(matches!(error, BackendError::Truncated { last: 30, after: 15, .. }), "{error:?}");
    assert_eq!(follower.seen.len(), 15, "nothing was handed out as if nothing had happened");
}

fn copied(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copied(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
