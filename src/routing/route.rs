//! Routes, what a handler is given, and what becomes of a message.

use std::fmt;
use std::sync::Arc;

use super::DeliveryError;
use crate::subject::{EventPattern, InvalidPattern, Pattern, Subject};

/// Which of the routes that match a subject take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoutingStrategy {
    /// The one that was added first.
    FirstMatch,
    /// Each of them. Their handlers run at the same time.
    AllMatches,
    /// The one of the highest priority; among equals the one that was added first.
    PriorityBased,
    /// The one whose last turn is the longest ago; among those that had none the one that was added first.
    RoundRobin,
}

/// From a pattern to a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Which subjects it matches.
    pub pattern: Pattern,
    /// The name of the handler.
    pub handler: String,
    /// Higher is first, where the strategy is by priority. Default 0.
    pub priority: i32,
}

impl Route {
    /// A route of priority 0.
    pub fn new(pattern: Pattern, handler: &str) -> Self {
        Self { pattern, handler: handler.to_owned(), priority: 0 }
    }

    /// A route for the events that a pattern means, whose event types and schema versions count. To routers, events lie on
    /// their long form, `cim.events.<context>.<aggregate>.<id>.<type>.<schema version>`.
    ///
    /// ```
    /// use cim_persistence::routing::Route;
    /// use cim_persistence::subject::{ContextName, EventPattern, SubjectScheme};
    ///
    /// let scheme = SubjectScheme::new(ContextName::new("sales")?, "cim.events", "cim.aggregates")?;
    /// let placed = EventPattern::parse(&scheme, "cim.events.sales.order.*.placed.v2")?;
    /// assert_eq!(Route::of_events(&placed, "mailer")?.pattern.as_str(), "cim.events.sales.order.*.placed.2");
    /// let orders = EventPattern::parse(&scheme, "cim.events.sales.order.*")?;
    /// assert_eq!(Route::of_events(&orders, "mailer")?.pattern.as_str(), "cim.events.sales.order.*.*.*");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidPattern::TooLong`], since the long form is longer than the pattern.
    pub fn of_events(events: &EventPattern, handler: &str) -> Result<Self, InvalidPattern> {
        Ok(Self::new(long_form(events)?, handler))
    }

    /// The same with a priority.
    pub fn with_priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }
}

fn long_form(events: &EventPattern) -> Result<Pattern, InvalidPattern> {
    let (subjects, headers) = (events.server_filter(), events.header_filter());
    if subjects.as_str().ends_with('>') {
        return Ok(subjects.clone());
    }
    let event_type = headers.event_type.as_ref().map_or("*", |event_type| event_type.as_str());
    let version = headers.schema_version.map_or("*".to_owned(), |version| version.to_string());
    Pattern::parse(&format!("{subjects}.{event_type}.{version}"))
}

/// Which route of its router one is. Never given twice; greater for routes that were added later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub(super) u64);

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {}", self.0)
    }
}

/// What a handler is given.
#[derive(Debug)]
pub struct Routed<M> {
    /// The subject of the message.
    pub subject: Subject,
    /// The message, shared with the other routes that took it.
    pub message: Arc<M>,
    /// The route that led here.
    pub route: RouteId,
}

/// What became of a message at one route.
#[derive(Debug)]
pub struct Delivery {
    /// The route.
    pub route: RouteId,
    /// The name of its handler.
    pub handler: String,
    /// What the handler came to.
    pub outcome: Result<(), DeliveryError>,
}

/// What became of a message: a delivery for each route that took it, in the order in which they were added.
#[derive(Debug)]
#[must_use = "handlers may have failed"]
pub struct Routing {
    /// The deliveries; none when no route matched.
    pub deliveries: Vec<Delivery>,
}

impl Routing {
    /// The deliveries whose handler failed or panicked.
    pub fn failures(&self) -> impl Iterator<Item = (&Delivery, &DeliveryError)> {
        self.deliveries
            .iter()
            .filter_map(|delivery| Some((delivery, delivery.outcome.as_ref().err()?)))
    }
}
