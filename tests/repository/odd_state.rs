//! State that no block can hold, or none of DAG-JSON. It follows from the events all the same, and these are stored.

use std::collections::BTreeMap;

use cim_persistence::prelude::*;
use cim_persistence::repository::{LoadOptions, Repository, SaveOptions};
use cim_persistence::store::{Context, ExpectedVersion, NatsRepositoryConfig, Ports};
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

/// Its keys may be those that DAG-JSON has for links.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Site {
    id: String,
    visits: BTreeMap<String, u32>,
}

#[derive(Debug, Serialize, Deserialize, DomainEvent)]
enum SiteEvent {
    Visited { path: String },
}

impl Aggregate for Site {
    const TYPE: &'static str = "site";
    type Id = String;
    type Event = SiteEvent;
    fn new(id: &String) -> Self {
        Self { id: id.clone(), visits: BTreeMap::new() }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, SiteEvent::Visited { path }: &SiteEvent) {
        *self.visits.entry(path.clone()).or_default() += 1;
    }
}

#[tokio::test]
async fn plain_json_keeps_state_whose_keys_are_those_of_links() {
    let ports = Ports::in_memory();
    let config = NatsRepositoryConfig { enable_ipld: false, ..bank() };
    let sites = || Repository::<Site>::of(&Context::on(ports.clone(), &config).unwrap()).unwrap();
    let (id, first) = ("home".to_owned(), sites());
    let visited = vec![SiteEvent::Visited { path: "/".to_owned() }];
    first.save(&Site::new(&id), visited, SaveOptions::default()).await.unwrap();
    first.context().flush().await;
    let nothing_replayed = LoadOptions { max_events: Some(0), ..LoadOptions::default() };
    assert_eq!(sites().load(&id, nothing_replayed).await.unwrap().0.visits["/"], 1);
}
