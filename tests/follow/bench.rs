//! A stream, somebody who writes to it, and somebody who follows it and looks at what comes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::CreateStreamErrorKind;
use bytes::Bytes;
use cim_persistence::backend::nats::Connection;
use cim_persistence::backend::{
    BackendError, Followed, Guard, NewMessage, Position, Start, StoredMessage, TailQuery,
};
use cim_persistence::event::{Headers, NonEmpty};
use cim_persistence::event_log::{EventLog, LogQuery, NatsLog};
use cim_persistence::subject::{
    AggregateId, AggregateType, ContextName, Pattern, Subject, SubjectScheme,
};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::time::timeout;

use crate::test_server::TestServer;

/// Longer than an election and the restart of a server take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(90);

pub(crate) struct Bench {
    pub(crate) log: NatsLog,
    pub(crate) jetstream: jetstream::Context,
    /// The name of the stream.
    pub(crate) name: String,
    scheme: SubjectScheme,
}

impl Bench {
    /// On a server where others may be.
    pub(crate) async fn on(server: &TestServer) -> Self {
        Self::in_context(&server.name("follow"), &[server.url()], 1).await
    }

    /// On servers of the test's own.
    pub(crate) async fn start(urls: &[&str], replicas: usize) -> Self {
        Self::in_context("follow", urls, replicas).await
    }

    async fn in_context(context: &str, urls: &[&str], replicas: usize) -> Self {
        let jetstream = jetstream::new(connect(urls).await);
        let name = format!("CIM-EVENTS-{context}");
        let context = ContextName::new(context).unwrap();
        let scheme = SubjectScheme::new(context, "cim.events", "cim.aggregates").unwrap();
        make(&jetstream, &name, &scheme, replicas).await;
        let connection = Connection::from_client(connect(urls).await);
        let log = NatsLog::open(&connection, &name).await.unwrap();
        let bench = Self { log, jetstream, name, scheme };
        timeout(LONG, bench.until_heard()).await.expect("the stream takes messages");
        bench
    }

    /// The same stream, read through another connection.
    pub(crate) async fn through(&self, connection: &Connection) -> Self {
        let log = NatsLog::open(connection, &self.name).await.unwrap();
        let (jetstream, name) = (self.jetstream.clone(), self.name.clone());
        Self { log, jetstream, name, scheme: self.scheme.clone() }
    }

    /// Another stream of the same name, in the place of this one.
    pub(crate) async fn make_anew(&self) {
        self.jetstream.delete_stream(&self.name).await.unwrap();
        make(&self.jetstream, &self.name, &self.scheme, 1).await;
    }

    pub(crate) fn follow(&self, start: Start) -> Follower {
        let pattern = Pattern::parse(&self.scheme.all_events()).unwrap();
        let query = TailQuery { patterns: NonEmpty::one(pattern), start };
        Follower { stream: self.log.follow(query), seen: Vec::new(), caught_up: 0 }
    }

    pub(crate) fn message(&self, number: u64, payload: impl Into<Bytes>) -> NewMessage {
        let order = AggregateType::new("order").unwrap();
        let subject: Subject =
            self.scheme.events_of(&order, &AggregateId::new(number.to_string()).unwrap());
        NewMessage { subject, headers: Headers::new(), payload: payload.into(), guard: Guard::Free }
    }

    /// The servers of a young cluster hear late from each other where the stream listens. A message that can be refused
    /// only shows it, and is never stored.
    async fn until_heard(&self) {
        let guard = Guard::Last(Position::new(1));
        let probe = NewMessage { guard, ..self.message(0, "") };
        loop {
            match self.log.publish(probe.clone()).await.unwrap_err() {
                BackendError::Conflict { .. } => return,
                error => assert!(error.is_transient(), "{error:?}"),
            }
        }
    }

    pub(crate) async fn fill(&self, count: u64) {
        let numbers: Vec<u64> = (0..count).collect();
        for chunk in numbers.chunks(500) {
            let messages = chunk.iter().map(|number| self.message(*number, "x")).collect();
            self.log.publish_batch(NonEmpty::from_vec(messages).unwrap()).await.unwrap();
        }
    }

    /// Writes one message after the other, through everything that happens, until told to stop. The last one is stored
    /// after that: whoever waits for a message gets one, and sees that it is over.
    pub(crate) async fn write(&self, stop: &AtomicBool, stored: &AtomicU64) {
        let mut number = 0;
        loop {
            let last = stop.load(Ordering::SeqCst);
            match self.log.publish(self.message(number % 50, number.to_string())).await {
                Ok(_) if last => return,
                Ok(_) => {
                    stored.fetch_add(1, Ordering::SeqCst);
                    number += 1;
                }
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
        }
    }

    /// What is stored, by the count of the leader: a replica that answers a read may be behind it.
    pub(crate) async fn all(&self) -> Vec<StoredMessage> {
        self.all_with(Position::START).await
    }

    /// What is stored, with the message at this position: a leader that has just become one may not count it yet.
    pub(crate) async fn all_with(&self, position: Position) -> Vec<StoredMessage> {
        let whole = async {
            loop {
                let stream = self.stream().await;
                let query = LogQuery { filter: None, after: Position::START };
                let all: Vec<_> = self.log.read(query).try_collect().await.unwrap();
                let last = all.last().map_or(Position::START, |message| message.position);
                if all.len() as u64 == stream.cached_info().state.messages && last >= position {
                    return all;
                }
            }
        };
        timeout(LONG, whole).await.expect("every replica catches up")
    }

    /// The stream, asked for again while no server leads it.
    pub(crate) async fn stream(&self) -> jetstream::stream::Stream {
        let asked = async {
            loop {
                if let Ok(stream) = self.jetstream.get_stream(&self.name).await {
                    return stream;
                }
            }
        };
        timeout(LONG, asked).await.expect("a server leads the stream")
    }

    /// The name of the server that leads the stream, as soon as one does.
    pub(crate) async fn leader(&self) -> String {
        let known = async {
            loop {
                let info = self.stream().await.cached_info().clone();
                if let Some(leader) = info.cluster.and_then(|cluster| cluster.leader) {
                    return leader;
                }
            }
        };
        timeout(LONG, known).await.expect("a server leads the stream")
    }

    /// The names of the consumers on the stream.
    pub(crate) async fn consumers(&self) -> Vec<String> {
        let stream = self.stream().await;
        stream.consumer_names().try_collect().await.unwrap()
    }

    pub(crate) async fn delete_consumers(&self) {
        let stream = self.stream().await;
        for name in self.consumers().await {
            // A consumer may be gone by itself in between.
            let _ = stream.delete_consumer(&name).await;
        }
    }

    /// How many messages the only consumer has delivered, once that has stopped growing.
    pub(crate) async fn delivered_when_quiet(&self) -> u64 {
        let [name] = self.consumers().await.try_into().unwrap();
        let stream = self.stream().await;
        let (mut before, mut same) = (u64::MAX, 0);
        while same < 20 {
            let delivered = stream.consumer_info(&name).await.unwrap().delivered.consumer_sequence;
            same = if delivered == before { same + 1 } else { 0 };
            before = delivered;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        before
    }

    pub(crate) async fn until_no_consumer_is_left(&self) {
        let none = async {
            let stream = self.stream().await;
            while stream.get_info().await.unwrap().state.consumer_count > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, none).await.expect("consumers are left behind");
    }
}

pub(crate) async fn connect(urls: &[&str]) -> async_nats::Client {
    let addresses: Vec<async_nats::ServerAddr> =
        urls.iter().map(|url| url.parse().unwrap()).collect();
    async_nats::connect(addresses).await.unwrap()
}

async fn make(
    jetstream: &jetstream::Context,
    name: &str,
    scheme: &SubjectScheme,
    num_replicas: usize,
) {
    let settings = jetstream::stream::Config {
        name: name.to_owned(),
        subjects: vec![scheme.all_events()],
        num_replicas,
        allow_direct: true,
        allow_atomic_publish: true,
        ..Default::default()
    };
    // A cluster that has just begun may be busy for longer than one request waits.
    let made = async {
        while let Err(error) = jetstream.create_stream(settings.clone()).await {
            assert_eq!(error.kind(), CreateStreamErrorKind::TimedOut, "{error}");
        }
    };
    timeout(LONG, made).await.expect("the stream is made");
}

/// Held by whoever runs a cluster: two of them at a time are too much for two cores.
pub(crate) static ONE_CLUSTER: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Waits until a counter has grown by so many.
pub(crate) async fn progress(counter: &AtomicU64, more: u64) {
    let goal = counter.load(Ordering::SeqCst) + more;
    let reached = async {
        while counter.load(Ordering::SeqCst) < goal {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LONG, reached).await.expect("writing gets on again");
}

pub(crate) struct Follower {
    stream: BoxStream<'static, Result<Followed, BackendError>>,
    pub(crate) seen: Vec<StoredMessage>,
    pub(crate) caught_up: usize,
}

impl Follower {
    /// Takes one thing that comes.
    pub(crate) async fn step(&mut self) -> Option<BackendError> {
        match timeout(LONG, self.stream.next()).await.expect("something comes") {
            Some(Ok(Followed::Message(message))) => self.seen.push(message),
            Some(Ok(Followed::CaughtUp)) => self.caught_up += 1,
            Some(Err(error)) => return Some(error),
            None => panic!("following ended"),
        }
        None
    }

    /// Takes messages until so many were seen.
    pub(crate) async fn until(&mut self, count: usize) {
        while self.seen.len() < count {
            assert!(self.step().await.is_none());
        }
    }

    pub(crate) async fn past(&mut self) {
        while self.caught_up == 0 {
            assert!(self.step().await.is_none());
        }
    }

    /// Takes what there is until it saw the last of these, and compares.
    pub(crate) async fn saw_exactly(&mut self, all: &[StoredMessage]) {
        let last = all.last().map(|message| message.position);
        while self.seen.last().map(|message| message.position) < last || self.caught_up == 0 {
            assert!(self.step().await.is_none());
        }
        let seen: Vec<_> = self.seen.iter().map(|message| message.position.get()).collect();
        let wanted: Vec<_> = all.iter().map(|message| message.position.get()).collect();
        assert!(seen == wanted, "{} seen, {} stored", seen.len(), wanted.len());
        assert!(self.seen == all, "each message is as it is stored");
        assert_eq!(self.caught_up, 1);
    }
}
