//! The router: handlers, routes to them, and the choice between routes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};

use super::stats::{RouteCounts, RouterCounts};
use super::trie::Trie;
use super::{
    Delivery, DeliveryError, HandlerError, Operation, Permissions, Route, RouteId, Routed,
    RouterStats, Routing, RoutingError, RoutingStrategy,
};
use crate::panics::text_of;
use crate::subject::{Pattern, Subject};

type Handler<M> =
    Arc<dyn Fn(Routed<M>) -> BoxFuture<'static, Result<(), HandlerError>> + Send + Sync>;

/// Gives messages to handlers, by subject. Cloning is cheap and shares everything.
///
/// Routes and handlers may be added and removed while messages are routed. A message is given to the routes that are
/// there when it is handed over, also to one that is removed while the message is under way. No lock is held while
/// a handler runs.
pub struct SubjectRouter<M>(Arc<Inner<M>>);

struct Inner<M> {
    strategy: RoutingStrategy,
    permissions: Permissions,
    table: RwLock<Table<M>>,
    counts: RouterCounts,
    /// How many turns were taken by all routes.
    turns: Mutex<u64>,
}

struct Table<M> {
    handlers: HashMap<String, Handler<M>>,
    routes: BTreeMap<RouteId, Arc<Entry<M>>>,
    by_pattern: Trie<Arc<Entry<M>>>,
    last_id: u64,
}

struct Entry<M> {
    id: RouteId,
    route: Route,
    handler: Handler<M>,
    counts: RouteCounts,
    /// Which of all turns was its last; 0 for none.
    turn: AtomicU64,
}

impl<M: Send + Sync + 'static> SubjectRouter<M> {
    /// A router without handlers and routes.
    pub fn new(strategy: RoutingStrategy, permissions: Permissions) -> Self {
        let table = Table {
            handlers: HashMap::new(),
            routes: BTreeMap::new(),
            by_pattern: Trie::default(),
            last_id: 0,
        };
        Self(Arc::new(Inner {
            strategy,
            permissions,
            table: RwLock::new(table),
            counts: RouterCounts::default(),
            turns: Mutex::new(0),
        }))
    }

    /// Registers a handler, to which routes lead by its name. It may run for several messages at the same time.
    ///
    /// # Errors
    /// [`RoutingError::HandlerTwice`].
    pub fn register_handler<H, F, E>(&self, name: &str, handler: H) -> Result<(), RoutingError>
    where
        H: Fn(Routed<M>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError> + 'static,
    {
        let handler = Arc::new(handler);
        let handler: Handler<M> = Arc::new(move |routed| {
            let handler = Arc::clone(&handler);
            // Called within the future, so that a panic of the call is one of the future.
            async move { handler(routed).await.map_err(Into::into) }.boxed()
        });
        let mut table = self.write();
        if table.handlers.contains_key(name) {
            return Err(RoutingError::HandlerTwice { handler: name.to_owned() });
        }
        table.handlers.insert(name.to_owned(), handler);
        Ok(())
    }

    /// Adds a route. Several may have the same pattern, and several may lead to the same handler, which then gets a
    /// message once for each of them that takes it.
    ///
    /// # Errors
    /// [`RoutingError::Denied`] unless the permissions permit [`Operation::Subscribe`] on all that the pattern matches;
    /// [`RoutingError::NoHandler`].
    pub fn add_route(&self, route: Route) -> Result<RouteId, RoutingError> {
        let operation = Operation::Subscribe;
        if !self.0.permissions.permits(operation, &route.pattern) {
            return Err(RoutingError::Denied { operation, pattern: route.pattern.to_string() });
        }
        let mut table = self.write();
        let Some(handler) = table.handlers.get(&route.handler).cloned() else {
            return Err(RoutingError::NoHandler { handler: route.handler });
        };
        table.last_id += 1;
        let id = RouteId(table.last_id);
        let (counts, turn) = (RouteCounts::default(), AtomicU64::new(0));
        let entry = Arc::new(Entry { id, route, handler, counts, turn });
        table.by_pattern.insert(&entry.route.pattern, Arc::clone(&entry));
        table.routes.insert(id, entry);
        Ok(id)
    }

    /// Removes a route, with its counters, and gives it back; `None` when it is not there.
    pub fn remove_route(&self, id: RouteId) -> Option<Route> {
        let mut table = self.write();
        let entry = table.routes.remove(&id)?;
        table.by_pattern.remove(&entry.route.pattern, |other| other.id == id);
        Some(entry.route.clone())
    }

    /// All routes that match a subject, whatever the strategy, in the order in which they were added. They are those whose
    /// pattern [matches](Pattern::matches) it. Permissions are not asked: nothing is routed.
    ///
    /// Takes time by the tokens of the subject and by what matches.
    pub fn find_routes(&self, subject: &str) -> Vec<RouteId> {
        let mut found = Vec::new();
        self.read().by_pattern.find(subject, |entry| found.push(entry.id));
        found.sort_unstable();
        found
    }

    /// Gives a message to the handlers of the routes that take it, and waits for them. A handler that fails or panics
    /// does not keep the others from it; how each of them did is in what is returned.
    ///
    /// # Errors
    /// [`RoutingError::Subject`] or [`RoutingError::Wildcard`] when `subject` is not one; [`RoutingError::Denied`] when
    /// the permissions do not permit [`Operation::Publish`] on it. No handler was called then.
    ///
    /// # Cancel safety
    /// Dropping the future drops those of the handlers that have not finished.
    pub async fn route(&self, subject: &str, message: M) -> Result<Routing, RoutingError> {
        if !Pattern::parse(subject)?.is_literal() {
            return Err(RoutingError::Wildcard { subject: subject.to_owned() });
        }
        self.route_to(Subject::trusted(subject), message).await
    }

    /// What was routed so far, and by which routes.
    pub fn get_stats(&self) -> RouterStats {
        let table = self.read();
        let routes = table.routes.values();
        self.0
            .counts
            .stats(routes.map(|entry| entry.counts.stats(entry.id, &entry.route)).collect())
    }

    pub(super) async fn route_to(
        &self,
        subject: Subject,
        message: M,
    ) -> Result<Routing, RoutingError> {
        let operation = Operation::Publish;
        if !self.0.permissions.permits_subject(operation, subject.as_str()) {
            self.0.counts.note_denied();
            return Err(RoutingError::Denied { operation, pattern: subject.to_string() });
        }
        let chosen = self.choose(subject.as_str());
        self.0.counts.note_routed(chosen.len());
        let message = Arc::new(message);
        let deliveries = chosen.iter().map(|entry| {
            entry.counts.taken.fetch_add(1, Ordering::Relaxed);
            let (subject, message) = (subject.clone(), Arc::clone(&message));
            entry.deliver(Routed { subject, message, route: entry.id })
        });
        Ok(Routing { deliveries: join_all(deliveries).await })
    }

    /// The routes that take a message, in the order in which they were added.
    fn choose(&self, subject: &str) -> Vec<Arc<Entry<M>>> {
        let mut found = Vec::new();
        self.read().by_pattern.find(subject, |entry| found.push(Arc::clone(entry)));
        found.sort_unstable_by_key(|entry| entry.id);
        match self.0.strategy {
            RoutingStrategy::AllMatches => found,
            RoutingStrategy::FirstMatch => found.into_iter().take(1).collect(),
            // Of equals the first.
            RoutingStrategy::PriorityBased => {
                let best = found.into_iter().rev().max_by_key(|entry| entry.route.priority);
                best.into_iter().collect()
            }
            RoutingStrategy::RoundRobin => self.take_turn(&found).into_iter().collect(),
        }
    }

    fn take_turn(&self, found: &[Arc<Entry<M>>]) -> Option<Arc<Entry<M>>> {
        // One at a time, so that two messages do not see the same route as the next.
        let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let next =
            found.iter().min_by_key(|entry| (entry.turn.load(Ordering::Relaxed), entry.id))?;
        *turns += 1;
        next.turn.store(*turns, Ordering::Relaxed);
        Some(Arc::clone(next))
    }

    /// Nothing that is done under the lock panics half-way, so what is behind it is whole.
    fn read(&self) -> RwLockReadGuard<'_, Table<M>> {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table<M>> {
        self.0.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> Entry<M> {
    async fn deliver(&self, routed: Routed<M>) -> Delivery {
        let begun = Instant::now();
        let handling = AssertUnwindSafe((self.handler)(routed)).catch_unwind();
        let outcome = match handling.await {
            Ok(outcome) => outcome.map_err(DeliveryError::Failed),
            Err(panic) => Err(DeliveryError::Panicked { message: text_of(panic.as_ref()) }),
        };
        self.counts.note(&outcome, begun.elapsed());
        Delivery { route: self.id, handler: self.route.handler.clone(), outcome }
    }
}

impl<M> Clone for SubjectRouter<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> fmt::Debug for SubjectRouter<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.0.table.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("SubjectRouter")
            .field("strategy", &self.0.strategy)
            .field("handlers", &table.handlers.len())
            .field("routes", &table.routes.len())
            .finish_non_exhaustive()
    }
}
