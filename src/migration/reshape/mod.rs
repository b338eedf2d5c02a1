//! Reshaping a stream of events: a copy of it in another log, every event shown to a function on the way.
//!
//! Events are never changed where they are. What a function makes of them goes into another stream, chained anew, each event
//! naming the one it was made of; then the services are switched to that stream, and the old one stays. How a server does
//! the switch is in `nats.rs`.

mod rewrite;
mod copy;
mod verify;
mod followers;
mod nats;

use std::sync::Arc;
use std::time::Duration;

use super::{MigrationError, Refusal};
use crate::backend::{Position, StoredMessage};
use crate::event::NonEmpty;
use crate::event_log::EventLog;
use crate::store::{Context, NewEvent, StoredEvent};

pub use nats::{StreamReshape, Switched, current_stream};

/// The name in a new event's metadata under which the CID of the event it was made of stands.
pub const ORIGIN: &str = "cim-origin";
/// The same for that event's position; also the name of a header of every message that was copied, `Cim-Origin-Position`.
pub const ORIGIN_POSITION: &str = "cim-origin-position";

const ORIGIN_HEADER: &str = "Cim-Origin-Position";

/// What becomes of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum EventEdit {
    /// It is copied: the same data, id and times. Its version, its CID and its link to the event before are new.
    Keep,
    /// It is left out.
    Drop,
    /// It becomes these, in this order, of the same aggregate. The first has its id, the others have ids made from it; all have its
    /// times, its metadata, and what it belongs to.
    Become(NonEmpty<NewEvent>),
}

/// What was copied, or compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Copied {
    /// Messages of the old stream that were looked at: events, and what else lies there.
    pub read: u64,
    /// Messages of the new stream that they became.
    pub written: u64,
    /// How many of the old ones became nothing.
    pub dropped: u64,
    /// How many aggregates the new stream has, where that was counted.
    pub aggregates: u64,
    /// The last position of the old stream that was looked at.
    pub up_to: Position,
}

/// A copy of a context's events, on its way into another log.
///
/// How far it is shows in the copy itself: each message names the position of its origin. So whoever calls
/// [`copy`](Self::copy) next goes on where the last one stopped, and two at once do no harm, as long as their functions say the same.
pub struct EventCopy {
    from: Context,
    to: Arc<dyn EventLog>,
    /// What stands before a subject on its way into the new stream.
    prefix: String,
    patience: Duration,
}

/// How long a log that fails is asked again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long is waited before a log or a record is looked at again.
const PAUSE: Duration = Duration::from_millis(50);

impl EventCopy {
    /// From a context into a log that holds nothing, or an earlier part of the same copy. No I/O.
    pub fn new(from: &Context, to: Arc<dyn EventLog>) -> Self {
        Self { from: from.clone(), to, prefix: String::new(), patience: PATIENCE }
    }

    /// How long a log that does not answer is asked again before the copy fails. Default 30 seconds.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn verified(&self, message: StoredMessage) -> Result<StoredEvent, MigrationError> {
        Ok(StoredEvent::verify(message, self.from.scheme(), self.from.format())?)
    }
}

/// Says what becomes of each event. It must say the same whenever it is shown the same event.
pub trait Transform: Fn(&StoredEvent) -> Result<EventEdit, Refusal> + Send + Sync {}

impl<F: Fn(&StoredEvent) -> Result<EventEdit, Refusal> + Send + Sync> Transform for F {}

fn origin(message: &StoredMessage) -> Option<Position> {
    message.headers.get(ORIGIN_HEADER)?.parse().ok().map(Position::new)
}
