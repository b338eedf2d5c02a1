//! Stored events of an old shape read as the newest: verified, upcast by two steps and decoded, against events that were stored in
//! the newest shape.

use std::hint::black_box;

use cim_persistence::event::{DomainEvent, NonEmpty, SchemaVersion, Shape};
use cim_persistence::evolution::{Evolution, Reshape, Upcast};
use cim_persistence::store::{CommitInfo, ExpectedVersion, NewEvent, Ports};
use cim_persistence::subject::{AggregateId, AggregateType, EventType};
use cim_persistence::{Context, NatsRepositoryConfig};
use ipld_core::ipld;
use ipld_core::ipld::Ipld;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::report::{Bar, Row};
use crate::{Size, row, timed};

#[derive(Serialize, Deserialize)]
enum OrderEvent {
    Placed { customer: String, cents: i64, currency: String, note: String },
}

impl DomainEvent for OrderEvent {
    fn event_type(&self) -> &'static str {
        "placed"
    }
    fn schema_version(&self) -> SchemaVersion {
        3
    }
    fn shapes() -> &'static [Shape] {
        &[Shape { name: "placed", version: 3 }]
    }
}

pub fn rows(size: Size) -> Vec<Row> {
    let steps = size.steps / 20;
    let runtime = Runtime::new().expect("a runtime");
    let config = NatsRepositoryConfig::for_context("sales");
    let _entered = runtime.enter();
    let sales = Context::on(Ports::in_memory(), &config).expect("a context");
    let sales = sales.with_evolution(evolution());
    let old =
        ipld!({ "Placed": { "customer": "kim", "total": 12, "note": "as ordered by telephone" } });
    let new = ipld!({ "Placed": {
        "customer": "kim", "cents": 1200, "currency": "EUR", "note": "as ordered by telephone",
    } });
    for (id, schema_version, data) in [("old", 1, old), ("new", 3, new)] {
        runtime.block_on(write(&sales, id, schema_version, &data, steps));
    }
    let took = |id| {
        let reading = || runtime.block_on(read(&sales, id, steps));
        timed(reading).as_secs_f64() * 1e9 / steps as f64
    };
    let rounds = size.rounds(|| (took("old"), took("new")));
    vec![row("events of version 1 read as version 3", "ns", Bar::AtMost(2.0), &rounds)]
}

fn evolution() -> Evolution {
    Evolution::builder()
        .events::<OrderEvent>()
        .upcast(Upcast::event("placed", 1, |mut event| {
            let placed = event.within("Placed")?;
            let Ipld::Integer(euros) = placed.remove("total")? else {
                return Err("no total".into());
            };
            placed.put("cents", euros * 100)?;
            Ok(event)
        }))
        .upcast(Upcast::event("placed", 2, |mut event| {
            event.within("Placed")?.put("currency", "EUR")?;
            Ok(event)
        }))
        .build()
        .expect("every version leads to the newest")
}

async fn write(
    context: &Context,
    id: &str,
    schema_version: SchemaVersion,
    data: &Ipld,
    count: usize,
) {
    let (orders, id) = names(id);
    let event_type = EventType::new("placed").expect("a name");
    let event = NewEvent { event_type, schema_version, data: data.clone() };
    for begin in (0..count).step_by(500) {
        let batch = vec![event.clone(); (count - begin).min(500)];
        let batch = NonEmpty::from_vec(batch).expect("one at least");
        let (any, info) = (ExpectedVersion::Any, CommitInfo::default());
        context.append(&orders, &id, any, &batch, &info).await.expect("stored in memory");
    }
}

async fn read(context: &Context, id: &str, count: usize) {
    let (orders, id) = names(id);
    let stored = context.get_events(&orders, &id, 0).await.expect("read from memory");
    assert_eq!(stored.len(), count);
    for event in &stored {
        black_box(event.data::<OrderEvent>().expect("the newest shape"));
    }
}

fn names(id: &str) -> (AggregateType, AggregateId) {
    (AggregateType::new("order").expect("a name"), AggregateId::new(id).expect("an id"))
}
