//! The domain of these tests: accounts, transfers between them, and what must be true of all of them together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cim_persistence::backend::nats::Connection;
use cim_persistence::backend::{ConnectionConfig, Position};
use cim_persistence::event_log::{LogQuery, MemoryLog};
use cim_persistence::outbox::{CloudEvent, OutboxMessage, Topic};
use cim_persistence::prelude::*;
use cim_persistence::repository::Repository;
use cim_persistence::state::MemoryKeyValue;
use cim_persistence::store::{Context, NatsRepositoryConfig, Ports};
use cim_persistence::testing::faults::Faults;
use cim_persistence::unit_of_work::{Committed, UnitError, UnitOfWork};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    number: String,
    pub(crate) balance: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Booked {
    pub(crate) transfer: u64,
    pub(crate) amount: i64,
}

impl DomainEvent for Booked {
    fn event_type(&self) -> &'static str {
        "booked"
    }
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Id = String;
    type Event = Booked;
    fn new(number: &String) -> Self {
        Self { number: number.clone(), balance: 0 }
    }
    fn id(&self) -> &String {
        &self.number
    }
    fn apply(&mut self, event: &Booked) {
        self.balance += event.amount;
    }
}

/// An order that no more than its limit is booked by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limit {
    name: String,
    pub(crate) most: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LimitSet(pub(crate) i64);

impl DomainEvent for LimitSet {
    fn event_type(&self) -> &'static str {
        "limit_set"
    }
}

impl Aggregate for Limit {
    const TYPE: &'static str = "limit";
    type Id = String;
    type Event = LimitSet;
    fn new(name: &String) -> Self {
        Self { name: name.clone(), most: 0 }
    }
    fn id(&self) -> &String {
        &self.name
    }
    fn apply(&mut self, event: &LimitSet) {
        self.most = event.0;
    }
}

/// A context with the repositories of its two types.
#[derive(Clone)]
pub(crate) struct Bank {
    pub(crate) context: Context,
    pub(crate) accounts: Repository<Account>,
    pub(crate) limits: Repository<Limit>,
}

impl Bank {
    pub(crate) fn of(context: Context) -> Self {
        let (accounts, limits) =
            (Repository::of(&context).unwrap(), Repository::of(&context).unwrap());
        Self { context, accounts, limits }
    }

    pub(crate) fn in_memory() -> Self {
        Self::of(Context::on(Ports::in_memory(), &config()).unwrap())
    }

    pub(crate) fn on(log: &MemoryLog, faults: &Faults) -> Self {
        let bucket = |name| Arc::new(MemoryKeyValue::new(name));
        let ports = Ports::new(
            Arc::new(log.clone().with_faults(faults)),
            bucket("state"),
            bucket("snapshots"),
            bucket("readmodels"),
        );
        let config = NatsRepositoryConfig { patience_ms: 200, ..config() };
        Self::of(Context::on(ports, &config).unwrap())
    }

    /// A process of its own on these servers.
    pub(crate) async fn connect(urls: &[&str], context: &str, patience_ms: u64) -> Self {
        let mut settings = ConnectionConfig::new(urls[0]);
        for url in &urls[1..] {
            settings = settings.url(*url);
        }
        let connection = Connection::connect(&settings).await.unwrap();
        let config = NatsRepositoryConfig::for_context(context);
        let config = NatsRepositoryConfig { replicas: urls.len(), patience_ms, ..config };
        // A cluster that has just begun may be busy for longer than one request waits.
        for _ in 0..20 {
            if let Ok(context) = Context::provision(&connection, &config).await {
                return Self::of(context);
            }
        }
        Self::of(Context::provision(&connection, &config).await.unwrap())
    }

    pub(crate) fn begin(&self) -> UnitOfWork {
        UnitOfWork::begin(&self.context)
    }

    /// One transfer with a message about it, tried until nobody interferes.
    pub(crate) async fn transfer(
        &self,
        number: u64,
        from: &str,
        to: &str,
    ) -> Result<Committed, UnitError> {
        let (from, to) = (from.to_owned(), to.to_owned());
        let ((), committed) = UnitOfWork::run(&self.context, async |mut unit| {
            unit.record(&self.accounts, &from, vec![Booked { transfer: number, amount: -1 }])
                .await?;
            unit.record(&self.accounts, &to, vec![Booked { transfer: number, amount: 1 }]).await?;
            unit.send(message(number));
            Ok::<_, UnitError>((unit, ()))
        })
        .await?;
        Ok(committed)
    }

    pub(crate) async fn balance(&self, number: &str) -> i64 {
        self.accounts.load(&number.to_owned(), Default::default()).await.unwrap().0.balance
    }
}

fn config() -> NatsRepositoryConfig {
    NatsRepositoryConfig::for_context("bank")
}

pub(crate) fn message(number: u64) -> OutboxMessage {
    let topic = Topic::new("transfers").unwrap();
    OutboxMessage::json(topic, "bank.transferred", &json!({ "transfer": number })).unwrap()
}

/// The transfers that are stored whole.
///
/// Panics when one is stored in part or twice, when its messages do not lie together, when money is made or lost, or when
/// a chain does not verify.
pub(crate) async fn audit(bank: &Bank) -> Vec<u64> {
    // Who gave up may still be heard; then a look at the log and one at the accounts do not belong together.
    for _ in 0..1000 {
        let (books, end) = read(bank).await;
        let mut seen = HashMap::new();
        for number in books.balances.keys() {
            seen.insert(number.clone(), bank.balance(number).await);
            bank.accounts.verify(number).await.unwrap();
        }
        if bank.context.status().await.unwrap().last == end {
            assert_eq!(seen, books.balances);
            return books.transfers();
        }
    }
    panic!("the log never comes to rest");
}

#[derive(Deserialize)]
struct Block {
    data: Booked,
}

/// What the log says.
#[derive(Default)]
struct Books {
    /// The messages of each transfer: where they lie, and how much they book.
    places: BTreeMap<u64, Vec<(u64, i64)>>,
    balances: HashMap<String, i64>,
}

async fn read(bank: &Bank) -> (Books, Position) {
    let query = LogQuery { filter: None, after: Position::START };
    let messages: Vec<_> = bank.context.log().read(query).try_collect().await.unwrap();
    let end = messages.last().map_or(Position::START, |message| message.position);
    let mut books = Books::default();
    for message in messages {
        let position = message.position.get();
        if message.subject.as_str().starts_with("cim.outbox.") {
            let event = CloudEvent::read(&message).unwrap();
            let data: serde_json::Value = serde_json::from_slice(&event.data).unwrap();
            let transfer = data["transfer"].as_u64().unwrap();
            books.places.entry(transfer).or_default().push((position, 0));
        } else if message.subject.as_str().contains(".account.") {
            let account = message.subject.as_str().rsplit('.').next().unwrap().to_owned();
            let Block { data: booked } = serde_ipld_dagcbor::from_slice(&message.payload).unwrap();
            *books.balances.entry(account).or_default() += booked.amount;
            books.places.entry(booked.transfer).or_default().push((position, booked.amount));
        }
    }
    (books, end)
}

impl Books {
    fn transfers(&self) -> Vec<u64> {
        for (transfer, places) in &self.places {
            let amounts: Vec<i64> = places.iter().map(|place| place.1).collect();
            assert_eq!(amounts, [-1, 1, 0], "transfer {transfer}");
            let (first, positions) = (places[0].0, places.iter().map(|place| place.0));
            assert!(positions.eq(first..first + 3), "transfer {transfer} is torn apart");
        }
        assert_eq!(self.balances.values().sum::<i64>(), 0, "money is neither made nor lost");
        self.places.keys().copied().collect()
    }
}
