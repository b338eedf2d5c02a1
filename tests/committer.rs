//! Commits of many callers, on a log in memory.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cim_persistence::backend::{BackendError, Guard, NewMessage, Position};
use cim_persistence::event::{Headers, NonEmpty};
use cim_persistence::event_log::{
    Commit, CommitError, CommitPolicy, Committer, EventLog, MemoryLog, Stored,
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

/// A fault that each write meets of which a message is of this number, as if it always would.
fn plan_for(number: usize, faults: &Faults, fault: &Fault) {
    let subject = subject(number);
    let hits = move |call: &Call<'_>| {
        call.kind == CallKind::Write && call.subjects.contains(&subject.as_str())
    };
    (0..100).for_each(|_| faults.plan_when(hits.clone(), fault.clone()));
}

/// Three commits of one batch.
async fn three(committer: &Committer) -> [Result<Stored, CommitError>; 3] {
    let commits = [1, 2, 3].map(|number| committer.commit(pair(number)));
    futures::future::join_all(commits).await.try_into().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_known_message_id_is_the_business_of_its_own_commit() {
    let (faults, begun) = (Faults::new(), Instant::now());
    plan_for(2, &faults, &Fault::KnownId);
    let log = Arc::new(MemoryLog::new().with_faults(&faults));
    let [first, second, third] = three(&Committer::start(log, CommitPolicy::default())).await;
    assert!(first.is_ok() && third.is_ok(), "{first:?} {third:?}");
    assert!(
        matches!(second, Err(CommitError::Refused(BackendError::Duplicate { .. }))),
        "{second:?}"
    );
    assert_eq!(begun.elapsed(), Duration::ZERO, "a refusal is no reason to wait");
}

/// The first answer comes before it is known that the server refused a message.
#[tokio::test(start_paused = true)]
async fn a_denied_message_is_the_business_of_its_own_commit() {
    let (faults, begun) = (Faults::new(), Instant::now());
    faults.plan(Fault::LostWrite);
    plan_for(2, &faults, &Fault::Denied);
    let log = Arc::new(MemoryLog::new().with_faults(&faults));
    let [first, second, third] = three(&Committer::start(log, CommitPolicy::default())).await;
    assert!(first.is_ok() && third.is_ok(), "{first:?} {third:?}");
    let Err(CommitError::Unknown { source, .. }) = second else { panic!("{second:?}") };
    assert!(matches!(source, BackendError::Denied { .. }), "{source}");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// As where the server refuses one of its messages and nobody is told.
#[tokio::test(start_paused = true)]
async fn a_commit_that_nobody_answers_keeps_no_other_waiting() {
    let (faults, begun) = (Faults::new(), Instant::now());
    plan_for(2, &faults, &Fault::LostWrite);
    let log = Arc::new(MemoryLog::new().with_faults(&faults));
    let policy = CommitPolicy { patience: Duration::from_secs(10) };
    let committer = Committer::start(log, policy);
    let [first, second, third, next] = [1, 2, 3, 4].map(|number| {
        let committer = committer.clone();
        tokio::spawn(async move { committer.commit(pair(number)).await })
    });
    first.await.unwrap().unwrap();
    third.await.unwrap().unwrap();
    next.await.unwrap().unwrap();
    committer.commit(pair(5)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let second = second.await.unwrap();
    assert!(matches!(second, Err(CommitError::Unknown { .. })), "{second:?}");
    assert!(begun.elapsed() >= policy.patience, "{:?}", begun.elapsed());
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
