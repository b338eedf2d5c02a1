//! Queries that an index answers: what they find is what they would find without it.

use std::sync::Arc;

use cim_persistence::event_log::MemoryLog;
use cim_persistence::query::{IndexStrategy, QueryHint, QueryOptimizer};
use cim_persistence::read_model::{IndexSpec, Models, ReadModel, ReadModelStore};
use cim_persistence::specification::{SearchOptions, Specification, field};
use cim_persistence::state::MemoryKeyValue;
use cim_persistence::store::Ports;
use cim_persistence::subject::{AggregateId, InvalidToken};
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults};
use cim_persistence::{Context, NatsRepositoryConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::found;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Aircraft {
    tail: String,
    carrier: String,
    seats: u32,
    tags: Vec<String>,
    at: Value,
}

impl ReadModel for Aircraft {
    const MODEL_TYPE: &'static str = "aircraft";
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new(&self.tail)
    }
    fn indexes() -> Vec<IndexSpec> {
        ["carrier", "tags", "at"].map(|path| IndexSpec::on([path])).into()
    }
}

fn aircraft(tail: &str, carrier: &str) -> Aircraft {
    let (tail, carrier) = (tail.to_owned(), carrier.to_owned());
    let tags = vec!["jet".to_owned(), "old".to_owned()];
    Aircraft { tail, carrier, seats: 100, tags, at: json!({"gate": 4}) }
}

/// A context in memory whose read models meet faults, with two aircraft and complete indexes.
async fn faulty() -> (Context, Models<Aircraft>, Faults) {
    let faults = Faults::new();
    let bucket = |name: &str| MemoryKeyValue::new(name);
    let models = Arc::new(bucket("readmodels").with_faults(&faults));
    let log = Arc::new(MemoryLog::new());
    let ports = Ports::new(log, Arc::new(bucket("state")), Arc::new(bucket("snapshots")), models);
    let context = Context::on(ports, &NatsRepositoryConfig::for_context("flights")).unwrap();
    let store = ReadModelStore::new(&context);
    store.save(&aircraft("N1", "B6")).await.unwrap();
    store.save(&aircraft("N2", "DL")).await.unwrap();
    for spec in Aircraft::indexes() {
        store.of::<Aircraft>().build_index(&spec).await.unwrap();
    }
    (context, store.of(), faults)
}

/// Whether entries of an index are read, and its state with them.
fn looks_up(call: &Call<'_>) -> bool {
    let names = |part: &str| call.subjects.iter().any(|subject| subject.contains(part));
    call.kind == CallKind::NearestRead && names(".=index.") && names(".=index-state.")
}

/// The change of a value lies between the moments of which two replicas answer.
#[tokio::test]
async fn a_list_of_values_is_looked_up_as_of_one_moment() {
    let (context, fleet, faults) = faulty().await;
    fleet.save(&aircraft("N1", "UA"), Default::default()).await.unwrap();
    let either = field("carrier").is_in(["B6", "UA"]);
    for up_to_date_first in [true, false] {
        let (first, second) = if up_to_date_first { (0, 1) } else { (1, 0) };
        faults.plan_when(looks_up, Fault::StaleRead(first));
        faults.plan_when(looks_up, Fault::StaleRead(second));
        let page = fleet.search(None, &either, &SearchOptions::default()).await.unwrap();
        assert_eq!((page.total, faults.planned()), (1, 1), "first {first} behind, then {second}");
        fleet.search(None, &either, &SearchOptions::default()).await.unwrap();
        assert_eq!(faults.planned(), 0);
    }
    let optimizer = QueryOptimizer::new(&context).knows::<Aircraft>();
    let text = "subject:aircraft.> AND carrier IN ('B6', 'UA', 'UA', 'XX')";
    let plan = optimizer.create_plan(text, QueryHint::default()).await.unwrap();
    let (found, measured) = optimizer.execute_plan(&plan).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((measured.strategy, measured.round_trips), (IndexStrategy::Composite, 2));
}

/// An index holds the elements of a list, and nothing of an object.
#[tokio::test]
async fn lists_and_objects_are_compared_where_no_index_can() {
    let (context, fleet, _) = faulty().await;
    let optimizer = QueryOptimizer::new(&context).knows::<Aircraft>();
    let tags = || json!(["jet", "old"]);
    for (specification, total) in [
        (field("tags").eq(tags()), 2),
        (field("tags").eq(json!(["jet"])), 0),
        (field("at").eq(json!({"gate": 4})), 2),
        (field("tags").is_in([json!(["jet"]), tags()]), 2),
        (field("tags").gt(json!(["jet"])), 2),
        (field("tags").between(json!(["a"]), json!(["b"])), 0),
        (field("carrier").eq("B6").and(field("tags").eq(tags())), 1),
    ] {
        let options = SearchOptions::default();
        let page = fleet.search(None, &specification, &options).await.unwrap();
        assert_eq!(page.total, total, "{specification}");
        let text = format!("subject:aircraft.> AND {specification}");
        assert_eq!(found(&optimizer, &text, None).await.len(), total, "{specification}");
    }
}

/// One replica said that the index is complete, and the one that is asked has not heard of it.
#[tokio::test]
async fn a_replica_that_does_not_know_the_index_is_asked_without_it() {
    let (context, fleet, faults) = faulty().await;
    fleet.drop_index(&IndexSpec::on(["carrier"])).await.unwrap();
    fleet.build_index(&IndexSpec::on(["carrier"])).await.unwrap();
    let jet_blue = field("carrier").eq("B6");
    faults.plan_when(looks_up, Fault::StaleRead(1));
    let page = fleet.search(None, &jet_blue, &SearchOptions::default()).await.unwrap();
    assert_eq!((page.total, faults.planned()), (1, 0));
    let optimizer = QueryOptimizer::new(&context).knows::<Aircraft>();
    let text = "subject:aircraft.> AND carrier = 'B6'";
    let plan = optimizer.create_plan(text, QueryHint::default()).await.unwrap();
    assert_eq!(plan.strategy(), IndexStrategy::Composite);
    faults.plan_when(looks_up, Fault::StaleRead(1));
    let (found, measured) = optimizer.execute_plan(&plan).await.unwrap();
    assert_eq!((found.len(), faults.planned()), (1, 0));
    assert_eq!(measured.strategy, IndexStrategy::SubjectPattern);
    assert_eq!((measured.read, measured.round_trips), (2, 2));
}

#[tokio::test]
async fn why_no_index_helps_is_said() {
    let (context, fleet, _) = faulty().await;
    let known = QueryOptimizer::new(&context).knows::<Aircraft>();
    let hint = QueryHint { strategy: Some(IndexStrategy::Composite), ..QueryHint::default() };
    let refused = async |optimizer: &QueryOptimizer, specification: &Specification| {
        let text = format!("subject:aircraft.> AND {specification}");
        optimizer.create_plan(&text, hint.clone()).await.unwrap_err().to_string()
    };
    let (carrier, seats) = (field("carrier").eq("B6"), field("seats").eq(100));
    fleet.drop_index(&IndexSpec::on(["carrier"])).await.unwrap();
    for (optimizer, specification, reason) in [
        (
            &QueryOptimizer::new(&context),
            &carrier,
            "no indexes of the models are known; declare them in the type, and let the optimizer know it",
        ),
        (
            &known,
            &seats,
            "no index of the models has a first field that the query compares with a value",
        ),
        (&known, &carrier, "the index that could help is not complete; build it first"),
    ] {
        let wanted = format!("strategy Composite is not possible here: {reason}");
        assert_eq!(refused(optimizer, specification).await, wanted);
    }
}
