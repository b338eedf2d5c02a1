//! What these tests publish, to whom, and what must have arrived.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cim_persistence::backend::Position;
use cim_persistence::event::NonEmpty;
use cim_persistence::event_log::{EventLog, MemoryLog};
use cim_persistence::outbox::{
    Outbox, OutboxError, OutboxMessage, PendingMessage, PublishError, Publisher, Relay,
    RelayOptions, RelayStatus, RetryPolicy, Topic,
};
use cim_persistence::state::MemoryKeyValue;
use cim_persistence::store::{CommitInfo, Ports};
use cim_persistence::testing::faults::Faults;
use cim_persistence::{Context, NatsRepositoryConfig};

/// A store in memory that several processes share.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) log: MemoryLog,
    pub(crate) models: MemoryKeyValue,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self { log: MemoryLog::new(), models: MemoryKeyValue::new("readmodels") }
    }

    /// A process on this store, where these faults meet it.
    pub(crate) fn process(&self, faults: &Faults) -> Context {
        self.with_log(self.log.clone().with_faults(faults), faults)
    }

    /// A process on this store, where these faults meet its bucket of read models alone.
    pub(crate) fn with_models_of(&self, faults: &Faults) -> Context {
        self.with_log(self.log.clone(), faults)
    }

    /// A process on another log, where these faults meet its bucket of read models.
    pub(crate) fn with_log(&self, log: impl EventLog + 'static, faults: &Faults) -> Context {
        let ports = Ports::new(
            Arc::new(log),
            Arc::new(MemoryKeyValue::new("state")),
            Arc::new(MemoryKeyValue::new("snapshots")),
            Arc::new(self.models.clone().with_faults(faults)),
        );
        Context::on(ports, &config()).unwrap()
    }

    pub(crate) fn healthy(&self) -> Context {
        self.process(&Faults::new())
    }
}

pub(crate) fn config() -> NatsRepositoryConfig {
    NatsRepositoryConfig { keep_state: false, ..NatsRepositoryConfig::for_context("bank") }
}

pub(crate) fn options() -> RelayOptions {
    RelayOptions { lease: Duration::from_millis(500), ..RelayOptions::default() }
}

/// Three tries, with pauses that no test waits long for.
pub(crate) const THREE: RetryPolicy = RetryPolicy {
    tries: 3,
    pause: Duration::from_millis(2),
    longest_pause: Duration::from_millis(5),
};

pub(crate) fn topic(text: &str) -> Topic {
    Topic::new(text).unwrap()
}

pub(crate) fn order(key: &str, number: u64) -> OutboxMessage {
    OutboxMessage::json(topic("orders"), "placed", &number).unwrap().with_key(key)
}

/// Saves a message and says where it lies.
pub(crate) async fn send(context: &Context, message: OutboxMessage) -> Position {
    try_to_send(context, message).await.unwrap()
}

pub(crate) async fn try_to_send(
    context: &Context,
    message: OutboxMessage,
) -> Result<Position, OutboxError> {
    let message = NonEmpty::one(message);
    Outbox::of(context).save_messages(&message, &CommitInfo::default()).await
}

/// So many orders of seven keys, numbered from `first`; the position of the last.
pub(crate) async fn send_many(context: &Context, first: u64, count: u64) -> Position {
    let mut last = Position::START;
    for chunk in (first..first + count).collect::<Vec<_>>().chunks(100) {
        let orders = chunk.iter().map(|n| order(&format!("k{}", n % 7), *n)).collect();
        let orders = NonEmpty::from_vec(orders).unwrap();
        let outbox = Outbox::of(context);
        last = outbox.save_messages(&orders, &CommitInfo::default()).await.unwrap();
    }
    last
}

/// So many orders, numbered from 0, of which ten at a time have a key in common; the position of the last.
pub(crate) async fn send_apart(context: &Context, count: u64) -> Position {
    let orders: Vec<_> = (0..count).map(|n| order(&format!("k{}", n / 10), n)).collect();
    let mut last = Position::START;
    for orders in orders.chunks(100) {
        let orders = NonEmpty::from_vec(orders.to_vec()).unwrap();
        let outbox = Outbox::of(context);
        last = outbox.save_messages(&orders, &CommitInfo::default()).await.unwrap();
    }
    last
}

/// What a receiver says to a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Say {
    Yes,
    /// It takes the message, but the answer is lost.
    YesUnheard,
    Refused,
    Failed,
    Gone,
    Panic,
    Hang,
}

/// A message as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Arrived {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) number: u64,
}

type Mood = Box<dyn FnMut(&PendingMessage) -> Say + Send>;

/// A receiver with moods. Cloning shares what arrived.
#[derive(Clone)]
pub(crate) struct Receiver {
    arrived: Arc<Mutex<Vec<Arrived>>>,
    mood: Arc<Mutex<Mood>>,
    /// How many are being published, the most there were, and the keys of those.
    pub(crate) under_way: Arc<Mutex<(HashSet<String>, usize)>>,
    /// How long a publish takes.
    takes: Duration,
}

impl Receiver {
    pub(crate) fn new(mood: impl FnMut(&PendingMessage) -> Say + Send + 'static) -> Self {
        Self {
            arrived: Arc::default(),
            mood: Arc::new(Mutex::new(Box::new(mood))),
            under_way: Arc::default(),
            takes: Duration::ZERO,
        }
    }

    pub(crate) fn kind() -> Self {
        Self::new(|_| Say::Yes)
    }

    /// The same receiver, where each publish takes so long.
    pub(crate) fn taking(self, takes: Duration) -> Self {
        Self { takes, ..self }
    }

    /// The same receiver, asked by another process, whose messages may be under way at the same time.
    pub(crate) fn apart(&self) -> Self {
        Self { under_way: Arc::default(), ..self.clone() }
    }

    pub(crate) fn change(&self, mood: impl FnMut(&PendingMessage) -> Say + Send + 'static) {
        *self.mood.lock().unwrap() = Box::new(mood);
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.arrived().iter().map(|arrived| arrived.number).collect()
    }
}

impl Publisher for Receiver {
    async fn publish(&self, message: &PendingMessage) -> Result<(), PublishError> {
        let key = message.key().unwrap_or(message.id()).to_owned();
        {
            let (keys, most) = &mut *self.under_way.lock().unwrap();
            assert!(keys.insert(key.clone()), "two messages of {key} at a time");
            *most = keys.len().max(*most);
        }
        // Also when it is dropped meanwhile.
        let _leave = Leave(Arc::clone(&self.under_way), key);
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        let says = (self.mood.lock().unwrap())(message);
        let number = message.event().map_err(PublishError::permanent)?.json().unwrap();
        let key = message.key().unwrap_or_default().to_owned();
        if matches!(says, Say::Yes | Say::YesUnheard) {
            let arrived = Arrived { id: message.id().to_owned(), key, number };
            self.arrived.lock().unwrap().push(arrived);
        }
        match says {
            Say::Yes => Ok(()),
            Say::YesUnheard => Err(PublishError::retryable("no answer")),
            Say::Refused => Err(PublishError::permanent("no such customer")),
            Say::Failed => Err(PublishError::retryable("try again")),
            Say::Gone => Err(PublishError::unavailable("nobody there")),
            Say::Panic => panic!("a receiver that panics"),
            Say::Hang => std::future::pending().await,
        }
    }
}

struct Leave(Arc<Mutex<(HashSet<String>, usize)>>, String);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).0.remove(&self.1);
    }
}

/// What is left when repetitions are dropped by their id.
pub(crate) fn once(arrived: &[Arrived]) -> Vec<Arrived> {
    let mut known = HashSet::new();
    arrived.iter().filter(|arrived| known.insert(&arrived.id)).cloned().collect()
}

/// Nothing is missing, nothing is there twice but for repetitions, and each key is in order.
#[track_caller]
pub(crate) fn assert_sound(arrived: &[Arrived], sent: impl IntoIterator<Item = u64>, hint: &str) {
    let arrived = once(arrived);
    let mut numbers: Vec<u64> = arrived.iter().map(|arrived| arrived.number).collect();
    let mut by_key: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for arrived in arrived.iter().filter(|arrived| !arrived.key.is_empty()) {
        by_key.entry(&arrived.key).or_default().push(arrived.number);
    }
    for (key, numbers) in by_key {
        assert!(numbers.is_sorted(), "{hint}: {key} arrived as {numbers:?}");
    }
    numbers.sort_unstable();
    assert_eq!(numbers, sent.into_iter().collect::<Vec<_>>(), "{hint}");
}

/// Waits until a relay has written down that everything up to a position is published or held.
pub(crate) async fn until(relay: &mut Relay, position: Position) -> RelayStatus {
    relay.wait_until(|status| status.position >= position).await.unwrap()
}

/// Waits until a relay has published everything up to a position that is not parked.
pub(crate) async fn until_done(relay: &mut Relay, position: Position) -> RelayStatus {
    let done = |status: &RelayStatus| status.position >= position && status.unpublished == 0;
    relay.wait_until(done).await.unwrap()
}

/// Waits until so many messages have arrived, repetitions not counted.
pub(crate) async fn until_all(receiver: &Receiver, count: u64) {
    while (once(&receiver.arrived()).len() as u64) < count {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
