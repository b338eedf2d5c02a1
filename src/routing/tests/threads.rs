//! Routes that come and go while others are looked for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use futures::FutureExt;

use super::{add, noting};
use crate::routing::RoutingStrategy;

#[test]
fn routes_come_and_go_while_messages_are_routed() {
    let (router, _) = noting(RoutingStrategy::AllMatches);
    let stays = add(&router, "a.*.c");
    let (ready, done) = (Arc::new(Barrier::new(3)), Arc::new(AtomicBool::new(false)));
    let readers = [0, 1].map(|_| {
        let (router, ready, done) = (router.clone(), Arc::clone(&ready), Arc::clone(&done));
        std::thread::spawn(move || {
            ready.wait();
            let mut looked = 0_u64;
            while !done.load(Ordering::Acquire) || looked == 0 {
                let found = router.find_routes("a.b.c");
                assert!(found.contains(&stays) && found.is_sorted(), "{found:?}");
                let routing = router.route("a.b.c", 1).now_or_never().unwrap().unwrap();
                assert!(routing.deliveries.iter().any(|delivery| delivery.route == stays));
                looked += 1;
            }
            looked
        })
    });
    ready.wait();
    for round in 0..500 {
        let text = ["a.b.c", "a.>", "a.*.c", "*.b.*"][round % 4];
        let comes = add(&router, text);
        assert!(router.find_routes("a.b.c").contains(&comes), "seen as soon as it is added");
        router.remove_route(comes).unwrap();
        assert_eq!(router.find_routes("a.b.c"), [stays], "gone as soon as it is removed");
    }
    done.store(true, Ordering::Release);
    let looked: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    let stats = router.get_stats();
    assert_eq!((stats.messages, stats.routes[0].handled), (looked, looked));
}

#[test]
fn turns_are_fair_among_threads() {
    let (router, noted) = noting(RoutingStrategy::RoundRobin);
    let routes = ["a", "a", "*"].map(|text| add(&router, text));
    let threads = [0; 3].map(|_| {
        let router = router.clone();
        std::thread::spawn(move || {
            for _ in 0..1_000 {
                let routing = router.route("a", 1).now_or_never().unwrap().unwrap();
                assert_eq!(routing.deliveries.len(), 1);
            }
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(noted.lock().unwrap().len(), 3_000);
    for route in router.get_stats().routes {
        assert!(routes.contains(&route.id));
        assert_eq!(route.taken, 1_000);
    }
}
