//! Two processes that save the same version: exactly one wins.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cim_persistence::repository::{Repository, RepositoryError};
use cim_persistence::server::PrivateCluster;
use cim_persistence::store::{ExpectedVersion, NatsRepositoryConfig};
use futures::{StreamExt, future};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use crate::domain::{Log, ONE_CLUSTER, config, enter, process, sound};
use crate::test_server::TestServer;

/// How many races are run with commits of each size, on one server and on three.
const RACES: u64 = 1000;

/// How many races are under way at a time, each for another aggregate, so that the committers have something to gather.
const AT_ONCE: usize = 32;

/// Longer than a process takes to begin on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// What the other process is told when it begins.
const SETTINGS: &str = "CIM_TEST_RACE";

#[derive(Clone, Serialize, Deserialize)]
struct Settings {
    urls: Vec<String>,
    context: String,
    replicas: usize,
}

impl Settings {
    async fn process(&self) -> Repository<Log> {
        let urls: Vec<&str> = self.urls.iter().map(String::as_str).collect();
        let context = self.context.clone();
        process(&urls, &NatsRepositoryConfig { context, ..config(self.replicas, 30_000) }).await
    }

    /// What both processes are called on.
    fn subject(&self, what: &str) -> String {
        format!("race.{}.{what}", self.context)
    }

    async fn client(&self) -> async_nats::Client {
        let addresses: Vec<async_nats::ServerAddr> =
            self.urls.iter().map(|url| url.parse().unwrap()).collect();
        // Without servers there is nothing left to do.
        async_nats::ConnectOptions::new().max_reconnects(10).connect(addresses).await.unwrap()
    }
}

/// A call to both processes to save a commit, each one of its own.
#[derive(Serialize, Deserialize)]
struct Call {
    id: String,
    number: u64,
    events: usize,
    expected: u64,
    /// How long each process waits before it begins.
    handicaps: [Duration; 2],
}

/// How long the winner of a race waits in the next one, twice as long each time it wins again, and at most: else whoever is
/// nearer to the stream's leader might win them all.
const HANDICAP: Duration = Duration::from_millis(1);
const GREATEST_HANDICAP: Duration = Duration::from_millis(64);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Outcome {
    Ready,
    Won { version: u64 },
    Lost { expected: u64, actual: u64 },
    Failed(String),
}

/// Answers calls, as one of the two processes, until there is no server any more.
async fn serve(settings: Settings, side: u64) {
    let (logs, client) = (settings.process().await, settings.client().await);
    let mut calls = client.subscribe(settings.subject("*")).await.unwrap();
    while let Some(message) = calls.next().await {
        let (logs, client) = (logs.clone(), client.clone());
        tokio::spawn(async move {
            let outcome = match message.subject.ends_with(".ready") {
                true => Outcome::Ready,
                false => {
                    answer(&logs, serde_json::from_slice(&message.payload).unwrap(), side).await
                }
            };
            let answer = serde_json::to_vec(&(side, outcome)).unwrap();
            client.publish(message.reply.unwrap(), answer.into()).await.unwrap();
        });
    }
}

async fn answer(logs: &Repository<Log>, call: Call, side: u64) -> Outcome {
    let (expected, number) = (ExpectedVersion::Exact(call.expected), 2 * call.number + side);
    sleep(call.handicaps[side as usize]).await;
    match enter(logs, &call.id, number, call.events, expected).await {
        Ok(saved) => Outcome::Won { version: saved.version },
        Err(RepositoryError::VersionConflict { expected, actual }) => {
            Outcome::Lost { expected, actual }
        }
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// The other process. It ends with this.
struct Other(Child);

impl Other {
    fn start(settings: &Settings) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["race::one_of_two_wins_with_one_event", "--exact"])
            .env(SETTINGS, serde_json::to_string(settings).unwrap())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Calls both processes at once, and returns what each of them answered; nothing when one of them is not there yet.
async fn call(
    client: &async_nats::Client,
    subject: String,
    payload: Vec<u8>,
    patience: Duration,
) -> Option<[(u64, Outcome); 2]> {
    let inbox = client.new_inbox();
    let answers = client.subscribe(inbox.clone()).await.unwrap();
    client.publish_with_reply(subject, inbox, payload.into()).await.unwrap();
    let both = answers.filter(|answer| future::ready(answer.status.is_none())).take(2);
    let both: Vec<_> = timeout(patience, both.collect()).await.ok()?;
    let read = |message: async_nats::Message| serde_json::from_slice(&message.payload).unwrap();
    both.into_iter().map(read).collect::<Vec<_>>().try_into().ok()
}

/// Runs the races with commits of so many events, each for the next version of one of a few aggregates. Who hears of it
/// first is up to the server that tells both.
async fn race(settings: Settings, events: usize) {
    let client = settings.client().await;
    let _other = Other::start(&settings);
    let this = tokio::spawn(serve(settings.clone(), 0));
    let (ready, call_both) = (settings.subject("ready"), settings.subject("call"));
    let ready = async {
        let soon = Duration::from_millis(200);
        while call(&client, ready.clone(), Vec::new(), soon).await.is_none() {}
    };
    timeout(LONG, ready).await.expect("both processes begin");
    let lanes = (0..AT_ONCE as u64).map(async |lane| {
        let (mut version, mut wins, mut handicaps) = (0, [0; 2], [Duration::ZERO; 2]);
        for number in (lane..RACES).step_by(AT_ONCE) {
            let id = format!("log-{lane}");
            let race = Call { id, number, events, expected: version, handicaps };
            let race = serde_json::to_vec(&race).unwrap();
            let (won, winner, lost) =
                match call(&client, call_both.clone(), race, LONG).await.unwrap() {
                    [(side, Outcome::Won { version }), (_, lost)]
                    | [(_, lost), (side, Outcome::Won { version })] => (version, side, lost),
                    nobody => panic!("race {number}: {nobody:?}"),
                };
            assert_eq!(lost, Outcome::Lost { expected: version, actual: won }, "race {number}");
            version = won;
            let (winner, loser) = (winner as usize, 1 - winner as usize);
            wins[winner] += 1;
            handicaps[winner] = (2 * handicaps[winner]).clamp(HANDICAP, GREATEST_HANDICAP);
            handicaps[loser] = Duration::ZERO;
        }
        wins
    });
    let running: Vec<_> = lanes.collect();
    let wins: Vec<[u64; 2]> =
        futures::stream::iter(running).buffer_unordered(AT_ONCE).collect().await;
    this.abort();
    assert_eq!(sound(&settings.process().await).await.len() as u64, RACES);
    for side in [0, 1] {
        assert!(wins.iter().any(|wins| wins[side] > 0), "process {side} has never won: no race");
    }
}

async fn race_on_one(events: usize) {
    let server = TestServer::start().await;
    let urls = vec![server.url().to_owned()];
    race(Settings { urls, context: server.name("bad-days"), replicas: 1 }, events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_wins_with_one_event() {
    // The other process of every race is this test once more, and is told so.
    match std::env::var(SETTINGS) {
        Ok(settings) => serve(serde_json::from_str(&settings).unwrap(), 1).await,
        Err(_) => race_on_one(1).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_wins_with_a_batch() {
    race_on_one(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_wins_on_three_servers() {
    let _alone = ONE_CLUSTER.lock().await;
    let cluster = PrivateCluster::start().await.unwrap();
    for events in [1, 3] {
        let urls = cluster.urls().to_vec();
        race(Settings { urls, context: format!("race-{events}"), replicas: 3 }, events).await;
    }
}
