//! What was routed, counted since the router was made.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{DeliveryError, Route, RouteId};

/// What one route took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteStats {
    /// The route.
    pub id: RouteId,
    /// What it leads to.
    pub route: Route,
    /// How many messages it took. More than the sum of the following ones while some are under way, or were given up.
    pub taken: u64,
    /// How many of them its handler handled.
    pub handled: u64,
    /// How many its handler failed on.
    pub failed: u64,
    /// How many its handler panicked on.
    pub panicked: u64,
    /// How long the handler was at it in all, waiting included.
    pub busy: Duration,
}

/// What a router did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterStats {
    /// How many messages were handed over and permitted.
    pub messages: u64,
    /// How many of them no route matched.
    pub unmatched: u64,
    /// How many were not permitted.
    pub denied: u64,
    /// The routes there are, in the order in which they were added.
    pub routes: Vec<RouteStats>,
}

/// The counters of one route.
#[derive(Debug, Default)]
pub(super) struct RouteCounts {
    pub(super) taken: AtomicU64,
    handled: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    busy_nanos: AtomicU64,
}

impl RouteCounts {
    pub(super) fn note(&self, outcome: &Result<(), DeliveryError>, took: Duration) {
        let (counter, label) = match outcome {
            Ok(()) => (&self.handled, "handled"),
            Err(DeliveryError::Failed(_)) => (&self.failed, "failed"),
            Err(DeliveryError::Panicked { .. }) => (&self.panicked, "panicked"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.busy_nanos.fetch_add(nanos, Ordering::Relaxed);
        count(label);
    }

    pub(super) fn stats(&self, id: RouteId, route: &Route) -> RouteStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RouteStats {
            id,
            route: route.clone(),
            taken: read(&self.taken),
            handled: read(&self.handled),
            failed: read(&self.failed),
            panicked: read(&self.panicked),
            busy: Duration::from_nanos(read(&self.busy_nanos)),
        }
    }
}

/// What became of messages before any route took them.
#[derive(Debug, Default)]
pub(super) struct RouterCounts {
    pub(super) messages: AtomicU64,
    pub(super) unmatched: AtomicU64,
    pub(super) denied: AtomicU64,
}

impl RouterCounts {
    pub(super) fn note_denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
        count("denied");
    }

    pub(super) fn note_routed(&self, routes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        if routes == 0 {
            self.unmatched.fetch_add(1, Ordering::Relaxed);
            count("unmatched");
        }
    }

    pub(super) fn stats(&self, routes: Vec<RouteStats>) -> RouterStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RouterStats {
            messages: read(&self.messages),
            unmatched: read(&self.unmatched),
            denied: read(&self.denied),
            routes,
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("cim_routed_total", "outcome" => outcome).increment(1);
}
