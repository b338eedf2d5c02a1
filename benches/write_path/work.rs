//! What is measured: each function does one round of ours or of raw and returns a rate or a time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cim_persistence::backend::Position;
use cim_persistence::repository::{LoadOptions, Repository};
use cim_persistence::store::{Context, ExpectedVersion};
use futures::{StreamExt, TryStreamExt};

use crate::domain::{Account, Booked, accounts, fresh};
use crate::raw::Raw;

/// What one round of many callers came to.
#[derive(Clone, Copy)]
pub struct Round {
    pub commits_per_second: f64,
    pub p50_ms: f64,
}

/// `callers` callers, each with an aggregate of its own, each saving `commits` commits of `events` events in turn.
pub async fn save_round(context: &Context, callers: usize, commits: usize, events: usize) -> Round {
    let run = fresh("run");
    // One for all, as in a service: they share its cache.
    let shared = accounts(context);
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let repository = shared.clone();
            let id = format!("{run}-{caller}");
            tokio::spawn(async move { save_in_turn(&repository, id, commits, events).await })
        })
        .collect();
    let mut times = Vec::with_capacity(callers * commits);
    for task in tasks {
        times.extend(task.await.expect("a caller finishes"));
    }
    round((callers * commits) as f64 / begun.elapsed().as_secs_f64(), times)
}

async fn save_in_turn(
    repository: &Repository<Account>,
    id: String,
    commits: usize,
    events: usize,
) -> Vec<Duration> {
    use cim_persistence::repository::Aggregate;
    let account = Account::new(&id);
    let mut version = 0;
    let mut times = Vec::with_capacity(commits);
    for _ in 0..commits {
        let events = (0..events).map(|_| Booked::new()).collect();
        let begun = Instant::now();
        let saved = repository.save(&account, events, ExpectedVersion::Exact(version)).await;
        times.push(begun.elapsed());
        version = saved.expect("saved").version;
    }
    times
}

/// Raw single publishes by `callers` callers.
pub async fn singles_round(raw: &Raw, callers: usize, commits: usize, payload: &Bytes) -> Round {
    let begun = Instant::now();
    let tasks = (0..callers).map(|caller| async move {
        let subject = raw.subject(caller);
        let mut last = 0;
        let mut times = Vec::with_capacity(commits);
        for _ in 0..commits {
            let begun = Instant::now();
            last = raw.publish(subject.clone(), last, payload.clone()).await;
            times.push(begun.elapsed());
        }
        times
    });
    let times = futures::future::join_all(tasks).await.concat();
    round((callers * commits) as f64 / begun.elapsed().as_secs_f64(), times)
}

/// Raw batches packed by hand: one commit of each of `callers` subjects a batch, at most `most` commits.
pub async fn packed_round(
    raw: &Raw,
    callers: usize,
    commits: usize,
    events: usize,
    most: usize,
    payload: &Bytes,
) -> Round {
    let begun = Instant::now();
    // Whoever commits in a batch waits for the batch.
    let times = raw.packed(callers, events, most, commits, payload).await;
    round((callers * commits) as f64 / begun.elapsed().as_secs_f64(), times)
}

/// Raw: each commit a batch of its own, `callers` at a time.
pub async fn batch_each_round(
    raw: &Raw,
    callers: usize,
    commits: usize,
    events: usize,
    payload: &Bytes,
) -> f64 {
    let begun = Instant::now();
    let tasks = (0..callers).map(|caller| async move {
        let mut last = 0;
        for _ in 0..commits {
            last = raw.batch(&[(raw.subject(caller), last)], events, payload).await;
        }
    });
    // The server admits fifty open batches of a stream.
    futures::stream::iter(tasks).buffer_unordered(40).collect::<Vec<()>>().await;
    (callers * commits) as f64 / begun.elapsed().as_secs_f64()
}

/// The median times of two pieces of work in milliseconds, each done so many times, in turn.
pub async fn p50s_in_turn(
    count: usize,
    mut ours: impl AsyncFnMut(),
    mut raw: impl AsyncFnMut(),
) -> (f64, f64) {
    let (mut times_of_ours, mut times_of_raw) = (Vec::new(), Vec::new());
    for _ in 0..count {
        times_of_ours.push(timed(&mut ours).await);
        times_of_raw.push(timed(&mut raw).await);
    }
    (p50_ms(times_of_ours), p50_ms(times_of_raw))
}

async fn timed(mut work: impl AsyncFnMut()) -> Duration {
    let begun = Instant::now();
    work().await;
    begun.elapsed()
}

/// Loads an aggregate.
pub async fn load(repository: &Repository<Account>, id: &String) {
    repository.load(id, LoadOptions::default()).await.expect("loaded");
}

/// A raw direct get of a key's value.
pub async fn direct_get(raw: &Raw, stream: &str, subject: &str) {
    let request = format!("$JS.API.DIRECT.GET.{stream}.{subject}");
    let answer = raw.client.request(request, Bytes::new()).await.expect("answered");
    assert!(!answer.payload.is_empty(), "the key has a value");
}

/// A raw batched direct get of all messages of a subject, decoded.
pub async fn batched_get(raw: &Raw, stream: &str, subject: &str, events: usize) {
    let inbox = raw.client.new_inbox();
    let mut answers = raw.client.subscribe(inbox.clone()).await.expect("subscribed");
    let ask = serde_json::json!({ "seq": 1, "batch": events, "next_by_subj": subject });
    let request = format!("$JS.API.DIRECT.GET.{stream}");
    raw.client.publish_with_reply(request, inbox, ask.to_string().into()).await.expect("asked");
    let mut read = 0;
    while let Some(answer) = answers.next().await {
        if answer.status.is_some() {
            break;
        }
        let block: serde_json::Value =
            serde_ipld_dagcbor::from_slice::<ipld_core::ipld::Ipld>(&answer.payload)
                .map(|block| serde_json::json!(matches!(block, ipld_core::ipld::Ipld::Map(_))))
                .expect("a block");
        read += usize::from(block == serde_json::json!(true));
    }
    assert_eq!(read, events, "all events are read");
}

/// Events per second of reading a context from the start, verified, and the growth of resident memory in MiB.
pub async fn read_all(context: &Context, expected: usize) -> (f64, f64) {
    let before = resident_mib();
    let mut most: f64 = before;
    let begun = Instant::now();
    let mut events = context.stream_after(Position::START);
    let mut read = 0;
    while let Some(event) = events.try_next().await.expect("verified") {
        assert!(event.cid().is_some(), "every event has a CID");
        read += 1;
        if read % 50_000 == 0 {
            most = most.max(resident_mib());
        }
    }
    assert_eq!(read, expected, "everything is read");
    (read as f64 / begun.elapsed().as_secs_f64(), most - before)
}

/// Messages per second of a raw ordered consumer over the same stream.
pub async fn consume_all(raw: &Raw, stream: &str, expected: usize) -> f64 {
    use async_nats::jetstream::consumer::pull::OrderedConfig;
    let stream = raw.js.get_stream(stream).await.expect("the stream is there");
    let begun = Instant::now();
    let consumer = stream.create_consumer(OrderedConfig::default()).await.expect("a consumer");
    let mut messages = consumer.messages().await.expect("messages");
    let mut read = 0;
    while read < expected {
        messages.next().await.expect("more").expect("a message");
        read += 1;
    }
    read as f64 / begun.elapsed().as_secs_f64()
}

fn round(commits_per_second: f64, times: Vec<Duration>) -> Round {
    Round { commits_per_second, p50_ms: p50_ms(times) }
}

fn p50_ms(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// Resident memory of this process, as Linux tells it; 0 elsewhere.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = status.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0.0);
    pages * 4096.0 / 1024.0 / 1024.0
}
