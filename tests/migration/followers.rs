//! Those who follow a stream that is reshaped: a process manager, a handler of effects and a relay go on where they were.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cim_persistence::backend::ReadFrom;
use cim_persistence::event::{NonEmpty, Shape};
use cim_persistence::migration::reshape::{ORIGIN_POSITION, StreamReshape, current_stream};
use cim_persistence::outbox::{
    Outbox, OutboxMessage, PendingMessage, PublishError, Publisher, Relay, RelayOptions,
    RetryPolicy, Topic,
};
use cim_persistence::prelude::*;
use cim_persistence::process::{ProcessManager, ProcessOptions, Reaction, RunningProcess};
use cim_persistence::projection::{
    Effects, FirstStart, ProjectionOptions, Rejection, RunningEffects,
};
use cim_persistence::repository::Repository;
use cim_persistence::state::{Change, Expected, Key, KeyWrite};
use cim_persistence::store::EventFilter;
use cim_persistence::subject::AggregateId;
use cim_persistence::{Context, LoadOptions, Position, StoredEvent};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::domain::Deposited;
use super::reshape::{account, id, pay, payments};
use super::server::{hasty, server};

/// What the process manager notes of an account: each event once.
#[derive(Clone, Serialize, Deserialize)]
struct Noted {
    id: String,
    events: u64,
}

impl Aggregate for Noted {
    const TYPE: &'static str = "noted";
    type Id = String;
    type Event = Deposited;
    fn new(id: &String) -> Self {
        Self { id: id.clone(), events: 0 }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, _: &Deposited) {
        self.events += 1;
    }
}

/// What happens to an account, before it is reshaped and after.
#[derive(Clone, Serialize, Deserialize)]
struct Moved {
    cents: i64,
}

impl DomainEvent for Moved {
    fn event_type(&self) -> &'static str {
        "paid"
    }
    fn shapes() -> &'static [Shape] {
        const fn any(name: &'static str) -> Shape {
            Shape { name, version: 2 }
        }
        const { &[any("opened"), any("paid"), any("payment"), any("half"), any("rest")] }
    }
}

struct Notes(Repository<Noted>);

impl ProcessManager for Notes {
    const NAME: &'static str = "notes";
    type Event = Moved;
    fn filters() -> Vec<EventFilter> {
        vec![EventFilter::for_type(account())]
    }
    fn instance(&self, _: &Moved, stored: &StoredEvent) -> Result<Option<AggregateId>, Rejection> {
        Ok(Some(stored.aggregate_id().clone()))
    }
    async fn react(
        &self,
        Moved { cents }: Moved,
        _: &StoredEvent,
        reaction: &mut Reaction,
    ) -> Result<(), Rejection> {
        let id = reaction.instance().to_string();
        reaction.record(&self.0, &id, vec![Deposited { cents }]).await?;
        Ok(())
    }
}

/// Where the events lie whose effects took place.
#[derive(Clone, Default)]
struct Mails(Arc<Mutex<Vec<Position>>>);

impl Effects for Mails {
    const NAME: &'static str = "mails";
    type Event = Moved;
    fn filters() -> Vec<EventFilter> {
        vec![EventFilter::for_type(account())]
    }
    async fn handle(&self, _: Moved, stored: &StoredEvent) -> Result<(), Rejection> {
        self.0.lock().unwrap().push(stored.position());
        Ok(())
    }
}

/// A receiver that never takes what is bad, and late messages only once it is open.
#[derive(Clone, Default)]
struct Shop {
    open: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Publisher for Shop {
    async fn publish(&self, message: &PendingMessage) -> Result<(), PublishError> {
        let topic = message.topic().to_string();
        match topic.as_str() {
            "bad" if !self.open.load(Ordering::SeqCst) => Err(PublishError::permanent("bad")),
            "late" if !self.open.load(Ordering::SeqCst) => Err(PublishError::retryable("closed")),
            _ => {
                self.taken.lock().unwrap().push(topic);
                Ok(())
            }
        }
    }
}

fn outbox(context: &Context) -> Outbox {
    let pause = Duration::from_millis(5);
    Outbox::of(context).with_retry(RetryPolicy { tries: u32::MAX, pause, longest_pause: pause })
}

async fn send(context: &Context, topic: &str) {
    let message = OutboxMessage::json(Topic::new(topic).unwrap(), "sent", &topic).unwrap();
    let messages = NonEmpty::one(message);
    outbox(context).save_messages(&messages, &Default::default()).await.unwrap();
}

/// All three, until they are done with everything.
async fn follow(context: &Context, mails: &Mails, shop: &Shop, held: (usize, u64)) {
    let last = context.status().await.unwrap().last;
    let notes = Notes(Repository::of(context).unwrap());
    let mut process = RunningProcess::start(context, notes, ProcessOptions::default()).unwrap();
    let (first, options) = (FirstStart::Beginning, ProjectionOptions::default());
    let mut effects = RunningEffects::start(context, mails.clone(), first, options).unwrap();
    let mut relay = Relay::start(&outbox(context), shop.clone(), RelayOptions::default());
    let newest = context
        .stream_after(Position::START)
        .try_filter(|event| std::future::ready(*event.aggregate_type() == account()))
        .map_ok(|event| event.position())
        .try_fold(Position::START, |_, at| std::future::ready(Ok(at)))
        .await
        .unwrap();
    process.handled(newest).await.unwrap();
    effects.handled(newest).await.unwrap();
    let done = |at: Position, waiting: usize, parked: u64| at >= last && (waiting, parked) == held;
    relay.wait_until(|now| done(now.position, now.waiting, now.parked)).await.unwrap();
    process.stop().await.unwrap();
    effects.stop().await.unwrap();
    relay.stop().await.unwrap();
}

/// How many events were noted of each account.
async fn noted(context: &Context) -> BTreeMap<usize, u64> {
    let notes = Repository::<Noted>::of(context).unwrap();
    let mut noted = BTreeMap::new();
    for number in 0..5 {
        let found = notes.load(&id(number).to_string(), LoadOptions::default()).await.unwrap();
        noted.insert(number, found.0.events);
    }
    noted
}

async fn put(context: &Context, key: &Key, record: &serde_json::Value) {
    let change = Change::Put(record.to_string().into());
    let write = KeyWrite::new(key.clone(), change, Expected::Anything);
    context.read_models().write(NonEmpty::one(write)).await.unwrap();
}

#[tokio::test]
async fn those_who_follow_a_stream_go_on_in_the_new_one_where_they_were() {
    let (server, connection, bank) = server().await;
    let (config, second) = (hasty(bank), server.name("EVENTS-2"));
    let old = Context::provision(&connection, &config).await.unwrap();
    let (mails, shop) = (Mails::default(), Shop::default());
    pay(&old, 5, 3).await;
    for topic in ["bad", "good", "late"] {
        send(&old, topic).await;
    }
    follow(&old, &mails, &shop, (1, 1)).await;
    assert_eq!((mails.0.lock().unwrap().len(), shop.taken.lock().unwrap().len()), (20, 1));
    let before = noted(&old).await;
    assert_eq!(before, (0..5).map(|number| (number, 4)).collect());
    // What they are to find in the new stream.
    let end = old.status().await.unwrap().last;
    pay(&old, 5, 2).await;
    send(&old, "good").await;

    // The record of a process that has reacted to more than it says.
    let key = Key::new("=process.notes").unwrap();
    let record = old.read_models().get(&key, ReadFrom::Leader).await.unwrap().value.unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let mut behind = record.clone();
    behind["position"] = 2.into();
    put(&old, &key, &behind).await;
    let reshape = StreamReshape::begin(&connection, &config, &second).await.unwrap();
    let refused = reshape.switch(payments).await.unwrap_err().to_string();
    let text = "=process.notes cannot be migrated: it stands at position 2, and what it did at";
    assert!(refused.starts_with(text), "{refused}");
    assert_eq!(current_stream(&connection, &config).await.unwrap(), config);
    reshape.abandon().await.unwrap();
    put(&old, &key, &record).await;

    reshape.switch(payments).await.unwrap();
    // Done again, nothing is moved twice.
    reshape.switch(payments).await.unwrap();
    let current = current_stream(&connection, &config).await.unwrap();
    let new = Context::open(&connection, &current).await.unwrap();
    let mut wanted = before;
    for number in 0..5 {
        let events = new.get_events(&account(), &id(number), 0).await.unwrap();
        let later = |event: &&StoredEvent| {
            let origin: u64 = event.metadata().get(ORIGIN_POSITION).unwrap().parse().unwrap();
            origin > end.get()
        };
        *wanted.get_mut(&number).unwrap() += events.iter().filter(later).count() as u64;
    }
    let parked = outbox(&new).list_parked().await.unwrap();
    assert_eq!((parked.len(), parked[0].topic.as_str()), (1, "bad"));
    shop.open.store(true, Ordering::SeqCst);
    assert!(outbox(&new).requeue(parked[0].position).await.unwrap());
    mails.0.lock().unwrap().clear();
    follow(&new, &mails, &shop, (0, 0)).await;
    assert_eq!(noted(&new).await, wanted);
    let sent = mails.0.lock().unwrap().len() as u64;
    assert_eq!(sent, wanted.values().sum::<u64>() - 20);
    let mut taken = shop.taken.lock().unwrap().clone();
    taken.sort();
    assert_eq!(taken, ["bad", "good", "good", "late"]);
}

#[tokio::test]
async fn those_who_follow_an_empty_stream_begin_with_what_is_first_in_the_new_one() {
    let (server, connection, bank) = server().await;
    let (config, second) = (hasty(bank), server.name("EVENTS-2"));
    let old = Context::provision(&connection, &config).await.unwrap();
    let mails = Mails::default();
    let start = |context: &Context| {
        let (first, options) = (FirstStart::Beginning, ProjectionOptions::default());
        RunningEffects::start(context, mails.clone(), first, options).unwrap()
    };
    let effects = start(&old);
    let record = Key::new("=effects.mails").unwrap();
    while old.read_models().get(&record, ReadFrom::Leader).await.unwrap().value.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    effects.stop().await.unwrap();
    let reshape = StreamReshape::begin(&connection, &config, &second).await.unwrap();
    reshape.switch(payments).await.unwrap();
    let current = current_stream(&connection, &config).await.unwrap();
    let new = Context::open(&connection, &current).await.unwrap();
    pay(&new, 1, 1).await;
    let written = new.get_events(&account(), &id(0), 0).await.unwrap();
    let mut effects = start(&new);
    effects.handled(written.last().unwrap().position()).await.unwrap();
    effects.stop().await.unwrap();
    assert_eq!(mails.0.lock().unwrap().len(), written.len());
}
