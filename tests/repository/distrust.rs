//! Kept records that disagree with the events: counted, replaced once, and not mistaken for what is only old or late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::HeaderMap;
use cim_persistence::backend::{Bound, Position, ReadFrom};
use cim_persistence::event::NonEmpty;
use cim_persistence::prelude::Aggregate;
use cim_persistence::repository::{
    LoadOptions, QueryFreshness, QueryOptions, Repository, SaveOptions,
};
use cim_persistence::state::{Change, Expected, Key, KeyValue, KeyWrite};
use cim_persistence::store::{Context, ExpectedVersion, NatsRepositoryConfig, Ports};
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults};
use ipld_core::ipld::Ipld;
use metrics::LocalRecorderGuard;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::branches::Memory;
use crate::domain::{Account, Lab, account, bank, bare_bank, deposit, deposit_times, deposited};
use crate::snapshots::CountingAccount;

/// Counts what is distrusted on this thread.
struct Distrust {
    counted: Snapshotter,
    _counting: LocalRecorderGuard<'static>,
}

impl Distrust {
    fn count() -> Self {
        let recorder: &'static DebuggingRecorder = Box::leak(Box::default());
        let _counting = metrics::set_default_local_recorder(recorder);
        Self { counted: recorder.snapshotter(), _counting }
    }

    /// How many records were distrusted since this was last asked.
    fn more(&self) -> u64 {
        let counted = self.counted.snapshot().into_vec().into_iter();
        let mut distrusted =
            counted.filter(|(key, ..)| key.key().name() == "cim_state_distrusted_total");
        match distrusted.next() {
            Some((_, _, _, DebugValue::Counter(count))) => count,
            _ => 0,
        }
    }
}

/// A process of its own, which meets these faults.
fn faulty<A>(memory: &Memory, config: &NatsRepositoryConfig, faults: &Faults) -> Repository<A>
where
    A: Aggregate + Send + Sync + 'static,
{
    let ports = Ports {
        log: Arc::new(memory.log.clone().with_faults(faults)),
        state: Arc::new(memory.state.clone()),
        snapshots: Arc::new(memory.snapshots.clone()),
        ..Ports::in_memory()
    };
    Repository::of(&Context::on(ports, config).unwrap()).unwrap()
}

fn accounts<A: Aggregate + Send + Sync + 'static>(memory: &Memory) -> Repository<A> {
    faulty(memory, &bank(), &Faults::new())
}

/// Nothing is kept by this one, whatever is kept already.
fn bare(memory: &Memory) -> Repository<Account> {
    faulty(memory, &bare_bank(), &Faults::new())
}

/// The cents of account a, replaying at most so many events.
async fn cents(accounts: &Repository<Account>, max_events: usize) -> i64 {
    let options = LoadOptions { max_events: Some(max_events), ..LoadOptions::default() };
    accounts.load(&"a".into(), options).await.unwrap().0.cents
}

async fn queried(accounts: &Repository<Account>, freshness: QueryFreshness) -> i64 {
    let options = QueryOptions { freshness, ..QueryOptions::default() };
    accounts.query(&options).await.unwrap()[0].0.cents
}

/// What was kept of five events of account a, beside another log, in which it has so many events of two cents.
async fn restored(events: usize) -> Memory {
    let memory = Memory::new();
    let before = accounts(&memory);
    deposit_times(&before, "a", 5).await;
    before.context().flush().await;
    let restored = Memory { log: Memory::new().log, ..memory };
    let writer = bare(&restored);
    for _ in 0..events {
        deposit(&writer, "a", 2).await;
    }
    restored
}

#[tokio::test]
async fn record_of_another_history_is_replaced_by_what_is_derived_in_its_place() {
    let distrust = Distrust::count();
    for (events, what) in [(3, "beyond the log"), (5, "of the same version"), (9, "of the past")] {
        let (restored, cents_now) = (restored(events).await, 2 * events as i64);
        let first = accounts(&restored);
        assert_eq!(cents(&first, events).await, cents_now, "{what}");
        assert_eq!(distrust.more(), 1, "{what}");
        first.context().flush().await;
        assert_eq!(cents(&accounts(&restored), 0).await, cents_now, "{what}");
        assert_eq!(distrust.more(), 0, "{what}");
    }
}

/// Where others have events too, an aggregate may come further in another log at positions before its own.
#[tokio::test]
async fn another_history_that_went_further_is_seen_by_where_it_ends() {
    let distrust = Distrust::count();
    let memory = Memory::new();
    let before = accounts(&memory);
    deposit_times(&before, "b", 20).await;
    deposit_times(&before, "a", 5).await;
    before.context().flush().await;
    let restored = Memory { log: Memory::new().log, ..memory };
    let writer = bare(&restored);
    for _ in 0..7 {
        deposit(&writer, "a", 2).await;
    }
    let first = accounts(&restored);
    assert_eq!((cents(&first, 7).await, distrust.more()), (14, 1));
    first.context().flush().await;
    assert_eq!((cents(&accounts(&restored), 0).await, distrust.more()), (14, 0));
}

#[tokio::test]
async fn what_is_not_there_is_no_state_to_distrust() {
    let distrust = Distrust::count();
    let accounts: Repository<Account> = accounts(&Memory::new());
    for _ in 0..3 {
        accounts.load(&"a".into(), LoadOptions::default()).await.unwrap_err();
    }
    deposit(&accounts, "a", 1).await;
    assert_eq!((cents(&accounts, 1).await, distrust.more()), (1, 0));
}

#[tokio::test]
async fn search_replaces_a_record_of_another_history_too() {
    let distrust = Distrust::count();
    let restored = restored(3).await;
    let first = accounts(&restored);
    assert_eq!(queried(&first, QueryFreshness::Checked).await, 6);
    assert_eq!(distrust.more(), 1);
    first.context().flush().await;
    assert_eq!(queried(&accounts(&restored), QueryFreshness::Kept).await, 6);
    assert_eq!(distrust.more(), 0);
}

#[tokio::test]
async fn derived_record_leaves_a_later_one_that_was_written_meanwhile() {
    let restored = restored(3).await;
    let first = accounts(&restored);
    assert_eq!(cents(&first, 3).await, 6);
    // Before the first one writes, another process has found the same, and went on.
    let other = accounts(&restored);
    deposit(&other, "a", 1).await;
    other.context().flush().await;
    first.context().flush().await;
    assert_eq!(cents(&accounts(&restored), 0).await, 7);
}

/// Puts a record of account a that differs in one field.
async fn forge(memory: &Memory, field: &str, value: Ipld) {
    let key = Key::new("account.a").unwrap();
    let stored = memory.state.get(&key, ReadFrom::Leader).await.unwrap().value.unwrap();
    let Ipld::Map(mut record) = serde_ipld_dagcbor::from_slice(&stored).unwrap() else {
        panic!("a record is a map")
    };
    assert!(record.insert(field.to_owned(), value).is_some(), "{field} is a field");
    let forged = serde_ipld_dagcbor::to_vec(&Ipld::Map(record)).unwrap();
    let write = KeyWrite::new(key, Change::Put(forged.into()), Expected::Anything);
    memory.state.write(NonEmpty::one(write)).await.unwrap();
}

#[tokio::test]
async fn record_whose_state_cannot_be_read_is_replaced_by_every_kind_of_reading() {
    let distrust = Distrust::count();
    for freshness in [None, Some(QueryFreshness::Checked), Some(QueryFreshness::Kept)] {
        let memory = Memory::new();
        let before = accounts(&memory);
        deposit_times(&before, "a", 3).await;
        before.context().flush().await;
        forge(&memory, "state", Ipld::from("no account")).await;
        let first = accounts(&memory);
        let found = match freshness {
            None => cents(&first, 3).await,
            Some(freshness) => queried(&first, freshness).await,
        };
        assert_eq!((found, distrust.more()), (3, 1), "{freshness:?}");
        first.context().flush().await;
        assert_eq!(cents(&accounts(&memory), 0).await, 3, "{freshness:?}");
        assert_eq!(distrust.more(), 0, "{freshness:?}");
    }
}

/// No service gets so far, and whoever may write to the bucket can say that one did.
#[tokio::test]
async fn record_of_the_greatest_version_is_replaced() {
    let distrust = Distrust::count();
    let memory = Memory::new();
    let before = accounts(&memory);
    deposit_times(&before, "a", 3).await;
    before.context().flush().await;
    forge(&memory, "version", Ipld::from(u64::MAX)).await;
    forge(&memory, "position", Ipld::from(1)).await;
    let first = accounts(&memory);
    assert_eq!((cents(&first, 3).await, distrust.more()), (3, 1));
    assert_eq!(queried(&accounts(&memory), QueryFreshness::Checked).await, 3);
    first.context().flush().await;
    assert_eq!(cents(&accounts(&memory), 0).await, 3);
}

#[tokio::test]
async fn record_of_another_shape_is_absent_and_not_distrusted() {
    let distrust = Distrust::count();
    let memory = Memory::new();
    let old = accounts(&memory);
    deposit_times(&old, "a", 3).await;
    old.context().flush().await;
    let new = async || accounts::<CountingAccount>(&memory);
    assert_eq!(new().await.load_matching(None, Bound::Newest).await.unwrap()[0].0.entries, 3);
    for freshness in [QueryFreshness::Checked, QueryFreshness::Kept] {
        let options = QueryOptions { freshness, ..QueryOptions::default() };
        assert_eq!(new().await.query(&options).await.unwrap()[0].0.entries, 3);
    }
    new().await.load(&"a".into(), LoadOptions::default()).await.unwrap();
    // One of a later release that wrote records otherwise.
    forge(&memory, "format", Ipld::from(2)).await;
    assert_eq!(cents(&accounts(&memory), 3).await, 3);
    assert_eq!(distrust.more(), 0);
}

/// Lets reads of the events that any replica may answer, but for the first one, be answered as of so many writes ago.
fn lag(faults: &Faults, writes: &[usize]) {
    for &writes in writes {
        let first = AtomicBool::new(true);
        // Of several faults the first that fits is met, so each of them passes over the first read.
        let fits = move |call: &Call<'_>| {
            let events = call.stream == "memory" && call.kind == CallKind::NearestRead;
            events && !first.swap(false, Ordering::Relaxed)
        };
        faults.plan_when(fits, Fault::StaleRead(writes));
    }
}

#[tokio::test]
async fn snapshot_is_used_when_a_replica_is_behind_it() {
    let distrust = Distrust::count();
    let memory = Memory::new();
    let writer = bare(&memory);
    deposit_times(&writer, "a", 3).await;
    let options = SaveOptions {
        expected_version: ExpectedVersion::Exact(3),
        create_snapshot: true,
        ..SaveOptions::default()
    };
    writer.save(&account("a"), vec![deposited(1)], options).await.unwrap();
    let faults = Faults::new();
    // The first read begins at the first event, the next ones where the snapshot ends.
    lag(&faults, &[1, 1, 1]);
    assert_eq!(cents(&faulty(&memory, &bare_bank(), &faults), 0).await, 4);
    assert_eq!((faults.met(), distrust.more()), (3, 0));
    // Of a log that was restored it is still known.
    let restored = Memory { log: Memory::new().log, ..memory };
    deposit_times(&bare(&Memory { log: restored.log.clone(), ..Memory::new() }), "a", 2).await;
    assert_eq!(cents(&bare(&restored), 2).await, 2);
    assert_eq!(distrust.more(), 1);
}

#[tokio::test]
async fn kept_state_is_used_when_a_replica_is_behind_the_events_after_it() {
    let distrust = Distrust::count();
    let memory = Memory::new();
    let keeper = accounts(&memory);
    deposit_times(&keeper, "a", 2).await;
    keeper.context().flush().await;
    deposit_times(&bare(&memory), "a", 3).await;
    let faults = Faults::new();
    // The first read finds the last event. The first to follow finds nothing after the state, the second one event.
    lag(&faults, &[3, 2]);
    let late: Repository<Account> = faulty(&memory, &bank(), &faults);
    let found = late.load_matching(None, Bound::Newest).await.unwrap();
    assert_eq!((found[0].0.cents, found[0].1.version), (5, 5));
    assert_eq!((faults.met(), distrust.more()), (2, 0));
    // One at the same place that says it is another event is none of these.
    forge(&memory, "version", Ipld::from(1)).await;
    let as_of = Bound::Position(Position::new(2));
    let found = accounts::<Account>(&memory).load_matching(None, as_of).await.unwrap();
    assert_eq!((found[0].0.cents, distrust.more()), (2, 1));
}

/// Puts the first events of the bank into a stream of its own name that is made anew, as a restore does.
async fn restore_first(lab: &Lab, events: u64) {
    let (jetstream, stream) = (lab.jetstream().await, lab.events().await);
    let config = stream.cached_info().config.clone();
    let mut saved = Vec::new();
    for sequence in 1..=events {
        saved.push(stream.get_raw_message(sequence).await.unwrap());
    }
    jetstream.delete_stream(&config.name).await.unwrap();
    jetstream.create_stream(config).await.unwrap();
    for message in saved {
        let mut headers = HeaderMap::new();
        for (name, values) in message.headers.iter() {
            // The expectation was met when it was first stored.
            if !(name.as_ref() as &str).starts_with("Nats-Expected-") {
                values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
            }
        }
        let subject = message.subject.to_string();
        let stored = jetstream.publish_with_headers(subject, headers, message.payload).await;
        stored.unwrap().await.unwrap();
    }
}

#[tokio::test]
async fn cache_forgets_what_another_log_went_beyond_at_earlier_positions() {
    let distrust = Distrust::count();
    let lab = Lab::start().await;
    let config = NatsRepositoryConfig { keep_state: false, ..bank() };
    let accounts = lab.accounts_with(&config).await;
    deposit_times(&accounts, "b", 20).await;
    deposit_times(&accounts, "a", 5).await;
    restore_first(&lab, 0).await;
    let elsewhere = lab.accounts_with(&config).await;
    for _ in 0..7 {
        deposit(&elsewhere, "a", 2).await;
    }
    assert_eq!((cents(&accounts, 7).await, distrust.more()), (14, 1));
    assert_eq!((cents(&accounts, 0).await, distrust.more()), (14, 0));
    deposit(&accounts, "a", 1).await;
    accounts.verify(&"a".into()).await.unwrap();
}

#[tokio::test]
async fn cache_forgets_what_lies_beyond_a_restored_log() {
    let distrust = Distrust::count();
    let lab = Lab::start().await;
    let config = NatsRepositoryConfig { keep_state: false, ..bank() };
    let accounts = lab.accounts_with(&config).await;
    deposit_times(&accounts, "a", 5).await;
    restore_first(&lab, 3).await;
    assert_eq!(cents(&accounts, 3).await, 3);
    assert_eq!(distrust.more(), 1);
    assert_eq!(cents(&accounts, 0).await, 3);
    assert_eq!(distrust.more(), 0);
}
