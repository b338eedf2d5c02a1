//! State that no block can hold. It follows from the events all the same, and these are stored.

use cim_persistence::prelude::*;
use cim_persistence::repository::{LoadOptions, Repository, SaveOptions};
use cim_persistence::store::{Context, ExpectedVersion, Ports};
use serde::{Deserialize, Serialize};

use crate::domain::bank;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Gauge {
    id: String,
    per_unit: f64,
}

#[derive(Debug, Serialize, Deserialize, DomainEvent)]
enum GaugeEvent {
    Measured { units: i32 },
}

impl Aggregate for Gauge {
    const TYPE: &'static str = "gauge";
    type Id = String;
    type Event = GaugeEvent;
    fn new(id: &String) -> Self {
        Self { id: id.clone(), per_unit: 1.0 }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, GaugeEvent::Measured { units }: &GaugeEvent) {
        self.per_unit = 1.0 / f64::from(*units);
    }
}

fn measured(units: i32) -> Vec<GaugeEvent> {
    vec![GaugeEvent::Measured { units }]
}

#[tokio::test]
async fn what_leads_to_it_is_stored_and_loaded_without_a_cid_of_the_state() {
    let context = Context::on(Ports::in_memory(), &bank()).unwrap();
    let gauges = Repository::<Gauge>::of(&context).unwrap();
    let id = "1".to_owned();
    let gauge = Gauge::new(&id);
    let save = async |units, version| {
        let options =
            SaveOptions { create_snapshot: true, ..ExpectedVersion::Exact(version).into() };
        gauges.save(&gauge, measured(units), options).await.unwrap()
    };
    assert!(save(2, 0).await.state_cid.is_some());
    let odd = save(0, 1).await;
    assert_eq!((odd.version, odd.state_cid), (2, None));
    context.flush().await;

    // Another repository has neither its cache nor a record of that state.
    for gauges in [&gauges, &Repository::<Gauge>::of(&context).unwrap()] {
        let (gauge, known) = gauges.load(&id, LoadOptions::default()).await.unwrap();
        assert_eq!((gauge.per_unit, known.version, known.state_cid), (f64::INFINITY, 2, None));
        assert_eq!(
            gauges.create_snapshot(&id).await.unwrap_err().to_string(),
            "the state of gauge 1 cannot be encoded: state.per_unit is inf, which is not a finite number; change its type, \
             its events are stored all the same"
        );
    }
    assert!(save(4, 2).await.state_cid.is_some());
    gauges.create_snapshot(&id).await.unwrap();
    save(0, 3).await;
    gauges.delete(&id, SaveOptions::default()).await.unwrap();
}
