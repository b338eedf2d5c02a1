//! Routing: messages to handlers, by subject.
//!
//! A [`SubjectRouter`] has handlers, and routes from subject patterns to them; the [`RoutingStrategy`] says which of the
//! routes that match take a message, [`Permissions`] what may be routed at all. Messages are handed over by hand
//! ([`SubjectRouter::route`]) or come from a subscription ([`SubjectRouter::follow`]). How long finding routes takes depends
//! on the tokens of the subject and on what matches, not on how many routes there are.
//!
//! Nothing is kept: what has to take effect once is the business of [`projection`](crate::projection).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use cim_persistence::routing::{Operation, Permissions, Route, RoutingStrategy, SubjectRouter};
//! use cim_persistence::subject::Pattern;
//!
//! let permissions = Permissions::closed()
//!     .allow(Operation::Subscribe, Pattern::parse("orders.>")?)
//!     .allow(Operation::Publish, Pattern::parse("orders.>")?)
//!     .deny(Operation::Publish, Pattern::parse("orders.internal.>")?);
//! let router = SubjectRouter::<u32>::new(RoutingStrategy::AllMatches, permissions);
//! let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
//! router.register_handler("mailer", move |routed| {
//!     let told = tell.send((routed.subject.to_string(), *routed.message));
//!     async move { told }
//! })?;
//! let orders = router.add_route(Route::new(Pattern::parse("orders.*.placed")?, "mailer"))?;
//!
//! assert_eq!(router.find_routes("orders.42.placed"), [orders]);
//! let routing = router.route("orders.42.placed", 7).await?;
//! assert!(routing.failures().next().is_none());
//! assert_eq!(told.recv().await, Some(("orders.42.placed".to_owned(), 7)));
//! assert!(router.route("orders.internal.audit", 8).await.is_err());
//! assert_eq!(router.get_stats().routes[0].handled, 1);
//! # Ok(())
//! # }
//! ```

mod trie;
mod permissions;
mod route;
mod error;
mod stats;
mod router;
mod follow;

pub use error::{DeliveryError, HandlerError, RoutingError};
pub use permissions::{Operation, Permissions};
pub use route::{Delivery, Route, RouteId, Routed, Routing, RoutingStrategy};
pub use router::SubjectRouter;
pub use stats::{RouteStats, RouterStats};

#[cfg(test)]
mod tests;
