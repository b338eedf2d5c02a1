//! What the bench projects and queries: entries of accounts, summed up by customer; boards of flights.

use std::time::Duration;

use cim_persistence::backend::nats::Connection;
use cim_persistence::event::{DomainEvent, NonEmpty};
use cim_persistence::projection::{Changes, Declared, Projection, Rejection};
use cim_persistence::read_model::{IndexSpec, ReadModel};
use cim_persistence::state::{Change, Expected, KeyWrite};
use cim_persistence::store::{
    CommitInfo, Context, ExpectedVersion, NatsRepositoryConfig, NewEvent, StoredEvent,
};
use cim_persistence::subject::{AggregateId, AggregateType, InvalidToken};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct Booked {
    pub customer: u64,
    pub cents: i64,
    pub note: String,
}

impl DomainEvent for Booked {
    fn event_type(&self) -> &'static str {
        "booked"
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Customer {
    pub number: u64,
    pub cents: i64,
    pub entries: u64,
}

impl ReadModel for Customer {
    const MODEL_TYPE: &'static str = "customer";
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new(self.number.to_string())
    }
}

pub struct Customers;

impl Projection for Customers {
    const NAME: &'static str = "customers";
    type Event = Booked;
    fn models() -> Vec<Declared> {
        vec![Declared::of::<Customer>()]
    }
    fn project(&self, event: Booked, _: &StoredEvent, to: &mut Changes) -> Result<(), Rejection> {
        let Booked { customer, cents, .. } = event;
        let id = AggregateId::new(customer.to_string())?;
        to.upsert(&id, move |model: &mut Customer| {
            model.number = customer;
            model.cents += cents;
            model.entries += 1;
        });
        Ok(())
    }
}

/// A board of about two hundred bytes.
#[derive(Clone, Serialize, Deserialize)]
pub struct Board {
    pub origin: String,
    pub carrier: String,
    pub flight: u32,
    pub delay: i64,
    pub note: String,
}

impl ReadModel for Board {
    const MODEL_TYPE: &'static str = "board";
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::from_tokens([&self.origin, &self.carrier, &self.flight.to_string()])
    }
    fn indexes() -> Vec<IndexSpec> {
        vec![IndexSpec::on(["delay"])]
    }
}

/// Five origins of twenty carriers of a thousand flights: 1,000 of one carrier of one origin, 20,000 of one origin. Each
/// delay is that of a hundred boards.
pub fn boards() -> impl Iterator<Item = Board> {
    (0..100_000_u32).map(|n| Board {
        origin: format!("O{}", n / 20_000),
        carrier: format!("C{}", n / 1_000 % 20),
        flight: n % 1_000,
        delay: i64::from(n * 7 % 1_000),
        note: NOTE.to_owned(),
    })
}

const NOTE: &str = "a payload of about two hundred bytes, as events of a business usually have: some ids, an amount, \
                    a reason, a few words";

/// A context of its own on the server.
pub async fn context(connection: &Connection) -> Context {
    let name = format!("b{}", uuid::Uuid::new_v4().simple());
    let config =
        NatsRepositoryConfig { keep_state: false, ..NatsRepositoryConfig::for_context(name) };
    Context::provision(connection, &config).await.expect("a context can be made")
}

/// Stores `count` events of 1,000 accounts, each entry for one of 10,000 customers without any order.
pub async fn book(context: &Context, count: u64) {
    const EACH: u64 = 100;
    let account = AggregateType::new("account").expect("a name");
    let commits = (0..count / EACH).map(|commit| {
        let account = account.clone();
        async move {
            let entries = (0..EACH).map(|entry| {
                let customer = (commit * EACH + entry).wrapping_mul(2_654_435_761) % 10_000;
                let event = Booked { customer, cents: 1, note: NOTE.to_owned() };
                NewEvent::of(&event).expect("an event")
            });
            let entries = NonEmpty::from_vec(entries.collect()).expect("a hundred");
            let id = AggregateId::new((commit % 1_000).to_string()).expect("an id");
            let info = CommitInfo::default();
            context
                .append(&account, &id, ExpectedVersion::Any, &entries, &info)
                .await
                .expect("stored");
        }
    });
    futures::stream::iter(commits).for_each_concurrent(64, |commit| commit).await;
}

/// Stores one entry and returns its position.
pub async fn book_one(context: &Context) -> cim_persistence::Position {
    let account = AggregateType::new("account").expect("a name");
    let event = Booked { customer: 1, cents: 1, note: NOTE.to_owned() };
    let event = NonEmpty::one(NewEvent::of(&event).expect("an event"));
    let id = AggregateId::new("0").expect("an id");
    let any = ExpectedVersion::Any;
    let appended = context.append(&account, &id, any, &event, &CommitInfo::default()).await;
    appended.expect("stored").head.position
}

pub const PATIENCE: Duration = Duration::from_secs(600);

/// Writes the boards as the store does, a thousand keys at a time.
pub async fn fill(context: &Context) {
    let models: Vec<Board> = boards().collect();
    for models in models.chunks(1_000) {
        let writes = models.iter().map(|board| {
            let key = format!("board.{}", board.id().expect("an id").as_str());
            let key = cim_persistence::state::Key::new(key).expect("a key");
            let json = serde_json::to_vec(board).expect("JSON");
            KeyWrite::new(key, Change::Put(json.into()), Expected::Anything)
        });
        let writes = NonEmpty::from_vec(writes.collect()).expect("a thousand");
        context.read_models().write(writes).await.expect("stored");
    }
}
