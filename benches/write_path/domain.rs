//! The aggregate of the bench, and contexts of it.

use std::sync::atomic::{AtomicU32, Ordering};

use cim_persistence::backend::nats::Connection;
use cim_persistence::prelude::*;
use cim_persistence::repository::Repository;
use cim_persistence::store::{Context, NatsRepositoryConfig};
use serde::{Deserialize, Serialize};

/// The text in each event: with it the data of an event has about 200 bytes.
pub const NOTE: &str = "a payload of about two hundred bytes, as events of a business usually have: some ids, \
                        an amount, a reason, a few words that a person typed; padded here to that length ......";

#[derive(Clone, Serialize, Deserialize)]
pub struct Account {
    id: String,
    balance: i64,
    entries: u64,
}

#[derive(Serialize, Deserialize)]
pub struct Booked {
    cents: i64,
    note: String,
}

impl Booked {
    pub fn new() -> Self {
        Self { cents: 1, note: NOTE.to_owned() }
    }
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
    fn new(id: &String) -> Self {
        Self { id: id.clone(), balance: 0, entries: 0 }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, event: &Booked) {
        self.balance += event.cents;
        self.entries += 1;
    }
}

/// A name that nothing else on the server of this run has. With these names the subjects of ours and of raw, which have
/// the name of a stream in them, are equally long.
pub fn fresh(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{what}-{:06}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What of a context a row needs.
#[derive(Clone, Copy)]
pub struct Shape {
    pub keep_state: bool,
    pub cache_size: usize,
    pub replicas: usize,
}

/// A new context of its own.
pub async fn context(connection: &Connection, shape: Shape) -> Context {
    let config = NatsRepositoryConfig {
        context: fresh("bench"),
        keep_state: shape.keep_state,
        cache_size: shape.cache_size,
        replicas: shape.replicas,
        ..NatsRepositoryConfig::default()
    };
    Context::provision(connection, &config).await.expect("a bench context can be provisioned")
}

pub fn accounts(context: &Context) -> Repository<Account> {
    Repository::of(context).expect("account is a name")
}
