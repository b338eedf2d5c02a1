//! Events that are not those of the type a projection reads, though serde would read them into it, and events that a filter
//! leaves out.

use std::sync::{Arc, Mutex};

use cim_persistence::backend::{Bound, Position};
use cim_persistence::event::NonEmpty;
use cim_persistence::evolution::{Evolution, Upcast};
use cim_persistence::projection::{
    Changes, Declared, Effects, FirstStart, Fold, ModelsAsOf, Projection, ProjectionError,
    Projections, Rejection, RunningEffects, RunningProjection, Selection, load_projection,
};
use cim_persistence::read_model::ReadModel;
use cim_persistence::state::Key;
use cim_persistence::store::{
    CommitInfo, EventFilter, ExpectedVersion, NewEvent, StoreError, StoredEvent,
};
use cim_persistence::subject::{AggregateId, InvalidToken};
use cim_persistence::{Context, DomainEvent};
use serde::{Deserialize, Serialize};

use crate::domain::{PATIENCE, Store, accounts, last, options};

/// Three kinds of events that serde cannot tell apart.
#[derive(Serialize, Deserialize, DomainEvent)]
struct Booked {
    cents: i64,
}

#[derive(Serialize, Deserialize, DomainEvent)]
struct Returned {
    cents: i64,
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(name = "booked", version = 2)]
struct BookedWithFee {
    cents: i64,
    fee: i64,
}

/// What was booked, from the position that a filter begins after.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Till {
    cents: i64,
}

impl ReadModel for Till {
    const MODEL_TYPE: &'static str = "till";
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new("all")
    }
}

struct Tills<const AFTER: u64>;

impl<const AFTER: u64> Projection for Tills<AFTER> {
    const NAME: &'static str = "tills";
    type Event = Booked;

    fn models() -> Vec<Declared> {
        vec![Declared::of::<Till>()]
    }

    fn filters() -> Vec<EventFilter> {
        vec![EventFilter::all().after(Position::new(AFTER))]
    }

    fn project(
        &self,
        event: Booked,
        _: &StoredEvent,
        changes: &mut Changes,
    ) -> Result<(), Rejection> {
        changes.upsert(&AggregateId::new("all")?, move |till: &mut Till| till.cents += event.cents);
        Ok(())
    }
}

struct Sum<const AFTER: u64>(i64);

impl<const AFTER: u64> Fold for Sum<AFTER> {
    type Event = Booked;
    fn filters(&self) -> Vec<EventFilter> {
        vec![EventFilter::all().after(Position::new(AFTER))]
    }
    fn apply(&mut self, event: Booked, _: &StoredEvent) {
        self.0 += event.cents;
    }
}

#[derive(Clone, Default)]
struct Receipts<const AFTER: u64>(Arc<Mutex<Vec<i64>>>);

impl<const AFTER: u64> Effects for Receipts<AFTER> {
    const NAME: &'static str = "receipts";
    type Event = Booked;
    fn filters() -> Vec<EventFilter> {
        vec![EventFilter::all().after(Position::new(AFTER))]
    }
    async fn handle(&self, event: Booked, _: &StoredEvent) -> Result<(), Rejection> {
        self.0.lock().unwrap().push(event.cents);
        Ok(())
    }
}

async fn stores<E: DomainEvent>(context: &Context, event: E) -> Position {
    let event = NonEmpty::one(NewEvent::of(&event).unwrap());
    let (id, info) = (AggregateId::new("a").unwrap(), CommitInfo::default());
    let appended = context.append(&accounts(), &id, ExpectedVersion::Any, &event, &info).await;
    appended.unwrap().head.position
}

/// What all that read the context come to: a projection, its models as they were, a fold, effects.
async fn readers<const AFTER: u64>(context: &Context) -> [i64; 4] {
    let end = last(context).await;
    let mut running = RunningProjection::start(context, Tills::<AFTER>, options()).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    Projections::of(context).wait_for("tills", end, PATIENCE).await.unwrap();
    running.stop().await.unwrap();
    let all = AggregateId::new("all").unwrap();
    let key = Key::new("till.all").unwrap();
    let slot = context.read_models().get(&key, Default::default()).await.unwrap();
    let kept = slot.value.map(|value| serde_json::from_slice::<Till>(&value).unwrap());
    let bound = Bound::Newest;
    let were = ModelsAsOf::load(context, &Tills::<AFTER>, bound).await.unwrap();
    let folded = load_projection(context, Sum::<AFTER>(0)).await.unwrap();
    let receipts = Receipts::<AFTER>::default();
    let beginning = FirstStart::Beginning;
    let mut handler =
        RunningEffects::start(context, receipts.clone(), beginning, options()).unwrap();
    handler.handled(end).await.unwrap();
    handler.stop().await.unwrap();
    let handled = receipts.0.lock().unwrap().iter().sum();
    let cents = |till: Option<&Till>| till.map_or(0, |till| till.cents);
    [cents(kept.as_ref()), cents(were.get::<Till>(&all)), folded.state.0, handled]
}

#[tokio::test(start_paused = true)]
async fn an_event_of_another_type_means_nothing() {
    let context = Store::new().healthy();
    stores(&context, Booked { cents: 5 }).await;
    stores(&context, Returned { cents: 7 }).await;
    stores(&context, Booked { cents: 1 }).await;
    assert_eq!(readers::<0>(&context).await, [6; 4]);
}

/// One that does not say which kinds there are.
#[derive(Serialize, Deserialize)]
struct ByHand {
    cents: i64,
}

impl DomainEvent for ByHand {
    fn event_type(&self) -> &'static str {
        "booked"
    }
}

struct SumByHand(i64);

impl Fold for SumByHand {
    type Event = ByHand;
    fn filters(&self) -> Vec<EventFilter> {
        vec![EventFilter::all()]
    }
    fn apply(&mut self, event: ByHand, _: &StoredEvent) {
        self.0 += event.cents;
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_calls_itself_otherwise_than_it_is_stored_means_nothing() {
    let context = Store::new().healthy();
    stores(&context, Booked { cents: 5 }).await;
    stores(&context, Returned { cents: 7 }).await;
    assert_eq!(load_projection(&context, SumByHand(0)).await.unwrap().state.0, 5);
    stores(&context, BookedWithFee { cents: 7, fee: 1 }).await;
    let error = load_projection(&context, SumByHand(0)).await.err().unwrap().to_string();
    assert!(error.contains("ByHand knows versions up to 1"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_newer_version_cannot_be_used() {
    let context = Store::new().healthy();
    stores(&context, Booked { cents: 5 }).await;
    let newer = stores(&context, BookedWithFee { cents: 7, fee: 1 }).await;
    let mut running = RunningProjection::start(&context, Tills::<0>, options()).unwrap();
    match running.caught_up(PATIENCE).await {
        Err(ProjectionError::Poison { position, reason, .. }) => {
            assert_eq!(position, newer.get());
            assert!(reason.contains("knows versions up to 1"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_upcasters_made_another_is_read_into_no_other_type() {
    let store = Store::new();
    stores(&store.healthy(), Returned { cents: 7 }).await;
    let evolution = Evolution::builder()
        .event("refunded", 1)
        .upcast(Upcast::renamed(("returned", 1), ("refunded", 1), Ok))
        .build()
        .unwrap();
    let context = store.healthy().with_evolution(evolution);
    let stored = context.get_events_after(Position::START, 1).await.unwrap().swap_remove(0);
    assert!(stored.is_changed());
    match stored.events::<Booked>() {
        Err(StoreError::Shape { event_type, reason, .. }) => {
            assert_eq!(event_type, "refunded");
            assert!(reason.contains("no event of this name"), "{reason}");
        }
        other => panic!("{:?}", other.map(|events| events.len())),
    }
    assert_eq!(readers::<0>(&context).await, [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_filter_leaves_out_what_lies_before_its_position() {
    let context = Store::new().healthy();
    for cents in [1, 10, 100] {
        stores(&context, Booked { cents }).await;
    }
    assert_eq!(readers::<2>(&context).await, [100; 4]);
}

#[test]
fn a_selection_that_was_stored_without_a_position_reads_everything() {
    let stored = r#"[{"pattern":"cim.events.bank.>","event_type":null}]"#;
    let selection: Selection = serde_json::from_str(stored).unwrap();
    assert_eq!(serde_json::to_string(&selection).unwrap(), stored);
}
