//! The stores on a real server keep the promises of the ports, and the model in memory does what the server does.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use bytes::Bytes;
use cim_persistence::backend::nats::Connection;
use cim_persistence::backend::{BackendError, Guard, NewMessage, Position, ReadFrom};
use cim_persistence::event::{Headers, NonEmpty, names};
use cim_persistence::event_log::{
    Commit, CommitPolicy, Committer, EventLog, LogQuery, MemoryLog, NatsLog,
};
use cim_persistence::state::NatsKeyValue;
use cim_persistence::subject::{AggregateId, AggregateType, ContextName, Subject, SubjectScheme};
use cim_persistence::testing::conformance::event_log::{self, LogUnderTest};
use cim_persistence::testing::conformance::key_value;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use uuid::Uuid;

use test_server::TestServer;

#[path = "support/test_server.rs"]
mod test_server;

#[tokio::test]
async fn log_keeps_every_promise() {
    let bench = Bench::start().await;
    let mut broken = Vec::new();
    for case in event_log::cases() {
        let (_, under) = bench.log().await;
        if let Err(how) = case.run(under).await {
            broken.push(format!("{}: {how}", case.name()));
        }
    }
    assert!(broken.is_empty(), "broken promises:\n{}", broken.join("\n"));
}

#[tokio::test]
async fn bucket_keeps_every_promise() {
    let bench = Bench::start().await;
    let mut broken = Vec::new();
    for case in key_value::cases() {
        let bucket = bench.bucket().await;
        let store = NatsKeyValue::open(&bench.connection, &bucket).await.unwrap();
        if let Err(how) = case.run(Arc::new(store)).await {
            broken.push(format!("{}: {how}", case.name()));
        }
    }
    assert!(broken.is_empty(), "broken promises:\n{}", broken.join("\n"));
}

/// The same writes, drawn by chance, have the same outcomes in memory and on the server.
#[tokio::test]
async fn model_judges_writes_as_the_server_does() {
    let bench = Bench::start().await;
    for seed in 0..6 {
        let (_, server) = bench.log().await;
        let memory =
            LogUnderTest { log: Arc::new(MemoryLog::new()), scheme: server.scheme.clone() };
        let mut draw = Draw(seed);
        let mut seen = BTreeMap::new();
        for step in 0..150 {
            let messages = draw.messages(&memory, step).await;
            let text = format!("seed {seed}, step {step}: {messages:?}");
            let wanted = write(&server, messages.clone()).await;
            let outcome = write(&memory, messages).await;
            assert_eq!(outcome, wanted, "{text}");
            *seen.entry(outcome.err()).or_insert(0) += 1;
        }
        assert!(seen.len() == 3 && seen.values().all(|times| *times >= 5), "{seen:?}");
        assert_eq!(contents(&memory).await, contents(&server).await, "seed {seed}");
    }
}

/// A client whose subscriptions hold little throws away what comes faster than it is taken. None of it may be missing.
#[tokio::test]
async fn what_a_small_client_throws_away_is_read_again() {
    const MESSAGES: u64 = 900;
    let bench = Bench::start().await;
    let (name, under) = bench.log().await;
    let subject = under
        .scheme
        .events_of(&AggregateType::new("order").unwrap(), &AggregateId::new("1").unwrap());
    let message = |number: u64| NewMessage {
        subject: subject.clone(),
        headers: Headers::new(),
        payload: number.to_string().into(),
        guard: Guard::Free,
    };
    let messages: Vec<_> = (1..=MESSAGES).map(message).collect();
    under.log.publish_batch(NonEmpty::from_vec(messages).unwrap()).await.unwrap();
    let small = async_nats::ConnectOptions::new().subscription_capacity(200);
    let small = small.connect(bench.server.url()).await.unwrap();
    let connection =
        Connection::from_client(small.clone()).with_timeout(Duration::from_millis(500));
    let log = NatsLog::open(&connection, &name).await.unwrap();
    for filter in [None, Some(subject.to_string())] {
        let query = LogQuery { filter, after: Position::START };
        let read: Vec<u64> =
            log.read(query).map_ok(|message| message.position.get()).try_collect().await.unwrap();
        assert_eq!(read, (1..=MESSAGES).collect::<Vec<_>>());
    }
}

/// Messages of many callers leave together, and their answers come together; some callers do not wait for theirs.
#[tokio::test]
async fn each_caller_gets_the_answer_to_his_own_message() {
    let bench = Bench::start().await;
    let (_, under) = bench.log().await;
    let mut callers = FuturesUnordered::new();
    for number in 0..500 {
        let publishing = under.log.publish(order(&under.scheme, number));
        callers.push(async move { (number, publishing.await.unwrap()) });
        if number % 5 == 0 {
            let mut given_up = under.log.publish(order(&under.scheme, 1000 + number));
            let _ = futures::poll!(&mut given_up);
        }
    }
    let mut answers = BTreeMap::new();
    while let Some((number, position)) = callers.next().await {
        answers.insert(position.get(), Bytes::from(number.to_string()));
    }
    assert_eq!(answers.len(), 500);
    let stored: BTreeMap<u64, Bytes> = contents(&under)
        .await
        .into_iter()
        .map(|(position, _, payload)| (position, payload))
        .collect();
    for (position, payload) in answers {
        assert_eq!(stored.get(&position), Some(&payload));
    }
}

#[tokio::test]
async fn commits_whose_acknowledgements_a_small_client_throws_away_are_stored_once() {
    let bench = Bench::start().await;
    let (name, under) = bench.log().await;
    let small = async_nats::ConnectOptions::new().subscription_capacity(1);
    let small = small.connect(bench.server.url()).await.unwrap();
    let connection = Connection::from_client(small).with_timeout(Duration::from_millis(500));
    let log = NatsLog::open(&connection, &name).await.unwrap();
    let committer = Committer::start(Arc::new(log), CommitPolicy::default());
    let commits = (0..300).map(|number| {
        let message =
            NewMessage { guard: Guard::Last(Position::START), ..order(&under.scheme, number) };
        let commit = Commit::new(NonEmpty::from_vec(vec![message]).unwrap()).unwrap();
        committer.commit(commit)
    });
    let mut stored: Vec<u64> = futures::future::try_join_all(commits)
        .await
        .unwrap()
        .into_iter()
        .map(|stored| stored.first.get())
        .collect();
    stored.sort_unstable();
    assert_eq!(stored, (1..=300).collect::<Vec<_>>());
    assert_eq!(contents(&under).await.len(), 300);
}

#[tokio::test]
async fn a_message_that_no_stream_takes_is_answered_at_once() {
    let bench = Bench::start().await;
    let (name, under) = bench.log().await;
    let patient = bench.connection.clone().with_timeout(Duration::from_secs(24 * 3600));
    let log = NatsLog::open(&patient, &name).await.unwrap();
    let message = elsewhere();
    let wanted = format!("no stream takes messages on {}", message.subject);
    assert_eq!(unknown(log.publish(message).await), wanted);
    assert_eq!(contents(&under).await, []);
}

#[tokio::test]
async fn each_message_is_given_up_in_its_own_time() {
    let bench = Bench::start().await;
    let (name, under) = bench.log().await;
    let (message, _listening) = unanswered(&bench).await;
    let on = async |patience| {
        let connection = bench.connection.clone().with_timeout(patience);
        NatsLog::open(&connection, &name).await.unwrap()
    };
    let patient = on(Duration::from_secs(24 * 3600)).await;
    let mut waiting = patient.publish(message.clone());
    assert!(futures::poll!(&mut waiting).is_pending());
    let for_ever = on(Duration::MAX).await;
    let mut waiting_for_ever = for_ever.publish(message.clone());
    assert!(futures::poll!(&mut waiting_for_ever).is_pending());
    for millis in [200, 100] {
        let hasty = on(Duration::from_millis(millis)).await;
        let given_up = hasty.publish(message.clone()).await;
        let wanted = format!("no answer to a message on {} in {millis}ms", message.subject);
        assert_eq!(unknown(given_up), wanted);
    }
    assert!(futures::poll!(&mut waiting).is_pending());
    assert!(futures::poll!(&mut waiting_for_ever).is_pending());
    patient.publish(order(&under.scheme, 1)).await.unwrap();
}

#[test]
fn nobody_waits_for_a_runtime_that_does_not_run() {
    let home = tokio::runtime::Runtime::new().unwrap();
    let bench = home.block_on(Bench::start());
    let (name, under) = home.block_on(bench.log());
    let resting = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    resting.block_on(under.log.publish(order(&under.scheme, 1))).unwrap();
    let message = order(&under.scheme, 2);
    let given_up = home.block_on(async {
        let hasty = bench.connection.clone().with_timeout(Duration::from_millis(100));
        NatsLog::open(&hasty, &name).await.unwrap().publish(message.clone()).await
    });
    let wanted = format!("no answer to a message on {} in 100ms", message.subject);
    assert_eq!(unknown(given_up), wanted);
    // Now it is known that nobody drives that runtime.
    assert_eq!(home.block_on(under.log.publish(message)).unwrap().get(), 2);
    drop(resting);
}

#[test]
fn nobody_waits_for_what_a_runtime_published_that_has_ended() {
    let home = tokio::runtime::Runtime::new().unwrap();
    let bench = home.block_on(Bench::start());
    let (_, under) = home.block_on(bench.log());
    let (message, _listening) = home.block_on(unanswered(&bench));
    let elsewhere = tokio::runtime::Runtime::new().unwrap();
    elsewhere.block_on(under.log.publish(order(&under.scheme, 1))).unwrap();
    let mut waiting = under.log.publish(message.clone());
    home.block_on(async { assert!(futures::poll!(&mut waiting).is_pending()) });
    drop(elsewhere);
    let wanted = format!("the runtime that published a message on {} has ended", message.subject);
    assert_eq!(unknown(home.block_on(waiting)), wanted);
}

#[test]
fn publishing_goes_on_when_the_runtime_it_began_on_has_ended() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let home = runtime();
    let bench = home.block_on(Bench::start());
    let (_, under) = home.block_on(bench.log());
    for number in 1..=3 {
        let elsewhere = runtime();
        let position = elsewhere.block_on(under.log.publish(order(&under.scheme, number))).unwrap();
        assert_eq!(position.get(), number);
    }
    assert_eq!(home.block_on(under.log.publish(order(&under.scheme, 4))).unwrap().get(), 4);
}

/// A message that no stream takes.
fn elsewhere() -> NewMessage {
    let context = ContextName::new(unique()).unwrap();
    order(&SubjectScheme::new(context, "cim.events", "cim.aggregates").unwrap(), 1)
}

/// A message that somebody takes who never answers.
async fn unanswered(bench: &Bench) -> (NewMessage, async_nats::Subscriber) {
    let message = elsewhere();
    let client = async_nats::connect(bench.server.url()).await.unwrap();
    let listening = client.subscribe(message.subject.to_string()).await.unwrap();
    client.flush().await.unwrap();
    (message, listening)
}

/// Why it is not known what became of a message.
fn unknown(outcome: Result<Position, BackendError>) -> String {
    match outcome {
        Err(BackendError::Unknown { detail, .. }) => detail,
        other => panic!("{other:?}"),
    }
}

/// A message on a subject of its own.
fn order(scheme: &SubjectScheme, number: u64) -> NewMessage {
    let id = AggregateId::new(number.to_string()).unwrap();
    NewMessage {
        subject: scheme.events_of(&AggregateType::new("order").unwrap(), &id),
        headers: Headers::new(),
        payload: number.to_string().into(),
        guard: Guard::Free,
    }
}

async fn write(under: &LogUnderTest, mut messages: Vec<NewMessage>) -> Result<u64, &'static str> {
    let outcome = match messages.len() {
        1 => under.log.publish(messages.remove(0)).await,
        _ => under.log.publish_batch(NonEmpty::from_vec(messages).unwrap()).await,
    };
    match outcome {
        Ok(position) => Ok(position.get()),
        Err(BackendError::Conflict { .. }) => Err("conflict"),
        Err(BackendError::Duplicate { .. }) => Err("duplicate"),
        Err(other) => panic!("{other:?}"),
    }
}

async fn contents(under: &LogUnderTest) -> Vec<(u64, Subject, Bytes)> {
    let query = LogQuery { filter: None, after: Position::START };
    let read: Vec<_> = under.log.read(query).try_collect().await.unwrap();
    read.into_iter().map(|m| (m.position.get(), m.subject, m.payload)).collect()
}

/// A small generator, so that a failure names its seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// One to four messages on a few subjects, with guards that often hold.
    async fn messages(&mut self, under: &LogUnderTest, step: u64) -> Vec<NewMessage> {
        let mut messages = Vec::new();
        for place in 0..=self.below(4) {
            let payload = format!("{step} {place}").into();
            messages.push(NewMessage { payload, ..self.message(under).await });
        }
        messages
    }

    async fn message(&mut self, under: &LogUnderTest) -> NewMessage {
        let (subject, other) = (self.subject(&under.scheme), self.subject(&under.scheme));
        let guard = match self.below(5) {
            0 => Guard::Last(self.position(under, &subject).await),
            1 => Guard::LastOf(other.clone(), self.position(under, &other).await),
            _ => Guard::Free,
        };
        let mut headers = Headers::new();
        if self.below(6) == 0 {
            headers.push(names::MSG_ID, self.below(60).to_string());
        }
        NewMessage { subject, headers, payload: Bytes::new(), guard }
    }

    /// The last position on a subject, or now and then another one.
    async fn position(&mut self, under: &LogUnderTest, subject: &Subject) -> Position {
        let last = under.log.last(subject, ReadFrom::Leader).await.unwrap();
        let last = last.map_or(0, |message| message.position.get());
        Position::new(match self.below(6) {
            0 => 0,
            1 => last + 1,
            _ => last,
        })
    }

    fn subject(&mut self, scheme: &SubjectScheme) -> Subject {
        let id = AggregateId::new(self.below(12).to_string()).unwrap();
        scheme.events_of(&AggregateType::new("order").unwrap(), &id)
    }
}

/// A server, and streams of names that nobody else has and no other case.
struct Bench {
    connection: Connection,
    jetstream: jetstream::Context,
    server: TestServer,
}

impl Bench {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let client = async_nats::connect(server.url()).await.unwrap();
        let connection = Connection::from_client(client.clone());
        Self { connection, jetstream: jetstream::new(client), server }
    }

    /// Makes a stream. A server that makes dozens of them at a time says now and then that it cannot make a store (10049);
    /// then again.
    async fn create(&self, settings: jetstream::stream::Config) {
        const NO_STORE: u64 = 10049;
        for _ in 0..50 {
            match self.jetstream.create_stream(settings.clone()).await {
                Ok(_) => return,
                Err(error) if format!("{error:?}").contains(&NO_STORE.to_string()) => {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("no stream could be made");
    }

    async fn log(&self) -> (String, LogUnderTest) {
        let context = self.server.name(&unique());
        let settings = jetstream::stream::Config {
            name: format!("CIM-EVENTS-{context}"),
            subjects: vec![format!("cim.events.{context}.>")],
            deny_delete: true,
            deny_purge: true,
            allow_direct: true,
            allow_atomic_publish: true,
            max_consumers: 10_000,
            ..Default::default()
        };
        let name = settings.name.clone();
        self.create(settings).await;
        let log = NatsLog::open(&self.connection, &name).await.unwrap();
        let context = ContextName::new(&context).unwrap();
        let scheme = SubjectScheme::new(context, "cim.events", "cim.aggregates").unwrap();
        (name, LogUnderTest { log: Arc::new(log), scheme })
    }

    async fn bucket(&self) -> String {
        let bucket = self.server.name(&unique());
        let settings = jetstream::stream::Config {
            name: format!("KV_{bucket}"),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: 1,
            discard: jetstream::stream::DiscardPolicy::New,
            deny_delete: true,
            allow_rollup: true,
            allow_direct: true,
            allow_atomic_publish: true,
            ..Default::default()
        };
        self.create(settings).await;
        bucket
    }
}

fn unique() -> String {
    format!("conformance-{}", Uuid::new_v4().simple())
}
