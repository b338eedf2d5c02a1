//! Tests of aggregates: given what happened, when a command comes, then expect what it leads to.
//!
//! No store and no runtime. Yet each event goes through the bytes it would be stored as, so what cannot be stored or read
//! back fails a test too. How stored events are made is in `histories.rs`.

use std::fmt::Debug;

use ipld_core::ipld::Ipld;
use serde::Serialize;

use super::difference::difference;
use super::histories::Histories;
use crate::repository::{Aggregate, Handle, IntoDecision};
use crate::store::{NewEvent, StoreError};
use crate::subject::{AggregateId, AggregateType, Identity};

/// An aggregate under test, and the events that made it what it is.
///
/// Commands follow each other: each is decided on the state that those before it led to, and each
/// [`Decided::then_expect_events`] and its like speak of the last command only. Events are compared as they are stored: by type, schema
/// version and data, so that they need not be comparable in Rust.
///
/// ```
/// use cim_persistence::testing::AggregateTest;
/// # use cim_persistence::prelude::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Clone, Serialize, Deserialize)]
/// # struct Counter { name: String, count: u64 }
/// # #[derive(Serialize, Deserialize)]
/// # struct Counted;
/// # impl DomainEvent for Counted { fn event_type(&self) -> &'static str { "counted" } }
/// # impl Aggregate for Counter {
/// #     const TYPE: &'static str = "counter";
/// #     type Id = String;
/// #     type Event = Counted;
/// #     fn new(name: &String) -> Self { Counter { name: name.clone(), count: 0 } }
/// #     fn id(&self) -> &String { &self.name }
/// #     fn apply(&mut self, _: &Counted) { self.count += 1 }
/// # }
/// # struct Count;
/// # #[derive(Debug, PartialEq)]
/// # struct Full;
/// # impl Handle<Count> for Counter {
/// #     type Rejection = Full;
/// #     fn handle(&self, _: &Count) -> Result<Vec<Counted>, Full> {
/// #         if self.count < 2 { Ok(vec![Counted]) } else { Err(Full) }
/// #     }
/// # }
///
/// AggregateTest::<Counter>::of("visits")
///     .given([Counted])
///     .when(Count)
///     .then_expect_events([Counted])
///     .when(Count)
///     .then_expect_error(Full)
///     .then_expect_state(|counter| counter.count == 2);
/// ```
#[derive(Debug, Clone)]
pub struct AggregateTest<A> {
    aggregate: A,
    kind: AggregateType,
    id: AggregateId,
    histories: Histories,
}

impl<A: Aggregate> AggregateTest<A> {
    /// An aggregate of this id to which nothing has happened yet.
    ///
    /// # Panics
    /// When the id cannot be one, or the aggregate's type is no name.
    #[track_caller]
    pub fn of(id: impl Into<A::Id>) -> Self {
        let aggregate = A::new(&id.into());
        let named = AggregateType::new(A::TYPE);
        let kind = named.unwrap_or_else(|error| panic!("{:?} is no type: {error}", A::TYPE));
        let id = aggregate.id().to_aggregate_id();
        let id = id.unwrap_or_else(|error| panic!("the aggregate's id cannot be one: {error}"));
        Self { aggregate, kind, id, histories: Histories::new() }
    }

    /// These events have happened, after those that were given before.
    ///
    /// # Panics
    /// When one of them cannot be stored, or not be read back.
    #[track_caller]
    #[must_use]
    pub fn given(mut self, events: impl IntoIterator<Item = A::Event>) -> Self {
        let events: Vec<_> = events.into_iter().collect();
        if let Err(error) = self.happen(&events) {
            panic!("what is given cannot have happened: {error}");
        }
        self
    }

    /// Nothing has happened yet. Says so and does nothing.
    #[must_use]
    pub fn given_nothing(self) -> Self {
        self
    }

    /// A command comes. What it leads to is to be expected next.
    ///
    /// # Panics
    /// When an event that it makes cannot be stored, or not be read back.
    #[track_caller]
    #[must_use = "a command without an expectation tests nothing"]
    pub fn when<C>(self, command: C) -> Decided<A, A::Rejection>
    where
        A: Handle<C>,
    {
        self.when_deciding(|aggregate| aggregate.handle(&command))
    }

    /// A decision is made, as one that [`transact`](crate::repository::Repository::transact) takes. What it leads to is to be
    /// expected next; its reply is not looked at.
    ///
    /// # Panics
    /// As [`when`](Self::when).
    #[track_caller]
    #[must_use = "a command without an expectation tests nothing"]
    pub fn when_deciding<D, R>(mut self, decide: impl FnOnce(&A) -> Result<D, R>) -> Decided<A, R>
    where
        D: IntoDecision<A::Event>,
    {
        let outcome = match decide(&self.aggregate).map(IntoDecision::into_decision) {
            Err(rejection) => Outcome::Rejected { rejection, expected: false },
            Ok((events, _)) => match self.happen(&events) {
                Ok(events) => Outcome::Accepted(events),
                Err(error) => panic!("the command made an event that cannot be stored: {error}"),
            },
        };
        Decided { test: self, outcome }
    }

    /// The state fulfils a condition.
    ///
    /// # Panics
    /// When it does not, with the state as JSON.
    #[track_caller]
    pub fn then_expect_state(self, condition: impl FnOnce(&A) -> bool) -> Self {
        if !condition(&self.aggregate) {
            panic!("the state is not as expected:\n{}", json(&self.aggregate));
        }
        self
    }

    /// The state, for assertions of one's own.
    pub fn state(&self) -> &A {
        &self.aggregate
    }

    /// Stores events and applies them as they are read back.
    fn happen(&mut self, events: &[A::Event]) -> Result<Vec<NewEvent>, StoreError> {
        let mut happened = Vec::with_capacity(events.len());
        for (_, stored) in self.histories.append(&self.kind, &self.id, events)? {
            self.aggregate.apply(&stored.data()?);
            happened.push(NewEvent {
                event_type: stored.event_type().clone(),
                schema_version: stored.schema_version(),
                data: stored.data::<Ipld>()?,
            });
        }
        Ok(happened)
    }
}

/// An aggregate under test after a command.
#[derive(Debug, Clone)]
pub struct Decided<A, R> {
    test: AggregateTest<A>,
    outcome: Outcome<R>,
}

#[derive(Debug, Clone)]
enum Outcome<R> {
    Accepted(Vec<NewEvent>),
    Rejected {
        rejection: R,
        /// Whether the test has said that it expects a rejection.
        expected: bool,
    },
}

impl<A: Aggregate, R: Debug> Decided<A, R> {
    /// The command was accepted and made exactly these events, in this order.
    ///
    /// # Panics
    /// When it made others, with the difference; when it was rejected, with the rejection.
    #[track_caller]
    pub fn then_expect_events(self, events: impl IntoIterator<Item = A::Event>) -> Self {
        let events: Vec<_> = events.into_iter().collect();
        let mut expecting = AggregateTest { histories: Histories::new(), ..self.test.clone() };
        let expected = match expecting.happen(&events) {
            Ok(expected) => expected,
            Err(error) => panic!("an event that is expected cannot be stored: {error}"),
        };
        match &self.outcome {
            Outcome::Rejected { rejection, .. } => {
                panic!(
                    "the command was rejected: {rejection:#?}\nexpected were:\n{}",
                    texts(&expected)
                )
            }
            Outcome::Accepted(found) if *found != expected => panic!(
                "the command made other events than expected (- expected, + found):\n{}",
                difference(&texts(&expected), &texts(found))
            ),
            Outcome::Accepted(_) => self,
        }
    }

    /// The command was accepted and there was nothing to do.
    ///
    /// # Panics
    /// When it made events, with the events; when it was rejected, with the rejection.
    #[track_caller]
    pub fn then_expect_no_events(self) -> Self {
        match &self.outcome {
            Outcome::Rejected { rejection, .. } => {
                panic!("the command was rejected, no events were expected: {rejection:#?}")
            }
            Outcome::Accepted(found) if !found.is_empty() => {
                panic!("the command made events, none were expected:\n{}", texts(found))
            }
            Outcome::Accepted(_) => self,
        }
    }

    /// The command was rejected, for exactly this reason.
    ///
    /// # Panics
    /// When it was rejected for another one, with the difference; when it was accepted, with its events.
    #[track_caller]
    pub fn then_expect_error(mut self, rejection: R) -> Self
    where
        R: PartialEq,
    {
        let found = self.rejected();
        if *found != rejection {
            panic!(
                "the command was rejected for another reason than expected (- expected, + found):\n{}",
                difference(&format!("{rejection:#?}"), &format!("{found:#?}"))
            );
        }
        self
    }

    /// The command was rejected, and the rejection fulfils a condition.
    ///
    /// # Panics
    /// When it does not, with the rejection; when the command was accepted, with its events.
    #[track_caller]
    pub fn then_expect_error_that(mut self, condition: impl FnOnce(&R) -> bool) -> Self {
        let found = self.rejected();
        if !condition(found) {
            panic!("the rejection is not as expected: {found:#?}");
        }
        self
    }

    /// The state after the command fulfils a condition. A rejected command has left it as it was.
    ///
    /// # Panics
    /// When it does not, with the state as JSON.
    #[track_caller]
    pub fn then_expect_state(self, condition: impl FnOnce(&A) -> bool) -> Self {
        Self { test: self.test.then_expect_state(condition), ..self }
    }

    /// The state after the command, for assertions of one's own.
    pub fn state(&self) -> &A {
        self.test.state()
    }

    /// Another command comes.
    ///
    /// # Panics
    /// As [`AggregateTest::when`]; also when the command before was rejected and nothing expected that.
    #[track_caller]
    #[must_use = "a command without an expectation tests nothing"]
    pub fn when<C>(self, command: C) -> Decided<A, A::Rejection>
    where
        A: Handle<C>,
    {
        self.when_deciding(|aggregate| aggregate.handle(&command))
    }

    /// Another decision is made; as [`AggregateTest::when_deciding`].
    ///
    /// # Panics
    /// As [`when`](Self::when).
    #[track_caller]
    #[must_use = "a command without an expectation tests nothing"]
    pub fn when_deciding<D, S>(self, decide: impl FnOnce(&A) -> Result<D, S>) -> Decided<A, S>
    where
        D: IntoDecision<A::Event>,
    {
        if let Outcome::Rejected { rejection, expected: false } = &self.outcome {
            panic!("the command before was rejected, and nothing expected that: {rejection:#?}");
        }
        self.test.when_deciding(decide)
    }

    #[track_caller]
    fn rejected(&mut self) -> &R {
        match &mut self.outcome {
            Outcome::Rejected { rejection, expected } => {
                *expected = true;
                rejection
            }
            Outcome::Accepted(found) if found.is_empty() => {
                panic!("the command was accepted and made no events, a rejection was expected")
            }
            Outcome::Accepted(found) => {
                panic!("the command was accepted, a rejection was expected:\n{}", texts(found))
            }
        }
    }
}

/// Events for people to read.
pub(super) fn texts(events: &[NewEvent]) -> String {
    let text = |event: &NewEvent| {
        let NewEvent { event_type, schema_version, data } = event;
        let document = serde_ipld_dagjson::to_vec(data).ok();
        let value =
            document.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        match value {
            Some(value) => format!("{event_type} (version {schema_version}) {value:#}"),
            None => format!("{event_type} (version {schema_version}) {data:#?}"),
        }
    };
    events.iter().map(text).collect::<Vec<_>>().join("\n")
}

/// A value for people to read.
pub(super) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value)
        .unwrap_or_else(|error| format!("it cannot be shown as JSON: {error}"))
}
