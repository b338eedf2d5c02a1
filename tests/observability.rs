//! What an operator sees: counters, latencies, and spans with the fields one searches for.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use cim_persistence::event::DomainEvent;
use cim_persistence::prelude::Aggregate;
use cim_persistence::repository::{LoadOptions, Repository, SaveOptions};
use cim_persistence::store::{Context, ExpectedVersion};
use cim_persistence::testing::{TestBackend, TestContext};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt};
use tracing_subscriber::{Layer, Registry};

use test_server::TestServer;

#[path = "support/test_server.rs"]
mod test_server;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Counter(String, u64);

#[derive(Debug, Serialize, Deserialize)]
struct Counted;

impl DomainEvent for Counted {
    fn event_type(&self) -> &'static str {
        "counted"
    }
}

impl Aggregate for Counter {
    const TYPE: &'static str = "counter";
    type Id = String;
    type Event = Counted;
    fn new(id: &String) -> Self {
        Self(id.clone(), 0)
    }
    fn id(&self) -> &String {
        &self.0
    }
    fn apply(&mut self, _: &Counted) {
        self.1 += 1;
    }
}

async fn counters(context: &str) -> (TestServer, Repository<Counter>) {
    let server = TestServer::start().await;
    let context = Context::connect(server.url(), &server.name(context)).await.unwrap();
    let counters = Repository::of(&context).unwrap();
    (server, counters)
}

/// Two saves of which the second is refused, two loads of which the second finds nothing, two transactions of which the
/// second is refused, and operations that are none of these, of which the last finds nothing.
async fn work(counters: &Repository<Counter>) {
    let visits = Counter::new(&"visits".to_owned());
    counters.save(&visits, vec![Counted], SaveOptions::default()).await.unwrap();
    counters.save(&visits, vec![Counted], SaveOptions::default()).await.unwrap_err();
    counters.load(&"visits".into(), LoadOptions::default()).await.unwrap();
    counters.load(&"nothing".into(), LoadOptions::default()).await.unwrap_err();
    let count = |_: &Counter| Ok::<_, std::convert::Infallible>([Counted]);
    counters.transact(&"visits".into(), count).await.unwrap();
    let refuse = |_: &Counter| Err::<[Counted; 0], _>("enough");
    counters.transact(&"visits".into(), refuse).await.unwrap_err();
    assert!(counters.exists(&"visits".into()).await.unwrap());
    counters.create_snapshot(&"visits".into()).await.unwrap();
    counters.verify(&"nothing".into()).await.unwrap_err();
    counters.context().flush().await;
}

/// What was counted and how long it took, each by its name with the operation and the outcome.
fn told(snapshotter: &Snapshotter) -> (HashMap<String, u64>, HashMap<String, Vec<f64>>) {
    let (mut counts, mut timed) = (HashMap::new(), HashMap::new());
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        let labels = key.labels().filter(|label| ["operation", "outcome"].contains(&label.key()));
        let name = [key.name()].into_iter().chain(labels.map(|label| label.value()));
        let name = name.collect::<Vec<_>>().join(" ");
        match value {
            DebugValue::Counter(count) => {
                counts.insert(name, count);
            }
            DebugValue::Histogram(values) => {
                timed.insert(name, values.into_iter().map(f64::from).collect());
            }
            DebugValue::Gauge(_) => {}
        }
    }
    (counts, timed)
}

#[tokio::test]
async fn operations_are_counted_by_their_outcome_and_timed() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (_server, counters) = counters("metered").await;
    work(&counters).await;
    let (counts, timed) = told(&snapshotter);
    for (name, wanted) in [
        ("cim_saves_total ok", 2),
        ("cim_saves_total conflict", 1),
        ("cim_saves_total rejected", 1),
        ("cim_operations_total exists ok", 1),
        ("cim_operations_total create_snapshot ok", 1),
        ("cim_operations_total verify error", 1),
        ("cim_loads_total ok", 1),
        ("cim_loads_total error", 1),
        ("cim_commits_total stored", 2),
        ("cim_commits_total conflict", 1),
    ] {
        assert_eq!(counts.get(name), Some(&wanted), "{name} in {counts:?}");
    }
    assert!(counts["cim_state_writes_total"] >= 1);
    for (name, wanted) in [
        ("cim_save_seconds", 4),
        ("cim_load_seconds", 2),
        ("cim_commit_seconds", 3),
        ("cim_operation_seconds exists", 1),
        ("cim_operation_seconds verify", 1),
    ] {
        let values = &timed[name];
        assert_eq!(values.len(), wanted, "{name}");
        assert!(values.iter().all(|seconds| (0.0..10.0).contains(seconds)), "{name}: {values:?}");
    }
}

type Fields = BTreeMap<&'static str, String>;

/// The id, the name and the fields of a span.
type Span = (u64, &'static str, Fields);

/// Keeps every span, in the order they began.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

struct Noting<'a>(&'a mut Fields);

impl Visit for Noting<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl<S: Subscriber> Layer<S> for Spans {
    fn on_new_span(&self, span: &Attributes<'_>, id: &Id, _: LayerContext<'_, S>) {
        let mut fields = Fields::new();
        span.record(&mut Noting(&mut fields));
        self.0.lock().unwrap().push((id.into_u64(), span.metadata().name(), fields));
    }
    fn on_record(&self, span: &Id, values: &Record<'_>, _: LayerContext<'_, S>) {
        let mut seen = self.0.lock().unwrap();
        // Ids are used again when a span is closed, so the last one counts.
        let open = seen.iter_mut().rev().find(|(id, ..)| *id == span.into_u64());
        if let Some((_, _, fields)) = open {
            values.record(&mut Noting(fields));
        }
    }
}

#[tokio::test]
async fn spans_carry_the_fields_one_searches_for() {
    let spans = Spans::default();
    // For all threads: tracing decides once per span whether anybody listens, and another test may be first to ask.
    tracing::subscriber::set_global_default(Registry::default().with(spans.clone())).unwrap();
    let (server, counters) = counters("lab").await;
    let lab = server.name("lab");
    work(&counters).await;
    let seen = spans.0.lock().unwrap();
    let of = |name: &str| -> Vec<&Fields> {
        let wanted = |(_, span, fields): &&Span| *span == name && fields["context"] == lab;
        seen.iter().filter(wanted).map(|(.., fields)| fields).collect()
    };
    let [saved, refused] = of("save")[..] else { panic!("two saves") };
    for (field, value) in [
        ("context", lab.as_str()),
        ("aggregate", "counter"),
        ("id", "visits"),
        ("version", "1"),
        ("position", "1"),
        ("outcome", "stored"),
        ("attempts", "1"),
    ] {
        assert_eq!(saved.get(field).map(String::as_str), Some(value), "{field}");
    }
    assert!(refused["outcome"].starts_with("version conflict"), "{refused:?}");
    assert!(!refused.contains_key("position"));
    let [loaded, missing] = of("load")[..] else { panic!("two loads") };
    assert_eq!((loaded["id"].as_str(), loaded["version"].as_str()), ("visits", "1"));
    assert_eq!(missing["id"], "nothing");
    let [transacted, refused] = of("transact_with")[..] else { panic!("two transactions") };
    for (field, value) in [
        ("id", "visits"),
        ("version", "2"),
        ("position", "2"),
        ("attempts", "1"),
        ("outcome", "stored"),
    ] {
        assert_eq!(transacted.get(field).map(String::as_str), Some(value), "{field}");
    }
    for (field, value) in [("id", "visits"), ("attempts", "1"), ("outcome", "rejected")] {
        assert_eq!(refused.get(field).map(String::as_str), Some(value), "{field}");
    }
    let [verified] = of("verify")[..] else { panic!("one look at a history") };
    assert_eq!(verified["id"], "nothing");
    assert_eq!(verified["outcome"], missing["outcome"]);
}

/// A save that expects nothing in particular, of whom others are first, is one save of several tries.
#[tokio::test]
async fn a_save_that_is_tried_again_is_counted_and_timed_once() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let test = TestContext::start_on(TestBackend::Memory).await.unwrap();
    let visits = Counter::new(&"visits".to_owned());
    test.overtake::<Counter>(&visits.0, [Counted]).unwrap();
    let counters = test.repository::<Counter>().unwrap();
    counters.save(&visits, vec![Counted], ExpectedVersion::Any).await.unwrap();
    counters
        .save(&Counter::new(&String::new()), vec![Counted], ExpectedVersion::Any)
        .await
        .unwrap_err();
    let (counts, timed) = told(&snapshotter);
    for (name, wanted) in [
        ("cim_saves_total ok", 1),
        ("cim_saves_total error", 1),
        ("cim_commits_total conflict", 1),
        // That of whoever was first, and its own.
        ("cim_commits_total stored", 2),
    ] {
        assert_eq!(counts.get(name), Some(&wanted), "{name} in {counts:?}");
    }
    assert!(!counts.contains_key("cim_saves_total conflict"), "{counts:?}");
    assert_eq!(timed["cim_save_seconds"].len(), 2);
}
