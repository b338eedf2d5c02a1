//! The data of these tests: people in read models, accounts in kept state and snapshots, and two migrations of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cim_persistence::backend::{Matching, ReadFrom};
use cim_persistence::clock::{Clock, IdSource, Timestamp};
use cim_persistence::event::NonEmpty;
use cim_persistence::event_log::MemoryLog;
use cim_persistence::migration::{
    KeptEdit, Migration, MigrationError, MigrationRunner, Migrator, ModelDocument, ModelEdit,
    Refusal, SchemaVersion, Undo,
};
use cim_persistence::prelude::*;
use cim_persistence::read_model::{IndexSpec, Models, ReadModelStore, SaveModel};
use cim_persistence::repository::{Repository, SnapshotPolicy};
use cim_persistence::state::{Key, KeyValue, MemoryKeyValue};
use cim_persistence::store::Ports;
use cim_persistence::subject::{AggregateId, Pattern};
use cim_persistence::testing::faults::Faults;
use cim_persistence::{Context, NatsRepositoryConfig, SaveOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) fn v(major: u32) -> SchemaVersion {
    SchemaVersion::new(major, 0, 0)
}

pub(crate) fn bank() -> NatsRepositoryConfig {
    NatsRepositoryConfig::for_context("bank")
}

/// The stores of a context in memory.
pub(crate) struct World {
    log: MemoryLog,
    pub(crate) state: MemoryKeyValue,
    pub(crate) snapshots: MemoryKeyValue,
    pub(crate) models: MemoryKeyValue,
    pub(crate) meta: MemoryKeyValue,
}

impl World {
    pub(crate) fn empty() -> Self {
        Self {
            log: MemoryLog::new(),
            state: MemoryKeyValue::new("state"),
            snapshots: MemoryKeyValue::new("snapshots"),
            models: MemoryKeyValue::new("readmodels"),
            meta: MemoryKeyValue::new("meta"),
        }
    }

    /// With so many people and a few accounts.
    pub(crate) async fn filled(people: u32) -> Self {
        let world = Self::empty();
        fill(&world.context(&Faults::new()), people).await;
        world
    }

    /// The context as a process sees it that meets these faults in all its buckets.
    pub(crate) fn context(&self, faults: &Faults) -> Context {
        let with = |bucket: &MemoryKeyValue| -> Arc<dyn KeyValue> {
            Arc::new(bucket.clone().with_faults(faults))
        };
        let ports = Ports::new(
            Arc::new(self.log.clone()),
            with(&self.state),
            with(&self.snapshots),
            with(&self.models),
        );
        let steady = Arc::new(Steady::default());
        let ports = Ports { meta: with(&self.meta), clock: steady.clone(), ids: steady, ..ports };
        Context::on(ports, &bank()).unwrap()
    }

    /// All that the buckets of data hold, but the fences.
    pub(crate) async fn contents(&self) -> BTreeMap<String, String> {
        let mut contents = BTreeMap::new();
        for bucket in [&self.state, &self.snapshots, &self.models] {
            contents.extend(contents_of(bucket).await);
        }
        contents
    }

    /// How much was ever written to all buckets.
    pub(crate) async fn writes(&self) -> u64 {
        let mut writes = 0;
        for bucket in [&self.state, &self.snapshots, &self.models, &self.meta] {
            writes += bucket.last_revision().await.unwrap();
        }
        writes
    }
}

/// Compares what two worlds hold, and tells only what differs.
pub(crate) fn assert_same(
    found: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
    where_: &str,
) {
    let differ = |key: &&String| found.get(*key) != wanted.get(*key);
    let keys: std::collections::BTreeSet<_> = found.keys().chain(wanted.keys()).collect();
    let differing: Vec<_> = keys
        .into_iter()
        .filter(differ)
        .map(|key| format!("{key}: {:?}, not {:?}", found.get(key), wanted.get(key)))
        .collect();
    assert!(differing.is_empty(), "{where_}:\n{}", differing.join("\n"));
}

/// What a bucket holds, apart from fences, as text; each value with the version of its shape.
pub(crate) async fn contents_of(bucket: &dyn KeyValue) -> BTreeMap<String, String> {
    let mut contents = BTreeMap::new();
    let keys = bucket.keys(">").await.unwrap();
    for keys in keys.chunks(500) {
        let exactly = |key: &Key| Pattern::parse(key.as_str()).unwrap();
        let patterns = NonEmpty::from_vec(keys.iter().map(exactly).collect()).unwrap();
        let Matching::All(entries) = bucket.matching(&patterns).await.unwrap() else { panic!() };
        for entry in entries.into_iter().filter(|entry| entry.key.as_str() != "=migration") {
            let Some(value) = entry.value else { continue };
            let schema = entry.headers.get("Cim-Schema-Version").unwrap_or("-");
            let value = format!("{schema} {}", value.escape_ascii());
            contents.insert(format!("{}/{}", bucket.bucket(), entry.key), value);
        }
    }
    contents
}

/// Times and ids that are the same in each world.
#[derive(Debug, Default)]
struct Steady(AtomicU64);

impl Clock for Steady {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

impl IdSource for Steady {
    fn next_id(&self) -> Uuid {
        Uuid::from_u128(self.0.fetch_add(1, Ordering::Relaxed).into())
    }
}

pub(crate) async fn fill(context: &Context, people: u32) {
    let models = self::people(context);
    models.build_index(&by_name()).await.unwrap();
    for number in 0..people {
        let person = json!({ "name": format!("First{number} Last{}", number % 4), "edits": 0 });
        models.save_document(&id(number), &person, SaveModel::default()).await.unwrap();
    }
    let accounts =
        Repository::<Account>::of(context).unwrap().with_snapshots(SnapshotPolicy::Always);
    for name in ["kim", "lee", "max"] {
        let deposits = vec![Deposited { cents: 120 }, Deposited { cents: 5 }];
        let account = Account::new(&name.to_owned());
        accounts.save(&account, deposits, SaveOptions::default()).await.unwrap();
    }
    context.flush().await;
}

pub(crate) fn id(number: u32) -> AggregateId {
    AggregateId::from_tokens([format!("team{}", number % 3), format!("p{number:04}")]).unwrap()
}

pub(crate) fn by_name() -> IndexSpec {
    IndexSpec::on(["name"])
}

pub(crate) fn people(context: &Context) -> Models<Value> {
    ReadModelStore::new(context).untyped("person").unwrap()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) cents: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Deposited {
    pub(crate) cents: i64,
}

impl DomainEvent for Deposited {
    fn event_type(&self) -> &'static str {
        "deposited"
    }
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Id = String;
    type Event = Deposited;
    fn new(id: &String) -> Self {
        Self { id: id.clone(), cents: 0 }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, event: &Deposited) {
        self.cents += event.cents;
    }
}

/// People get two names; those of team 2 move to team 9, each eighth is removed. Accounts get a currency.
pub(crate) struct SplitNames;

impl Migration for SplitNames {
    fn name(&self) -> &str {
        "split names"
    }
    fn from(&self) -> SchemaVersion {
        v(0)
    }
    fn to(&self) -> SchemaVersion {
        v(1)
    }
    fn undo(&self) -> Undo {
        Undo::Except("people that were removed")
    }

    async fn up(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        migrator.models("person.>", 2, split).await?;
        migrator.put_model("note", &AggregateId::new("split").unwrap(), 1, json!(true)).await?;
        let with_currency = |kept: &cim_persistence::migration::KeptState| {
            let ipld_core::ipld::Ipld::Map(mut state) = kept.state.clone() else {
                return Err("no map".into());
            };
            let twice = state.insert("currency".to_owned(), "EUR".to_owned().into()).is_some();
            if twice { Err("migrated twice".into()) } else { Ok(KeptEdit::Put(state.into())) }
        };
        migrator.state("account.*", 2, with_currency).await?;
        migrator.snapshots("account.>", 2, with_currency).await?;
        // Met again in their new form, so that steps over one bucket follow each other.
        migrator.models("person.team0.*", 3, |person| Ok(edited(&person.document))).await
    }

    async fn down(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        migrator
            .models("person.>", 1, |person| {
                let name = |part: &str| person.document[part].as_str().ok_or("no name");
                let name = format!("{} {}", name("first")?, name("last")?);
                let document = json!({ "name": name, "edits": 0 });
                if !person.id.as_str().starts_with("team9.") {
                    return Ok(ModelEdit::Put(document));
                }
                moved(person, "team2", document)
            })
            .await?;
        migrator.models("note.*", 1, |_| Ok(ModelEdit::Remove)).await?;
        let without_currency = |kept: &cim_persistence::migration::KeptState| {
            let ipld_core::ipld::Ipld::Map(mut state) = kept.state.clone() else {
                return Err("no map".into());
            };
            state.remove("currency").ok_or("no currency")?;
            Ok(KeptEdit::Put(state.into()))
        };
        migrator.state("account.*", 1, without_currency).await?;
        migrator.snapshots("account.>", 1, without_currency).await
    }

    async fn validate(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        migrator
            .check_models("person.>", |person| match person.document["last"].is_string() {
                true => Ok(()),
                false => Err("no last name".into()),
            })
            .await
    }
}

fn split(person: &ModelDocument) -> Result<ModelEdit, Refusal> {
    let name = person.document["name"].as_str().ok_or("no name")?;
    let (first, last) = name.split_once(' ').ok_or("one name only")?;
    let edits = person.document["edits"].as_u64().ok_or("no edits")? + 1;
    let number: u32 = person.id.as_str().rsplit('p').next().unwrap().parse()?;
    let document = json!({ "first": first, "last": last, "edits": edits });
    match (number % 8, number % 3) {
        (7, _) => Ok(ModelEdit::Remove),
        (_, 2) => moved(person, "team9", document),
        _ => Ok(ModelEdit::Put(document)),
    }
}

fn edited(document: &Value) -> ModelEdit {
    let mut document = document.clone();
    document["edits"] = json!(document["edits"].as_u64().unwrap() + 10);
    ModelEdit::Put(document)
}

fn moved(person: &ModelDocument, team: &str, document: Value) -> Result<ModelEdit, Refusal> {
    let number = person.id.as_str().split_once('.').ok_or("one token")?.1;
    let id = AggregateId::from_tokens([team, number])?;
    Ok(ModelEdit::Move { model_type: person.model_type.clone(), id, document })
}

/// Small pages, so that there are many batches.
pub(crate) fn runner(context: &Context) -> MigrationRunner {
    let mut runner = MigrationRunner::new(context, "test")
        .with_batch(4)
        .with_lease(Duration::from_secs(2))
        .with_patience(Duration::from_secs(5));
    runner.add_migration(SplitNames).unwrap();
    runner
}

pub(crate) async fn value(bucket: &dyn KeyValue, key: &str) -> Option<Value> {
    let slot = bucket.get(&Key::new(key).unwrap(), ReadFrom::Leader).await.unwrap();
    slot.value.map(|value| serde_json::from_slice(&value).unwrap())
}
