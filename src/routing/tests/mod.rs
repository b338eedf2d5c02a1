//! What routers promise without a store. Routing what a subscription delivers is in `tests/subscription/routed.rs`.

mod choice;
mod failures;
mod matching;
mod permissions;
mod threads;

use std::sync::{Arc, Mutex};

use super::{Permissions, Route, RouteId, RoutingStrategy, SubjectRouter};
use crate::subject::Pattern;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

/// What a handler was given.
type Noted = Arc<Mutex<Vec<(RouteId, u32)>>>;

/// A router in which everything is permitted, and what its handler `note` was given: route and message.
fn noting(strategy: RoutingStrategy) -> (SubjectRouter<u32>, Noted) {
    let router = SubjectRouter::new(strategy, Permissions::open());
    let noted = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&noted);
    router
        .register_handler("note", move |routed| {
            notes.lock().unwrap().push((routed.route, *routed.message));
            async { Ok::<_, std::fmt::Error>(()) }
        })
        .unwrap();
    (router, noted)
}

fn add<M: Send + Sync + 'static>(router: &SubjectRouter<M>, text: &str) -> RouteId {
    router.add_route(Route::new(pattern(text), "note")).unwrap()
}
