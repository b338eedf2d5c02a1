//! Tests of projections: given stored events, then expect the models that they lead to.
//!
//! No store and no runtime. Events and models go through the bytes they are stored as. Running a projection, with its
//! checkpoint and its rebuilds, is for a [`TestContext`](super::TestContext).

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::aggregate::json;
use super::difference::difference;
use super::histories::Histories;
use crate::backend::StoredMessage;
use crate::event::DomainEvent;
use crate::projection::{Projection, Trial};
use crate::read_model::ReadModel;
use crate::repository::Aggregate;
use crate::store::{StoreError, StoredEvent};
use crate::subject::{AggregateId, AggregateType, Identity};

/// A projection under test, and the models that the events given so far have led to.
///
/// Each event takes effect as its runner would let it: if the projection's filters let it pass, whole or not at all, and only in models
/// that the projection declares. The projection gets it twice and must say the same both times, since a rebuild repeats
/// events.
///
/// ```
/// use cim_persistence::testing::ProjectionTest;
/// # use cim_persistence::event::DomainEvent;
/// # use cim_persistence::projection::{Changes, Declared, Projection, Rejection};
/// # use cim_persistence::read_model::ReadModel;
/// # use cim_persistence::store::StoredEvent;
/// # use cim_persistence::subject::{AggregateId, InvalidToken};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # enum OrderEvent { Placed { customer: String, cents: u64 } }
/// # impl DomainEvent for OrderEvent { fn event_type(&self) -> &'static str { "placed" } }
/// # #[derive(Clone, Default, Serialize, Deserialize)]
/// # struct Customer { name: String, cents: u64 }
/// # impl ReadModel for Customer {
/// #     const MODEL_TYPE: &'static str = "customer";
/// #     fn id(&self) -> Result<AggregateId, InvalidToken> { AggregateId::new(&self.name) }
/// # }
/// # struct Customers;
/// # impl Projection for Customers {
/// #     const NAME: &'static str = "customers";
/// #     type Event = OrderEvent;
/// #     fn models() -> Vec<Declared> { vec![Declared::of::<Customer>()] }
/// #     fn project(&self, event: OrderEvent, _: &StoredEvent, changes: &mut Changes) -> Result<(), Rejection> {
/// #         let OrderEvent::Placed { customer: name, cents } = event;
/// #         changes.upsert(&AggregateId::new(&name)?, move |customer: &mut Customer| {
/// #             customer.name = name;
/// #             customer.cents += cents;
/// #         });
/// #         Ok(())
/// #     }
/// # }
///
/// let placed = |cents| OrderEvent::Placed { customer: "Kim".into(), cents };
/// ProjectionTest::of(Customers)
///     .given_on("order", &1_u32, [placed(300)])
///     .given_on("order", &2_u32, [placed(500)])
///     .then_expect_models([Customer { name: "Kim".into(), cents: 800 }]);
/// ```
pub struct ProjectionTest<P> {
    trial: Trial<P>,
    histories: Histories,
    refused: Vec<String>,
}

impl<P: Projection> ProjectionTest<P> {
    /// A projection that has seen nothing yet.
    ///
    /// # Panics
    /// When it cannot be run as it is written.
    #[track_caller]
    pub fn of(projection: P) -> Self {
        let histories = Histories::new();
        match Trial::new(projection, histories.scheme()) {
            Ok(trial) => Self { trial, histories, refused: Vec::new() },
            Err(error) => panic!("{}: {error}", P::NAME),
        }
    }

    /// These events happened to an aggregate, after those that were given before.
    ///
    /// # Panics
    /// When one cannot be stored.
    #[track_caller]
    #[must_use]
    pub fn given<A: Aggregate>(
        self,
        id: impl Into<A::Id>,
        events: impl IntoIterator<Item = A::Event>,
    ) -> Self {
        self.given_on(A::TYPE, &id.into(), events)
    }

    /// As [`given`](Self::given), where only the name of the aggregate's type is known.
    ///
    /// # Panics
    /// When the type or the id cannot be one, or an event cannot be stored.
    #[track_caller]
    #[must_use]
    pub fn given_on<E: DomainEvent>(
        mut self,
        aggregate_type: &str,
        id: &impl Identity,
        events: impl IntoIterator<Item = E>,
    ) -> Self {
        let (kind, id) = place(aggregate_type, id);
        let events: Vec<E> = events.into_iter().collect();
        let stored = self.histories.append(&kind, &id, &events);
        self.take(stored);
        self
    }

    /// An aggregate was deleted.
    ///
    /// # Panics
    /// When its type or id cannot be one.
    #[track_caller]
    #[must_use]
    pub fn given_deleted<A: Aggregate>(mut self, id: impl Into<A::Id>) -> Self {
        let (kind, id) = place(A::TYPE, &id.into());
        let stored = self.histories.bury(&kind, &id);
        self.take(stored);
        self
    }

    /// The models of this type are exactly these, in any order.
    ///
    /// # Panics
    /// When there are others, with the difference; when an event was refused.
    #[track_caller]
    pub fn then_expect_models<M: ReadModel>(self, models: impl IntoIterator<Item = M>) -> Self {
        self.nothing_refused();
        let mut expected = BTreeMap::new();
        for model in models {
            let (id, document) = document_of(&model);
            if expected.insert(id.clone(), document).is_some() {
                panic!("two models of id {id} are expected");
            }
        }
        self.compare::<M>(&expected, self.found::<M>());
        self
    }

    /// Among the models of this type is this one.
    ///
    /// # Panics
    /// When there is none with its id, or it differs, with the difference; when an event was refused.
    #[track_caller]
    pub fn then_expect_model<M: ReadModel>(self, model: M) -> Self {
        self.nothing_refused();
        let expected = BTreeMap::from([document_of(&model)]);
        let mut found = self.found::<M>();
        found.retain(|id, _| expected.contains_key(id));
        self.compare::<M>(&expected, found);
        self
    }

    /// There is no model of this type with this id.
    ///
    /// # Panics
    /// When there is, with the model; when an event was refused.
    #[track_caller]
    pub fn then_expect_no_model<M: ReadModel>(self, id: &AggregateId) -> Self {
        self.nothing_refused();
        if let Some(found) = self.found::<M>().get(id) {
            panic!("there is a {} {id}, none was expected:\n{}", M::MODEL_TYPE, json(found));
        }
        self
    }

    /// One of the events given since the last such expectation was refused, and the reason fulfils a condition. It had no effect.
    ///
    /// # Panics
    /// When none was, or not for such a reason, with the reasons.
    #[track_caller]
    pub fn then_expect_refusal(mut self, condition: impl Fn(&str) -> bool) -> Self {
        let refused = std::mem::take(&mut self.refused);
        if refused.is_empty() {
            panic!("no event was refused, a refusal was expected");
        }
        if !refused.iter().any(|reason| condition(reason)) {
            panic!("no event was refused for such a reason:\n{}", refused.join("\n"));
        }
        self
    }

    #[track_caller]
    fn take(&mut self, stored: Result<Vec<(StoredMessage, StoredEvent)>, StoreError>) {
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => panic!("what is given cannot have happened: {error}"),
        };
        for (message, event) in stored {
            if let Err(reason) = self.trial.take(&message, &event) {
                let (position, kind) = (event.position(), event.event_type());
                self.refused.push(format!("{kind} at position {position}: {reason}"));
            }
        }
    }

    #[track_caller]
    fn nothing_refused(&self) {
        if !self.refused.is_empty() {
            panic!("{} refused events that were given:\n{}", P::NAME, self.refused.join("\n"));
        }
    }

    fn found<M: ReadModel>(&self) -> BTreeMap<AggregateId, Value> {
        let documents = self.trial.documents(M::MODEL_TYPE);
        documents.map(|(id, document)| (id.clone(), value(document))).collect()
    }

    #[track_caller]
    fn compare<M: ReadModel>(
        &self,
        expected: &BTreeMap<AggregateId, Value>,
        found: BTreeMap<AggregateId, Value>,
    ) {
        if *expected != found {
            panic!(
                "the models of type {} are not as expected (- expected, + found):\n{}",
                M::MODEL_TYPE,
                difference(&texts(expected), &texts(&found))
            );
        }
    }
}

impl<P: Projection> fmt::Debug for ProjectionTest<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectionTest")
            .field("projection", &P::NAME)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

#[track_caller]
fn place(aggregate_type: &str, id: &impl Identity) -> (AggregateType, AggregateId) {
    match (AggregateType::new(aggregate_type), id.to_aggregate_id()) {
        (Ok(kind), Ok(id)) => (kind, id),
        (Err(error), _) | (_, Err(error)) => panic!("there is no such aggregate: {error}"),
    }
}

#[track_caller]
fn document_of<M: ReadModel>(model: &M) -> (AggregateId, Value) {
    // By way of the text that is stored: serde_json makes another number of an f32 that it is given directly.
    match (model.id(), serde_json::to_vec(model)) {
        (Ok(id), Ok(document)) => (id, value(&document)),
        (Err(error), _) => panic!("a model that is expected has no id: {error}"),
        (_, Err(error)) => panic!("a model that is expected cannot be stored: {error}"),
    }
}

fn value(document: &[u8]) -> Value {
    serde_json::from_slice(document).expect("serde_json wrote it")
}

fn texts(models: &BTreeMap<AggregateId, Value>) -> String {
    let text = |(id, model): (&AggregateId, &Value)| format!("{id} {}", json(model));
    models.iter().map(text).collect::<Vec<_>>().join("\n")
}
