//! Servers that are killed under load: what was acknowledged is there, what is unknown resolves.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cim_persistence::repository::{Repository, RepositoryError};
use cim_persistence::server::{Node, PrivateCluster, PrivateServer, ServerConfig};
use cim_persistence::store::{ExpectedVersion, StoreError};
use futures::future::join_all;
use tokio::time::timeout;

use crate::domain::{Log, ONE_CLUSTER, config, enter, process, sound};
use crate::meter::metered;

const WRITERS: u64 = 32;

/// Long enough for some commits to be stored after a crash, short enough for others to be given up.
const PATIENCE_MS: u64 = 1000;

/// Longer than an election takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// After so many kills the outcome of some commit must have been unknown to the committer, or the test proves nothing.
const MOST_CRASHES: usize = 20;

/// What became of the commits of a load, by the writers' own knowledge.
#[derive(Debug, Default)]
struct Outcomes {
    stored: HashSet<u64>,
    not_stored: HashSet<u64>,
    unknown: HashSet<u64>,
}

impl Outcomes {
    fn note(&mut self, number: u64, error: &RepositoryError) {
        match error {
            RepositoryError::Store(StoreError::OutcomeUnknown { .. }) => {
                self.unknown.insert(number);
            }
            // Whatever else it is, it promises that nothing is stored.
            _ => {
                self.not_stored.insert(number);
            }
        }
    }

    fn merge(mut self, other: Self) -> Self {
        self.stored.extend(other.stored);
        self.not_stored.extend(other.not_stored);
        self.unknown.extend(other.unknown);
        self
    }

    /// Compares what the writers know with what is stored.
    async fn check(&self, logs: &Repository<Log>) {
        let there = sound(logs).await;
        let lost: Vec<_> = self.stored.difference(&there).collect();
        assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
        let ghosts: Vec<_> = self.not_stored.intersection(&there).collect();
        assert!(ghosts.is_empty(), "refused and there all the same: {ghosts:?}");
        let strangers: Vec<_> = there
            .iter()
            .filter(|number| !self.stored.contains(number) && !self.unknown.contains(number))
            .collect();
        assert!(strangers.is_empty(), "stored and never heard of: {strangers:?}");
    }
}

/// Commits of one and of three events in turn, each writer on a log of its own, until told to stop.
async fn load(logs: &Repository<Log>, stop: &AtomicBool, acknowledged: &AtomicU64) -> Outcomes {
    let writers = (0..WRITERS).map(async |writer| {
        let (mut outcomes, id) = (Outcomes::default(), format!("log-{writer}"));
        for step in 0_u64.. {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            let number = step * WRITERS + writer;
            let events = if number.is_multiple_of(2) { 1 } else { 3 };
            match enter(logs, &id, number, events, ExpectedVersion::Any).await {
                Ok(_) => {
                    outcomes.stored.insert(number);
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                Err(error) => outcomes.note(number, &error),
            }
        }
        outcomes
    });
    join_all(writers).await.into_iter().fold(Outcomes::default(), Outcomes::merge)
}

/// Waits until so many more commits are acknowledged.
async fn progress(acknowledged: &AtomicU64, more: u64) {
    let goal = acknowledged.load(Ordering::SeqCst) + more;
    let reached = async {
        while acknowledged.load(Ordering::SeqCst) < goal {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LONG, reached).await.expect("writers get on again");
}

#[test]
fn killed_server_loses_nothing_that_it_acknowledged() {
    const CRASHES: usize = 4;
    metered(async |meter| {
        let mut server = PrivateServer::start(ServerConfig::Single).await.unwrap();
        let logs = process(&[server.url()], &config(1, PATIENCE_MS)).await;
        let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
        let crashing = async {
            for crash in 0..MOST_CRASHES {
                progress(&acknowledged, 200).await;
                server.kill();
                // Half of the crashes outlast the writers' patience.
                let pause = if crash.is_multiple_of(2) { 0 } else { 2 * PATIENCE_MS };
                tokio::time::sleep(Duration::from_millis(pause)).await;
                server.restart().await.unwrap();
                progress(&acknowledged, 200).await;
                if crash + 1 >= CRASHES && meter.resolved() > 0 {
                    break;
                }
            }
            stop.store(true, Ordering::SeqCst);
        };
        let (outcomes, ()) = futures::join!(load(&logs, &stop, &acknowledged), crashing);
        assert!(meter.resolved() > 0, "no outcome was unknown");
        outcomes.check(&process(&[server.url()], &config(1, PATIENCE_MS)).await).await;
    });
}

#[test]
fn killed_leader_loses_nothing_that_was_acknowledged() {
    const CRASHES: usize = 2;
    metered(async |meter| {
        let _alone = ONE_CLUSTER.lock().await;
        let mut cluster = PrivateCluster::start().await.unwrap();
        let urls = cluster.urls().clone();
        let urls = urls.each_ref().map(String::as_str);
        let logs = process(&urls, &config(3, 10 * PATIENCE_MS)).await;
        let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
        let crashing = async {
            for crash in 0..MOST_CRASHES {
                progress(&acknowledged, 200).await;
                let node = leader(&urls).await;
                cluster.kill(node);
                progress(&acknowledged, 200).await;
                cluster.restart(node).await.unwrap();
                if crash + 1 >= CRASHES && meter.resolved() > 0 {
                    break;
                }
            }
            progress(&acknowledged, 200).await;
            stop.store(true, Ordering::SeqCst);
        };
        let (outcomes, ()) = futures::join!(load(&logs, &stop, &acknowledged), crashing);
        assert!(meter.resolved() > 0, "no outcome was unknown");
        outcomes.check(&process(&urls, &config(3, 10 * PATIENCE_MS)).await).await;
    });
}

/// The server that leads the replicas of the stream, asked for again while there is none.
async fn leader(urls: &[&str]) -> Node {
    let addresses: Vec<async_nats::ServerAddr> =
        urls.iter().map(|url| url.parse().unwrap()).collect();
    let client = async_nats::connect(addresses).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let known = async {
        loop {
            if let Ok(stream) = jetstream.get_stream("CIM-EVENTS-bad-days").await
                && let Some(cluster) = &stream.cached_info().cluster
                && let Some(leader) = &cluster.leader
            {
                return leader.clone();
            }
        }
    };
    let leader = timeout(LONG, known).await.expect("a server leads the stream");
    Node::ALL.into_iter().find(|node| node.server_name() == leader).unwrap()
}
