//! Timeouts: messages that come due at a time.
//!
//! The seam is [`TimeoutQueue`]; its adapters stand beside it. Who schedules timeouts, and how each takes effect once, is the
//! business of [`process`](crate::process).

mod nats;
#[cfg(feature = "testing")]
mod memory;

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use uuid::Uuid;

use crate::backend::{BackendError, Guard, NewMessage, Position, ReadFrom, StoredMessage};
use crate::clock::Timestamp;
use crate::event::{Headers, names};
use crate::event_log::EventLog;
use crate::subject::{Subject, TimeoutAddress};

#[cfg(feature = "testing")]
pub use memory::MemoryTimeouts;
pub use nats::NatsTimeouts;

/// A timeout as it is scheduled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeout {
    /// Which one.
    pub address: TimeoutAddress,
    /// Its id, another for each time that one is scheduled.
    pub id: Uuid,
    /// When it comes due, by the clock of the queue.
    pub at: Timestamp,
    /// Where the wish for it lies in the context's stream. Of two wishes the later one counts.
    pub wished: Position,
    /// What it belongs to.
    pub correlation_id: Uuid,
    /// What whoever scheduled it said.
    pub data: Bytes,
}

/// A timeout that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The timeout as it was scheduled.
    pub timeout: Timeout,
    /// Its place in the queue.
    pub position: Position,
}

/// The last time that a timeout can be scheduled for, in April 2262. A server takes a later one for the past.
pub const MAX_TIMEOUT: Timestamp = Timestamp::from_micros(9_223_372_036_000_000);

/// The timeouts of one context.
///
/// An implementation promises:
/// - of an address at most one timeout waits; a later wish replaces an earlier one, an earlier wish that arrives later changes
///   nothing that still waits;
/// - a timeout comes due at its time or soon after, never before, also when nothing ran meanwhile;
/// - what is due stays until it is [`done`](Self::done). It may come due twice when its scheduling is repeated, and it may
///   come due although it was cancelled just before: the id tells.
///
/// Every call may be repeated. Errors mean what they mean for [`EventLog`].
pub trait TimeoutQueue: fmt::Debug + Send + Sync {
    /// Lets a timeout come due at its time, instead of one that waits on its address. One round trip, a few when one waits.
    ///
    /// [`BackendError::Invalid`] for a time after [`MAX_TIMEOUT`].
    fn schedule(&self, timeout: Timeout) -> BoxFuture<'_, Result<(), BackendError>>;

    /// Removes what waits on an address, if it was wished for before this position. Two round trips.
    fn cancel<'a>(
        &'a self,
        address: &'a TimeoutAddress,
        wished: Position,
    ) -> BoxFuture<'a, Result<(), BackendError>>;

    /// What is due for a process manager, and then what comes due, in the order it came due, for ever.
    ///
    /// What is already done may be missing or not; lost connections and restarts are waited out, as with
    /// [`EventLog::follow`].
    fn due(&self, process: &str) -> BoxStream<'static, Result<Due, BackendError>>;

    /// Forgets a timeout that is due. One round trip.
    fn done<'a>(&'a self, due: &'a Due) -> BoxFuture<'a, Result<(), BackendError>>;
}

const ID: &str = "Cim-Timeout-Id";
const AT: &str = "Cim-Timeout-At";
const WISHED: &str = "Cim-Position";

/// A timeout as a message, unguarded.
fn message(timeout: Timeout, subject: Subject) -> NewMessage {
    let mut headers = Headers::new();
    headers.push(ID, timeout.id.to_string());
    headers.push(AT, timeout.at.as_micros().to_string());
    headers.push(WISHED, timeout.wished.to_string());
    headers.push(names::CORRELATION_ID, timeout.correlation_id.to_string());
    NewMessage { subject, headers, payload: timeout.data, guard: Guard::Free }
}

/// The timeout that a message is; `None` for what nobody here wrote.
fn read(address: TimeoutAddress, message: &StoredMessage) -> Option<Timeout> {
    let header = |name| message.headers.get(name);
    Some(Timeout {
        address,
        id: header(ID)?.parse().ok()?,
        at: Timestamp::from_micros(header(AT)?.parse().ok()?),
        wished: wished(message)?,
        correlation_id: header(names::CORRELATION_ID)?.parse().ok()?,
        data: message.payload.clone(),
    })
}

fn wished(message: &StoredMessage) -> Option<Position> {
    Some(Position::new(message.headers.get(WISHED)?.parse().ok()?))
}

/// Stores a message in place of what waits on its subject, unless that was wished for later or is the same.
///
/// The guard keeps a writer that was held up from replacing what was stored meanwhile.
async fn supersede(
    log: &dyn EventLog,
    mut message: NewMessage,
    wish: Position,
) -> Result<(), BackendError> {
    // Mostly nothing waits there.
    message.guard = Guard::Last(Position::START);
    loop {
        match log.publish(message.clone()).await {
            Ok(_) => return Ok(()),
            Err(BackendError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
        let waiting = log.last(&message.subject, ReadFrom::Leader).await?;
        if waiting.as_ref().and_then(wished).is_some_and(|there| there >= wish) {
            return Ok(());
        }
        message.guard = Guard::Last(waiting.map_or(Position::START, |waiting| waiting.position));
    }
}

/// Refuses a time that a server would take for the past.
fn check_time(at: Timestamp) -> Result<(), BackendError> {
    if at <= MAX_TIMEOUT {
        return Ok(());
    }
    Err(BackendError::Invalid { detail: format!("no timeout can be due after {MAX_TIMEOUT}") })
}
