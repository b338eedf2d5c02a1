//! What a process manager reacts to when an event is several today, or none.

use std::sync::{Arc, Mutex};

use cim_persistence::event::DomainEvent;
use cim_persistence::process::{ProcessManager, ProcessOptions, Reaction, RunningProcess};
use cim_persistence::projection::Rejection;
use cim_persistence::store::StoredEvent;
use cim_persistence::subject::AggregateId;
use cim_persistence::{Aggregate, Repository, SaveOptions};

use crate::domain::{OrderEvent, config, in_memory};
use crate::old;

/// Notes what each instance reacted to. The parts of what was split may be of several instances.
struct Notes {
    apart: bool,
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl ProcessManager for Notes {
    const NAME: &'static str = "notes";
    type Event = OrderEvent;

    fn instance(
        &self,
        event: &OrderEvent,
        _: &StoredEvent,
    ) -> Result<Option<AggregateId>, Rejection> {
        let city = self.apart && matches!(event, OrderEvent::CityChanged { .. });
        Ok(Some(AggregateId::new(if city { "city" } else { "order" })?))
    }

    async fn react(
        &self,
        event: OrderEvent,
        _: &StoredEvent,
        reaction: &mut Reaction,
    ) -> Result<(), Rejection> {
        let seen = (reaction.instance().to_string(), event.event_type().to_owned());
        self.seen.lock().unwrap().push(seen);
        Ok(())
    }
}

#[tokio::test]
async fn instances_react_to_their_parts_of_what_was_split() {
    for (apart, of) in [(false, "order"), (true, "city")] {
        let (old, new) = in_memory(&config());
        let orders = Repository::<old::Order>::of(&old).unwrap();
        let order = old::Order::new(&"1".to_owned());
        let saved = orders.save(&order, old::life(), SaveOptions::default()).await.unwrap();
        let seen = Arc::default();
        let notes = Notes { apart, seen: Arc::clone(&seen) };
        let mut running = RunningProcess::start(&new, notes, ProcessOptions::default()).unwrap();
        running.handled(saved.position).await.unwrap();
        running.stop().await.unwrap();
        let wanted = [("order", "placed"), ("order", "street_changed"), (of, "city_changed")];
        let wanted = wanted.map(|(instance, name)| (instance.to_owned(), name.to_owned()));
        assert_eq!(*seen.lock().unwrap(), wanted);
    }
}
