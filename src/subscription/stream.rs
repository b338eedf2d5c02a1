//! The events that a subscription is about, one after the other.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};

use super::SubscriptionQuery;
use super::query::Selected;
use crate::backend::{BackendError, Followed, StoredMessage, TailQuery};
use crate::clock::Clock;
use crate::store::{Context, StoreError, StoredEvent};

/// What a subscriber gets.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are events")]
pub enum Delivered {
    /// The next event.
    Event(StoredEvent),
    /// Every event that was stored when the subscription began has been delivered. Comes once.
    CaughtUp,
}

impl Context {
    /// The events that a query names: those that are stored, in order of position, then those that are being stored, for
    /// ever, without a gap or a double.
    ///
    /// It begins when it is polled for the first time. Lost connections, changes of leader and restarts of servers are
    /// waited out. Nothing more is fetched while nobody polls; whoever comes back goes on where it was. Dropping it
    /// leaves nothing on the server.
    ///
    /// Each event is verified. The stream ends after its first error: [`StoreError::Integrity`] for an event that is not
    /// what it claims to be; [`StoreError::Backend`] when the permission or the stream is gone, or the stream is another
    /// one than it was ([`BackendError::Truncated`]).
    ///
    /// # Cancel safety
    /// A call of `next` that is dropped loses nothing.
    pub fn subscribe(&self, query: impl Into<SubscriptionQuery>) -> EventStream {
        let query = query.into();
        let selected = Selected::of(&query, self.scheme());
        let tail =
            TailQuery { patterns: selected.patterns(), start: selected.start(query.start()) };
        let labels = [("subscription", query.name().to_owned())];
        EventStream {
            followed: self.log().follow(tail),
            context: self.clone(),
            selected,
            clock: Arc::clone(&self.encoder().clock),
            ended: false,
            delivered: metrics::counter!("cim_subscription_delivered_total", &labels),
            lag: metrics::gauge!("cim_subscription_lag_seconds", &labels),
        }
    }
}

/// The events of a subscription. Made by [`Context::subscribe`].
pub struct EventStream {
    followed: BoxStream<'static, Result<Followed, BackendError>>,
    context: Context,
    selected: Selected,
    clock: Arc<dyn Clock>,
    ended: bool,
    delivered: metrics::Counter,
    lag: metrics::Gauge,
}

impl EventStream {
    /// What is to be handed out of a message, if it is meant.
    fn event(&self, message: StoredMessage) -> Option<Result<Delivered, StoreError>> {
        if !self.selected.matches(&message) {
            return None;
        }
        let event = self.context.verifier().verify(message);
        if let Ok(event) = &event {
            self.delivered.increment(1);
            self.lag.set(self.clock.now().since(event.recorded_at()).as_secs_f64());
        }
        Some(event.map(Delivered::Event))
    }
}

impl Stream for EventStream {
    type Item = Result<Delivered, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        while !self.ended {
            let item = match std::task::ready!(self.followed.poll_next_unpin(task)) {
                Some(Ok(Followed::Message(message))) => self.event(message),
                Some(Ok(Followed::CaughtUp)) => Some(Ok(Delivered::CaughtUp)),
                Some(Err(error)) => Some(Err(error.into())),
                None => break,
            };
            if let Some(item) = item {
                self.ended = item.is_err();
                return Poll::Ready(Some(item));
            }
        }
        Poll::Ready(None)
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("selected", &self.selected)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
