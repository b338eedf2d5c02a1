//! A handler that is run for each event: its order, its end, its failures.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cim_persistence::backend::{Position, Start};
use cim_persistence::store::{EventFilter, StoredEvent};
use cim_persistence::subscription::{Subscription, SubscriptionError, SubscriptionQuery};
use futures::FutureExt;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::bench::{LONG, append, event_type, in_memory};

type Handled = Result<(), Box<dyn Error + Send + Sync>>;

#[tokio::test]
async fn start_returns_when_caught_up_and_the_rest_follows() {
    let shop = in_memory();
    for _ in 0..300 {
        append(&shop, "order", "1", "placed").await;
    }
    let (tell, mut live) = mpsc::unbounded_channel();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut subscription = Subscription::start(&shop, SubscriptionQuery::all(), {
        let seen = Arc::clone(&seen);
        move |event: StoredEvent| {
            seen.lock().unwrap().push(event.position().get());
            tell.send(event.position().get()).unwrap();
            async { Handled::Ok(()) }
        }
    })
    .await
    .unwrap();
    assert_eq!(*seen.lock().unwrap(), (1..=300).collect::<Vec<_>>());
    assert_eq!(subscription.position(), Position::new(300));
    assert!(subscription.is_running());
    while live.try_recv().is_ok() {}
    let position = append(&shop, "order", "1", "paid").await;
    assert_eq!(timeout(LONG, live.recv()).await.unwrap(), Some(position));
    subscription.stop().await.unwrap();
    assert!(!subscription.is_running());
    assert_eq!(subscription.position(), Position::new(position));
    append(&shop, "order", "1", "paid").await;
    assert_eq!(seen.lock().unwrap().len(), 301, "nothing is handled after the stop");
    subscription.stop().await.unwrap();
}

#[tokio::test]
async fn position_begins_where_the_subscription_does() {
    let shop = in_memory();
    append(&shop, "order", "1", "placed").await;
    append(&shop, "order", "1", "paid").await;
    let none = EventFilter::for_event(event_type("shipped"));
    let query = SubscriptionQuery::of(none).from(Start::After(Position::new(1)));
    let nothing = |_| async { Handled::Ok(()) };
    let mut subscription = Subscription::start(&shop, query, nothing).await.unwrap();
    assert_eq!(subscription.position(), Position::new(1));
    subscription.stop().await.unwrap();
}

#[tokio::test]
async fn stop_lets_the_event_under_way_finish() {
    let shop = in_memory();
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let finished = Arc::new(AtomicUsize::new(0));
    let mut subscription = Subscription::start(&shop, SubscriptionQuery::all(), {
        let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
        let finished = Arc::clone(&finished);
        move |_| {
            let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
            let finished = Arc::clone(&finished);
            async move {
                begun.notify_one();
                go_on.notified().await;
                finished.fetch_add(1, Ordering::SeqCst);
                Handled::Ok(())
            }
        }
    })
    .await
    .unwrap();
    append(&shop, "order", "1", "placed").await;
    append(&shop, "order", "2", "placed").await;
    timeout(LONG, begun.notified()).await.unwrap();
    assert!(subscription.stop().now_or_never().is_none(), "an event is under way");
    assert!(subscription.is_running());
    go_on.notify_one();
    timeout(LONG, subscription.stop()).await.unwrap().unwrap();
    assert_eq!(finished.load(Ordering::SeqCst), 1);
    assert_eq!(subscription.position(), Position::new(1));
}

#[tokio::test]
async fn failing_handler_ends_it_and_its_error_is_told_once() {
    let shop = in_memory();
    append(&shop, "order", "1", "placed").await;
    let mut subscription =
        Subscription::start(&shop, SubscriptionQuery::all(), |event: StoredEvent| async move {
            match event.version() {
                2 => Err("no paper in the printer".into()),
                _ => Handled::Ok(()),
            }
        })
        .await
        .unwrap();
    for event in ["paid", "shipped"] {
        append(&shop, "order", "1", event).await;
    }
    let error = timeout(LONG, subscription.join()).await.unwrap().unwrap_err();
    assert!(!subscription.is_running());
    let SubscriptionError::Handler { position, event_type, source } = error else {
        panic!("{error:?}")
    };
    assert_eq!((position, event_type.as_str()), (Position::new(2), "paid"));
    assert_eq!(source.to_string(), "no paper in the printer");
    assert_eq!(subscription.position(), Position::new(1), "the failed event is not handled");
    subscription.stop().await.unwrap();
}

#[tokio::test]
async fn failure_on_a_past_event_is_what_start_returns() {
    let shop = in_memory();
    append(&shop, "order", "1", "placed").await;
    let failing = |_| async { Handled::Err("no".into()) };
    let started = Subscription::start(&shop, SubscriptionQuery::all(), failing).await;
    let error = started.unwrap_err();
    assert!(matches!(error, SubscriptionError::Handler { .. }), "{error:?}");
}

#[tokio::test]
async fn panic_is_reported_whether_it_comes_before_the_future_or_in_it() {
    let shop = in_memory();
    append(&shop, "order", "1", "placed").await;
    let before = |_| -> std::future::Ready<Handled> { panic!("before") };
    let started = Subscription::start(&shop, SubscriptionQuery::all(), before).await;
    let Err(SubscriptionError::Panicked { position, event_type, message }) = started else {
        panic!("{started:?}")
    };
    assert_eq!((position.get(), event_type.as_str(), message.as_str()), (1, "placed", "before"));
    let within = |event: StoredEvent| async move {
        assert!(event.version() > 1, "version {}", event.version());
        Handled::Ok(())
    };
    let started = Subscription::start(&shop, SubscriptionQuery::all(), within).await;
    let Err(SubscriptionError::Panicked { message, .. }) = started else { panic!("{started:?}") };
    assert_eq!(message, "version 1");
}

#[tokio::test]
async fn dropped_subscription_ends() {
    let shop = in_memory();
    let (tell, mut seen) = mpsc::unbounded_channel();
    let subscription = Subscription::start(&shop, SubscriptionQuery::all(), move |_| {
        let told = tell.send(());
        async move { told }
    })
    .await
    .unwrap();
    append(&shop, "order", "1", "placed").await;
    assert_eq!(timeout(LONG, seen.recv()).await.unwrap(), Some(()));
    drop(subscription);
    // The handler, which holds the sender, goes with its task.
    assert_eq!(timeout(LONG, seen.recv()).await.unwrap(), None);
}
