//! A context for tests of services: in memory or on a private server by one switch, with a clock and ids that are known,
//! and with another writer who is first where the test says so.

use std::sync::Arc;

use super::overtaken::{OvertakenLog, Plan, Plans, locked};
use super::{CountingIds, FixedClock};
use crate::clock::Timestamp;
use crate::event::NonEmpty;
use crate::repository::{Aggregate, Repository, RepositoryError};
#[cfg(feature = "server")]
use crate::server::{PrivateServer, ServerConfig, ServerError};
use crate::store::{
    CommitInfo, Context, ExpectedVersion, Head, NatsRepositoryConfig, NewEvent, Ports, StoreError,
};
use crate::subject::{AggregateId, AggregateType, Identity};
use crate::timeouts::MemoryTimeouts;

/// The variable by which the same tests run in memory or on a server.
pub const TEST_SERVER: &str = "CIM_TEST_SERVER";

/// The time that the clock of a [`TestContext`] shows at first: 2024-01-01 00:00 UTC.
pub const TEST_TIME: Timestamp = Timestamp::from_micros(1_704_067_200_000_000);

/// Where a [`TestContext`] keeps its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TestBackend {
    /// In memory: no server, no files.
    #[default]
    Memory,
    /// On a private server of its own, which ends with the context. Needs the feature `server`.
    PrivateServer,
}

impl TestBackend {
    /// What `CIM_TEST_SERVER` says: `private` for a private server; `memory`, nothing or no such variable for memory.
    ///
    /// # Errors
    /// [`TestContextError::Switch`] for anything else.
    pub fn from_env() -> Result<Self, TestContextError> {
        match std::env::var_os(TEST_SERVER) {
            None => Ok(Self::Memory),
            Some(value) => Self::parse(&value.to_string_lossy()),
        }
    }

    fn parse(value: &str) -> Result<Self, TestContextError> {
        match value {
            "" | "memory" => Ok(Self::Memory),
            "private" => Ok(Self::PrivateServer),
            _ => Err(TestContextError::Switch { value: value.to_owned() }),
        }
    }
}

/// Why there is no context to test on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestContextError {
    /// The switch has a value that means nothing. Set it to `private` or `memory`, or not at all.
    #[error("{TEST_SERVER}={value:?} is neither private nor memory")]
    Switch {
        /// The value.
        value: String,
    },
    /// A private server is asked for, and the crate was built without. Turn on its feature `server`.
    #[error("a private server needs the feature server of cim-persistence; turn it on for tests")]
    NoServer,
    /// The private server did not start; see its error.
    #[cfg(feature = "server")]
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The context could not be opened; see its error.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A context for one test, new and empty.
///
/// Its clock stands at [`TEST_TIME`] until the test moves it, its ids are [`CountingIds`]. Timeouts in memory come due by that
/// clock, those on a server by the server's. Everything in it is gone when it is dropped.
///
/// ```
/// # use cim_persistence::prelude::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Clone, Serialize, Deserialize)]
/// # struct Counter { name: String, count: u64 }
/// # #[derive(Serialize, Deserialize)]
/// # struct Counted;
/// # impl DomainEvent for Counted { fn event_type(&self) -> &'static str { "counted" } }
/// # impl Aggregate for Counter {
/// #     const TYPE: &'static str = "counter";
/// #     type Id = String;
/// #     type Event = Counted;
/// #     fn new(name: &String) -> Self { Counter { name: name.clone(), count: 0 } }
/// #     fn id(&self) -> &String { &self.name }
/// #     fn apply(&mut self, _: &Counted) { self.count += 1 }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use cim_persistence::testing::TestContext;
///
/// let test = TestContext::start().await?;
/// let visits = "visits".to_owned();
/// test.seed::<Counter>(&visits, [Counted]).await?;
/// test.overtake::<Counter>(&visits, [Counted])?;
/// let counted = test.repository::<Counter>()?.transact(&visits, |_| Ok::<_, ()>([Counted])).await.unwrap();
/// assert_eq!((counted.version, counted.attempts), (3, 2));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestContext {
    context: Context,
    other: Context,
    ports: Ports,
    config: NatsRepositoryConfig,
    clock: Arc<FixedClock>,
    plans: Plans,
    #[cfg(feature = "server")]
    server: Option<PrivateServer>,
}

impl TestContext {
    /// A context where [`TestBackend::from_env`] says.
    ///
    /// # Errors
    /// [`TestContextError`].
    pub async fn start() -> Result<Self, TestContextError> {
        Self::start_on(TestBackend::from_env()?).await
    }

    /// A context there, whatever the environment says.
    ///
    /// # Errors
    /// [`TestContextError`].
    pub async fn start_on(backend: TestBackend) -> Result<Self, TestContextError> {
        match backend {
            TestBackend::Memory => Ok(Self::in_memory()?.0),
            #[cfg(feature = "server")]
            TestBackend::PrivateServer => {
                let server = PrivateServer::start(ServerConfig::Single).await?;
                let ports = ports_on(server.url()).await?;
                Ok(Self { server: Some(server), ..Self::on(ports, clock())? })
            }
            #[cfg(not(feature = "server"))]
            TestBackend::PrivateServer => Err(TestContextError::NoServer),
        }
    }

    /// A context in memory, and its timeouts.
    pub(super) fn in_memory() -> Result<(Self, MemoryTimeouts), TestContextError> {
        let clock = clock();
        let timeouts = MemoryTimeouts::with_clock(clock.clone());
        let ports = Ports { timeouts: Some(Arc::new(timeouts.clone())), ..Ports::in_memory() };
        Ok((Self::on(ports, clock)?, timeouts))
    }

    fn on(ports: Ports, clock: Arc<FixedClock>) -> Result<Self, TestContextError> {
        let (config, plans) = (config(), Plans::default());
        let ports = Ports { clock: clock.clone(), ids: Arc::new(CountingIds::new()), ..ports };
        let other = Context::on(ports.clone(), &config)?;
        let log = Arc::new(OvertakenLog::new(other.clone(), plans.clone()));
        let context = Context::on(Ports { log, ..ports.clone() }, &config)?;
        Ok(Self {
            context,
            other,
            ports,
            config,
            clock,
            plans,
            #[cfg(feature = "server")]
            server: None,
        })
    }

    /// The context that is tested.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The same context as another process has it: with nothing in its cache, and not overtaken by what is planned.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be opened.
    pub fn another(&self) -> Result<Context, StoreError> {
        Context::on(self.ports.clone(), &self.config)
    }

    /// The aggregates of one type, in the context that is tested.
    ///
    /// # Errors
    /// As [`Repository::of`].
    pub fn repository<A: Aggregate + Send + Sync + 'static>(
        &self,
    ) -> Result<Repository<A>, RepositoryError> {
        Repository::of(&self.context)
    }

    /// The clock of the context.
    pub fn clock(&self) -> &FixedClock {
        &self.clock
    }

    /// The address of the private server, if the context lives on one.
    #[cfg(feature = "server")]
    pub fn url(&self) -> Option<&str> {
        self.server.as_ref().map(PrivateServer::url)
    }

    /// Lets events have happened to an aggregate, stored by another writer, whatever version it has.
    ///
    /// # Errors
    /// [`StoreError::Empty`] for no events; any other [`StoreError`].
    pub async fn seed<A: Aggregate>(
        &self,
        id: &A::Id,
        events: impl IntoIterator<Item = A::Event>,
    ) -> Result<Head, StoreError> {
        let Plan { aggregate, id, events } = plan::<A>(id, events)?;
        let (any, info) = (ExpectedVersion::Any, CommitInfo::default());
        Ok(self.other.append(&aggregate, &id, any, &events, &info).await?.head)
    }

    /// Plans that another writer's events are stored just before the next write to this aggregate reaches the log, so that
    /// this write meets a conflict if it expects a version.
    ///
    /// Each call is for one write: two calls let two attempts of a transaction fail. What is planned for other
    /// aggregates waits for theirs.
    ///
    /// # Errors
    /// [`StoreError::Empty`] for no events; [`StoreError`] for an event that cannot be stored.
    pub fn overtake<A: Aggregate>(
        &self,
        id: &A::Id,
        events: impl IntoIterator<Item = A::Event>,
    ) -> Result<(), StoreError> {
        locked(&self.plans).push_back(plan::<A>(id, events)?);
        Ok(())
    }

    /// How many writes are still planned to be overtaken.
    pub fn still_planned(&self) -> usize {
        locked(&self.plans).len()
    }
}

fn plan<A: Aggregate>(
    id: &A::Id,
    events: impl IntoIterator<Item = A::Event>,
) -> Result<Plan, StoreError> {
    let events = events.into_iter().map(|event| NewEvent::of(&event));
    let events = events.collect::<Result<Vec<_>, _>>()?;
    let (aggregate, id): (AggregateType, AggregateId) =
        (AggregateType::new(A::TYPE)?, id.to_aggregate_id()?);
    Ok(Plan { aggregate, id, events: NonEmpty::from_vec(events).ok_or(StoreError::Empty)? })
}

fn clock() -> Arc<FixedClock> {
    Arc::new(FixedClock::at(TEST_TIME))
}

fn config() -> NatsRepositoryConfig {
    NatsRepositoryConfig::for_context("test")
}

#[cfg(feature = "server")]
async fn ports_on(url: &str) -> Result<Ports, StoreError> {
    use crate::backend::ConnectionConfig;
    use crate::backend::nats::{Connection, provision};

    let connection = Connection::connect(&ConnectionConfig::new(url)).await?;
    provision(&connection, &config().topology()?).await?;
    Ok(Ports::nats(&connection, &config()))
}

#[cfg(test)]
mod tests {
    use super::{TestBackend, TestContextError};

    #[test]
    fn the_switch_knows_two_words() {
        for (value, backend) in [
            ("private", TestBackend::PrivateServer),
            ("memory", TestBackend::Memory),
            ("", TestBackend::Memory),
        ] {
            assert_eq!(TestBackend::parse(value).unwrap(), backend, "{value:?}");
        }
        let error = TestBackend::parse("Private").unwrap_err();
        assert!(matches!(&error, TestContextError::Switch { value } if value == "Private"));
        assert_eq!(error.to_string(), "CIM_TEST_SERVER=\"Private\" is neither private nor memory");
    }
}
