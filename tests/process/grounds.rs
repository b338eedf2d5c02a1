//! What is a ground to refuse an event or a timeout, and what is none: replicas that are behind, failures of the store.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cim_persistence::backend::BackendError;
use cim_persistence::event::NonEmpty;
use cim_persistence::outbox::{OutboxError, OutboxMessage, Topic};
use cim_persistence::process::{
    DueTimeout, ProcessManager, ProcessOptions, Reaction, RunningProcess,
};
use cim_persistence::projection::{PoisonPolicy, ProjectionError, Rejection};
use cim_persistence::query::QueryError;
use cim_persistence::read_model::ReadModelError;
use cim_persistence::repository::TransactError;
use cim_persistence::store::CommitInfo;
use cim_persistence::subject::AggregateId;
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults};
use cim_persistence::timeouts::MemoryTimeouts;
use cim_persistence::{Context, Repository, RepositoryError, StoreError, StoredEvent};

use crate::domain::*;

const STOCK: &str = "stock";
const MARK: &str = "cim.unique.bank.=process.strict.";

/// Notes what it reacts to, if something is in stock; told so, it fails a few times before that.
#[derive(Clone)]
struct Strict {
    notes: Repository<Notes>,
    failures: Arc<Mutex<Vec<Rejection>>>,
    /// Whether it tells others of each event, under the id of the event.
    tells: bool,
    tries: Arc<AtomicUsize>,
}

impl Strict {
    fn on(context: &Context) -> Self {
        let notes = Repository::of(context).unwrap();
        Self { notes, failures: Arc::default(), tells: false, tries: Arc::default() }
    }

    async fn note(&self, reaction: &mut Reaction, noted: Noted) -> Result<(), Rejection> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        if let Some(failure) = self.failures.lock().unwrap().pop() {
            return Err(failure);
        }
        if reaction.load(&self.notes, &STOCK.to_owned()).await?.all.is_empty() {
            return Err("nothing is in stock".into());
        }
        let own = reaction.instance().to_string();
        reaction.record(&self.notes, &own, vec![noted]).await?;
        Ok(())
    }
}

impl ProcessManager for Strict {
    const NAME: &'static str = "strict";
    type Event = OrderEvent;

    fn filters() -> Vec<cim_persistence::store::EventFilter> {
        Follow::filters()
    }

    fn instance(
        &self,
        _: &OrderEvent,
        stored: &StoredEvent,
    ) -> Result<Option<AggregateId>, Rejection> {
        Ok(Some(stored.aggregate_id().clone()))
    }

    async fn react(
        &self,
        event: OrderEvent,
        stored: &StoredEvent,
        reaction: &mut Reaction,
    ) -> Result<(), Rejection> {
        if let OrderEvent::Remind(at) = event {
            return Ok(reaction.schedule_after("reminder", Duration::ZERO, &at)?);
        }
        self.note(reaction, Noted::Event(stored.position().get())).await?;
        if self.tells {
            let message = OutboxMessage::json(Topic::new("orders")?, "com.example.noted", &1)?;
            reaction.send(message.with_id(stored.event_id()));
        }
        Ok(())
    }

    async fn timeout(&self, due: &DueTimeout, reaction: &mut Reaction) -> Result<(), Rejection> {
        self.note(reaction, Noted::Reminder { scheduled_at: due.data()? }).await
    }
}

fn start(manager: &Strict, context: &Context, options: ProcessOptions) -> RunningProcess {
    RunningProcess::start(context, manager.clone(), options).unwrap()
}

fn parking() -> ProcessOptions {
    ProcessOptions { poison: PoisonPolicy::PARK, ..options() }
}

fn store() -> Store {
    Store::new(MemoryTimeouts::new())
}

/// Puts something in stock.
async fn deliver(context: &Context) {
    let notes = Repository::<Notes>::of(context).unwrap();
    notes.transact(&STOCK.to_owned(), |_| Ok::<_, ()>([Noted::Event(0)])).await.unwrap();
}

fn looks_at_stock(call: &Call<'_>) -> bool {
    call.kind == CallKind::NearestRead && call.subjects == ["cim.events.bank.notes.stock"]
}

fn writes_mark(call: &Call<'_>) -> bool {
    call.kind == CallKind::Write && call.subjects.iter().any(|subject| subject.starts_with(MARK))
}

#[tokio::test]
async fn a_replica_that_is_behind_refuses_nothing() {
    let store = store();
    let (context, faults) = (store.healthy(), Faults::new());
    deliver(&context).await;
    let strict = Strict::on(&store.process(&faults));
    faults.plan_when(looks_at_stock, Fault::StaleRead(9));
    let mut process = start(&strict, strict.notes.context(), options());
    let placed = happens(&context, "kim", OrderEvent::Placed).await;
    process.handled(placed).await.unwrap();
    assert_eq!((noted(&context, "kim").await.len(), faults.planned()), (1, 0));

    // The same for a timeout.
    faults.plan_when(looks_at_stock, Fault::StaleRead(9));
    happens(&context, "kim", OrderEvent::Remind(1)).await;
    noted_at_least(&context, "kim", 2).await;
    assert_eq!(faults.planned(), 0);
    process.stop().await.unwrap();
}

/// What is refused is refused by what the leader says; a further try begins there.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_looked_at_again_once() {
    let context = store().healthy();
    let strict = Strict::on(&context);
    let poison = PoisonPolicy { retries: 2, ..PoisonPolicy::PARK };
    let mut process = start(&strict, &context, ProcessOptions { poison, ..options() });
    let placed = happens(&context, "kim", OrderEvent::Placed).await;
    process.handled(placed).await.unwrap();
    assert_eq!(process.parked().await.unwrap()[0].reason, "nothing is in stock");
    assert_eq!(strict.tries.load(Ordering::SeqCst), 4);
}

fn away() -> BackendError {
    BackendError::Unavailable { detail: "no leader".to_owned(), source: None }
}

/// What a store that is away looks like to a reaction, by whatever it was asked.
fn all_that_pass() -> Vec<Rejection> {
    let repository = || RepositoryError::Store(away().into());
    vec![
        away().into(),
        StoreError::from(away()).into(),
        repository().into(),
        TransactError::<String>::from(repository()).into(),
        ReadModelError::from(away()).into(),
        ReadModelError::Conflict { key: "stock".to_owned(), expected: 1, actual: 2 }.into(),
        QueryError::from(away()).into(),
        QueryError::from(ReadModelError::from(away())).into(),
        OutboxError::from(away()).into(),
        OutboxError::from(StoreError::from(away())).into(),
        ProjectionError::from(away()).into(),
        ProjectionError::from(ReadModelError::from(away())).into(),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_recognised_in_every_error_of_this_crate() {
    for number in 0..all_that_pass().len() {
        let context = store().healthy();
        deliver(&context).await;
        let strict = Strict::on(&context);
        // Often enough that no second look helps.
        let failures = (0..3).map(|_| all_that_pass().swap_remove(number));
        strict.failures.lock().unwrap().extend(failures);
        let mut process = start(&strict, &context, options());
        let placed = happens(&context, "kim", OrderEvent::Placed).await;
        let handled = process.handled(placed).await;
        handled.unwrap_or_else(|error| panic!("number {number}: {error}"));
        assert_eq!(noted(&context, "kim").await.len(), 1);
    }
}

/// Nothing is parked because of a permission that is missing for a while, be it to read or to write.
#[tokio::test]
async fn a_missing_permission_stops_the_process_whatever_the_policy() {
    for reads in [true, false] {
        let store = store();
        let (context, faults) = (store.healthy(), Faults::new());
        deliver(&context).await;
        let denied = if reads { looks_at_stock } else { writes_mark };
        for _ in 0..2 {
            faults.plan_when(denied, Fault::Denied);
        }
        let strict = Strict::on(&store.process(&faults));
        let mut process = start(&strict, strict.notes.context(), parking());
        let placed = happens(&context, "kim", OrderEvent::Placed).await;
        let error = process.handled(placed).await.unwrap_err();
        let wanted = "process strict is hindered by what it reads and writes, not by what it reacts to: permission \
                      denied on ";
        assert!(error.to_string().starts_with(wanted), "{error}");

        // When the permission is granted, the event takes effect.
        let strict = Strict::on(&context);
        let mut process = start(&strict, &context, parking());
        process.handled(placed).await.unwrap();
        assert_eq!(process.parked().await.unwrap(), []);
        assert_eq!(noted(&context, "kim").await.len(), 1);
    }
}

/// As long as it is not noted that an event is done with, nobody goes on behind it.
#[tokio::test]
async fn what_is_parked_is_passed_only_with_its_mark() {
    for fault in [Fault::Denied, Fault::KnownId] {
        let store = store();
        let (context, faults) = (store.healthy(), Faults::new());
        for _ in 0..2 {
            faults.plan_when(writes_mark, fault.clone());
        }
        let strict = Strict::on(&store.process(&faults));
        let mut process = start(&strict, strict.notes.context(), parking());
        let placed = happens(&context, "kim", OrderEvent::Placed).await;
        process.handled(placed).await.unwrap_err();

        let strict = Strict::on(&context);
        let mut process = start(&strict, &context, parking());
        process.handled(placed).await.unwrap();
        assert_eq!(process.parked().await.unwrap().len(), 1);
        deliver(&context).await;
        let mut other = start(&strict, &store.apart().healthy(), options());
        other.handled(placed).await.unwrap();
        assert_eq!(noted(&context, "kim").await, []);
    }
}

/// The id of a message is known because another instance has stored the reaction, which a replica does not show yet.
#[tokio::test]
async fn a_reaction_that_is_stored_already_is_no_ground() {
    let store = store();
    let (context, faults) = (store.healthy(), Faults::new());
    deliver(&context).await;
    let telling = |context: &Context| Strict { tells: true, ..Strict::on(context) };
    let first = telling(&context);
    let mut process = start(&first, &context, options());
    let placed = happens(&context, "kim", OrderEvent::Placed).await;
    process.handled(placed).await.unwrap();

    let mark = |call: &Call<'_>| {
        call.kind == CallKind::NearestRead && call.subjects == [format!("{MARK}kim").as_str()]
    };
    faults.plan_when(mark, Fault::StaleRead(9));
    let second = telling(&store.apart().process(&faults));
    let mut other = start(&second, second.notes.context(), parking());
    other.handled(placed).await.unwrap();
    assert_eq!(other.parked().await.unwrap(), []);
    assert_eq!((noted(&context, "kim").await.len(), faults.planned()), (1, 0));
}

/// An id that somebody else has used is the fault of the reaction.
#[tokio::test]
async fn a_message_id_that_is_taken_is_a_ground() {
    let store = store();
    let context = store.healthy();
    deliver(&context).await;
    let strict = Strict { tells: true, ..Strict::on(&context) };
    let placed = happens(&context, "kim", OrderEvent::Placed).await;
    let events = context.get_events_after(Default::default(), usize::MAX).await.unwrap();
    let id = events.last().unwrap().event_id();
    let message = OutboxMessage::json(Topic::new("orders").unwrap(), "com.example.noted", &1);
    let taken = NonEmpty::one(message.unwrap().with_id(id));
    let outbox = cim_persistence::outbox::Outbox::of(&context);
    outbox.save_messages(&taken, &CommitInfo::default()).await.unwrap();
    let mut process = start(&strict, &context, parking());
    process.handled(placed).await.unwrap();
    assert_eq!(process.parked().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_no_further_try() {
    for event in [OrderEvent::Placed, OrderEvent::Remind(1)] {
        let context = store().healthy();
        let strict = Strict::on(&context);
        let pause = Duration::from_secs(3600);
        let poison = PoisonPolicy::PARK.after_retries(1, pause);
        let process = start(&strict, &context, ProcessOptions { poison, ..options() });
        happens(&context, "kim", event).await;
        while strict.tries.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let begun = tokio::time::Instant::now();
        process.stop().await.unwrap();
        assert!(begun.elapsed() < pause, "{:?}", begun.elapsed());

        // It was not passed over.
        deliver(&context).await;
        let process = start(&strict, &context, options());
        noted_at_least(&context, "kim", 1).await;
        process.stop().await.unwrap();
    }
}
