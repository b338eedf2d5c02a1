//! Subscriptions on a real server, through its restarts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use cim_persistence::backend::{Position, Start};
use cim_persistence::server::{PrivateServer, ServerConfig};
use cim_persistence::store::{Context, EventFilter, StoredEvent};
use cim_persistence::subject::EventPattern;
use cim_persistence::subscription::{Admission, Projector, Subscription, SubscriptionQuery};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::bench::{
    CONTEXT, LONG, append, append_version, event, event_type, id, kind, of_shop, past,
};
use crate::test_server::TestServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_handled_once_and_in_order_through_restarts() {
    let mut server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let writing = Context::connect(server.url(), CONTEXT).await.unwrap();
    let reading = Context::connect(server.url(), CONTEXT).await.unwrap();
    for number in 0..200 {
        append(&writing, "order", &(number % 7).to_string(), "placed").await;
    }
    let projector = Arc::new(Mutex::new(Projector::new()));
    let (tell, mut told) = mpsc::unbounded_channel();
    let orders = EventFilter::for_type(kind("order"));
    let mut subscription = Subscription::start(&reading, orders, {
        let projector = Arc::clone(&projector);
        move |event: StoredEvent| {
            let admitted = projector.lock().unwrap().admit(&event);
            let tell = tell.clone();
            async move {
                assert_eq!(admitted?, Admission::Next, "a double");
                tell.send(event.position().get())?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(subscription.position(), Position::new(200));
    for round in 0..3 {
        server.kill();
        server.restart().await.unwrap();
        append(&writing, "invoice", "1", "sent").await;
        let last = append(&writing, "order", &round.to_string(), "paid").await;
        while timeout(LONG, told.recv()).await.unwrap() != Some(last) {}
    }
    assert!(subscription.is_running());
    subscription.stop().await.unwrap();
}

#[tokio::test]
async fn selections_mean_the_same_as_in_memory() {
    let server = TestServer::start().await;
    let shop = Context::connect(server.url(), &server.name(CONTEXT)).await.unwrap();
    for (aggregate, of, event, version) in [
        ("order", "1", "placed", 1),
        ("order", "1", "paid", 1),
        ("order", "2", "placed", 2),
        ("invoice", "1", "paid", 1),
    ] {
        append_version(&shop, aggregate, of, event, version).await;
    }
    let pattern = |text: &str| EventPattern::parse(shop.scheme(), &of_shop(&shop, text)).unwrap();
    let paid = EventFilter::for_event(event_type("paid"));
    let queries: [(SubscriptionQuery, &[u64]); 5] = [
        (SubscriptionQuery::of(pattern("order.*.placed.v2")).or(paid), &[2, 3, 4]),
        (SubscriptionQuery::of(pattern("*.1.>")).or(pattern("order.*")), &[1, 2, 3, 4]),
        (EventFilter::for_aggregate(kind("order"), id("1")).into(), &[1, 2]),
        (EventFilter::for_type(kind("none")).into(), &[]),
        (SubscriptionQuery::all().from(Start::Latest), &[2, 3, 4]),
    ];
    for (query, wanted) in queries {
        assert_eq!(past(&mut shop.subscribe(query.clone())).await, wanted, "{query:?}");
    }
}

#[tokio::test]
async fn what_is_delivered_is_counted_by_subscription() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let server = TestServer::start().await;
    let shop = Context::connect(server.url(), &server.name(CONTEXT)).await.unwrap();
    for _ in 0..3 {
        append(&shop, "order", "1", "placed").await;
    }
    let mut events = shop.subscribe(SubscriptionQuery::all().named("mailer"));
    for _ in 0..3 {
        event(&mut events).await;
    }
    let seen: HashMap<_, _> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .filter(|(key, ..)| key.key().labels().any(|label| label.value() == "mailer"))
        .map(|(key, _, _, value)| (key.key().name().to_owned(), value))
        .collect();
    assert_eq!(seen["cim_subscription_delivered_total"], DebugValue::Counter(3));
    let DebugValue::Gauge(lag) = seen["cim_subscription_lag_seconds"] else { panic!("{seen:?}") };
    assert!((0.0..60.0).contains(&lag.into_inner()), "{lag}");
}
