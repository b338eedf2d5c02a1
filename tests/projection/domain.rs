//! What these tests project: sums that flow between accounts, as they are asked of each and of all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cim_persistence::backend::Position;
use cim_persistence::event::{DomainEvent, NonEmpty};
use cim_persistence::event_log::{EventLog, MemoryLog};
use cim_persistence::projection::{Changes, Declared, Projection, ProjectionOptions, Rejection};
use cim_persistence::read_model::ReadModel;
use cim_persistence::state::{KeyValue, MemoryKeyValue};
use cim_persistence::store::{
    CommitInfo, EventFilter, ExpectedVersion, NewEvent, Ports, StoreError,
};
use cim_persistence::subject::{AggregateId, AggregateType, InvalidToken};
use cim_persistence::testing::faults::Faults;
use cim_persistence::{Context, NatsRepositoryConfig, StoredEvent};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moved {
    pub(crate) to: String,
    pub(crate) cents: i64,
}

impl DomainEvent for Moved {
    fn event_type(&self) -> &'static str {
        "moved"
    }
}

/// What an account holds, and the positions that made it so, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Balance {
    pub(crate) account: String,
    pub(crate) cents: i64,
    pub(crate) moves: Vec<u64>,
}

impl ReadModel for Balance {
    const MODEL_TYPE: &'static str = "balance";
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new(&self.account)
    }
}

/// One model that every event changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Total {
    pub(crate) moves: u64,
    pub(crate) cents: i64,
}

impl ReadModel for Total {
    const MODEL_TYPE: &'static str = "total";
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new("all")
    }
}

/// An account of this name makes the projection refuse the event, one of the other makes it panic.
pub(crate) const REFUSED: &str = "refused";
pub(crate) const PANICS: &str = "panics";
/// One of this name makes it refuse the event with more words than a message holds.
pub(crate) const WORDY: &str = "wordy";

pub(crate) fn many_words() -> String {
    "no such account, ".repeat(100_000)
}

pub(crate) struct Balances<const VERSION: u32>;

impl<const V: u32> Projection for Balances<V> {
    const NAME: &'static str = "balances";
    const VERSION: u32 = V;
    type Event = Moved;

    fn models() -> Vec<Declared> {
        vec![Declared::of::<Balance>(), Declared::of::<Total>()]
    }

    fn filters() -> Vec<EventFilter> {
        vec![EventFilter::for_type(accounts())]
    }

    fn project(
        &self,
        event: Moved,
        stored: &StoredEvent,
        changes: &mut Changes,
    ) -> Result<(), Rejection> {
        if event.to == REFUSED {
            return Err("no such account".into());
        }
        if event.to == WORDY {
            return Err(many_words().into());
        }
        let from = stored.aggregate_id().tokens().collect::<String>();
        let position = stored.position().get();
        for (account, cents) in [(from, -event.cents), (event.to, event.cents)] {
            let id = AggregateId::new(&account)?;
            changes.upsert(&id, move |balance: &mut Balance| {
                assert!(account != PANICS, "an account that panics");
                balance.account = account;
                // The second version counts in tenths.
                balance.cents += cents * i64::from(if V == 1 { 1 } else { 10 });
                balance.moves.push(position);
            });
        }
        let cents = event.cents;
        changes.upsert(&AggregateId::new("all")?, move |total: &mut Total| {
            total.moves += 1;
            total.cents += cents;
        });
        Ok(())
    }
}

pub(crate) fn accounts() -> AggregateType {
    AggregateType::new("account").unwrap()
}

pub(crate) fn config() -> NatsRepositoryConfig {
    NatsRepositoryConfig { keep_state: false, ..NatsRepositoryConfig::for_context("bank") }
}

pub(crate) fn options() -> ProjectionOptions {
    ProjectionOptions { lease: Duration::from_millis(500), ..ProjectionOptions::default() }
}

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
        self.on_log(self.log.clone().with_faults(faults), faults)
    }

    /// A process on another log, where these faults meet the models.
    pub(crate) fn on_log(&self, log: impl EventLog + 'static, faults: &Faults) -> Context {
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

/// Moves a sum and says where the event lies.
pub(crate) async fn moves(context: &Context, from: &str, to: &str, cents: i64) -> Position {
    try_to_move(context, from, to, cents).await.unwrap()
}

async fn try_to_move(
    context: &Context,
    from: &str,
    to: &str,
    cents: i64,
) -> Result<Position, StoreError> {
    let event = NewEvent::of(&Moved { to: to.to_owned(), cents })?;
    let (id, any) = (AggregateId::new(from)?, ExpectedVersion::Any);
    let info = CommitInfo::default();
    let appended = context.append(&accounts(), &id, any, &NonEmpty::one(event), &info).await?;
    Ok(appended.head.position)
}

/// So many sums between seven accounts, and what must come of them.
pub(crate) async fn many_moves(context: &Context, count: u64) {
    for n in 0..count {
        let cents = i64::try_from(n % 97).unwrap();
        moves(context, &format!("a{}", n % 7), &format!("a{}", (n * 3 + 1) % 7), cents).await;
    }
}

/// What all models of a generation must be, made from the log by hand.
pub(crate) async fn expected(context: &Context, times: i64) -> BTreeMap<String, serde_json::Value> {
    let mut balances: BTreeMap<String, Balance> = BTreeMap::new();
    let mut total = Total::default();
    for stored in context.get_events_after(Position::START, usize::MAX).await.unwrap() {
        let event: Moved = stored.data().unwrap();
        if event.to == REFUSED || event.to == PANICS {
            continue;
        }
        let from = stored.aggregate_id().tokens().collect::<String>();
        for (account, cents) in [(from, -event.cents), (event.to, event.cents)] {
            let balance = balances.entry(account.clone()).or_default();
            balance.account = account;
            balance.cents += cents * times;
            balance.moves.push(stored.position().get());
        }
        total.moves += 1;
        total.cents += event.cents;
    }
    let models = balances.into_iter().map(|(id, b)| (format!("balance.{id}"), json(&b)));
    let totals = (total.moves > 0).then(|| ("total.all".to_owned(), json(&total)));
    models.chain(totals).collect()
}

fn json<T: Serialize>(model: &T) -> serde_json::Value {
    serde_json::to_value(model).unwrap()
}

/// The models of a generation as a plain client finds them, by the keys they would have in the first.
pub(crate) async fn stored(
    bucket: &dyn KeyValue,
    generation: u64,
) -> BTreeMap<String, serde_json::Value> {
    let mut models = BTreeMap::new();
    for kind in ["balance", "total"] {
        let token = match generation {
            1 => kind.to_owned(),
            generation => format!("{kind}={generation}"),
        };
        for key in bucket.keys(&format!("{token}.>")).await.unwrap() {
            let slot = bucket.get(&key, Default::default()).await.unwrap();
            let id = key.as_str().strip_prefix(&token).unwrap();
            if let Some(value) = slot.value {
                models.insert(format!("{kind}{id}"), serde_json::from_slice(&value).unwrap());
            }
        }
    }
    models
}

/// The position of the last event, so that a wait for it is a wait for all.
pub(crate) async fn last(context: &Context) -> Position {
    context.log().status().await.unwrap().last
}

/// As [`many_moves`], many of them under way at a time, and again when the server was not there.
pub(crate) async fn many_at_once(context: &Context, count: u64) {
    let moving = (0..count).map(|n| {
        let cents = i64::try_from(n % 97).unwrap();
        let (from, to) = (format!("b{}", n % 512), format!("a{}", (n * 3 + 1) % 7));
        async move { while try_to_move(context, &from, &to, cents).await.is_err() {} }
    });
    futures::stream::iter(moving).for_each_concurrent(256, |moved| moved).await;
}
