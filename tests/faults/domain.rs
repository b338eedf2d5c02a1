//! The domain of these tests: logs of numbered entries. And what must be true of them after every bad day.

use std::collections::HashSet;
use std::time::Duration;

use cim_persistence::backend::nats::{Connection, provision};
use cim_persistence::backend::{ConnectionConfig, Position};
use cim_persistence::event::{DomainEvent, Metadata};
use cim_persistence::prelude::Aggregate;
use cim_persistence::repository::{
    AggregateMetadata, LoadOptions, Repository, RepositoryError, SaveOptions,
};
use cim_persistence::store::{Context, ExpectedVersion, NatsRepositoryConfig, Ports, StoredEvent};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Log {
    id: String,
    pub(crate) entries: Vec<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entered(u64);

impl DomainEvent for Entered {
    fn event_type(&self) -> &'static str {
        "entered"
    }
}

impl Aggregate for Log {
    const TYPE: &'static str = "log";
    type Id = String;
    type Event = Entered;
    fn new(id: &String) -> Self {
        Self { id: id.clone(), entries: Vec::new() }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, event: &Entered) {
        self.entries.push(event.0);
    }
}

/// Saves one commit of so many events, all of which carry the number of the commit.
pub(crate) async fn enter(
    logs: &Repository<Log>,
    id: &str,
    number: u64,
    events: usize,
    expected_version: ExpectedVersion,
) -> Result<AggregateMetadata, RepositoryError> {
    let metadata = Metadata::new([("commit", format!("{number}/{events}"))]).unwrap();
    let options = SaveOptions { expected_version, metadata, ..SaveOptions::default() };
    logs.save(&Log::new(&id.to_owned()), vec![Entered(number); events], options).await
}

pub(crate) fn config(replicas: usize, patience_ms: u64) -> NatsRepositoryConfig {
    NatsRepositoryConfig { replicas, patience_ms, ..NatsRepositoryConfig::for_context("bad-days") }
}

/// A process of its own on these servers.
pub(crate) async fn process(urls: &[&str], config: &NatsRepositoryConfig) -> Repository<Log> {
    let mut settings = ConnectionConfig::new(urls[0]);
    for url in &urls[1..] {
        settings = settings.url(*url);
    }
    let connection = Connection::connect(&settings).await.unwrap();
    provision(&connection, &config.topology().unwrap()).await.unwrap();
    let connection = connection.with_timeout(Duration::from_secs(1));
    Repository::of(&Context::on(Ports::nats(&connection, config), config).unwrap()).unwrap()
}

/// Held by whoever runs a cluster: two of them at a time are too much for two cores.
pub(crate) static ONE_CLUSTER: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What is stored, and what each log is said to be: its version by the chain, and its entries and version by a load.
type Seen = (Vec<StoredEvent>, Vec<(String, u64, Vec<u64>, u64)>);

/// The numbers of the commits that are stored whole.
///
/// Panics when a commit is stored in part, twice or torn apart, when versions have gaps, when a chain does not verify,
/// or when a load says something else than the log.
pub(crate) async fn sound(logs: &Repository<Log>) -> HashSet<u64> {
    // A caller that gave up may still be heard, and a replica that is read may be behind; then the looks at the log and
    // at the logs do not belong together.
    let settled = async {
        loop {
            let seen = look(logs).await;
            let end = seen.0.last().map_or(Position::START, StoredEvent::position);
            if logs.context().status().await.unwrap().last == end {
                return seen;
            }
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(60), settled).await.expect("it settles");
    let (events, known) = seen;
    for (id, verified, entries, version) in known {
        let of_it: Vec<u64> = events
            .iter()
            .filter(|event| event.aggregate_id().to_string() == id)
            .map(|event| event.data::<Entered>().unwrap().0)
            .collect();
        let length = of_it.len() as u64;
        assert_eq!((verified, entries, version), (length, of_it, length), "{id}");
    }
    whole(&events)
}

async fn look(logs: &Repository<Log>) -> Seen {
    let events: Vec<StoredEvent> =
        logs.context().stream_after(Position::START).try_collect().await.unwrap();
    let ids: HashSet<String> = events.iter().map(|e| e.aggregate_id().to_string()).collect();
    let mut known = Vec::new();
    for id in ids {
        let verified = logs.verify(&id).await.unwrap().version;
        let (loaded, about) = logs.load(&id, LoadOptions::default()).await.unwrap();
        known.push((id, verified, loaded.entries, about.version));
    }
    (events, known)
}

fn whole(events: &[StoredEvent]) -> HashSet<u64> {
    let mut whole = HashSet::new();
    let mut rest = events;
    while let Some(first) = rest.first() {
        let label = first.metadata().get("commit").unwrap();
        let (number, count) = label.split_once('/').unwrap();
        let count: usize = count.parse().unwrap();
        assert!(rest.len() >= count, "commit {label} is cut off");
        let (commit, others) = rest.split_at(count);
        for (event, step) in commit.iter().zip(0..) {
            assert_eq!(event.metadata().get("commit"), Some(label), "commit {label} is torn apart");
            assert_eq!(event.position().get(), first.position().get() + step);
        }
        assert!(whole.insert(number.parse().unwrap()), "commit {label} is stored twice");
        rest = others;
    }
    whole
}
