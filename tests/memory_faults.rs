//! What goes wrong with the stores in memory when a test says so, and what is stored then.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cim_persistence::backend::{
    BackendError, Guard, NewMessage, Position, ReadFrom, Start, TailQuery,
};
use cim_persistence::clock::{Clock, Timestamp};
use cim_persistence::event::{Headers, NonEmpty, names};
use cim_persistence::event_log::{
    Commit, CommitError, CommitPolicy, Committer, EventLog, LogQuery, MemoryLog,
};
use cim_persistence::state::{Change, Expected, Key, KeyValue, KeyWrite, MemoryKeyValue, Slot};
use cim_persistence::subject::{
    AggregateId, AggregateType, ContextName, Pattern, Subject, SubjectScheme,
};
use cim_persistence::testing::faults::{CallKind, Fault, Faults, Gate, Late, Rates};
use futures::{StreamExt, TryStreamExt};

#[tokio::test]
async fn lost_ack_leaves_the_write_stored() {
    let (log, faults) = faulty();
    faults.plan(Fault::LostAck);
    assert!(matches!(log.publish(create(1)).await, Err(BackendError::Unknown { .. })));
    assert_eq!(count(&log).await, 1);
    assert!(matches!(log.publish(create(1)).await, Err(BackendError::Conflict { .. })));
    assert_eq!((faults.planned(), faults.met()), (0, 1));
}

#[tokio::test]
async fn lost_ack_of_a_refusal_is_unknown_too() {
    let (log, faults) = faulty();
    log.publish(create(1)).await.unwrap();
    faults.plan(Fault::LostAck);
    assert!(matches!(log.publish(create(1)).await, Err(BackendError::Unknown { .. })));
    assert_eq!(count(&log).await, 1);
}

#[tokio::test]
async fn lost_write_is_never_stored() {
    let (log, faults) = faulty();
    faults.plan(Fault::LostWrite);
    assert!(matches!(log.publish(create(1)).await, Err(BackendError::Unknown { .. })));
    faults.deliver_late();
    assert_eq!(count(&log).await, 0);
    log.publish(create(1)).await.unwrap();
}

#[tokio::test]
async fn late_write_is_stored_when_delivered() {
    let (log, faults) = faulty();
    faults.plan(Fault::LateWrite(Late::WhenDelivered));
    let batch = NonEmpty::from([create(1), create(2)]);
    assert!(matches!(log.publish_batch(batch).await, Err(BackendError::Unknown { .. })));
    assert_eq!(count(&log).await, 0);
    faults.deliver_late();
    assert_eq!(count(&log).await, 2);
    faults.deliver_late();
    assert_eq!(count(&log).await, 2);
}

#[tokio::test]
async fn late_write_arrives_before_the_operation_named() {
    let (log, faults) = faulty();
    faults.plan(Fault::LateWrite(Late::BeforeOperation(3)));
    log.publish(create(1)).await.unwrap_err();
    assert_eq!(count(&log).await, 0);
    assert_eq!(count(&log).await, 0);
    assert_eq!(count(&log).await, 1);
}

#[tokio::test]
async fn late_write_that_is_overtaken_is_refused_whole() {
    let (log, faults) = faulty();
    faults.plan(Fault::LateWrite(Late::WhenDelivered));
    log.publish_batch(NonEmpty::from([create(2), create(1)])).await.unwrap_err();
    log.publish(create(1)).await.unwrap();
    faults.deliver_late();
    assert_eq!(count(&log).await, 1);
}

#[tokio::test]
async fn conflict_stores_nothing_though_the_guard_holds() {
    let (log, faults) = faulty();
    faults.plan(Fault::Conflict);
    assert!(matches!(log.publish(create(1)).await, Err(BackendError::Conflict { .. })));
    assert_eq!(count(&log).await, 0);
    log.publish(create(1)).await.unwrap();
}

#[tokio::test]
async fn overtaken_write_loses_to_the_other_writer() {
    let (log, faults) = faulty();
    faults.plan(Fault::Overtaken(NewMessage { payload: "other".into(), ..create(1) }));
    assert!(matches!(log.publish(create(1)).await, Err(BackendError::Conflict { .. })));
    let last = log.last(&subject(1), ReadFrom::Leader).await.unwrap().unwrap();
    assert_eq!((last.position, &last.payload[..]), (Position::new(1), &b"other"[..]));
    faults.plan(Fault::Overtaken(create(2)));
    assert_eq!(log.publish(create(3)).await.unwrap(), Position::new(3));
}

#[tokio::test]
async fn stale_read_sees_what_was_there_some_writes_ago() {
    let (log, faults) = faulty();
    for _ in 0..3 {
        log.publish(free(1)).await.unwrap();
    }
    log.publish_batch(NonEmpty::from([free(2), free(1)])).await.unwrap();
    for (writes, wanted) in [(0, Some(5)), (1, Some(3)), (3, Some(1)), (4, None), (9, None)] {
        faults.plan(Fault::StaleRead(writes));
        let last = log.last(&subject(1), ReadFrom::Nearest).await.unwrap();
        assert_eq!(last.map(|m| m.position.get()), wanted, "{writes} writes ago");
    }
    faults.plan(Fault::StaleRead(1));
    assert_eq!(log.lasts(&[subject(1), subject(2)]).await.unwrap().len(), 1);
    for filter in [None, Some(subject(1).as_str().to_owned())] {
        faults.plan(Fault::StaleRead(2));
        let query = LogQuery { filter, after: Position::START };
        let read: Vec<_> = log.read(query).try_collect().await.unwrap();
        assert_eq!(read.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_sees_too_little_looks_again() {
    let (log, faults) = faulty();
    for _ in 0..3 {
        log.publish(free(1)).await.unwrap();
    }
    // At first, when it has caught up with what it saw, and once more. Nothing is written that would wake it.
    for _ in 0..3 {
        faults.plan(Fault::StaleRead(2));
    }
    let patterns = NonEmpty::one(Pattern::everything());
    let query = TailQuery { patterns, start: Start::After(Position::START) };
    let messages = log.follow(query).try_filter_map(async |next| Ok(next.into_message()));
    let three = messages.take(3).try_collect::<Vec<_>>();
    let three = tokio::time::timeout(Duration::from_secs(60), three).await.unwrap().unwrap();
    assert_eq!(three.last().unwrap().position, Position::new(3));
}

#[tokio::test]
async fn leader_is_never_stale() {
    let (log, faults) = faulty();
    faults.plan(Fault::StaleRead(1));
    let position = log.publish(create(1)).await.unwrap();
    let last = log.last(&subject(1), ReadFrom::Leader).await.unwrap().unwrap();
    assert_eq!(last.position, position);
    let first = log.first_after(&subject(1), Position::START).await.unwrap().unwrap();
    assert_eq!(first.position, position);
    assert_eq!(count(&log).await, 1);
    assert_eq!(faults.planned(), 1);
}

#[tokio::test]
async fn outage_refuses_everything_until_it_ends() {
    let (log, faults) = faulty();
    faults.begin_outage();
    for _ in 0..3 {
        let refused = log.publish(create(1)).await;
        assert!(matches!(refused, Err(BackendError::Unavailable { .. })), "{refused:?}");
        let refused = log.last(&subject(1), ReadFrom::Nearest).await;
        assert!(matches!(refused, Err(BackendError::Unavailable { .. })), "{refused:?}");
        let query = LogQuery { filter: None, after: Position::START };
        let refused = log.read(query).try_collect::<Vec<_>>().await;
        assert!(matches!(refused, Err(BackendError::Unavailable { .. })), "{refused:?}");
    }
    faults.end_outage();
    assert_eq!(count(&log).await, 0);
    faults.outage_of(2);
    log.status().await.unwrap_err();
    log.publish(create(1)).await.unwrap_err();
    log.publish(create(1)).await.unwrap();
}

#[tokio::test]
async fn denied_operation_names_its_subject() {
    let (log, faults) = faulty();
    faults.plan(Fault::Denied);
    match log.publish(create(1)).await {
        Err(BackendError::Denied { subject: denied, .. }) => {
            assert_eq!(denied, subject(1).as_str());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(count(&log).await, 0);
}

#[tokio::test]
async fn write_that_is_dropped_before_it_arrives_stores_nothing() {
    let (log, faults) = faulty();
    let gate = Gate::new();
    faults.plan(Fault::PauseBefore(gate.clone()));
    tokio::select! {
        outcome = log.publish(create(1)) => panic!("the gate is closed: {outcome:?}"),
        () = gate.reached() => {}
    }
    gate.open();
    assert_eq!(count(&log).await, 0);
}

#[tokio::test]
async fn write_that_is_dropped_after_it_arrived_is_stored() {
    let (log, faults) = faulty();
    let gate = Gate::new();
    faults.plan(Fault::PauseAfter(gate.clone()));
    tokio::select! {
        outcome = log.publish(create(1)) => panic!("the gate is closed: {outcome:?}"),
        () = gate.reached() => {}
    }
    assert_eq!(count(&log).await, 1);
}

#[tokio::test]
async fn paused_operations_go_on_when_the_gate_opens() {
    let (log, faults) = faulty();
    for fault in [Fault::PauseBefore, Fault::PauseAfter] {
        let gate = Gate::new();
        faults.plan(fault(gate.clone()));
        let opening = async {
            gate.reached().await;
            gate.open();
        };
        let (outcome, ()) = tokio::join!(log.publish(free(1)), opening);
        outcome.unwrap();
    }
    assert_eq!(count(&log).await, 2);
}

#[tokio::test]
async fn condition_chooses_the_operation() {
    let (log, faults) = faulty();
    let wanted = subject(2);
    faults.plan_when(move |call| call.subjects.contains(&wanted.as_str()), Fault::Outage);
    faults.plan_when(|call| call.kind == CallKind::LeaderRead, Fault::Denied);
    log.publish(create(1)).await.unwrap();
    let refused = log.publish(create(2)).await;
    assert!(matches!(refused, Err(BackendError::Unavailable { .. })), "{refused:?}");
    log.publish(create(2)).await.unwrap();
    let refused = log.status().await;
    assert!(matches!(refused, Err(BackendError::Denied { .. })), "{refused:?}");
    assert_eq!(faults.planned(), 0);
}

#[tokio::test]
async fn planned_faults_are_met_in_order() {
    let (log, faults) = faulty();
    faults.plan(Fault::Conflict);
    faults.plan(Fault::Denied);
    faults.plan(Fault::LostWrite);
    let conflict = log.publish(create(1)).await;
    assert!(matches!(conflict, Err(BackendError::Conflict { .. })), "{conflict:?}");
    let denied = log.publish(create(1)).await;
    assert!(matches!(denied, Err(BackendError::Denied { .. })), "{denied:?}");
    let unknown = log.publish(create(1)).await;
    assert!(matches!(unknown, Err(BackendError::Unknown { .. })), "{unknown:?}");
    log.publish(create(1)).await.unwrap();
}

#[tokio::test]
async fn other_handles_meet_no_faults() {
    let (log, faults) = (MemoryLog::new(), Faults::new());
    let broken = log.clone().with_faults(&faults);
    faults.begin_outage();
    broken.publish(create(1)).await.unwrap_err();
    log.publish(create(1)).await.unwrap();
    faults.end_outage();
    assert_eq!(count(&broken).await, 1);
}

#[tokio::test]
async fn buckets_meet_the_same_faults() {
    let faults = Faults::new();
    let bucket = MemoryKeyValue::new("state").with_faults(&faults);
    let key = Key::new("order.42").unwrap();
    let write = |value: &'static str, revision| {
        let (change, expected) = (Change::Put(value.into()), Expected::Revision(revision));
        NonEmpty::one(KeyWrite::new(key.clone(), change, expected))
    };
    faults.plan(Fault::LostAck);
    let lost = bucket.write(write("first", 0)).await;
    assert!(matches!(lost, Err(BackendError::Unknown { .. })), "{lost:?}");
    assert_eq!(bucket.write(write("second", 1)).await.unwrap(), [2]);
    faults.plan_when(|call| call.subjects == ["$KV.state.order.42"], Fault::StaleRead(1));
    let stale = bucket.get(&key, ReadFrom::Nearest).await.unwrap();
    assert_eq!(stale, Slot { revision: 1, value: Some("first".into()) });
    faults.plan(Fault::StaleRead(2));
    let stale = bucket.get_many(std::slice::from_ref(&key)).await.unwrap();
    assert_eq!(stale, [Slot::default()]);
    assert_eq!(bucket.get(&key, ReadFrom::Leader).await.unwrap().revision, 2);
}

#[tokio::test]
async fn same_seed_gives_the_same_faults() {
    let rates = Rates {
        lost_ack: 100,
        lost_write: 100,
        late_write: 100,
        conflict: 100,
        stale_read: 300,
        outage: 50,
    };
    let mut histories = std::collections::HashSet::new();
    for seed in 0..50 {
        let history = history(seed, rates).await;
        assert_eq!(history, self::history(seed, rates).await, "seed {seed}");
        assert!(history.contains("Unknown") && history.contains("Conflict"), "seed {seed}");
        histories.insert(history);
    }
    assert_eq!(histories.len(), 50);
}

#[tokio::test]
async fn rates_are_kept() {
    let rates = Rates { lost_ack: 250, ..Rates::default() };
    let faults = Faults::random(7, rates);
    let log = MemoryLog::new().with_faults(&faults);
    for _ in 0..4000 {
        match log.publish(free(1)).await {
            Ok(_) | Err(BackendError::Unknown { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((800..1200).contains(&faults.met()), "{} of 4000", faults.met());
    assert_eq!(count(&log).await, 4000);
    faults.calm();
    log.publish(free(1)).await.unwrap();
}

/// Whatever goes wrong, what was answered is true of what is stored.
#[tokio::test]
async fn answers_hold_under_random_faults() {
    let rates = Rates {
        lost_ack: 80,
        lost_write: 80,
        late_write: 80,
        conflict: 50,
        stale_read: 200,
        outage: 50,
    };
    for seed in 0..300 {
        let faults = Faults::random(seed, rates);
        let log = MemoryLog::new().with_faults(&faults);
        let mut acknowledged = Vec::new();
        for round in 0..40 {
            let number = round % 5;
            let expected = match log.last(&subject(number), ReadFrom::Nearest).await {
                Ok(last) => last.map_or(Position::START, |m| m.position),
                Err(_) => continue,
            };
            let payload = round.to_string();
            let guard = Guard::Last(expected);
            let write = NewMessage { payload: payload.clone().into(), guard, ..free(number) };
            if let Ok(position) = log.publish(write).await {
                acknowledged.push((position, payload));
            }
        }
        faults.calm();
        faults.deliver_late();
        let query = LogQuery { filter: None, after: Position::START };
        let stored: Vec<_> = log.read(query).try_collect().await.unwrap();
        for (position, payload) in acknowledged {
            let message = stored.iter().find(|m| m.position == position);
            assert_eq!(message.map(|m| &m.payload[..]), Some(payload.as_bytes()), "seed {seed}");
        }
        let mut payloads: Vec<_> = stored.iter().map(|m| m.payload.clone()).collect();
        payloads.sort();
        payloads.dedup();
        assert_eq!(payloads.len(), stored.len(), "seed {seed}: something is stored twice");
    }
}

#[tokio::test]
async fn message_ids_are_forgotten_after_the_window() {
    #[derive(Debug)]
    struct Hand(Mutex<Timestamp>);
    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            *self.0.lock().unwrap()
        }
    }
    let clock = Arc::new(Hand(Mutex::new(Timestamp::from_micros(1_000_000))));
    let log = MemoryLog::with_clock(clock.clone());
    let mut headers = Headers::new();
    headers.push(names::MSG_ID, "id");
    let message = NewMessage { headers, ..free(1) };
    log.publish(message.clone()).await.unwrap();
    let window = Duration::from_secs(120).as_micros() as u64;
    *clock.0.lock().unwrap() = Timestamp::from_micros(1_000_000 + window - 1);
    let known = log.publish(message.clone()).await;
    assert!(matches!(known, Err(BackendError::Duplicate { .. })), "{known:?}");
    *clock.0.lock().unwrap() = Timestamp::from_micros(1_000_000 + window);
    log.publish(message).await.unwrap();
    let last = log.last(&subject(1), ReadFrom::Leader).await.unwrap().unwrap();
    assert_eq!(last.time, Timestamp::from_micros(1_000_000 + window));
}

#[tokio::test(start_paused = true)]
async fn id_known_from_an_unproven_try_refuses_no_commit() {
    let (log, faults) = faulty();
    let committer = Committer::start(Arc::new(log.clone()), CommitPolicy::default());
    // The first try arrives three operations later: after a look, a second try and another look.
    faults.plan(Fault::LateWrite(Late::BeforeOperation(4)));
    faults.plan(Fault::KnownId);
    let commit = Commit::new(NonEmpty::one(create(1))).unwrap();
    let stored = committer.commit(commit).await.unwrap();
    assert_eq!((stored.first, stored.last), (Position::new(1), Position::new(1)));
    assert_eq!((count(&log).await, faults.met()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn id_known_from_elsewhere_refuses_the_commit() {
    let (log, faults) = faulty();
    let committer = Committer::start(Arc::new(log.clone()), CommitPolicy::default());
    faults.plan(Fault::KnownId);
    let refused = committer.commit(Commit::new(NonEmpty::one(create(1))).unwrap()).await;
    assert!(
        matches!(refused, Err(CommitError::Refused(BackendError::Duplicate { .. }))),
        "{refused:?}"
    );
    assert_eq!(count(&log).await, 0);
}

/// The outcomes of two hundred operations.
async fn history(seed: u64, rates: Rates) -> String {
    let log = MemoryLog::new().with_faults(&Faults::random(seed, rates));
    let mut history = String::new();
    for round in 0..200 {
        let number = round % 7;
        let written = log.publish(create(number)).await;
        let read = log.last(&subject(number), ReadFrom::Nearest).await;
        history += &format!("{written:?} {:?}\n", read.map(|last| last.map(|m| m.position)));
    }
    history
}

fn faulty() -> (MemoryLog, Faults) {
    let faults = Faults::new();
    (MemoryLog::new().with_faults(&faults), faults)
}

async fn count(log: &MemoryLog) -> u64 {
    log.status().await.unwrap().messages
}

fn subject(number: usize) -> Subject {
    let context = ContextName::new("faults").unwrap();
    let scheme = SubjectScheme::new(context, "cim.events", "cim.aggregates").unwrap();
    let id = AggregateId::new(number.to_string()).unwrap();
    scheme.events_of(&AggregateType::new("order").unwrap(), &id)
}

fn free(number: usize) -> NewMessage {
    NewMessage {
        subject: subject(number),
        headers: Headers::new(),
        payload: "payload".into(),
        guard: Guard::Free,
    }
}

fn create(number: usize) -> NewMessage {
    NewMessage { guard: Guard::Last(Position::START), ..free(number) }
}
