//! Commits of many callers, on a log in memory.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cim_persistence::backend::{Guard, NewMessage, Position};
use cim_persistence::event::{Headers, NonEmpty};
use cim_persistence::event_log::{
    Commit, CommitError, CommitPolicy, Committer, EventLog, MemoryLog,
};
use cim_persistence::subject::{AggregateId, AggregateType, ContextName, Subject, SubjectScheme};
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults, Gate};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// As many commits as may wait to be gathered.
const QUEUE: usize = 16 * 1024;

/// The most messages of a batch.
const BATCH: usize = 1000;

fn subject(number: usize) -> Subject {
    let context = ContextName::new("committer").unwrap();
    let scheme = SubjectScheme::new(context, "cim.events", "cim.aggregates").unwrap();
    let id = AggregateId::new(number.to_string()).unwrap();
    scheme.events_of(&AggregateType::new("order").unwrap(), &id)
}

fn message(number: usize, guard: Guard) -> NewMessage {
    let subject = subject(number);
    NewMessage { subject, headers: Headers::new(), payload: "payload".into(), guard }
}

/// A commit of two messages, which always travels in a batch.
fn pair(number: usize) -> Commit {
    let guards = [Guard::Last(Position::START), Guard::Free];
    Commit::new(NonEmpty::from(guards.map(|guard| message(number, guard)))).unwrap()
}

/// Counts the writes from now on.
fn writes(faults: &Faults) -> Arc<AtomicUsize> {
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    let count = move |call: &Call<'_>| {
        counted.fetch_add(usize::from(call.kind == CallKind::Write), Ordering::Relaxed);
        false
    };
    faults.plan_when(count, Fault::Outage);
    writes
}

/// A log, and a committer that stores there what many tasks commit at once. Nothing is sent before they run.
struct Crowd {
    log: MemoryLog,
    callers: JoinSet<()>,
}

impl Crowd {
    fn of(count: usize, faults: &Faults) -> Self {
        let log = MemoryLog::new().with_faults(faults);
        let committer = Committer::start(Arc::new(log.clone()), CommitPolicy::default());
        let mut callers = JoinSet::new();
        for number in 0..count {
            let committer = committer.clone();
            callers.spawn(async move {
                let stored = committer.commit(pair(number)).await.unwrap();
                assert_eq!(stored.last.get(), stored.first.get() + 1);
            });
        }
        Self { log, callers }
    }

    /// Waits for all of them, and returns how many messages are stored.
    async fn stored(self) -> u64 {
        let Self { log, callers } = self;
        callers.join_all().await;
        log.status().await.unwrap().messages
    }
}

#[tokio::test]
async fn who_finds_the_queue_full_waits_and_is_served() {
    let (faults, gate) = (Faults::new(), Gate::new());
    faults.plan(Fault::PauseBefore(gate.clone()));
    let crowd = Crowd::of(QUEUE + BATCH, &faults);
    gate.reached().await;
    // The first batch is under way, so that the queue is as full as it gets, and some wait before it.
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    gate.open();
    assert_eq!(crowd.stored().await, 2 * (QUEUE + BATCH) as u64);
}

/// One worker runs what was woken last before what waits: the committer before all callers but the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn commits_of_callers_that_come_together_leave_together() {
    let faults = Faults::new();
    let writes = writes(&faults);
    let stored = tokio::spawn(async move { Crowd::of(50, &faults).stored().await }).await.unwrap();
    assert_eq!((stored, writes.load(Ordering::Relaxed)), (100, 1));
}

/// The replica that is asked why it was refused does not know yet.
#[tokio::test]
async fn a_conflict_is_told_at_once_although_a_replica_is_behind() {
    let (faults, log) = (Faults::new(), MemoryLog::new());
    log.publish(message(1, Guard::Free)).await.unwrap();
    faults.plan(Fault::StaleRead(1));
    let writes = writes(&faults);
    let log = Arc::new(log.with_faults(&faults));
    let committer = Committer::start(log, CommitPolicy::default());
    let error = committer.commit(pair(1)).await.unwrap_err();
    let CommitError::Conflict { subject: refused, expected } = error else { panic!("{error:?}") };
    assert_eq!((refused, expected), (subject(1), Position::START));
    assert_eq!((faults.met(), writes.load(Ordering::Relaxed)), (1, 1));
}

/// Two commits of one batch that gets lost again and again. Late another writer takes the place of the first.
#[tokio::test(start_paused = true)]
async fn patience_begins_with_a_commit_and_not_again_with_what_becomes_of_another() {
    let (faults, log) = (Faults::new(), MemoryLog::new());
    for _ in 0..100 {
        faults.plan_when(|call| call.kind == CallKind::Write, Fault::LostWrite);
    }
    let (patience, begun) = (Duration::from_secs(10), Instant::now());
    let faulty = Arc::new(log.clone().with_faults(&faults));
    let committer = Committer::start(faulty, CommitPolicy { patience });
    let late = async {
        tokio::time::sleep(patience * 9 / 10).await;
        let other = NewMessage { payload: "another's".into(), ..message(1, Guard::Free) };
        log.publish(other).await.unwrap();
    };
    let (first, second, ()) =
        futures::join!(committer.commit(pair(1)), committer.commit(pair(2)), late);
    assert!(matches!(first, Err(CommitError::Conflict { .. })), "{first:?}");
    assert!(matches!(second, Err(CommitError::Unknown { .. })), "{second:?}");
    assert!(begun.elapsed() < patience * 3 / 2, "{:?}", begun.elapsed());
}

/// Its guards hold: it was refused because of a write under way. The leader that would say so is out of reach.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_nobody_can_explain_is_no_conflict_yet() {
    let (faults, log) = (Faults::new(), MemoryLog::new());
    faults.plan(Fault::Conflict);
    faults.plan_when(|call| call.kind == CallKind::LeaderRead, Fault::Outage);
    let log = Arc::new(log.with_faults(&faults));
    let committer = Committer::start(log, CommitPolicy::default());
    let stored = committer.commit(pair(1)).await.unwrap();
    assert_eq!((stored.first, faults.met()), (Position::new(1), 2));
}
