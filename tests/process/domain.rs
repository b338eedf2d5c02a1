//! What these tests run: orders that are placed and paid, and the process that follows each of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cim_persistence::backend::Position;
use cim_persistence::clock::Timestamp;
use cim_persistence::event_log::MemoryLog;
use cim_persistence::prelude::*;
use cim_persistence::process::{DueTimeout, ProcessManager, ProcessOptions, Reaction};
use cim_persistence::projection::Rejection;
use cim_persistence::repository::TransactError;
use cim_persistence::state::MemoryKeyValue;
use cim_persistence::store::{EventFilter, Ports};
use cim_persistence::subject::{AggregateId, AggregateType};
use cim_persistence::testing::faults::Faults;
use cim_persistence::timeouts::MemoryTimeouts;
use cim_persistence::{
    Context, NatsRepositoryConfig, Repository, RepositoryError, StoreError, StoredEvent,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What happens to an order, and what the process is to do about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum OrderEvent {
    /// Nothing but what is done about every event.
    Placed,
    /// A reminder at this time, in microseconds, instead of the one that waits.
    Remind(u64),
    /// No reminder.
    Paid,
    /// The process is to refuse this.
    Broken,
    /// The process is to panic.
    Panics,
}

impl DomainEvent for OrderEvent {
    fn event_type(&self) -> &'static str {
        "order"
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    id: String,
}

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Id = String;
    type Event = OrderEvent;
    fn new(id: &String) -> Self {
        Self { id: id.clone() }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, _: &OrderEvent) {}
}

/// What the process notes: to what it has reacted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Noted {
    Event(u64),
    Reminder { scheduled_at: u64 },
}

impl DomainEvent for Noted {
    fn event_type(&self) -> &'static str {
        "noted"
    }
}

/// A list of what was noted. Of one order, and of all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Notes {
    id: String,
    pub(crate) all: Vec<Noted>,
}

impl Aggregate for Notes {
    const TYPE: &'static str = "notes";
    type Id = String;
    type Event = Noted;
    fn new(id: &String) -> Self {
        Self { id: id.clone(), all: Vec::new() }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, noted: &Noted) {
        self.all.push(noted.clone());
    }
}

/// The list that every reaction adds to, so that reactions and others stand in each other's way.
pub(crate) const ALL: &str = "all";

pub(crate) struct Follow {
    pub(crate) notes: Repository<Notes>,
}

impl Follow {
    pub(crate) fn on(context: &Context) -> Self {
        Self { notes: Repository::of(context).unwrap() }
    }

    async fn note(&self, reaction: &mut Reaction, noted: Noted) -> Result<(), Rejection> {
        let own = reaction.instance().to_string();
        for list in [own, ALL.to_owned()] {
            reaction.record(&self.notes, &list, vec![noted.clone()]).await?;
        }
        Ok(())
    }
}

impl ProcessManager for Follow {
    const NAME: &'static str = "follow";
    type Event = OrderEvent;

    fn filters() -> Vec<EventFilter> {
        vec![EventFilter::for_type(AggregateType::new("order").unwrap())]
    }

    fn instance(
        &self,
        _: &OrderEvent,
        stored: &StoredEvent,
    ) -> Result<Option<AggregateId>, Rejection> {
        Ok(Some(stored.aggregate_id().clone()))
    }

    async fn react(
        &self,
        event: OrderEvent,
        stored: &StoredEvent,
        reaction: &mut Reaction,
    ) -> Result<(), Rejection> {
        self.note(reaction, Noted::Event(stored.position().get())).await?;
        match event {
            OrderEvent::Placed => Ok(()),
            OrderEvent::Remind(at) => {
                Ok(reaction.schedule("reminder", Timestamp::from_micros(at), &at)?)
            }
            OrderEvent::Paid => Ok(reaction.cancel("reminder")?),
            OrderEvent::Broken => Err("it is broken".into()),
            OrderEvent::Panics => panic!("an order that panics"),
        }
    }

    async fn timeout(&self, due: &DueTimeout, reaction: &mut Reaction) -> Result<(), Rejection> {
        assert_eq!(due.name(), "reminder");
        let scheduled_at: u64 = due.data()?;
        assert_eq!(due.at().as_micros(), scheduled_at);
        self.note(reaction, Noted::Reminder { scheduled_at }).await
    }
}

pub(crate) fn config() -> NatsRepositoryConfig {
    NatsRepositoryConfig { keep_state: false, ..NatsRepositoryConfig::for_context("bank") }
}

pub(crate) fn options() -> ProcessOptions {
    ProcessOptions { lease: Duration::from_millis(200), ..ProcessOptions::default() }
}

/// A store in memory that several processes share.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) log: MemoryLog,
    pub(crate) models: MemoryKeyValue,
    pub(crate) timeouts: MemoryTimeouts,
}

impl Store {
    pub(crate) fn new(timeouts: MemoryTimeouts) -> Self {
        Self { log: MemoryLog::new(), models: MemoryKeyValue::new("readmodels"), timeouts }
    }

    /// The same store with another bucket of leases and cursors, so that its process knows nothing of the others.
    pub(crate) fn apart(&self) -> Self {
        Self { models: MemoryKeyValue::new("readmodels"), ..self.clone() }
    }

    /// A process on this store, where these faults meet it.
    pub(crate) fn process(&self, faults: &Faults) -> Context {
        let bucket = |name: &str| Arc::new(MemoryKeyValue::new(name));
        let ports = Ports {
            log: Arc::new(self.log.clone().with_faults(faults)),
            state: bucket("state"),
            snapshots: bucket("snapshots"),
            read_models: Arc::new(self.models.clone().with_faults(faults)),
            timeouts: Some(Arc::new(self.timeouts.clone().with_faults(faults))),
            ..Ports::in_memory()
        };
        Context::on(ports, &config()).unwrap()
    }

    pub(crate) fn healthy(&self) -> Context {
        self.process(&Faults::new())
    }
}

/// Lets something happen to an order, and says where the event lies. A server that is away is asked again.
pub(crate) async fn happens(context: &Context, order: &str, event: OrderEvent) -> Position {
    let orders = Repository::<Order>::of(context).unwrap();
    let id = order.to_owned();
    loop {
        let event = event.clone();
        match orders.transact(&id, move |_| Ok::<_, ()>([event.clone()])).await {
            Ok(done) => return done.position,
            Err(TransactError::Repository(RepositoryError::Store(StoreError::Backend(error))))
                if error.is_transient() =>
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// What was noted of one order, or of all. A server that is away is asked again.
pub(crate) async fn noted(context: &Context, list: &str) -> Vec<Noted> {
    let notes = Repository::<Notes>::of(context).unwrap();
    loop {
        match notes.load(&list.to_owned(), Default::default()).await {
            Ok((notes, _)) => return notes.all,
            Err(RepositoryError::NotFound { .. }) => return Vec::new(),
            Err(RepositoryError::Store(StoreError::Backend(error))) if error.is_transient() => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits until so much was noted of an order, and returns it.
pub(crate) async fn noted_at_least(context: &Context, list: &str, count: usize) -> Vec<Noted> {
    let waiting = async {
        loop {
            let noted = noted(context, list).await;
            if noted.len() >= count {
                return noted;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it is never noted")
}

/// Checks that every event of every order took effect once, in the lists of its order and of all, in order, and that
/// what it caused says so. Returns the reminders by order.
pub(crate) async fn each_took_effect_once(context: &Context) -> BTreeMap<String, Vec<u64>> {
    let mut positions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut noted: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut reminders: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut ids: BTreeMap<u64, (Uuid, Uuid)> = BTreeMap::new();
    for stored in context.get_events_after(Position::START, usize::MAX).await.unwrap() {
        let id = stored.aggregate_id().to_string();
        let position = stored.position().get();
        if stored.aggregate_type().as_str() == "order" {
            positions.entry(id).or_default().push(position);
            positions.entry(ALL.to_owned()).or_default().push(position);
            ids.insert(position, (stored.correlation_id(), stored.event_id()));
            continue;
        }
        match stored.data().unwrap() {
            Noted::Event(of) => {
                let (correlation, event) = ids[&of];
                assert_eq!(stored.correlation_id(), correlation);
                assert_eq!(stored.causation_id(), Some(event));
                noted.entry(id).or_default().push(of);
            }
            Noted::Reminder { scheduled_at } => {
                reminders.entry(id).or_default().push(scheduled_at);
            }
        }
    }
    for list in noted.values_mut() {
        list.sort_unstable();
    }
    assert_eq!(noted, positions);
    reminders
}

/// Checks that no reminder took effect twice; every one was scheduled for a time of its own.
pub(crate) fn no_reminder_came_twice(reminders: &BTreeMap<String, Vec<u64>>) {
    let mut all = reminders[ALL].clone();
    all.sort_unstable();
    let count = all.len();
    all.dedup();
    assert_eq!(all.len(), count, "a reminder took effect twice");
}

/// A time so long from now, in microseconds.
pub(crate) fn later(by: Duration) -> u64 {
    Timestamp::now().as_micros() + u64::try_from(by.as_micros()).unwrap()
}
