//! A subscription that runs a handler for each event, in a task of its own.

use std::error::Error;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{FutureExt, StreamExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Delivered, EventStream, SubscriptionQuery};
use crate::backend::{Position, Start};
use crate::panics::text_of;
use crate::store::{Context, StoreError, StoredEvent};

/// What a handler fails with.
type HandlerError = Box<dyn Error + Send + Sync>;

/// Why a subscription ended by itself. Start it again after [`Subscription::position`] once the reason is gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// The events cannot be read any more; see the error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The handler failed. The event counts as not handled.
    #[error("the handler of a subscription failed on {event_type} at position {position}")]
    Handler {
        /// The event's position.
        position: Position,
        /// The event's type.
        event_type: String,
        /// What the handler said.
        #[source]
        source: HandlerError,
    },
    /// The handler panicked. The event counts as not handled.
    #[error(
        "the handler of a subscription panicked on {event_type} at position {position}: {message}"
    )]
    Panicked {
        /// The event's position.
        position: Position,
        /// The event's type.
        event_type: String,
        /// The text of the panic.
        message: String,
    },
    /// The runtime that the subscription was started on has ended. Start it on one that lives on.
    #[error(
        "the runtime that the subscription was started on has ended; start it on one that lives on"
    )]
    Closed,
}

/// A handler that is run for each event, one after the other, in order of position.
///
/// An event is handled at least once over the life of a service: one that was under way when the service ended, or whose
/// handler failed, comes again when the subscription is started [after](crate::backend::Start::After) the position that
/// was noted last. A handler with effects elsewhere tells doubles by the event's position or id.
///
/// Dropping it ends it after the event under way, like [`stop`](Self::stop), but without waiting.
#[derive(Debug)]
pub struct Subscription {
    task: Option<JoinHandle<Result<(), SubscriptionError>>>,
    stop: Option<oneshot::Sender<()>>,
    position: Arc<AtomicU64>,
}

impl Subscription {
    /// Starts a task on the current tokio runtime that runs `handler` for each event, and returns when every event that was
    /// stored at the beginning has been handled.
    ///
    /// # Errors
    /// [`SubscriptionError`], when it ended before that.
    ///
    /// # Cancel safety
    /// Dropping the future ends the subscription after the event under way.
    pub async fn start<H, F, E>(
        context: &Context,
        query: impl Into<SubscriptionQuery>,
        handler: H,
    ) -> Result<Self, SubscriptionError>
    where
        H: FnMut(StoredEvent) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError> + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let (tell, caught_up) = oneshot::channel();
        let query = query.into();
        let begun_after = match query.start() {
            Start::After(position) => position,
            _ => Position::START,
        };
        let position = Arc::new(AtomicU64::new(begun_after.get()));
        let running = Running {
            events: context.subscribe(query),
            handler,
            position: Arc::clone(&position),
            caught_up: Some(tell),
        };
        let task = tokio::spawn(running.run(stopped));
        let mut subscription = Self { task: Some(task), stop: Some(stop), position };
        match caught_up.await {
            Ok(()) => Ok(subscription),
            // It ended without having told.
            Err(_) => Err(subscription.join().await.err().unwrap_or(SubscriptionError::Closed)),
        }
    }

    /// Whether it goes on handling events.
    pub fn is_running(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// The position of the last event that was handled without an error; before the first one the position that it began
    /// after, `START` when it began elsewhere.
    pub fn position(&self) -> Position {
        Position::new(self.position.load(Ordering::Acquire))
    }

    /// Ends it after the event under way, and waits for that. Nothing happens if it has ended.
    ///
    /// # Errors
    /// [`SubscriptionError`], when it had ended by itself; told once.
    ///
    /// # Cancel safety
    /// It ends all the same when the future is dropped.
    pub async fn stop(&mut self) -> Result<(), SubscriptionError> {
        self.stop = None;
        self.join().await
    }

    /// Waits until it ends: by itself, which is by an error, unless it was stopped.
    ///
    /// # Errors
    /// [`SubscriptionError`], when it ended by itself; told once.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn join(&mut self) -> Result<(), SubscriptionError> {
        let Some(task) = &mut self.task else { return Ok(()) };
        let outcome = task.await.unwrap_or(Err(SubscriptionError::Closed));
        self.task = None;
        outcome
    }
}

struct Running<H> {
    events: EventStream,
    handler: H,
    position: Arc<AtomicU64>,
    caught_up: Option<oneshot::Sender<()>>,
}

impl<H, F, E> Running<H>
where
    H: FnMut(StoredEvent) -> F + Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<HandlerError>,
{
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) -> Result<(), SubscriptionError> {
        loop {
            let delivered = tokio::select! {
                biased;
                // Told to, or nobody is there any more who could.
                _ = &mut stopped => return Ok(()),
                delivered = self.events.next() => delivered,
            };
            match delivered.transpose()? {
                Some(Delivered::Event(event)) => self.handle(event).await?,
                Some(Delivered::CaughtUp) => {
                    // Whoever started this may have gone; then it is told to stop as well.
                    let _ = self.caught_up.take().map(|tell| tell.send(()));
                }
                // Following ends by an error only.
                None => pending().await,
            }
        }
    }

    async fn handle(&mut self, event: StoredEvent) -> Result<(), SubscriptionError> {
        let (position, event_type) = (event.position(), event.event_type().clone());
        let handler = &mut self.handler;
        let handling = AssertUnwindSafe(async move { handler(event).await }).catch_unwind();
        let event_type = || event_type.to_string();
        match handling.await {
            Ok(Ok(())) => {
                self.position.store(position.get(), Ordering::Release);
                Ok(())
            }
            Ok(Err(error)) => Err(SubscriptionError::Handler {
                position,
                event_type: event_type(),
                source: error.into(),
            }),
            Err(panic) => Err(SubscriptionError::Panicked {
                position,
                event_type: event_type(),
                message: text_of(panic.as_ref()),
            }),
        }
    }
}
