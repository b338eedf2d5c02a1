//! Which of the routes that match take a message.

use super::{add, noting, pattern};
use crate::routing::{Route, RouteId, RoutingError, RoutingStrategy};

#[tokio::test]
async fn first_match_is_the_oldest_route() {
    let (router, noted) = noting(RoutingStrategy::FirstMatch);
    let wide = add(&router, ">");
    let narrow = add(&router, "a.b");
    for message in [1, 2] {
        assert_eq!(router.route("a.b", message).await.unwrap().deliveries.len(), 1);
        router.remove_route(wide);
    }
    assert_eq!(*noted.lock().unwrap(), [(wide, 1), (narrow, 2)]);
}

#[tokio::test]
async fn all_matches_are_each_of_them_once() {
    let (router, noted) = noting(RoutingStrategy::AllMatches);
    let routes = ["a.>", "a.b", "x", "a.*", "a.b"].map(|text| add(&router, text));
    let routing = router.route("a.b", 7).await.unwrap();
    let wanted = [routes[0], routes[1], routes[3], routes[4]];
    let taken: Vec<_> = routing.deliveries.iter().map(|delivery| delivery.route).collect();
    assert_eq!(taken, wanted);
    assert_eq!(*noted.lock().unwrap(), wanted.map(|route| (route, 7)));
    assert_eq!(routing.failures().count(), 0);
}

#[tokio::test]
async fn priority_decides_and_age_among_equals() {
    let (router, noted) = noting(RoutingStrategy::PriorityBased);
    let with = |text: &str, priority| {
        router.add_route(Route::new(pattern(text), "note").with_priority(priority)).unwrap()
    };
    let (low, high, _equal) = (with("a.b", -1), with("a.>", 5), with("a.*", 5));
    with("x.>", 9);
    let _ = router.route("a.b", 1).await.unwrap();
    assert_eq!(*noted.lock().unwrap(), [(high, 1)]);
    assert!(high > low, "the highest priority is not the oldest route here");
}

#[tokio::test]
async fn turns_are_taken_in_a_circle_whatever_else_is_routed() {
    let (router, noted) = noting(RoutingStrategy::RoundRobin);
    let [one, two, three] = ["a.*", "a.>", "a.b"].map(|text| add(&router, text));
    for message in 0..6 {
        let _ = router.route("a.b", message).await.unwrap();
        // Matches nothing, and takes nobody's turn.
        let _ = router.route("z", message).await.unwrap();
    }
    let taken: Vec<RouteId> = noted.lock().unwrap().drain(..).map(|(route, _)| route).collect();
    assert_eq!(taken, [one, two, three, one, two, three]);
    // Those that two subjects share get their turns from both.
    for subject in ["a.c", "a.b", "a.c", "a.b"] {
        let _ = router.route(subject, 0).await.unwrap();
    }
    let taken: Vec<RouteId> = noted.lock().unwrap().drain(..).map(|(route, _)| route).collect();
    assert_eq!(taken, [one, two, one, three]);
}

#[tokio::test]
async fn what_nobody_takes_is_counted() {
    let (router, noted) = noting(RoutingStrategy::AllMatches);
    let route = add(&router, "a");
    let subjects = ["a", "b", "a.b"];
    for subject in subjects {
        let _ = router.route(subject, 1).await.unwrap();
    }
    let stats = router.get_stats();
    assert_eq!((stats.messages, stats.unmatched, stats.denied), (3, 2, 0));
    let [of_route] = &stats.routes[..] else { panic!("{stats:?}") };
    assert_eq!((of_route.id, of_route.taken, of_route.handled), (route, 1, 1));
    assert_eq!((of_route.failed, of_route.panicked), (0, 0));
    assert_eq!(noted.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_message_lies_on_one_subject() {
    let (router, noted) = noting(RoutingStrategy::AllMatches);
    add(&router, ">");
    for text in ["a.*", ">"] {
        let error = router.route(text, 1).await.unwrap_err();
        assert!(matches!(error, RoutingError::Wildcard { .. }), "{error}");
    }
    for text in ["", "a..b", "a b", ".a"] {
        let error = router.route(text, 1).await.unwrap_err();
        assert!(matches!(error, RoutingError::Subject(_)), "{error}");
    }
    assert!(noted.lock().unwrap().is_empty());
    assert_eq!(router.get_stats().messages, 0);
}

#[test]
fn handlers_are_there_before_their_routes_and_once() {
    let (router, _) = noting(RoutingStrategy::AllMatches);
    let error = router.add_route(Route::new(pattern("a"), "mailer")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no handler \"mailer\"; register it before its routes are added"
    );
    let twice = router.register_handler("note", |_| async { Ok::<_, std::fmt::Error>(()) });
    assert!(matches!(twice, Err(RoutingError::HandlerTwice { handler }) if handler == "note"));
    assert!(router.get_stats().routes.is_empty());
}
