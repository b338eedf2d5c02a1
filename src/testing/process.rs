//! Tests of process managers: given what happened, when an event comes or time passes, then expect what they do.
//!
//! The process runs as it would in a service, in memory and by a clock that the test moves; each step waits until it has
//! nothing left to do. So it needs a runtime, unlike the tests of aggregates and projections.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use ipld_core::ipld::Ipld;

use super::aggregate::texts;
use super::context::TestContext;
use super::difference::difference;
use crate::backend::Position;
use crate::clock::{Clock, Timestamp};
use crate::process::{ParkedReaction, ProcessManager, ProcessOptions, RunningProcess, until_quiet};
use crate::projection::PoisonPolicy;
use crate::repository::Aggregate;
use crate::store::{Context, NewEvent, StoredEvent};
use crate::subject::{AggregateId, Identity};
use crate::timeouts::{MemoryTimeouts, Timeout};

/// A process manager under test.
///
/// [`when`](Self::when), [`when_time_passes`](Self::when_time_passes) and [`given`](Self::given) wait until it has reacted, also to what it caused
/// itself. What is expected then speaks of the last of them only: events that reactions recorded, timeouts that wait, what
/// was refused.
///
/// ```
/// # use cim_persistence::prelude::*;
/// # use cim_persistence::{Repository, StoredEvent};
/// # use cim_persistence::process::{DueTimeout, ProcessManager, Reaction};
/// # use cim_persistence::projection::Rejection;
/// # use cim_persistence::subject::AggregateId;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # enum OrderEvent { Placed, Paid, Reminded }
/// # impl DomainEvent for OrderEvent { fn event_type(&self) -> &'static str { "order" } }
/// # #[derive(Clone, Serialize, Deserialize)]
/// # struct Order { id: String }
/// # impl Aggregate for Order {
/// #     const TYPE: &'static str = "order";
/// #     type Id = String;
/// #     type Event = OrderEvent;
/// #     fn new(id: &String) -> Self { Order { id: id.clone() } }
/// #     fn id(&self) -> &String { &self.id }
/// #     fn apply(&mut self, _: &OrderEvent) {}
/// # }
/// # struct Dunning { orders: Repository<Order> }
/// # impl ProcessManager for Dunning {
/// #     const NAME: &'static str = "dunning";
/// #     type Event = OrderEvent;
/// #     fn instance(&self, _: &OrderEvent, stored: &StoredEvent) -> Result<Option<AggregateId>, Rejection> {
/// #         Ok(Some(stored.aggregate_id().clone()))
/// #     }
/// #     async fn react(&self, event: OrderEvent, _: &StoredEvent, reaction: &mut Reaction) -> Result<(), Rejection> {
/// #         match event {
/// #             OrderEvent::Placed => reaction.schedule_after("unpaid", DAY, &())?,
/// #             OrderEvent::Paid => reaction.cancel("unpaid")?,
/// #             OrderEvent::Reminded => {}
/// #         }
/// #         Ok(())
/// #     }
/// #     async fn timeout(&self, _: &DueTimeout, reaction: &mut Reaction) -> Result<(), Rejection> {
/// #         let order = reaction.instance().to_string();
/// #         reaction.record(&self.orders, &order, vec![OrderEvent::Reminded]).await?;
/// #         Ok(())
/// #     }
/// # }
/// # const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use cim_persistence::testing::ProcessTest;
///
/// let test = ProcessTest::of(|context| Dunning { orders: Repository::of(context).unwrap() }).await;
/// let test = test.when::<Order>("42", [OrderEvent::Placed]).await;
/// let test = test.then_expect_nothing_recorded().then_expect_timeout("42", "unpaid", DAY);
/// let test = test.when_time_passes(DAY).await;
/// test.then_expect_recorded::<Order>("42", [OrderEvent::Reminded]);
/// # }
/// ```
pub struct ProcessTest<P> {
    test: TestContext,
    queue: MemoryTimeouts,
    running: RunningProcess,
    recorded: Vec<StoredEvent>,
    waiting: Vec<Timeout>,
    refused: Vec<String>,
    parked: Vec<ParkedReaction>,
    kind: PhantomData<fn() -> P>,
}

impl<P: ProcessManager> ProcessTest<P> {
    /// The process manager that is made for this context, started.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn of(make: impl FnOnce(&Context) -> P) -> Self {
        let (test, queue) = TestContext::in_memory()
            .unwrap_or_else(|error| panic!("there is no context to test on: {error}"));
        let manager = make(test.context());
        let options = ProcessOptions { poison: PoisonPolicy::PARK, ..ProcessOptions::default() };
        let running = RunningProcess::start(test.context(), manager, options)
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", P::NAME));
        Self {
            test,
            queue,
            running,
            recorded: Vec::new(),
            waiting: Vec::new(),
            refused: Vec::new(),
            parked: Vec::new(),
            kind: PhantomData,
        }
    }

    /// The context that it runs on, to prepare or to look at what has no expectation here.
    pub fn context(&self) -> &TestContext {
        &self.test
    }

    /// These events happened, and it has reacted to them. As [`when`](Self::when), read as a beginning.
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub async fn given<A: Aggregate>(
        self,
        id: impl Into<A::Id>,
        events: impl IntoIterator<Item = A::Event>,
    ) -> Self {
        self.when::<A>(id, events).await
    }

    /// These events happen to an aggregate, in one commit of somebody else, and it reacts.
    ///
    /// # Panics
    /// When an event cannot be stored, or the process ends.
    #[must_use = "an event without an expectation tests nothing"]
    pub async fn when<A: Aggregate>(
        mut self,
        id: impl Into<A::Id>,
        events: impl IntoIterator<Item = A::Event>,
    ) -> Self {
        let before = self.last().await;
        let events: Vec<_> = events.into_iter().collect();
        let count = events.len() as u64;
        if count > 0 {
            let head = self.test.seed::<A>(&id.into(), events).await;
            let head = head.unwrap_or_else(|error| panic!("what is given cannot happen: {error}"));
            self.settle(before).await;
            let given = head.position.get() - count + 1..=head.position.get();
            self.recorded.retain(|event| !given.contains(&event.position().get()));
        }
        self
    }

    /// Time passes, and it reacts to the timeouts that come due.
    ///
    /// # Panics
    /// When the process ends.
    #[must_use = "time without an expectation tests nothing"]
    pub async fn when_time_passes(mut self, time: Duration) -> Self {
        let before = self.last().await;
        self.test.clock().advance(time);
        self.settle(before).await;
        self
    }

    /// Reactions recorded exactly these events on this aggregate, in this order.
    ///
    /// # Panics
    /// When they recorded others, with the difference; when a reaction was refused.
    #[track_caller]
    pub fn then_expect_recorded<A: Aggregate>(
        self,
        id: impl Into<A::Id>,
        events: impl IntoIterator<Item = A::Event>,
    ) -> Self {
        self.nothing_refused();
        let id = aggregate_id(&id.into());
        let expected = events.into_iter().map(|event| NewEvent::of(&event));
        let expected = match expected.collect::<Result<Vec<_>, _>>() {
            Ok(expected) => expected,
            Err(error) => panic!("an event that is expected cannot be stored: {error}"),
        };
        let of_it = |event: &&StoredEvent| {
            event.aggregate_type().as_str() == A::TYPE && *event.aggregate_id() == id
        };
        let found: Vec<_> = self.recorded.iter().filter(of_it).map(shown).collect();
        if found != expected {
            panic!(
                "other events than expected were recorded on {} {id} (- expected, + found):\n{}",
                A::TYPE,
                difference(&texts(&expected), &texts(&found))
            );
        }
        self
    }

    /// Reactions recorded no events at all.
    ///
    /// # Panics
    /// When they did, with the events; when a reaction was refused.
    #[track_caller]
    pub fn then_expect_nothing_recorded(self) -> Self {
        self.nothing_refused();
        if !self.recorded.is_empty() {
            let text = |event: &StoredEvent| {
                let (kind, id) = (event.aggregate_type(), event.aggregate_id());
                format!("on {kind} {id}: {}", texts(&[shown(event)]))
            };
            let events: Vec<_> = self.recorded.iter().map(text).collect();
            panic!("events were recorded, none were expected:\n{}", events.join("\n"));
        }
        self
    }

    /// An instance waits for a timeout of this name that comes due so long from now, by the clock of the test.
    ///
    /// # Panics
    /// When it does not, with what waits; when a reaction was refused.
    #[track_caller]
    pub fn then_expect_timeout(self, instance: &str, name: &str, due_in: Duration) -> Self {
        self.nothing_refused();
        let due_in = u64::try_from(due_in.as_micros()).unwrap_or(u64::MAX);
        let now = self.test.clock().now().as_micros();
        let at = Timestamp::from_micros(now.saturating_add(due_in));
        let expected = format!("{instance} {name} at {at}");
        let waiting = self.waiting();
        if !waiting.contains(&expected) {
            panic!(
                "the timeout is not scheduled (- expected, + found):\n{}",
                difference(&expected, &waiting.join("\n"))
            );
        }
        self
    }

    /// No instance waits for any timeout.
    ///
    /// # Panics
    /// When one does, with what waits; when a reaction was refused.
    #[track_caller]
    pub fn then_expect_no_timeouts(self) -> Self {
        self.nothing_refused();
        if !self.waiting.is_empty() {
            panic!("timeouts wait, none were expected:\n{}", self.waiting().join("\n"));
        }
        self
    }

    /// A reaction was refused, and the reason fulfils a condition. Nothing of it was stored.
    ///
    /// # Panics
    /// When none was, or not for such a reason, with the reasons.
    #[track_caller]
    pub fn then_expect_refusal(mut self, condition: impl Fn(&str) -> bool) -> Self {
        let refused = std::mem::take(&mut self.refused);
        if refused.is_empty() {
            panic!("no reaction was refused, a refusal was expected");
        }
        if !refused.iter().any(|reason| condition(reason)) {
            panic!("no reaction was refused for such a reason:\n{}", refused.join("\n"));
        }
        self
    }

    #[track_caller]
    fn nothing_refused(&self) {
        if !self.refused.is_empty() {
            panic!("{} refused to react:\n{}", P::NAME, self.refused.join("\n"));
        }
    }

    fn waiting(&self) -> Vec<String> {
        let text = |timeout: &Timeout| {
            let (address, at) = (&timeout.address, timeout.at);
            format!("{} {} at {at}", address.instance(), address.name())
        };
        let mut waiting: Vec<_> = self.waiting.iter().map(text).collect();
        waiting.sort();
        waiting
    }

    async fn last(&self) -> Position {
        let status = self.test.context().status().await;
        status.unwrap_or_else(|error| panic!("the context cannot be read: {error}")).last
    }

    /// Waits until nothing is left to do, and looks at what was done since a position.
    async fn settle(&mut self, before: Position) {
        let context = self.test.context();
        let quiet = until_quiet::<P>(&mut self.running, context, &self.queue).await;
        quiet.unwrap_or_else(|error| panic!("{} has ended: {error}", P::NAME));
        let recorded = context.get_events_after(before, usize::MAX).await;
        self.recorded = recorded.unwrap_or_else(|error| panic!("its events: {error}"));
        let waiting = self.queue.waiting().await;
        self.waiting = waiting.unwrap_or_else(|error| panic!("its timeouts: {error}"));
        let parked = self.running.parked().await;
        let parked = parked.unwrap_or_else(|error| panic!("what it parked: {error}"));
        let new = parked.iter().filter(|parked| !self.parked.contains(parked));
        self.refused.extend(new.map(|parked| parked.reason.clone()));
        self.parked = parked;
    }
}

impl<P: ProcessManager> fmt::Debug for ProcessTest<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessTest")
            .field("process", &P::NAME)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

fn shown(event: &StoredEvent) -> NewEvent {
    let (event_type, schema_version) = (event.event_type().clone(), event.schema_version());
    NewEvent { event_type, schema_version, data: event.data().unwrap_or(Ipld::Null) }
}

#[track_caller]
fn aggregate_id(id: &impl Identity) -> AggregateId {
    match id.to_aggregate_id() {
        Ok(id) => id,
        Err(error) => panic!("there is no such aggregate: {error}"),
    }
}
