//! Lanes and ledger against everything that can become of a message: order per key, bounds, nothing lost at a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;
use uuid::Uuid;

use super::super::lanes::{Job, Lanes, MOST_AHEAD};
use super::super::ledger::{Delta, Ledger};
use super::super::pending::Lane;
use super::super::records::{Cursor, FORMAT, Keys};
use super::*;
use crate::state::{Change, Expected};
use crate::subject::{ContextName, Subject};

fn bank() -> ContextName {
    ContextName::new("bank").unwrap()
}

/// The message at a position, with a key or alone.
fn at(position: u64, key: Option<u64>) -> PendingMessage {
    let key = key.map(|key| ("ce-partitionkey", format!("k{key}")));
    let id = ("Nats-Msg-Id", format!("id-{position}"));
    let message = StoredMessage {
        subject: Subject::trusted("cim.outbox.bank.orders"),
        position: Position::new(position),
        time: Timestamp::from_micros(position),
        headers: key.into_iter().chain([id]).collect(),
        payload: "".into(),
    };
    PendingMessage::read(&bank(), message).unwrap()
}

fn empty() -> Ledger {
    let cursor = Cursor {
        format: FORMAT,
        position: Position::START,
        log_created: Timestamp::from_micros(1),
        published: 0,
        parked: 0,
        deferred: 0,
        writer: Uuid::nil(),
    };
    Ledger { cursor, revision: 0, waiting: BTreeMap::new() }
}

fn now() -> Timestamp {
    Timestamp::from_micros(1)
}

fn lanes(ledger: &Ledger) -> Lanes {
    Lanes::after(ledger, now(), Duration::ZERO)
}

/// Stores what is settled, as a relay does.
fn save(lanes: &mut Lanes, ledger: &mut Ledger) -> Delta {
    let delta = lanes.take_delta();
    assert!(delta.records() < 1000, "{} records in one write", delta.records());
    *ledger = ledger.step(&Keys::of("main").unwrap(), &delta, Uuid::nil()).0;
    lanes.saved(&delta.parked());
    delta
}

fn next(lanes: &mut Lanes) -> Option<Job> {
    lanes.next_due(Instant::now()).or_else(|| lanes.next_fresh())
}

fn fail(lanes: &mut Lanes, job: &Job, parked: bool) {
    let policy = RetryPolicy { tries: u32::MAX, ..RetryPolicy::default() };
    let held = job.record(now()).after_failure("no".to_owned(), parked, &policy, now()).0;
    lanes.held(held, &job.lane(), Instant::now(), now());
}

#[test]
fn a_parked_message_frees_its_key_when_that_is_stored() {
    let mut ledger = empty();
    let mut lanes = lanes(&ledger);
    for position in 1..=3 {
        lanes.admit(at(position, Some(1)), now());
    }
    let first = next(&mut lanes).unwrap();
    fail(&mut lanes, &first, true);
    assert!(next(&mut lanes).is_none());
    save(&mut lanes, &mut ledger);
    assert_eq!((ledger.cursor.position.get(), ledger.cursor.parked), (1, 1));
    assert_eq!(next(&mut lanes).unwrap().position().get(), 2);
}

#[test]
fn a_failed_message_lets_the_cursor_pass_and_holds_its_key() {
    let mut ledger = empty();
    let mut lanes = lanes(&ledger);
    for (position, key) in [(1, Some(1)), (2, Some(1)), (3, None)] {
        lanes.admit(at(position, key), now());
    }
    let (first, alone) = (next(&mut lanes).unwrap(), next(&mut lanes).unwrap());
    fail(&mut lanes, &first, false);
    lanes.published(alone.position(), &alone.lane());
    lanes.admit(at(4, Some(1)), now());
    save(&mut lanes, &mut ledger);
    assert_eq!((ledger.cursor.position.get(), ledger.cursor.deferred), (4, 3));
    assert_eq!(ledger.waiting.values().map(|held| held.attempts).collect::<Vec<_>>(), [1, 0, 0]);
    for position in [1, 2, 4] {
        let job = next(&mut lanes).unwrap();
        assert_eq!(job.position().get(), position);
        assert!(next(&mut lanes).is_none());
        lanes.published(job.position(), &job.lane());
    }
    save(&mut lanes, &mut ledger);
    assert_eq!((ledger.cursor.published, ledger.waiting.len()), (4, 0));
}

#[test]
fn one_write_changes_the_cursor_under_its_guard_and_each_record() {
    let keys = Keys::of("main").unwrap();
    let mut delta = Delta::after(Position::START);
    delta.publish(Position::new(1));
    delta.hold(super::super::records::HeldMessage::behind(&at(2, Some(1)), now()));
    delta.advance(Position::new(2));
    let ledger = Ledger { revision: 7, ..empty() };
    let (ledger, writes) = ledger.step(&keys, &delta, Uuid::nil());
    let keys_of = |writes: &[crate::state::KeyWrite]| {
        writes.iter().map(|write| write.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys_of(&writes), ["=outbox.main.=held.00000000000000000002", "=outbox.main"]);
    assert_eq!(writes[1].expected, Expected::Revision(7));
    let Change::Put(record) = &writes[0].change else { panic!("{:?}", writes[0]) };
    assert_eq!(
        std::str::from_utf8(record).unwrap(),
        r#"{"format":1,"state":"waiting","position":2,"topic":"orders","id":"id-2","key":"k1","stored_at":2,"attempts":0,"error":null,"due":1}"#
    );
    // What was held is removed when it is published; what was held and published since the last write never appears.
    let mut delta = Delta::after(Position::new(2));
    delta.publish(Position::new(2));
    delta.hold(super::super::records::HeldMessage::behind(&at(3, None), now()));
    delta.publish(Position::new(3));
    delta.advance(Position::new(3));
    let (ledger, writes) = ledger.step(&keys, &delta, Uuid::nil());
    assert_eq!(keys_of(&writes), ["=outbox.main.=held.00000000000000000002", "=outbox.main"]);
    assert_eq!(writes[0].change, Change::Delete);
    assert_eq!((ledger.cursor.published, ledger.cursor.deferred), (3, 0));
}

/// Draws numbers, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Messages are read, published, failed, parked and put back in any order, and the relay crashes now and then.
    #[test]
    fn whatever_becomes_of_messages_none_is_lost_and_keys_are_in_order(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let key_of = |position: u64| Some(position % 7).filter(|key| *key > 0);
        let end = 50 + dice.below(1200);
        let mut ledger = empty();
        let (mut published, mut parked) = (BTreeSet::new(), BTreeSet::new());
        let mut last_of: BTreeMap<u64, u64> = BTreeMap::new();
        'run: loop {
            let mut lanes = lanes(&ledger);
            let mut read = ledger.cursor.position.get();
            let mut under_way: Vec<Job> = Vec::new();
            loop {
                while lanes.has_room() && read < end && dice.below(4) > 0 {
                    read += 1;
                    match read % 11 {
                        0 => lanes.skip(Position::new(read), now()),
                        _ => lanes.admit(at(read, key_of(read)), now()),
                    }
                }
                prop_assert!(lanes.unpublished() <= MOST_AHEAD);
                while under_way.len() < 20 && let Some(job) = next(&mut lanes) {
                    let lane = job.lane();
                    let twice = under_way.iter().any(|other| other.lane() == lane);
                    prop_assert!(!twice || matches!(lane, Lane::Alone(_)), "{lane:?} twice");
                    under_way.push(job);
                }
                if !under_way.is_empty() {
                    let index = dice.below(under_way.len() as u64) as usize;
                    let job = under_way.swap_remove(index);
                    let position = job.position();
                    match dice.below(20) {
                        0 => lanes.back(job, Instant::now()),
                        1 | 2 => fail(&mut lanes, &job, false),
                        3 => fail(&mut lanes, &job, true),
                        _ => {
                            let number = position.get();
                            if let Some(key) = key_of(number) && published.insert(number) {
                                let before = last_of.insert(key, number);
                                prop_assert!(before < Some(number), "{before:?}, then {number}");
                            }
                            published.insert(number);
                            lanes.published(position, &job.lane());
                        }
                    }
                }
                if dice.below(8) == 0 {
                    parked.extend(save(&mut lanes, &mut ledger).parked());
                }
                if dice.below(400) == 0 {
                    continue 'run;
                }
                if under_way.is_empty() && read == end && lanes.unpublished() == 0 {
                    while !lanes.delta().is_empty() {
                        parked.extend(save(&mut lanes, &mut ledger).parked());
                    }
                    if lanes.next_fresh().is_none() && lanes.unpublished() == 0 {
                        break 'run;
                    }
                }
            }
        }
        prop_assert_eq!(ledger.cursor.position.get(), end);
        prop_assert_eq!(ledger.waiting.len(), 0);
        let parked: BTreeSet<u64> = parked.into_iter().map(Position::get).collect();
        prop_assert_eq!(ledger.cursor.parked, parked.len() as u64);
        let settled: BTreeSet<u64> = published.union(&parked).copied().collect();
        prop_assert_eq!(settled, (1..=end).filter(|n| n % 11 > 0).collect::<BTreeSet<_>>());
    }
}
