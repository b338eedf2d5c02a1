//! What cannot be reacted to: tried again, stopped at, or parked; and what is no reason to do so.

use std::time::Duration;

use cim_persistence::Context;
use cim_persistence::process::{
    ProcessError, ProcessOptions, RunningProcess, TimeoutError, Trigger,
};
use cim_persistence::projection::{FirstStart, PoisonPolicy};
use cim_persistence::store::Ports;
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults};
use cim_persistence::timeouts::MemoryTimeouts;

use crate::domain::*;

fn parking() -> ProcessOptions {
    ProcessOptions { poison: PoisonPolicy::PARK, ..options() }
}

fn start(context: &Context, options: ProcessOptions) -> RunningProcess {
    RunningProcess::start(context, Follow::on(context), options).unwrap()
}

fn store() -> Store {
    Store::new(MemoryTimeouts::new())
}

#[tokio::test]
async fn an_event_that_is_refused_stops_the_process_before_it_takes_effect() {
    let context = store().healthy();
    let mut process = start(&context, options());
    happens(&context, "kim", OrderEvent::Placed).await;
    let broken = happens(&context, "kim", OrderEvent::Broken).await;
    let after = happens(&context, "kim", OrderEvent::Placed).await;
    let error = process.handled(after).await.unwrap_err();
    let wanted =
        format!("process follow cannot react to the event at position {broken}: it is broken");
    assert_eq!(error.to_string(), wanted);
    assert!(!process.is_running());
    assert_eq!(noted(&context, "kim").await.len(), 1);

    // Started again with another policy it goes on, and what was stopped at is parked.
    let mut process = start(&context, parking());
    process.handled(after).await.unwrap();
    assert_eq!(noted(&context, "kim").await.len(), 2);
    let parked = process.parked().await.unwrap();
    assert_eq!(parked.len(), 1);
    let event_type = Some("order".to_owned());
    assert_eq!(parked[0].trigger, Trigger::Event { position: broken, event_type });
    assert_eq!(parked[0].reason, "it is broken");
    process.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_parked_does_not_take_effect_later() {
    let store = store();
    let context = store.healthy();
    let mut process = start(&context, parking());
    let panics = happens(&context, "kim", OrderEvent::Panics).await;
    process.handled(panics).await.unwrap();
    assert_eq!(process.parked().await.unwrap()[0].reason, "it panicked: an order that panics");
    process.stop().await.unwrap();
    assert_eq!(noted(&context, "kim").await, []);
    // Another one, which knows nothing of the first and would not park: for it the event is done with.
    let context = store.apart().healthy();
    let mut other = start(&context, options());
    other.handled(panics).await.unwrap();
    assert_eq!(noted(&context, "kim").await, []);
}

#[tokio::test]
async fn a_timeout_that_is_refused_is_parked_and_not_waited_for_any_more() {
    let store = store();
    let context = store.healthy();
    let refusing = Refusing;
    let mut process = RunningProcess::start(&context, refusing, parking()).unwrap();
    let placed = happens(&context, "kim", OrderEvent::Placed).await;
    process.handled(placed).await.unwrap();
    let parked = loop {
        if let [parked] = process.parked().await.unwrap().as_slice() {
            break parked.clone();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert!(matches!(parked.trigger, Trigger::Timeout { name, .. } if name == "soon"));
    assert_eq!(parked.reason, "no reaction to the timeout soon is written");
    process.stop().await.unwrap();

    let mut process = RunningProcess::start(&context, Refusing, options()).unwrap();
    let again = happens(&context, "lee", OrderEvent::Placed).await;
    // Nothing is left of the first timeout; the second one stops it.
    let beyond = cim_persistence::Position::new(again.get() + 100);
    let error = process.handled(beyond).await.unwrap_err();
    let wanted = "process refusing cannot react to timeout soon of lee: no reaction to the timeout soon is written";
    assert_eq!(error.to_string(), wanted);
}

/// Schedules a timeout that it does not react to.
struct Refusing;

impl cim_persistence::process::ProcessManager for Refusing {
    const NAME: &'static str = "refusing";
    type Event = OrderEvent;

    fn instance(
        &self,
        _: &OrderEvent,
        stored: &cim_persistence::StoredEvent,
    ) -> Result<Option<cim_persistence::subject::AggregateId>, cim_persistence::projection::Rejection>
    {
        Ok(Some(stored.aggregate_id().clone()))
    }

    async fn react(
        &self,
        _: OrderEvent,
        _: &cim_persistence::StoredEvent,
        reaction: &mut cim_persistence::process::Reaction,
    ) -> Result<(), cim_persistence::projection::Rejection> {
        let name = "not a name";
        assert!(matches!(
            reaction.schedule_after(name, Duration::ZERO, &()),
            Err(TimeoutError::InvalidToken(_))
        ));
        assert!(matches!(
            reaction.schedule_after("far", Duration::MAX, &()),
            Err(TimeoutError::TooFar { .. })
        ));
        assert!(!reaction.waits_for("far"));
        reaction.schedule_after("soon", Duration::ZERO, &())?;
        assert!(reaction.waits_for("soon"));
        Ok(())
    }
}

#[tokio::test]
async fn a_store_that_is_away_for_a_while_is_no_reason_to_stop() {
    let store = store();
    let (context, faults) = (store.healthy(), Faults::new());
    let mut process = start(&store.process(&faults), options());
    let first = happens(&context, "kim", OrderEvent::Placed).await;
    process.handled(first).await.unwrap();
    // Within the reaction: the aggregate cannot be loaded.
    let loads = |call: &Call<'_>| {
        call.kind == CallKind::NearestRead && call.subjects == ["cim.events.bank.notes.kim"]
    };
    for _ in 0..3 {
        faults.plan_when(loads, Fault::Outage);
    }
    let second = happens(&context, "kim", OrderEvent::Placed).await;
    process.handled(second).await.unwrap();
    assert_eq!(faults.planned(), 0);
    assert_eq!(noted(&context, "kim").await.len(), 2);
    each_took_effect_once(&context).await;
}

#[tokio::test]
async fn it_begins_where_it_is_told_and_goes_on_where_it_was() {
    let store = store();
    let context = store.healthy();
    happens(&context, "before", OrderEvent::Placed).await;
    let from_now = ProcessOptions { first: FirstStart::Now, ..options() };
    let mut process = start(&context, from_now.clone());
    // It has begun when its first cursor is written.
    let key = cim_persistence::state::Key::new("=process.follow").unwrap();
    while context.read_models().get(&key, Default::default()).await.unwrap().value.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let first = happens(&context, "after", OrderEvent::Placed).await;
    process.handled(first).await.unwrap();
    process.stop().await.unwrap();
    let meanwhile = happens(&context, "meanwhile", OrderEvent::Placed).await;
    let mut process = start(&context, from_now);
    process.handled(meanwhile).await.unwrap();
    let all = [first, meanwhile].map(|position| Noted::Event(position.get()));
    assert_eq!(noted(&context, ALL).await, all);
}

#[tokio::test]
async fn without_timeouts_nothing_can_be_scheduled() {
    let store = store();
    let ports =
        Ports { timeouts: None, log: std::sync::Arc::new(store.log.clone()), ..Ports::in_memory() };
    let context = Context::on(ports, &config()).unwrap();
    let mut process = start(&context, options());
    let placed = happens(&context, "kim", OrderEvent::Placed).await;
    process.handled(placed).await.unwrap();
    let remind = happens(&context, "kim", OrderEvent::Remind(1)).await;
    let error = process.handled(remind).await.unwrap_err();
    assert!(matches!(error, ProcessError::Poison { .. }));
    assert!(
        error.to_string().ends_with("this context has no timeouts; set them in its ports"),
        "{error}"
    );
}
