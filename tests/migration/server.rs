//! On a real server: a migration up and down with settings of streams, and a stream that is reshaped and switched.

use std::collections::BTreeMap;
use std::time::Duration;

use cim_persistence::backend::{ConnectionConfig, ReadFrom};
use cim_persistence::event::NonEmpty;
use cim_persistence::migration::reshape::{EventEdit, StreamReshape, current_stream};
use cim_persistence::migration::{
    ManagedStream, ManagedStreams, Migration, MigrationError, Migrator, SchemaVersion, Undo,
};
use cim_persistence::store::{ExpectedVersion, Head, NewEvent};
use cim_persistence::subject::EventType;
use cim_persistence::{
    Connection, Context, NatsRepositoryConfig, Position, StoreError, StoredEvent,
};
use futures::TryStreamExt;
use ipld_core::ipld;

use super::domain::*;
use super::reshape::{account, id, pay, payments};
use super::test_server::TestServer;

/// A server, a connection to it, and the bank on it.
pub(crate) async fn server() -> (TestServer, Connection, NatsRepositoryConfig) {
    let server = TestServer::start().await;
    let connection = Connection::connect(&ConnectionConfig::new(server.url())).await.unwrap();
    let bank = NatsRepositoryConfig { context: server.name("bank"), ..bank() };
    (server, connection, bank)
}

/// Remembers message ids longer, and keeps larger ones out of the read models.
struct Settings;

const WINDOW: [Duration; 2] = [Duration::from_secs(120), Duration::from_secs(600)];

impl Migration for Settings {
    fn name(&self) -> &str {
        "settings"
    }
    fn from(&self) -> SchemaVersion {
        v(1)
    }
    fn to(&self) -> SchemaVersion {
        v(2)
    }
    fn undo(&self) -> Undo {
        Undo::Everything
    }
    async fn up(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        let window = Some(WINDOW[1]);
        migrator.settings(ManagedStream::Events, |events| events.duplicate_window = window).await?;
        migrator.settings(ManagedStream::ReadModels, |m| m.max_msg_size = Some(2 << 20)).await
    }
    async fn down(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        let window = Some(WINDOW[0]);
        migrator.settings(ManagedStream::Events, |events| events.duplicate_window = window).await?;
        migrator.settings(ManagedStream::ReadModels, |m| m.max_msg_size = None).await
    }
}

/// Would lose events.
struct Forgets;

impl Migration for Forgets {
    fn name(&self) -> &str {
        "forgets"
    }
    fn from(&self) -> SchemaVersion {
        v(2)
    }
    fn to(&self) -> SchemaVersion {
        v(3)
    }
    async fn up(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        migrator.settings(ManagedStream::Events, |events| events.max_msgs = Some(10)).await
    }
}

#[tokio::test]
async fn data_and_settings_go_up_and_down_on_a_server() {
    let (server, connection, bank) = server().await;
    let context = Context::provision(&connection, &bank).await.unwrap();
    let (stream, models) = (bank.names().event_stream, server.name("KV_cim-readmodels-bank"));
    fill(&context, 100).await;
    let client = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let settings =
        async |name: &str| client.get_stream(name).await.unwrap().cached_info().config.clone();
    // What this crate does not know of stays.
    let mut described = settings(&stream).await;
    described.description = Some("kept".to_owned());
    client.update_stream(&described).await.unwrap();
    let before = contents_of(context.read_models().as_ref()).await;

    let streams = ManagedStreams::of(&connection, &bank).unwrap();
    let mut runner = cim_persistence::migration::MigrationRunner::new(&context, "test")
        .with_batch(50)
        .with_streams(streams);
    runner.add_migration(SplitNames).unwrap();
    runner.add_migration(Settings).unwrap();
    let last = context.read_models().last_revision().await.unwrap();
    let dry = runner.dry_run(v(2)).await.unwrap();
    assert_eq!(context.read_models().last_revision().await.unwrap(), last);
    assert_eq!(settings(&stream).await.duplicate_window, WINDOW[0]);
    let report = runner.migrate_to(v(2)).await.unwrap();
    let changed: u64 = report.migrations.iter().map(|run| run.tally.changed()).sum();
    assert_eq!(changed, dry.changed());

    let events = settings(&stream).await;
    assert_eq!((events.duplicate_window, events.description.as_deref()), (WINDOW[1], Some("kept")));
    assert_eq!(settings(&models).await.max_message_size, 2 << 20);
    let person = value(context.read_models().as_ref(), "person.team9.p0002").await.unwrap();
    assert_eq!(person["last"], "Last2");
    assert!(people(&context).verify_index(&by_name()).await.unwrap().is_sound());

    runner.add_migration(Forgets).unwrap();
    let refused = runner.migrate_to(v(3)).await.unwrap_err().to_string();
    let text = format!(
        "stream {stream} cannot be used: max_msgs must be unset and is 10; change its settings or \
         use another name"
    );
    assert_eq!(refused, text);
    assert_eq!(settings(&stream).await.max_messages, -1);

    // What was refused before it changed anything is not in the way.
    runner.rollback_to(v(0)).await.unwrap();
    assert_eq!(settings(&stream).await.duplicate_window, WINDOW[0]);
    assert_eq!(settings(&models).await.max_message_size, -1);
    let mut after = contents_of(context.read_models().as_ref()).await;
    after.values_mut().for_each(|value| *value = value.replacen("1 ", "- ", 1));
    let removed = |key: &&String| !after.contains_key(*key);
    assert_eq!(before.keys().filter(removed).count(), 12 * 2, "each eighth, and its index entry");
    let stayed = before.iter().filter(|(key, _)| after.contains_key(*key));
    assert_same(&after, &stayed.map(|(k, v)| (k.clone(), v.clone())).collect(), "back");
    assert_eq!(runner.history().await.unwrap().len(), 5);
}

pub(crate) fn hasty(config: NatsRepositoryConfig) -> NatsRepositoryConfig {
    NatsRepositoryConfig { patience_ms: 300, ..config }
}

/// How many events each account has, by reading and verifying all.
async fn histories(context: &Context) -> BTreeMap<String, usize> {
    let mut histories = BTreeMap::new();
    let mut events = context.stream_after(Position::START);
    while let Some(event) = events.try_next().await.unwrap() {
        *histories.entry(event.aggregate_id().to_string()).or_default() += 1;
        assert_eq!(event.version(), histories[&event.aggregate_id().to_string()] as u64);
    }
    histories
}

async fn append(context: &Context, number: usize) -> Result<Head, StoreError> {
    let head = context.head(&account(), &id(number), ReadFrom::Leader).await?;
    let opened = EventType::new("opened").unwrap();
    let event = NewEvent { event_type: opened, schema_version: 1, data: ipld!({ "cents": 0 }) };
    let (expected, events) = (ExpectedVersion::Exact(head.version), NonEmpty::one(event));
    let info = Default::default();
    let appended = context.append(&account(), &id(number), expected, &events, &info).await?;
    Ok(appended.head)
}

#[tokio::test]
async fn a_stream_of_thousands_of_events_is_reshaped_while_services_write_and_then_switched() {
    let (server, connection, bank) = server().await;
    let (config, second) = (hasty(bank), server.name("EVENTS-2"));
    let old = Context::provision(&connection, &config).await.unwrap();
    pay(&old, 250, 11).await;

    let reshape = StreamReshape::begin(&connection, &config, &second).await.unwrap();
    let first = reshape.copier().copy(payments).await.unwrap();
    let dropped =
        (0..250).flat_map(|n| (1..=11).map(move |round| n + round)).filter(|c| c % 3 == 0);
    assert_eq!((first.read, first.dropped), (3000, dropped.count() as u64));
    // A service goes on; another process takes up the work.
    pay(&old, 20, 2).await;
    let reshape = StreamReshape::begin(&connection, &config, &second).await.unwrap();
    assert_eq!(reshape.copier().copy(payments).await.unwrap().up_to.get(), 3060);
    append(&old, 5).await.unwrap();
    let switched = reshape.switch(payments).await.unwrap();
    let copied = switched.copied.unwrap();
    assert_eq!((copied.read, copied.aggregates, copied.up_to.get()), (3061, 250, 3061));
    assert_eq!(reshape.switch(payments).await.unwrap().copied, None);

    // A service that knows of the new stream.
    let current = current_stream(&connection, &config).await.unwrap();
    assert_eq!(current.event_stream_name, second);
    let new = Context::open(&connection, &current).await.unwrap();
    let found = histories(&new).await;
    assert_eq!(found.values().sum::<usize>() as u64, copied.written);
    let head = append(&new, 5).await.unwrap();
    assert_eq!(head.version as usize, found["a5"] + 1);
    assert!(head.position > switched.before && switched.before.get() > 3061);
    let wanted = new.get_events(&account(), &id(5), 0).await.unwrap();

    // One that does not.
    let stale = append(&old, 5).await.unwrap_err();
    assert!(matches!(stale, StoreError::Conflict { .. }), "{stale}");
    let there = new.get_events(&account(), &id(5), 0).await.unwrap();
    assert_eq!(there.len(), wanted.len());
    let opened = Context::open(&connection, &config).await.unwrap_err().to_string();
    let (stream, subjects) = (config.names().event_stream, old.scheme().all_events());
    let text = format!(
        "stream {stream} cannot be used: subjects must be covering {subjects} and is \
         cim.frozen.{stream}.>"
    );
    assert!(opened.starts_with(&text), "{opened}");
    // The old stream is as it was.
    assert_eq!(histories(&old).await.values().sum::<usize>(), 3061);
    let done = reshape.abandon().await.unwrap_err().to_string();
    assert_eq!(done, format!("the copy cannot be used: stream {second} takes events already"));
}

#[tokio::test]
async fn a_switch_that_fails_stops_writers_until_it_is_abandoned() {
    let (server, connection, bank) = server().await;
    let (config, second) = (hasty(bank), server.name("EVENTS-2"));
    let bank = Context::provision(&connection, &config).await.unwrap();
    pay(&bank, 5, 3).await;
    let reshape = StreamReshape::begin(&connection, &config, &second).await.unwrap();
    reshape.copier().copy(payments).await.unwrap();
    let failed = reshape.switch(|_: &StoredEvent| Ok(EventEdit::Keep)).await.unwrap_err();
    assert!(matches!(failed, MigrationError::Copy { .. }), "{failed}");
    let stopped = append(&bank, 1).await.unwrap_err();
    // Nobody answers, so nobody says that nothing was stored.
    assert!(matches!(stopped, StoreError::OutcomeUnknown { .. }), "{stopped:?}");
    assert_eq!(current_stream(&connection, &config).await.unwrap(), config);
    reshape.abandon().await.unwrap();
    append(&bank, 1).await.unwrap();
    // Taken up again, by the right function.
    assert!(reshape.switch(payments).await.unwrap().copied.is_some());
    let current = current_stream(&connection, &config).await.unwrap();
    append(&Context::open(&connection, &current).await.unwrap(), 1).await.unwrap();
}

/// The switch has told services of the new stream, and has not given it the subjects.
#[tokio::test]
async fn a_switch_that_was_interrupted_is_finished_as_it_was_begun() {
    let (server, connection, bank) = server().await;
    let (config, second) = (hasty(bank), server.name("EVENTS-2"));
    let bank = Context::provision(&connection, &config).await.unwrap();
    pay(&bank, 5, 3).await;
    let client = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let begun = StreamReshape::begin(&connection, &config, &second).await.unwrap();
    let copying = client.get_stream(&second).await.unwrap().cached_info().config.clone();
    let copied = begun.switch(payments).await.unwrap().copied.unwrap();
    client.update_stream(&copying).await.unwrap();

    // As a service is told, and as it was configured at first.
    let current = current_stream(&connection, &config).await.unwrap();
    assert_eq!(current.event_stream_name, second);
    for config in [&current, &config] {
        let again = StreamReshape::begin(&connection, config, &second).await.unwrap();
        assert_eq!(again.copier().copy(payments).await.unwrap().written, 0);
        assert_eq!(again.copier().verify(payments).await.unwrap(), copied);
    }
    let again = StreamReshape::begin(&connection, &current, &second).await.unwrap();
    assert_eq!(again.switch(payments).await.unwrap().copied, Some(copied));
    let new = Context::open(&connection, &current).await.unwrap();
    assert_eq!(histories(&new).await.values().sum::<usize>() as u64, copied.written);
    append(&new, 1).await.unwrap();

    // The next one begins with what the context has, whatever a service was configured with.
    let third = server.name("EVENTS-3");
    let next = StreamReshape::begin(&connection, &config, &third).await.unwrap();
    let keep = |_: &StoredEvent| Ok(EventEdit::Keep);
    assert_eq!(next.switch(keep).await.unwrap().copied.unwrap().read, copied.written + 1);
    let current = current_stream(&connection, &config).await.unwrap();
    assert_eq!(current.event_stream_name, third);
}

#[tokio::test]
async fn a_stream_is_not_copied_into_itself() {
    let (_server, connection, bank) = server().await;
    Context::provision(&connection, &bank).await.unwrap();
    let own = bank.names().event_stream;
    let refused = StreamReshape::begin(&connection, &bank, &own).await.err().unwrap().to_string();
    let text = format!(
        "the copy cannot be used: stream {own} is the one to copy; give the new one another name"
    );
    assert_eq!(refused, text);
}

/// A sender that uses one id for ever, and lets the server forget it in between.
#[tokio::test]
async fn a_message_id_that_was_stored_again_and_again_is_copied_as_often() {
    let (server, connection, bank) = server().await;
    let (config, second) = (hasty(bank), server.name("EVENTS-2"));
    let bank = Context::provision(&connection, &config).await.unwrap();
    let client = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream =
        async |name: &str| client.get_stream(name).await.unwrap().cached_info().config.clone();
    let usual = stream(&config.names().event_stream).await;
    let forgetful = async_nats::jetstream::stream::Config {
        duplicate_window: Duration::from_millis(100),
        ..usual.clone()
    };
    client.update_stream(&forgetful).await.unwrap();
    let mut stored = 0;
    while stored < 3 {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", "daily");
        let report = format!("cim.outbox.{}.report", config.context);
        let sent = client.publish_with_headers(report, headers, "".into()).await;
        stored += usize::from(!sent.unwrap().await.unwrap().duplicate);
    }
    client.update_stream(&usual).await.unwrap();
    pay(&bank, 2, 1).await;

    let reshape = StreamReshape::begin(&connection, &config, &second).await.unwrap();
    reshape.copier().copy(payments).await.unwrap();
    assert_eq!(reshape.switch(payments).await.unwrap().copied.unwrap().read, 3 + 4);
    assert_eq!(stream(&second).await.duplicate_window, usual.duplicate_window);
}
