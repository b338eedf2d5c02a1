//! A process that is killed after its last commit is acknowledged and before the state is written: nothing is lost, and
//! nothing that is shown is stale.

use std::process::Stdio;
use std::time::Duration;

use async_nats::jetstream::kv::Store;
use cim_persistence::repository::{LoadOptions, Repository};
use cim_persistence::store::{ExpectedVersion, NatsRepositoryConfig};
use ipld_core::ipld::Ipld;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::domain::{Log, config, enter, process, sound};
use crate::test_server::TestServer;

/// How many commits a process stores before it is killed.
const COMMITS: u64 = 5;

/// How many logs are tried, each by two processes, until both of them have left their state behind.
const LOGS: u64 = 20;

/// Longer than a process takes to begin and to commit on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// What the process to be killed is told when it begins.
const ORDER: &str = "CIM_TEST_KILLED";

#[derive(Serialize, Deserialize)]
struct Order {
    url: String,
    context: String,
    id: String,
    /// The numbers of its commits.
    numbers: Vec<u64>,
    /// Whether the state is written once, after the first commit.
    keep_first: bool,
}

async fn logs(url: &str, context: String) -> Repository<Log> {
    process(&[url], &NatsRepositoryConfig { context, ..config(1, 30_000) }).await
}

/// Commits, as the process to be killed, tells each commit that is acknowledged, and waits for its end.
async fn obey(order: Order) {
    let logs = logs(&order.url, order.context).await;
    for number in &order.numbers {
        enter(&logs, &order.id, *number, 1, ExpectedVersion::Any).await.unwrap();
        if order.keep_first && order.numbers.first() == Some(number) {
            logs.context().flush().await;
        }
        eprintln!("{number}");
    }
    // The state is written by other threads meanwhile. When the test has ended without killing, this ends too.
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Starts the other process, and kills it as soon as it tells that its last commit is acknowledged.
async fn kill_after_the_last(order: &Order) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["killed::process_killed_before_its_state_is_written_is_not_missed", "--exact"])
        // Else the test harness keeps what it tells.
        .arg("--nocapture")
        .env(ORDER, serde_json::to_string(order).unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    for number in &order.numbers {
        let line = timeout(LONG, told.next_line()).await.expect("the process commits").unwrap();
        assert_eq!(line, Some(number.to_string()));
    }
    child.start_kill().unwrap();
    assert!(!child.wait().await.unwrap().success(), "it was killed");
}

/// The version of the state that is kept of a log; 0 where none is kept.
async fn kept(bucket: &Store, id: &str) -> u64 {
    let Some(stored) = bucket.get(format!("log.{id}")).await.unwrap() else { return 0 };
    let Ipld::Map(record) = serde_ipld_dagcbor::from_slice(&stored).unwrap() else {
        panic!("a record is a map")
    };
    let Ipld::Integer(version) = record["version"] else { panic!("a version is a number") };
    version.try_into().unwrap()
}

async fn shown(logs: &Repository<Log>, id: &str) -> (u64, Vec<u64>) {
    let (log, known) = logs.load(&id.to_owned(), LoadOptions::default()).await.unwrap();
    (known.version, log.entries)
}

/// Kills two processes in turn that work on a log of its own: the first one before any state of it is written, the second one
/// with state of its first commit. Returns which state each of them left.
async fn kill_two(server: &TestServer, id: &str, first: u64) -> [u64; 2] {
    let context = server.name("bad-days");
    // Has the log in its cache from the first kill on, in the version that was the newest then.
    let witness = logs(server.url(), context.clone()).await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let bucket = jetstream.get_key_value(server.name("cim-state-bad-days")).await.unwrap();
    let mut left = [0; 2];
    for (kill, left) in (0..).zip(&mut left) {
        let end = first + (kill + 1) * COMMITS;
        let numbers = (end - COMMITS..end).collect();
        let order = Order {
            url: server.url().to_owned(),
            context: context.clone(),
            id: id.to_owned(),
            numbers,
            keep_first: kill > 0,
        };
        kill_after_the_last(&order).await;
        let newest = (end - first, (first..end).collect());
        let fresh = logs(server.url(), context.clone()).await;
        assert_eq!(shown(&fresh, id).await, newest, "to a process that begins");
        // Read after the load: a version only grows, so what the load found was no newer.
        *left = kept(&bucket, id).await;
        assert_eq!(shown(&witness, id).await, newest, "to a process that was there before");
    }
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_killed_before_its_state_is_written_is_not_missed() {
    // The process that is killed is this test once more, and is told so.
    if let Ok(order) = std::env::var(ORDER) {
        return obey(serde_json::from_str(&order).unwrap()).await;
    }
    let server = TestServer::start().await;
    let (mut absent, mut behind, mut commits) = (false, false, 0);
    for log in 0..LOGS {
        let left = kill_two(&server, &format!("log-{log}"), commits).await;
        commits += 2 * COMMITS;
        // The state is written some milliseconds after a commit or a load: on a busy machine that can be too soon.
        absent |= left[0] == 0;
        behind |= left[1] == COMMITS + 1;
        if absent && behind {
            break;
        }
    }
    assert!(absent, "whenever a first process was killed, the state was written already");
    assert!(behind, "whenever a second process was killed, the newest state was written already");
    let there = sound(&logs(server.url(), server.name("bad-days")).await).await;
    assert_eq!(there, (0..commits).collect());
}
