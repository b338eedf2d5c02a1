//! What a relay publishes through, and what follows when it cannot.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use super::PendingMessage;

/// Where messages of the outbox go: a broker, a web service, whatever takes them.
///
/// A relay calls it for several messages at a time, but for the next message of an ordering key only after the one before.
/// The same message may come more than once: let the receiver recognise its id.
///
/// ```
/// use cim_persistence::outbox::{PendingMessage, PublishError, Publisher};
///
/// struct Audit;
///
/// impl Publisher for Audit {
///     async fn publish(&self, message: &PendingMessage) -> Result<(), PublishError> {
///         let event = message.event().map_err(PublishError::permanent)?;
///         // … hand `event` to whoever keeps the audit.
///         # drop(event);
///         Ok(())
///     }
/// }
/// ```
pub trait Publisher: Send + Sync + 'static {
    /// Publishes one message. It is dropped when the relay's timeout is over, which counts as a failed try, and so does a
    /// panic. It must not block its thread.
    ///
    /// # Errors
    /// Why it was not published, as [`PublishError`] tells apart.
    fn publish(
        &self,
        message: &PendingMessage,
    ) -> impl Future<Output = Result<(), PublishError>> + Send;

    /// Waits until everything that [`publish`](Self::publish) said yes to has arrived. Called before the relay writes down
    /// that it was published; on an error it is published again. Default: a yes is a yes.
    ///
    /// # Errors
    /// Why it is not known to have arrived.
    fn settle(&self) -> impl Future<Output = Result<(), PublishError>> + Send {
        async { Ok(()) }
    }
}

/// Why a message was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// It will never be taken as it is. It is parked at once.
    #[error("refused for good: {0}")]
    Permanent(#[source] Box<dyn Error + Send + Sync>),
    /// This try failed, the next one may not. It is tried again after a pause, and parked when it has failed too often.
    #[error("not published: {0}")]
    Retryable(#[source] Box<dyn Error + Send + Sync>),
    /// The receiver is not there, which says nothing about the message. Everything waits; it counts as a failed try only
    /// when other messages got through meanwhile.
    #[error("the receiver is not available: {0}")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
}

impl PublishError {
    /// The message is refused for good.
    pub fn permanent(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Permanent(reason.into())
    }

    /// This try failed.
    pub fn retryable(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Retryable(reason.into())
    }

    /// The receiver is not there.
    pub fn unavailable(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(reason.into())
    }
}

/// How often a message is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// After so many failed tries it is parked. Default 10; 0 counts as 1.
    pub tries: u32,
    /// How long is waited after the first failed try; twice as long after each that follows. Default 200 ms.
    pub pause: Duration,
    /// The longest pause. Default one minute.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries: 10,
            pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// How long is waited after so many failed tries.
    pub(super) fn pause_after(&self, failed: u32) -> Duration {
        let doubled = 2_u32.checked_pow(failed.saturating_sub(1));
        let pause = doubled.and_then(|times| self.pause.checked_mul(times));
        pause.unwrap_or(self.longest_pause).min(self.longest_pause)
    }
}
