//! A handler that fails or panics, and those beside it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;

use super::{add, noting, pattern};
use crate::routing::{DeliveryError, Route, RoutingStrategy};

#[tokio::test]
async fn others_are_not_stopped_and_each_end_is_told() {
    let (router, noted) = noting(RoutingStrategy::AllMatches);
    let fail = |_| async { Err::<(), _>("no paper in the printer") };
    router.register_handler("fail", fail).unwrap();
    router
        .register_handler("panic", |_| async {
            tokio::task::yield_now().await;
            if true {
                panic!("lost {}", "it");
            }
            Ok::<_, std::fmt::Error>(())
        })
        .unwrap();
    router
        .register_handler("panic at once", |routed| {
            assert!(*routed.message > 100, "too small");
            async { Ok::<_, std::fmt::Error>(()) }
        })
        .unwrap();
    for handler in ["fail", "panic", "note", "panic at once", "note"] {
        router.add_route(Route::new(pattern("a"), handler)).unwrap();
    }
    let routing = router.route("a", 7).await.unwrap();
    assert_eq!(noted.lock().unwrap().len(), 2);
    let ends: Vec<_> = routing
        .deliveries
        .iter()
        .map(|delivery| match &delivery.outcome {
            Ok(()) => format!("{}: done", delivery.handler),
            Err(DeliveryError::Failed(error)) => format!("{}: {error}", delivery.handler),
            Err(error) => format!("{}: {error}", delivery.handler),
        })
        .collect();
    assert_eq!(
        ends,
        [
            "fail: no paper in the printer",
            "panic: the handler panicked: lost it",
            "note: done",
            "panic at once: the handler panicked: too small",
            "note: done",
        ]
    );
    let failures: Vec<_> = routing.failures().map(|(delivery, _)| &delivery.handler[..]).collect();
    assert_eq!(failures, ["fail", "panic", "panic at once"]);
    let stats = router.get_stats();
    let ends: Vec<_> = stats
        .routes
        .iter()
        .map(|route| (route.taken, route.handled, route.failed, route.panicked))
        .collect();
    assert_eq!(ends, [(1, 0, 1, 0), (1, 0, 0, 1), (1, 1, 0, 0), (1, 0, 0, 1), (1, 1, 0, 0)]);
    // It goes on.
    assert_eq!(router.route("a", 8).await.unwrap().failures().count(), 3);
}

#[tokio::test]
async fn handlers_of_a_message_run_at_the_same_time() {
    let (router, _) = noting(RoutingStrategy::AllMatches);
    let barrier = Arc::new(Barrier::new(2));
    router
        .register_handler("meet", move |_| {
            let barrier = Arc::clone(&barrier);
            async move {
                barrier.wait().await;
                Ok::<_, std::fmt::Error>(())
            }
        })
        .unwrap();
    for _ in 0..2 {
        router.add_route(Route::new(pattern("a"), "meet")).unwrap();
    }
    // One after the other they would wait for ever.
    let routing = tokio::time::timeout(Duration::from_secs(60), router.route("a", 7)).await;
    assert_eq!(routing.unwrap().unwrap().failures().count(), 0);
}

#[tokio::test]
async fn a_handler_may_change_the_routes() {
    let (router, noted) = noting(RoutingStrategy::AllMatches);
    let inner = router.clone();
    router
        .register_handler("grow", move |routed| {
            let router = inner.clone();
            async move {
                router.remove_route(routed.route);
                add(&router, "a");
                Ok::<_, std::fmt::Error>(())
            }
        })
        .unwrap();
    router.add_route(Route::new(pattern("a"), "grow")).unwrap();
    for message in [1, 2] {
        assert_eq!(router.route("a", message).await.unwrap().failures().count(), 0);
    }
    assert_eq!(noted.lock().unwrap().len(), 1, "the first message was on its way already");
}
