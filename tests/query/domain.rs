//! Boards of flights, the departures they are about, and the places where both lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cim_persistence::clock::{Clock, Timestamp};
use cim_persistence::event::NonEmpty;
use cim_persistence::event_log::MemoryLog;
use cim_persistence::query::{IndexStrategy, QueryHint, QueryOptimizer, QueryResult};
use cim_persistence::read_model::{ReadModel, ReadModelStore};
use cim_persistence::state::MemoryKeyValue;
use cim_persistence::store::{CommitInfo, NewEvent, Ports};
use cim_persistence::subject::{AggregateId, AggregateType, EventType, InvalidToken};
use cim_persistence::{Context, ExpectedVersion, NatsRepositoryConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::test_server::TestServer;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Board {
    pub(crate) origin: String,
    pub(crate) carrier: String,
    pub(crate) flight: u32,
    pub(crate) delay: i64,
    pub(crate) status: Option<String>,
}

impl ReadModel for Board {
    const MODEL_TYPE: &'static str = "board";
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::from_tokens([&self.origin, &self.carrier, &self.flight.to_string()])
    }
}

pub(crate) fn board(origin: &str, carrier: &str, flight: u32, delay: i64) -> Board {
    let (origin, carrier) = (origin.to_owned(), carrier.to_owned());
    Board { origin, carrier, flight, delay, status: None }
}

/// Four origins, three carriers, two flights each; delays from 0 to 230.
pub(crate) async fn fill(context: &Context) {
    let store = ReadModelStore::new(context);
    let mut delay = 0;
    for origin in ["EWR", "JFK", "LGA", "SFO"] {
        for carrier in ["AA", "B6", "UA"] {
            for flight in 1..=2 {
                store.save(&board(origin, carrier, flight, delay)).await.unwrap();
                delay += 10;
            }
        }
    }
}

/// A context in memory whose clock goes on by a second whenever it is asked.
pub(crate) fn in_memory() -> Context {
    let clock = Arc::new(Ticking(AtomicU64::new(1_000_000)));
    let log = Arc::new(MemoryLog::with_clock(clock));
    let bucket = |name: &str| Arc::new(MemoryKeyValue::new(name));
    let ports = Ports::new(log, bucket("state"), bucket("snapshots"), bucket("readmodels"));
    Context::on(ports, &NatsRepositoryConfig::for_context("flights")).unwrap()
}

/// A context on a server and one in memory. The first one is gone with the server.
pub(crate) async fn places() -> ([Context; 2], TestServer) {
    let server = TestServer::start().await;
    let remote = Context::connect(server.url(), &server.name("flights")).await.unwrap();
    ([remote, in_memory()], server)
}

/// A text that names the context `flights`, with the name of this one.
pub(crate) fn text(context: &Context, text: &str) -> String {
    text.replace("flights", context.scheme().context().as_str())
}

/// Appends an event and returns its position.
pub(crate) async fn append(
    context: &Context,
    (aggregate, id): (&str, &str),
    (event, schema_version): (&str, u32),
    data: Value,
) -> u64 {
    let event = NewEvent {
        event_type: EventType::new(event).unwrap(),
        schema_version,
        data: ipld_core::serde::to_ipld(data).unwrap(),
    };
    let aggregate = AggregateType::new(aggregate).unwrap();
    let id = AggregateId::new(id).unwrap();
    let (any, info) = (ExpectedVersion::Any, CommitInfo::default());
    context.append(&aggregate, &id, any, &NonEmpty::one(event), &info).await.unwrap();
    context.status().await.unwrap().last.get()
}

/// What a text finds by a strategy.
pub(crate) async fn found(
    optimizer: &QueryOptimizer,
    text: &str,
    strategy: Option<IndexStrategy>,
) -> Vec<QueryResult> {
    let hint = QueryHint { strategy, ..QueryHint::default() };
    let plan = optimizer.create_plan(text, hint).await.unwrap();
    optimizer.execute_plan(&plan).await.unwrap().0
}

pub(crate) fn keys(results: &[QueryResult]) -> Vec<&str> {
    results.iter().map(|result| result.key.as_str()).collect()
}

#[derive(Debug)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(1_000_000, Ordering::SeqCst))
    }
}
