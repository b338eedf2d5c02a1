//! Many aggregates as of one moment: each what its history was then, and all of the same moment.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cim_persistence::backend::{Bound, Position, ReadFrom};
use cim_persistence::clock::{Clock, Timestamp};
use cim_persistence::event::NonEmpty;
use cim_persistence::event_log::MemoryLog;
use cim_persistence::prelude::*;
use cim_persistence::repository::{RepositoryError, SaveOptions, SnapshotPolicy};
use cim_persistence::state::{Change, Expected, Key, KeyValue, KeyWrite};
use cim_persistence::store::{CommitInfo, Context, ExpectedVersion, NewEvent, StoreError};
use cim_persistence::subject::{AggregateType, EventType, InvalidPattern};
use cim_persistence::testing::faults::{CallKind, Fault, Faults};
use futures::TryStreamExt;
use ipld_core::ipld::Ipld;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::branches::{Branches, Memory, Path, Place, Seen, branch, many, open_many, pay_in, seen};
use crate::domain::{AccountEvent, bank, bare_bank, deposited};

async fn at(branches: &Branches, pattern: Option<&str>, bound: Bound) -> Seen {
    seen(&branches.load_matching(pattern, bound).await.unwrap())
}

fn position(position: u64) -> Bound {
    Bound::Position(Position::new(position))
}

/// Another time whenever it is asked.
#[derive(Debug, Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000 + self.0.fetch_add(1, Ordering::SeqCst))
    }
}

#[derive(Debug, Clone)]
enum Step {
    Pay { who: usize, events: usize, cents: i64 },
    Delete(usize),
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pay = (0..IDS.len(), 1..4_usize, -9..9_i64).prop_map(|(who, events, cents)| Step::Pay {
        who,
        events,
        cents,
    });
    let delete = (0..IDS.len()).prop_map(Step::Delete);
    vec(prop_oneof![8 => pay, 1 => delete, 1 => Just(Step::Flush)], 1..24)
}

const IDS: [&str; 4] = ["eu.1", "eu.2", "us.1", "eu.state"];

/// How the branches were after each position, from 0 on, told from the steps alone.
async fn play(branches: &Branches, steps: &[Step]) -> Vec<Seen> {
    let mut history = vec![Seen::new()];
    let mut versions = [0; IDS.len()];
    for step in steps {
        let mut now = history.last().unwrap().clone();
        match *step {
            Step::Flush => branches.context().flush().await,
            Step::Pay { who, events, cents } => {
                let id = IDS[who];
                let paid = vec![deposited(cents); events];
                branches.save(&branch(id), paid, ExpectedVersion::Any).await.unwrap();
                for _ in 0..events {
                    versions[who] += 1;
                    let before = now.get(id).map_or(0, |row| row.0);
                    now.insert(id.to_owned(), (before + cents, versions[who]));
                    history.push(now.clone());
                }
            }
            Step::Delete(who) => {
                let id = Path(IDS[who].to_owned());
                if branches.delete(&id, SaveOptions::default()).await.is_ok() {
                    versions[who] += 1;
                    now.remove(IDS[who]);
                    history.push(now);
                }
            }
        }
    }
    history
}

async fn agrees_with_its_history(steps: Vec<Step>) {
    let log = MemoryLog::with_clock(Arc::new(Ticking::default()));
    let memory = Memory { log, ..Memory::new() };
    let snapshots = SnapshotPolicy::Every(NonZeroU64::new(3).unwrap());
    let history = play(&memory.branches().with_snapshots(snapshots), &steps).await;
    let times: Vec<Timestamp> = memory
        .branches()
        .context()
        .stream_after(Position::START)
        .map_ok(|event| event.recorded_at())
        .try_collect()
        .await
        .unwrap();
    let eu = |rows: &Seen| -> Seen {
        let rows = rows.iter().filter(|(id, _)| id.starts_with("eu."));
        rows.map(|(id, row)| (id.clone(), *row)).collect()
    };
    for branches in [memory.branches(), memory.process(&bare_bank())] {
        for (index, wanted) in history.iter().enumerate() {
            let bound = position(index as u64);
            assert_eq!(at(&branches, None, bound).await, *wanted, "as of {index}");
            assert_eq!(at(&branches, Some("branch.eu.*"), bound).await, eu(wanted));
            if let Some(time) = times.get(index) {
                // A batch is stored at one time.
                let before = times.iter().filter(|other| *other < time).count();
                assert_eq!(
                    at(&branches, None, Bound::Time(*time)).await,
                    history[before],
                    "{time}"
                );
            }
            for (id, (cents, version)) in wanted {
                let loaded = branches.get_at_version(&Path(id.clone()), *version).await.unwrap();
                assert_eq!(
                    (loaded.0.cents, loaded.1.position.get() <= index as u64),
                    (*cents, true)
                );
            }
        }
        let newest = history.last().unwrap();
        for bound in
            [Bound::Newest, position(u64::MAX), Bound::Time(Timestamp::from_micros(u64::MAX >> 12))]
        {
            assert_eq!(at(&branches, None, bound).await, *newest, "{bound:?}");
        }
        let streamed = branches.stream_matching(None, Bound::Newest).await.unwrap();
        let streamed: Vec<_> = streamed.try_collect().await.unwrap();
        assert_eq!(seen(&streamed), *newest);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_moment_is_what_the_history_says(steps in steps()) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(agrees_with_its_history(steps));
    }
}

#[tokio::test]
async fn a_server_tells_the_same() {
    let place = Place::all().await.into_iter().last().unwrap();
    let pay = |who, cents| Step::Pay { who, events: 2, cents };
    let steps = [
        pay(0, 1),
        pay(1, 2),
        Step::Flush,
        pay(0, 3),
        Step::Delete(1),
        pay(3, 4),
        pay(2, 5),
        pay(1, 6),
        Step::Flush,
        pay(0, 7),
    ];
    let history = play(&place.branches().await, &steps).await;
    let branches = place.branches().await;
    for (index, wanted) in history.iter().enumerate() {
        assert_eq!(at(&branches, None, position(index as u64)).await, *wanted, "as of {index}");
    }
    let events: Vec<_> =
        branches.context().stream_after(Position::START).try_collect().await.unwrap();
    for event in &events {
        // A batch is stored at one time.
        let before = events.iter().filter(|other| other.recorded_at() < event.recorded_at());
        let bound = Bound::Time(event.recorded_at());
        assert_eq!(at(&branches, None, bound).await, history[before.count()], "{bound:?}");
    }
    assert_eq!(at(&branches, None, Bound::Newest).await, *history.last().unwrap());
    assert_eq!(at(&branches, Some("branch.nobody"), Bound::Newest).await, Seen::new());
}

#[tokio::test]
async fn more_than_one_answer_holds() {
    const COUNT: usize = 1100;
    for place in Place::all().await {
        let writer = place.branches().await;
        open_many(&writer, COUNT).await;
        let opened = writer.context().status().await.unwrap().last;
        let middle = pay_in(&writer, &many(7), 1).await.position;
        pay_in(&writer, &many(7), 1).await;
        writer.delete(&Path(many(8)), SaveOptions::default()).await.unwrap();
        let reader = place.branches().await;
        let pattern = place.text("cim.events.bank.branch.many.*");
        let as_of = async |bound| {
            let rows = at(&reader, Some(&pattern), bound).await;
            (rows.len(), rows[&many(7)], rows.contains_key(&many(8)))
        };
        assert_eq!(as_of(Bound::Position(opened)).await, (COUNT, (7, 1), true));
        assert_eq!(as_of(Bound::Position(middle)).await, (COUNT, (8, 2), true));
        assert_eq!(as_of(Bound::Newest).await, (COUNT - 1, (9, 3), false));
        let events = reader.context().get_events_after(middle, 1).await.unwrap();
        let before = events[0].recorded_at();
        assert_eq!(as_of(Bound::Time(before)).await, (COUNT, (8, 2), true));
    }
}

#[tokio::test]
async fn long_histories_are_replayed_from_snapshots() {
    let memory = Memory::new();
    let policy = SnapshotPolicy::Every(NonZeroU64::new(100).unwrap());
    let writer = memory.branches().with_snapshots(policy);
    for _ in 0..420 {
        pay_in(&writer, "a", 1).await;
        if writer.context().status().await.unwrap().last.get() % 100 == 0 {
            writer.context().flush().await;
        }
    }
    let faults = Faults::new();
    let reader = Memory { log: memory.log.clone().with_faults(&faults), ..memory }.branches();
    for wanted in [99, 100, 101, 150, 350, 419] {
        let rows = at(&reader, None, position(wanted)).await;
        assert_eq!(rows["a"], (wanted as i64, wanted));
    }
}

async fn transfer(bank: &Context, from: &str, to: &str, cents: i64) {
    let part = |id: &str, event: AccountEvent| {
        let event = NewEvent {
            event_type: EventType::new(event.event_type()).unwrap(),
            schema_version: 1,
            data: ipld_core::serde::to_ipld(&event).unwrap(),
        };
        let id = Path(id.to_owned()).to_aggregate_id().unwrap();
        let branch = AggregateType::new("branch").unwrap();
        (branch, id, ExpectedVersion::Any, NonEmpty::one(event))
    };
    let out = part(from, AccountEvent::Withdrawn { cents });
    let mut parts = NonEmpty::one(out);
    parts.push(part(to, deposited(cents)));
    bank.append_batch(&parts, &CommitInfo::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_over_several_is_seen_whole_or_not_at_all() {
    for place in Place::all().await {
        let writer = place.branches().await;
        for id in ["a", "b", "c"] {
            pay_in(&writer, id, 100).await;
        }
        let (reader, done) = (place.branches().await, AtomicBool::new(false));
        let writing = async {
            for round in 0..150 {
                let ids = ["a", "b", "c"];
                transfer(writer.context(), ids[round % 3], ids[(round + 1) % 3], 7).await;
            }
            done.store(true, Ordering::SeqCst);
        };
        let reading = async {
            let mut differing = std::collections::BTreeSet::new();
            while !done.load(Ordering::SeqCst) {
                let rows = at(&reader, None, Bound::Newest).await;
                assert_eq!(rows.values().map(|row| row.0).sum::<i64>(), 300, "{rows:?}");
                differing.insert(rows.values().map(|row| row.1).sum::<u64>());
                tokio::task::yield_now().await;
            }
            assert!(differing.iter().all(|versions| versions % 2 == 1), "{differing:?}");
            differing.len()
        };
        let ((), moments) = futures::future::join(writing, reading).await;
        assert!(moments > 3, "{moments} moments were seen");
        let rows = at(&reader, None, Bound::Newest).await;
        assert_eq!(
            rows.values().map(|row| row.1).sum::<u64>(),
            303,
            "what was acknowledged is seen"
        );
    }
}

#[tokio::test]
async fn replicas_that_are_behind_are_not_believed() {
    let memory = Memory::new();
    let writer = memory.branches();
    for cents in 1..=5 {
        pay_in(&writer, "a", cents).await;
        pay_in(&writer, "b", cents).await;
    }
    let faults = Faults::new();
    let config = bare_bank();
    let reader = Memory { log: memory.log.clone().with_faults(&faults), ..memory }.process(&config);
    for writes in 1..=9 {
        // The last events, and then the history of one of the two.
        for subject in ["cim.events.bank.branch.>", "cim.events.bank.branch.a"] {
            faults.plan_when(
                move |call| call.kind == CallKind::NearestRead && call.subjects == [subject],
                Fault::StaleRead(writes),
            );
        }
        let rows = at(&reader, None, Bound::Newest).await;
        assert_eq!((rows["a"], rows["b"]), ((15, 5), (15, 5)), "behind by {writes}");
        assert_eq!(faults.planned(), 0);
        let rows = at(&reader, None, position(9)).await;
        assert_eq!((rows["a"], rows["b"]), ((15, 5), (10, 4)), "behind by {writes}");
    }
    faults.plan(Fault::Outage);
    let error = reader.load_matching(None, Bound::Newest).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Store(StoreError::Backend(_))), "{error:?}");
}

#[tokio::test]
async fn kept_state_of_another_history_is_not_used() {
    let memory = Memory::new();
    let writer = memory.branches();
    for _ in 0..3 {
        pay_in(&writer, "a", 1).await;
    }
    writer.context().flush().await;
    let key = Key::new("branch.a").unwrap();
    let stored = memory.state.get(&key, ReadFrom::Leader).await.unwrap().value.unwrap();
    let Ipld::Map(record) = serde_ipld_dagcbor::from_slice(&stored).unwrap() else {
        panic!("a record is a map")
    };
    let wrong = crate::branches::Branch { cents: 99, ..branch("a") };
    let wrong = ipld_core::serde::to_ipld(wrong).unwrap();
    for (what, changes) in [
        ("ahead of the log", vec![("version", Ipld::from(8)), ("position", Ipld::from(8))]),
        ("behind by one", vec![("version", Ipld::from(2)), ("position", Ipld::from(2))]),
        ("behind by two", vec![("version", Ipld::from(1)), ("position", Ipld::from(1))]),
        ("at another position", vec![("position", Ipld::from(2))]),
        ("of another event", vec![("head", Ipld::Null)]),
    ] {
        let mut forged = record.clone();
        forged.insert("state".to_owned(), wrong.clone());
        for (field, value) in changes {
            forged.insert(field.to_owned(), value);
        }
        let forged = serde_ipld_dagcbor::to_vec(&Ipld::Map(forged)).unwrap();
        let write = KeyWrite::new(key.clone(), Change::Put(forged.into()), Expected::Anything);
        memory.state.write(NonEmpty::one(write)).await.unwrap();
        let reader = memory.branches();
        for wanted in 1..=3 {
            let rows = at(&reader, None, position(wanted)).await;
            assert_eq!(rows["a"], (wanted as i64, wanted), "{what}, as of {wanted}");
        }
    }
}

#[tokio::test]
async fn a_pattern_of_others_is_refused() {
    let branches = Memory::new().process(&bank());
    let error = branches.load_matching(Some("account.*"), Bound::Newest).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Pattern(InvalidPattern::OtherAggregates { .. })));
    let refused = branches.stream_matching(Some("branch"), position(1)).await.err().unwrap();
    assert!(matches!(refused, RepositoryError::Pattern(InvalidPattern::NoId { .. })));
}
