//! Events as messages: where they lie to a router, and a subscription that hands them over.

use std::convert::Infallible;

use super::{Routing, RoutingError, SubjectRouter};
use crate::store::{Context, StoredEvent};
use crate::subject::{Subject, SubjectScheme};
use crate::subscription::{Subscription, SubscriptionError, SubscriptionQuery};

impl SubjectRouter<StoredEvent> {
    /// Routes an event on its long form, `cim.events.<context>.<aggregate>.<id>.<type>.<schema version>`, which is what
    /// [`Route::of_events`](super::Route::of_events) matches.
    ///
    /// # Errors
    /// As [`route`](Self::route).
    ///
    /// # Cancel safety
    /// As [`route`](Self::route).
    pub async fn route_event(
        &self,
        scheme: &SubjectScheme,
        event: StoredEvent,
    ) -> Result<Routing, RoutingError> {
        let lies_on = scheme.events_of(event.aggregate_type(), event.aggregate_id());
        let long = format!("{lies_on}.{}.{}", event.event_type(), event.schema_version());
        self.route_to(Subject::trusted(long), event).await
    }

    /// Routes the events of a subscription, one after the other in order of position, from a task on the current tokio
    /// runtime; returns when every event that was stored at the beginning has been routed.
    ///
    /// It goes on when a handler fails or panics and when an event is not permitted; that is counted
    /// ([`get_stats`](Self::get_stats)) and told as a warning. Whoever wants to do otherwise subscribes and
    /// calls [`route_event`](Self::route_event).
    ///
    /// # Errors
    /// [`SubscriptionError`], when it ended before that.
    ///
    /// # Cancel safety
    /// Dropping the future ends the subscription after the event under way.
    pub async fn follow(
        &self,
        context: &Context,
        query: impl Into<SubscriptionQuery>,
    ) -> Result<Subscription, SubscriptionError> {
        let (router, scheme) = (self.clone(), context.scheme().clone());
        Subscription::start(context, query, move |event| {
            let (router, scheme) = (router.clone(), scheme.clone());
            async move {
                router.route_and_warn(&scheme, event).await;
                Ok::<_, Infallible>(())
            }
        })
        .await
    }

    async fn route_and_warn(&self, scheme: &SubjectScheme, event: StoredEvent) {
        let position = event.position();
        match self.route_event(scheme, event).await {
            Ok(routing) => {
                for (delivery, error) in routing.failures() {
                    let reason = std::error::Error::source(error).map(ToString::to_string);
                    tracing::warn!(%position, route = %delivery.route, handler = delivery.handler, %error, reason,
                        "an event was not handled");
                }
            }
            Err(error) => tracing::warn!(%position, %error, "an event was not routed"),
        }
    }
}
