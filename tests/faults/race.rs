//! Two processes that save the same version: exactly one wins.

use cim_persistence::repository::{Repository, RepositoryError};
use cim_persistence::server::{PrivateCluster, PrivateServer, ServerConfig};
use cim_persistence::store::ExpectedVersion;
use futures::StreamExt;

use crate::domain::{Log, ONE_CLUSTER, config, enter, process, sound};

/// How many races are run with commits of each size, on one server and on three.
const RACES: u64 = 1000;

/// How many races are under way at a time, each for another aggregate, so that the committers have something to gather.
const AT_ONCE: usize = 32;

/// Runs the races with commits of so many events; each race is for the next version of one of a few aggregates, and is
/// begun by both sides at the same time, by either of them first in turn.
async fn race(ours: &Repository<Log>, theirs: &Repository<Log>, events: usize) {
    let lanes = (0..AT_ONCE as u64).map(async |lane| {
        let id = format!("log-{lane}");
        let mut version = 0;
        for (turn, number) in (lane..RACES).step_by(AT_ONCE).enumerate() {
            let expected = ExpectedVersion::Exact(version);
            let (first, second) = if turn % 2 == 0 { (ours, theirs) } else { (theirs, ours) };
            let (left, right) = futures::join!(
                enter(first, &id, 2 * number, events, expected),
                enter(second, &id, 2 * number + 1, events, expected),
            );
            let (won, lost) = match (left, right) {
                (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
                (left, right) => panic!("race {number}: {left:?} and {right:?}"),
            };
            let RepositoryError::VersionConflict { expected, actual } = lost else {
                panic!("race {number}: {lost}")
            };
            assert_eq!((expected, actual), (version, won.version));
            version = won.version;
        }
    });
    let running: Vec<_> = lanes.collect();
    futures::stream::iter(running).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    assert_eq!(sound(ours).await.len() as u64, RACES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_wins_with_one_event() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let ours = process(&[server.url()], &config(1, 30_000)).await;
    let theirs = process(&[server.url()], &config(1, 30_000)).await;
    race(&ours, &theirs, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_wins_with_a_batch() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let ours = process(&[server.url()], &config(1, 30_000)).await;
    let theirs = process(&[server.url()], &config(1, 30_000)).await;
    race(&ours, &theirs, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_wins_on_three_servers() {
    let _alone = ONE_CLUSTER.lock().await;
    let cluster = PrivateCluster::start().await.unwrap();
    let [one, two, three] = cluster.urls();
    for events in [1, 3] {
        let named = cim_persistence::store::NatsRepositoryConfig {
            context: format!("race-{events}"),
            ..config(3, 30_000)
        };
        let ours = process(&[one, two, three], &named).await;
        let theirs = process(&[three, two, one], &named).await;
        race(&ours, &theirs, events).await;
    }
}
