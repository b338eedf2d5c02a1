//! Events that a subscription hands to a router.

use std::sync::{Arc, Mutex};

use cim_persistence::backend::Position;
use cim_persistence::routing::{
    Operation, Permissions, Route, Routed, RoutingStrategy, SubjectRouter,
};
use cim_persistence::store::{Context, StoredEvent};
use cim_persistence::subject::{EventPattern, Pattern};
use cim_persistence::subscription::SubscriptionQuery;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::bench::{CONTEXT, LONG, append, append_version, in_memory, of_shop};
use crate::test_server::TestServer;

type Told = (String, u64);

/// A router whose handler `tell` tells subject and position of what it is given.
fn telling(
    permissions: Permissions,
) -> (SubjectRouter<StoredEvent>, mpsc::UnboundedReceiver<Told>) {
    let router = SubjectRouter::new(RoutingStrategy::AllMatches, permissions);
    let (tell, told) = mpsc::unbounded_channel();
    router
        .register_handler("tell", move |routed: Routed<StoredEvent>| {
            let tell = tell.clone();
            async move { tell.send((routed.subject.to_string(), routed.message.position().get())) }
        })
        .unwrap();
    (router, told)
}

#[tokio::test]
async fn events_are_routed_by_aggregate_type_and_schema_version() {
    let server = TestServer::start().await;
    let shop = Context::connect(server.url(), &server.name(CONTEXT)).await.unwrap();
    append(&shop, "order", "1", "placed").await;
    append(&shop, "order", "1", "paid").await;
    append_version(&shop, "order", "eu.2", "placed", 2).await;
    let (router, mut told) = telling(Permissions::open());
    let route = |text: &str| {
        let events = EventPattern::parse(shop.scheme(), &of_shop(&shop, text));
        router.add_route(Route::of_events(&events.unwrap(), "tell").unwrap()).unwrap()
    };
    route("order.*.placed");
    route("order.*.*.v2");
    let mut following = router.follow(&shop, SubscriptionQuery::all()).await.unwrap();
    let told_now =
        [("order.1.placed.1", 1), ("order.eu=2E2.placed.2", 3), ("order.eu=2E2.placed.2", 3)];
    for (subject, position) in told_now {
        assert_eq!(told.try_recv().unwrap(), (of_shop(&shop, subject), position));
    }
    assert!(told.try_recv().is_err(), "all that was stored has been routed, and nothing else");
    assert_eq!(following.position(), Position::new(3));
    let position = append(&shop, "order", "3", "placed").await;
    let live = timeout(LONG, told.recv()).await.unwrap().unwrap();
    assert_eq!(live, (of_shop(&shop, "order.3.placed.1"), position));
    following.stop().await.unwrap();
}

#[tokio::test]
async fn following_goes_on_over_what_fails_and_what_is_denied() {
    let shop = in_memory();
    for (of, event) in [("1", "placed"), ("secret", "placed"), ("2", "placed"), ("2", "paid")] {
        append(&shop, "order", of, event).await;
    }
    let secret = Pattern::parse("cim.events.shop.order.secret.>").unwrap();
    let permissions = Permissions::open().deny(Operation::Publish, secret);
    let (router, mut told) = telling(permissions);
    let seen = Arc::new(Mutex::new(0));
    router
        .register_handler("fail", move |routed: Routed<StoredEvent>| {
            *seen.lock().unwrap() += 1;
            async move {
                assert!(routed.message.aggregate_id().as_str() != "1", "not this one");
                Err::<(), _>("no paper in the printer")
            }
        })
        .unwrap();
    for handler in ["fail", "tell"] {
        router.add_route(Route::new(Pattern::everything(), handler)).unwrap();
    }
    let mut following = router.follow(&shop, SubscriptionQuery::all()).await.unwrap();
    let positions: Vec<u64> = std::iter::from_fn(|| Some(told.try_recv().ok()?.1)).collect();
    assert_eq!(positions, [1, 3, 4]);
    let stats = router.get_stats();
    assert_eq!((stats.messages, stats.denied), (3, 1));
    let ends = |at: usize| {
        let route = &stats.routes[at];
        (route.handled, route.failed, route.panicked)
    };
    assert_eq!((ends(0), ends(1)), ((0, 2, 1), (3, 0, 0)));
    assert!(following.is_running());
    following.stop().await.unwrap();
}
