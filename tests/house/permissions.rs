//! The README's lists of what a service may publish to, tried on a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cim_persistence::backend::nats::provision;
use cim_persistence::backend::{
    ConnectionConfig, Durability, Followed, Position, Start, TailQuery,
};
use cim_persistence::clock::Timestamp;
use cim_persistence::event::NonEmpty;
use cim_persistence::migration::reshape::{EventEdit, StreamReshape, current_stream};
use cim_persistence::migration::{
    KeptEdit, ManagedStream, ManagedStreams, Migration, MigrationError, MigrationRunner, Migrator,
    ModelEdit, SchemaVersion, Undo,
};
use cim_persistence::outbox::{
    Outbox, OutboxMessage, PendingMessage, PublishError, Publisher, Relay, RelayOptions, Topic,
};
use cim_persistence::prelude::*;
use cim_persistence::projection::{
    Changes, Declared, Projection, ProjectionOptions, Projections, Rejection, RunningProjection,
};
use cim_persistence::query::{QueryHint, QueryOptimizer};
use cim_persistence::read_model::{
    LiveOptions, LiveView, ModelPattern, ReadModel, ReadModelStore, ViewDefinition, ViewKeeper,
};
use cim_persistence::repository::{QueryFreshness, QueryOptions};
use cim_persistence::server::PrivateServer;
use cim_persistence::specification::{SearchOptions, field};
use cim_persistence::subject::{AggregateId, InvalidToken, Pattern, TimeoutAddress};
use cim_persistence::timeouts::{MAX_TIMEOUT, Timeout};
use cim_persistence::unit_of_work::UnitOfWork;
use cim_persistence::{
    Connection, Context, LoadOptions, NatsRepositoryConfig, Repository, SaveOptions,
    SnapshotPolicy, StoredEvent,
};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Account {
    id: String,
    cents: i64,
}

#[derive(Serialize, Deserialize)]
struct Booked {
    cents: i64,
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
        Self { id: id.clone(), cents: 0 }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, event: &Booked) {
        self.cents += event.cents;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Balance {
    account: String,
    cents: i64,
}

impl ReadModel for Balance {
    const MODEL_TYPE: &'static str = "balance";
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new(&self.account)
    }
}

struct Balances;

impl Projection for Balances {
    const NAME: &'static str = "balances";
    type Event = Booked;
    fn models() -> Vec<Declared> {
        vec![Declared::of::<Balance>()]
    }
    fn project(
        &self,
        event: Booked,
        stored: &StoredEvent,
        changes: &mut Changes,
    ) -> Result<(), Rejection> {
        let id = stored.aggregate_id().clone();
        let account = id.to_string();
        changes.upsert(&id, move |balance: &mut Balance| {
            balance.account = account;
            balance.cents += event.cents;
        });
        Ok(())
    }
}

/// Somebody who only counts what a relay publishes.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

impl Publisher for Counting {
    async fn publish(&self, _: &PendingMessage) -> Result<(), PublishError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// What the README says that the user of a service may publish to.
fn listed(readme: &str) -> Vec<String> {
    let list = readme.split("```text\npublish: [").nth(1).unwrap().split(']').next().unwrap();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A server with a context that an operator has made, and users who may publish to these subjects only.
async fn restricted(users: &[(&str, &[String])]) -> PrivateServer {
    let users = users.iter().map(|(user, publish)| {
        let rights = format!(r#"publish: {publish:?}, subscribe: ["_INBOX.>"]"#);
        format!("{{user: {user}, password: {user}, permissions: {{ {rights} }}}}\n")
    });
    let users: String = users.collect();
    let server = PrivateServer::start_with_config(&format!(
        r#"
        jetstream {{ store_dir: $CIM_STORE_DIR, sync_interval: always }}
        accounts {{
          SYS {{ users: [{{user: sys, password: sys}}]
                exports: [{{service: "$SYS.REQ.SERVER.PING.JSZ", response: stream}}] }}
          APP {{ jetstream: enabled
                users: [
                  {{user: operator, password: operator}}
                  {users}
                ]
                imports: [{{service: {{account: SYS, subject: "$SYS.REQ.SERVER.PING.JSZ"}}}}] }}
        }}
        system_account: SYS
        "#
    ))
    .await
    .unwrap();
    let topology = NatsRepositoryConfig::for_context("bank").topology().unwrap();
    provision(&connected(&server, "operator").await, &topology).await.unwrap();
    server
}

async fn connected(server: &PrivateServer, user: &str) -> Connection {
    let config = ConnectionConfig::new(server.url()).user_password(user, user);
    Connection::connect(&config.durability(Durability::Required)).await.unwrap()
}

async fn opened(server: &PrivateServer, user: &str) -> Context {
    let layout = NatsRepositoryConfig::for_context("bank");
    Context::open(&connected(server, user).await, &layout).await.unwrap()
}

/// A service with exactly these permissions does everything, in a second process without anything in its cache too.
#[tokio::test]
async fn the_permissions_in_the_readme_are_enough() {
    let server = restricted(&[("bank", &listed(&super::read("README.md")))]).await;
    let bank = opened(&server, "bank").await;
    let accounts = Repository::<Account>::of(&bank).unwrap();
    let (kim, lee) = ("kim".to_owned(), "lee".to_owned());
    for (id, policy) in [(&kim, SnapshotPolicy::Never), (&lee, SnapshotPolicy::Always)] {
        let accounts = accounts.clone().with_snapshots(policy);
        let events = vec![Booked { cents: 1 }, Booked { cents: 2 }];
        accounts.save(&Account::new(id), events, SaveOptions::default()).await.unwrap();
        accounts.transact(id, |_| Ok::<_, ()>([Booked { cents: 4 }])).await.unwrap();
    }
    bank.flush().await;

    // Another process, with nothing in its cache: it needs the state, the snapshot and the leader.
    let bank = opened(&server, "bank").await;
    let accounts = Repository::<Account>::of(&bank).unwrap();
    let without_events = LoadOptions { max_events: Some(0), ..LoadOptions::default() };
    let (account, about) = accounts.load(&kim, without_events.clone()).await.unwrap();
    assert_eq!((account.cents, about.version), (7, 3));
    let from_snapshot = LoadOptions { version: Some(3), ..without_events };
    assert_eq!(accounts.load(&lee, from_snapshot).await.unwrap().0.cents, 7);
    for id in [&kim, &kim, &lee] {
        accounts.create_snapshot(id).await.unwrap();
    }
    assert_eq!(accounts.verify(&kim).await.unwrap().version, 3);
    assert_eq!(bank.status().await.unwrap().messages, 6);

    // A process manager's timeouts.
    let queue = bank.timeouts().unwrap();
    let instance = AggregateId::new("kim").unwrap();
    let address = TimeoutAddress::new("dunning", &instance, "reminder").unwrap();
    let timeout = Timeout {
        address: address.clone(),
        id: uuid::Uuid::nil(),
        at: Timestamp::from_micros(0),
        wished: Position::new(1),
        correlation_id: uuid::Uuid::nil(),
        data: Default::default(),
    };
    let far = Timeout { at: MAX_TIMEOUT, ..timeout.clone() };
    queue.schedule(far).await.unwrap();
    queue.cancel(&address, Position::new(2)).await.unwrap();
    queue.schedule(timeout.clone()).await.unwrap();
    let due = queue.due("dunning").next().await.unwrap().unwrap();
    assert_eq!(due.timeout, timeout);
    queue.done(&due).await.unwrap();

    // Somebody who follows, and leaves no consumer behind.
    let everything = Pattern::parse(&bank.scheme().all_events()).unwrap();
    let start = Start::After(Position::START);
    let query = TailQuery { patterns: NonEmpty::one(everything), start };
    let followed: Vec<_> = bank.log().follow(query).take(7).try_collect().await.unwrap();
    assert_eq!(followed.last(), Some(&Followed::CaughtUp));
    let options = async_nats::ConnectOptions::with_user_and_password;
    let options = options("operator".to_owned(), "operator".to_owned());
    let client = options.connect(server.url()).await.unwrap();
    let events = async_nats::jetstream::new(client).get_stream("CIM-EVENTS-bank").await.unwrap();
    while events.get_info().await.unwrap().state.consumer_count > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    // More aggregates than one answer holds, as they are kept.
    let many: Vec<_> = (0..1100).map(|number| Account::new(&format!("{number}"))).collect();
    let save = |one| accounts.save(one, vec![Booked { cents: 1 }], SaveOptions::default());
    futures::future::try_join_all(many.iter().map(save)).await.unwrap();
    bank.flush().await;
    let kept = QueryOptions { freshness: QueryFreshness::Kept, ..QueryOptions::default() };
    assert_eq!(accounts.query(&kept).await.unwrap().len(), 1102);
}

/// What is needed in addition, by units of work, and by readers and writers of read models.
#[tokio::test]
async fn the_further_permissions_in_the_readme_are_enough() {
    let readme = super::read("README.md");
    let mut reader = listed(&readme);
    let (of, to) = ("CIM-EVENTS-bank", "KV_cim-readmodels-bank");
    let models: Vec<_> = reader.iter().filter(|subject| subject.contains(of)).collect();
    let models: Vec<_> = models.iter().map(|subject| subject.replace(of, to)).collect();
    reader.extend(models);
    let further = readme.split("In addition need").nth(1).unwrap();
    let further = further.split("- process managers:").next().unwrap();
    let named = further.split('`').skip(1).step_by(2).filter(|word| word.ends_with("bank.>"));
    let writer: Vec<_> = reader.iter().cloned().chain(named.map(str::to_owned)).collect();
    assert_eq!(writer.len(), reader.len() + 4);
    let server = restricted(&[("reader", &reader), ("writer", &writer)]).await;

    let bank = opened(&server, "writer").await;
    let accounts = Repository::<Account>::of(&bank).unwrap();
    let (kim, lee) = ("kim".to_owned(), "lee".to_owned());
    let mut unit = UnitOfWork::begin(&bank);
    unit.load(&accounts, &lee).await.unwrap();
    unit.record(&accounts, &kim, vec![Booked { cents: 1 }]).await.unwrap();
    assert_eq!(unit.commit().await.unwrap().messages, 2);
    let mut unit = UnitOfWork::begin(&bank);
    unit.record(&accounts, &kim, vec![Booked { cents: 2 }]).await.unwrap();
    unit.claim("name", "Kim", &accounts, &kim).await.unwrap();
    let topic = Topic::new("accounts.named").unwrap();
    unit.send(OutboxMessage::json(topic, "com.example.named", &"Kim").unwrap());
    let position = unit.commit().await.unwrap().position;

    let patience = Duration::from_secs(30);
    let projecting = RunningProjection::start(&bank, Balances, ProjectionOptions::default());
    let mut projecting = projecting.unwrap();
    projecting.caught_up(patience).await.unwrap();
    let store = ReadModelStore::new(&bank);
    let best = SearchOptions::default().order_by("-cents").unwrap().limit(1);
    let definition = ViewDefinition::new("balance.*", field("cents").gt(0), best);
    store.create_view("best", definition).await.unwrap();
    let _keeper = ViewKeeper::start(&store);
    let published = Counting::default();
    let relay = Relay::start(&Outbox::of(&bank), published.clone(), RelayOptions::default());
    while published.0.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    relay.stop().await.unwrap();

    let bank = opened(&server, "reader").await;
    Projections::of(&bank).wait_for("balances", position, patience).await.unwrap();
    let queries = QueryOptimizer::new(&bank).knows::<Balance>();
    let text = "subject:balance.* AND cents > 2";
    let plan = queries.create_plan(text, QueryHint::default()).await.unwrap();
    queries.execute_plan(&plan).await.unwrap();
    let store = ReadModelStore::new(&bank);
    let (models, all) = (store.of::<Balance>(), ModelPattern::all("balance"));
    let live = LiveView::start(&models, &all, LiveOptions::default()).await.unwrap();
    assert_eq!(live.len(), 1);
    while store.get_view("best").await.unwrap().unwrap().result.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.delete::<Balance>(&AggregateId::new("kim").unwrap()).await.unwrap_err();
    projecting.stop().await.unwrap();
}

/// Steps of every kind.
struct EveryStep;

impl Migration for EveryStep {
    fn name(&self) -> &str {
        "every step"
    }
    fn from(&self) -> SchemaVersion {
        SchemaVersion::NONE
    }
    fn to(&self) -> SchemaVersion {
        SchemaVersion::new(1, 0, 0)
    }
    fn undo(&self) -> Undo {
        Undo::Everything
    }
    async fn up(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        let longer = Some(Duration::from_secs(300));
        migrator.settings(ManagedStream::Events, |events| events.duplicate_window = longer).await?;
        migrator
            .models("balance.>", 2, |balance| Ok(ModelEdit::Put(balance.document.clone())))
            .await?;
        migrator.state("account.*", 2, |kept| Ok(KeptEdit::Put(kept.state.clone()))).await?;
        migrator.snapshots("account.>", 2, |_| Ok(KeptEdit::Remove)).await
    }
    async fn down(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        migrator.models("balance.>", 1, |_| Ok(ModelEdit::Remove)).await
    }
    async fn validate(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        migrator.check_models("balance.>", |_| Ok(())).await
    }
}

/// What whoever migrates needs, with these buckets, and whoever reshapes, with a new stream of this name.
fn migrating(readme: &str, new: &str) -> [Vec<String>; 2] {
    let above = listed(readme);
    let for_another = |of: &str, to: &str| -> Vec<String> {
        above.iter().filter(|s| s.contains(of)).map(|s| s.replace(of, to)).collect()
    };
    let text = readme.split("Whoever migrates needs").nth(1).unwrap();
    let [migrate, reshape] = {
        let (migrate, rest) = text.split_once("To reshape").unwrap();
        [migrate, rest.split_once("A client's").unwrap().0]
    };
    let named = |text: &str| -> Vec<String> {
        let words = text.split('`').skip(1).step_by(2);
        words
            .filter(|word| word.ends_with('>') || word.contains("API"))
            .map(str::to_owned)
            .collect()
    };
    let mut migrator = above.clone();
    for bucket in ["state", "snapshots", "readmodels", "meta"] {
        let bucket = format!("cim-{bucket}-bank");
        migrator.extend(for_another("KV_cim-state-bank", &format!("KV_{bucket}")));
        migrator.extend(named(migrate).iter().map(|subject| subject.replace("<bucket>", &bucket)));
    }
    let mut reshaper = migrator.clone();
    reshaper.extend(named(reshape));
    if reshape.contains("for the new stream what stands above for `CIM-EVENTS-bank`") {
        reshaper.extend(for_another("CIM-EVENTS-bank", new));
    }
    [migrator, reshaper]
}

/// What whoever migrates and reshapes needs.
#[tokio::test]
async fn the_permissions_for_migrations_in_the_readme_are_enough() {
    let readme = super::read("README.md");
    let [migrator, reshaper] = migrating(&readme, "EVENTS-2");
    let server = restricted(&[("migrator", &migrator), ("reshaper", &reshaper)]).await;
    let operators = opened(&server, "operator").await;
    let accounts = Repository::<Account>::of(&operators).unwrap();
    let accounts = accounts.with_snapshots(SnapshotPolicy::Always);
    let kim = Account::new(&"kim".to_owned());
    accounts.save(&kim, vec![Booked { cents: 1 }], SaveOptions::default()).await.unwrap();
    let balances = ReadModelStore::new(&operators).of::<Balance>();
    let balance = Balance { account: "kim".to_owned(), cents: 1 };
    balances.save(&balance, Default::default()).await.unwrap();
    operators.flush().await;

    let layout = NatsRepositoryConfig::for_context("bank");
    let connection = connected(&server, "migrator").await;
    let streams = ManagedStreams::of(&connection, &layout).unwrap();
    let bank = Context::open(&connection, &layout).await.unwrap();
    let mut runner = MigrationRunner::new(&bank, "test").with_streams(streams);
    runner.add_migration(EveryStep).unwrap();
    let first = SchemaVersion::new(1, 0, 0);
    assert_eq!(runner.dry_run(first).await.unwrap().changed(), 1 + 3);
    assert_eq!(runner.migrate_to(first).await.unwrap().migrations[0].tally.changed(), 1 + 3);
    runner.rollback_to(SchemaVersion::NONE).await.unwrap();
    assert_eq!(runner.history().await.unwrap().len(), 2);

    let connection = connected(&server, "reshaper").await;
    let keep = |_: &StoredEvent| Ok(EventEdit::Keep);
    let reshape = StreamReshape::begin(&connection, &layout, "EVENTS-2").await.unwrap();
    assert_eq!(reshape.copier().copy(keep).await.unwrap().written, 1);
    let failed = reshape.switch(|_: &StoredEvent| Ok(EventEdit::Drop)).await;
    assert!(matches!(failed, Err(MigrationError::Copy { .. })), "{failed:?}");
    reshape.abandon().await.unwrap();
    assert!(reshape.switch(keep).await.unwrap().copied.is_some());
    let current = current_stream(&connection, &layout).await.unwrap();
    let bank = Context::open(&connection, &current).await.unwrap();
    assert_eq!(bank.status().await.unwrap().messages, 1);
}
