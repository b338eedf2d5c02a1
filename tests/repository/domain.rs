//! The domain of these tests, accounts, and the server and processes they live on.

use cim_persistence::backend::ConnectionConfig;
use cim_persistence::backend::nats::Connection;
use cim_persistence::event::DomainEvent;
use cim_persistence::prelude::*;
use cim_persistence::repository::{AggregateMetadata, Repository};
use cim_persistence::server::{PrivateServer, Server, ServerConfig};
use cim_persistence::store::{Context, ExpectedVersion, NatsRepositoryConfig};
use serde::{Deserialize, Serialize};

use crate::test_server::TestServer;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) owner: String,
    pub(crate) cents: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum AccountEvent {
    Opened { owner: String },
    Deposited { cents: i64 },
    Withdrawn { cents: i64 },
}

use AccountEvent::{Deposited, Opened, Withdrawn};

impl DomainEvent for AccountEvent {
    fn event_type(&self) -> &'static str {
        match self {
            Opened { .. } => "opened",
            Deposited { .. } => "deposited",
            Withdrawn { .. } => "withdrawn",
        }
    }
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Id = String;
    type Event = AccountEvent;
    fn new(id: &String) -> Self {
        Self { id: id.clone(), owner: String::new(), cents: 0 }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, event: &AccountEvent) {
        match event {
            Opened { owner } => self.owner = owner.clone(),
            Deposited { cents } => self.cents += cents,
            Withdrawn { cents } => self.cents -= cents,
        }
    }
}

pub(crate) struct Withdraw(pub(crate) i64);

#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{wanted} cents are more than the {there} that are there")]
    Overdrawn { wanted: i64, there: i64 },
}

impl Handle<Withdraw> for Account {
    type Rejection = Refused;
    fn handle(&self, Withdraw(cents): &Withdraw) -> Result<Vec<AccountEvent>, Refused> {
        match *cents {
            0 => Ok(vec![]),
            cents if cents > self.cents => {
                Err(Refused::Overdrawn { wanted: cents, there: self.cents })
            }
            cents => Ok(vec![Withdrawn { cents }]),
        }
    }
}

/// A server, and the contexts on it that are the test's own.
pub(crate) struct Lab {
    pub(crate) server: TestServer,
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self { server: TestServer::start().await }
    }

    /// On a server of its own, for tests of its settings, of all that it holds, and of banks that differ in their server only.
    pub(crate) async fn alone() -> Self {
        let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
        Self { server: TestServer::on(Server::Private(server)) }
    }

    /// A text that names the bank, with the name that it has on this server.
    pub(crate) fn text(&self, text: &str) -> String {
        text.replace("bank", &self.server.name("bank"))
    }

    pub(crate) async fn connection(&self) -> Connection {
        Connection::connect(&ConnectionConfig::new(self.server.url())).await.unwrap()
    }

    /// What a process of its own has: a connection, a committer and caches that nobody shares.
    pub(crate) async fn process(&self, config: &NatsRepositoryConfig) -> Context {
        Context::provision(&self.connection().await, &self.config(config)).await.unwrap()
    }

    /// The same for the context's name on this server.
    pub(crate) fn config(&self, config: &NatsRepositoryConfig) -> NatsRepositoryConfig {
        NatsRepositoryConfig { context: self.server.name(&config.context), ..config.clone() }
    }

    /// The accounts as a process of its own sees them.
    pub(crate) async fn accounts(&self) -> Repository<Account> {
        self.accounts_with(&bank()).await
    }

    pub(crate) async fn accounts_with(&self, config: &NatsRepositoryConfig) -> Repository<Account> {
        Repository::of(&self.process(config).await).unwrap()
    }

    pub(crate) async fn jetstream(&self) -> async_nats::jetstream::Context {
        async_nats::jetstream::new(async_nats::connect(self.server.url()).await.unwrap())
    }

    /// The bucket that is called so on a private server.
    pub(crate) async fn bucket(&self, name: &str) -> async_nats::jetstream::kv::Store {
        self.jetstream().await.get_key_value(self.text(name)).await.unwrap()
    }

    /// The event stream of the bank.
    pub(crate) async fn events(&self) -> async_nats::jetstream::stream::Stream {
        self.jetstream().await.get_stream(self.text("CIM-EVENTS-bank")).await.unwrap()
    }

    /// How many messages it holds.
    pub(crate) async fn stored(&self) -> u64 {
        self.events().await.cached_info().state.messages
    }
}

pub(crate) fn bank() -> NatsRepositoryConfig {
    NatsRepositoryConfig::for_context("bank")
}

/// Without state and cache, so that every load reads the events.
pub(crate) fn bare_bank() -> NatsRepositoryConfig {
    NatsRepositoryConfig { keep_state: false, cache_size: 0, ..bank() }
}

pub(crate) fn account(id: &str) -> Account {
    Account::new(&id.to_owned())
}

pub(crate) fn opened(owner: &str) -> AccountEvent {
    Opened { owner: owner.to_owned() }
}

pub(crate) fn deposited(cents: i64) -> AccountEvent {
    Deposited { cents }
}

/// Adds deposits of one cent, one commit each.
pub(crate) async fn deposit_times(accounts: &Repository<Account>, id: &str, times: usize) {
    for _ in 0..times {
        deposit(accounts, id, 1).await;
    }
}

pub(crate) async fn deposit(
    accounts: &Repository<Account>,
    id: &str,
    cents: i64,
) -> AggregateMetadata {
    accounts.save(&account(id), vec![deposited(cents)], ExpectedVersion::Any).await.unwrap()
}

/// Runs a future to its end from within a synchronous decision, as another process would meanwhile.
pub(crate) fn meanwhile<T>(work: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
}
