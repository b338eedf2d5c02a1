//! The stages of an aggregate's life: a commit that leads to a forbidden one stores nothing, whichever way it came.

use cim_persistence::lifecycle::{InvalidTransition, Stage};
use cim_persistence::prelude::*;
use cim_persistence::repository::{
    Freshness, LoadOptions, Repository, RepositoryError, SaveOptions, TransactError,
    TransactOptions,
};
use cim_persistence::store::ExpectedVersion;
use serde::{Deserialize, Serialize};

use crate::domain::{Lab, bank};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Status {
    Draft,
    Placed,
    Shipped,
    Cancelled,
}
use Status::*;

cim_persistence::lifecycle!(Status {
    Draft => [Placed, Cancelled],
    Placed => [Shipped, Cancelled],
    Shipped => [],
    Cancelled => [],
});

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    id: String,
    status: Status,
    notes: u32,
}

#[derive(Clone, Serialize, Deserialize)]
enum OrderEvent {
    Became(Status),
    Noted,
}
use OrderEvent::*;

impl DomainEvent for OrderEvent {
    fn event_type(&self) -> &'static str {
        match self {
            Became(_) => "became",
            Noted => "noted",
        }
    }
}

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Id = String;
    type Event = OrderEvent;
    fn new(id: &String) -> Self {
        let status = if id == "odd" { Placed } else { Draft };
        Self { id: id.clone(), status, notes: 0 }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, event: &OrderEvent) {
        match event {
            Became(status) => self.status = *status,
            Noted => self.notes += 1,
        }
    }
    fn stage(&self) -> Option<Stage> {
        Some(self.status.stage())
    }
}

struct Become(Status);

impl Handle<Become> for Order {
    type Rejection = InvalidTransition;
    fn handle(&self, Become(status): &Become) -> Result<Vec<OrderEvent>, InvalidTransition> {
        self.status.transition(status, [Became(*status)])
    }
}

type Never = std::convert::Infallible;

async fn orders(lab: &Lab) -> Repository<Order> {
    Repository::of(&lab.process(&bank()).await).unwrap()
}

fn forbidden(
    from: &'static str,
    to: &'static str,
    allowed: &'static [&'static str],
) -> InvalidTransition {
    InvalidTransition::Forbidden { from, to, allowed }
}

fn refusal(error: RepositoryError) -> InvalidTransition {
    match error {
        RepositoryError::Transition { source, .. } => source,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn forgetful_decision_is_refused_and_stores_nothing() {
    let lab = Lab::start().await;
    let orders = orders(&lab).await;
    let id = "a".to_owned();
    let decide = async |events: Vec<OrderEvent>| {
        orders.transact(&id, |_| Ok::<_, Never>(events.clone())).await
    };
    let error = decide(vec![Noted, Became(Shipped)]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "order a: Draft may not become Shipped; it may become Placed or Cancelled; nothing was stored"
    );
    assert_eq!(lab.stored().await, 0);
    decide(vec![Became(Placed), Noted, Became(Placed), Became(Shipped)]).await.unwrap();
    assert_eq!(lab.stored().await, 4, "to stay is no transition");
    // The way counts, not where it ends.
    for events in [vec![Became(Placed)], vec![Noted, Became(Cancelled), Became(Shipped)]] {
        assert!(matches!(
            decide(events).await,
            Err(TransactError::Repository(RepositoryError::Transition { .. }))
        ));
    }
    assert_eq!(lab.stored().await, 4);
    let (order, _) = orders.load(&id, LoadOptions::default()).await.unwrap();
    assert_eq!((order.status, order.notes), (Shipped, 1), "nothing refused is in the cache");
}

#[tokio::test]
async fn saves_of_every_expectation_are_checked() {
    let lab = Lab::start().await;
    let orders = orders(&lab).await;
    let order = Order::new(&"a".to_owned());
    let save =
        async |events: Vec<OrderEvent>, expected| orders.save(&order, events, expected).await;
    let new = save(vec![Became(Shipped)], ExpectedVersion::NoStream).await.unwrap_err();
    assert_eq!(refusal(new), forbidden("Draft", "Shipped", &["Placed", "Cancelled"]));
    save(vec![Became(Cancelled)], ExpectedVersion::NoStream).await.unwrap();
    for expected in [ExpectedVersion::Any, ExpectedVersion::Exact(1)] {
        let error = save(vec![Became(Placed)], expected).await.unwrap_err();
        assert_eq!(refusal(error), forbidden("Cancelled", "Placed", &[]));
    }
    assert_eq!(lab.stored().await, 1);
    save(vec![Noted], ExpectedVersion::Exact(1)).await.unwrap();
    assert_eq!(lab.stored().await, 2, "a terminal stage forbids other stages, not events");
}

#[tokio::test]
async fn a_life_begins_anew_with_its_first_stage() {
    let lab = Lab::start().await;
    let orders = orders(&lab).await;
    let odd = orders.transact(&"odd".to_owned(), |_| Ok::<_, Never>([Noted])).await.unwrap_err();
    assert_eq!(
        odd.to_string(),
        "order odd: a life begins as Draft, not as Placed; nothing was stored"
    );
    let order = Order::new(&"a".to_owned());
    let events = vec![Became(Placed), Became(Shipped)];
    orders.save(&order, events, SaveOptions::default()).await.unwrap();
    let deleted = orders.delete(&order.id, SaveOptions::default()).await.unwrap();
    let after = SaveOptions::after(&deleted);
    orders.save(&order, vec![Became(Placed)], after).await.unwrap();
    assert_eq!(lab.stored().await, 4);
}

#[tokio::test]
async fn commands_that_change_nothing_store_nothing() {
    let lab = Lab::start().await;
    let orders = orders(&lab).await;
    let id = "a".to_owned();
    let done = orders.execute_with_retry(&id, &Become(Placed)).await.unwrap();
    assert_eq!((done.version, done.events), (1, 1));
    let same = orders.execute_with_retry(&id, &Become(Placed)).await.unwrap();
    assert_eq!((same.version, same.events), (1, 0));
    let error = orders.execute_with_retry(&id, &Become(Draft)).await.unwrap_err();
    assert!(matches!(error, TransactError::Rejected(_)), "the domain saw it first: {error}");
    assert_eq!(lab.stored().await, 1);
}

#[tokio::test]
async fn a_stage_that_the_cache_remembers_refuses_nothing_by_itself() {
    let lab = Lab::start().await;
    let (ours, theirs) = (orders(&lab).await, orders(&lab).await);
    let id = "a".to_owned();
    ours.transact(&id, |_| Ok::<_, Never>([Noted])).await.unwrap();
    theirs.transact(&id, |_| Ok::<_, Never>([Became(Placed)])).await.unwrap();
    let freshness = Freshness::Cached(std::time::Duration::from_secs(3600));
    let options = TransactOptions { freshness, ..TransactOptions::default() };
    let done = ours.transact_with(&id, options, |_| Ok::<_, Never>([Became(Shipped)])).await;
    assert_eq!(done.unwrap().version, 3);
}
