//! Timeouts in a stream whose server publishes messages at their time.
//!
//! A message with the header `Nats-Schedule` waits on its subject, replaces the one that waited there, and is published to
//! `Nats-Schedule-Target` and removed when its time has come. What is due and what is cancelled is removed by purging.

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};

use super::{Due, Timeout, TimeoutQueue, check_time, message, read, supersede, wished};
use crate::backend::nats::Connection;
use crate::backend::{BackendError, Followed, Position, ReadFrom, Start, TailQuery};
use crate::event::NonEmpty;
use crate::event_log::{EventLog, NatsLog};
use crate::subject::{ContextName, TimeoutAddress, TimeoutSubjects};

const SCHEDULE: &str = "Nats-Schedule";
const TARGET: &str = "Nats-Schedule-Target";

/// The timeouts of one context in its stream. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct NatsTimeouts {
    log: NatsLog,
    subjects: TimeoutSubjects,
}

impl NatsTimeouts {
    /// The timeouts in an existing stream. One round trip, to see that it is there.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] when there is no such stream, and what else can happen to a request.
    pub async fn open(
        connection: &Connection,
        stream: &str,
        context: &ContextName,
    ) -> Result<Self, BackendError> {
        let log = NatsLog::open(connection, stream).await?;
        Ok(Self { log, subjects: TimeoutSubjects::of(context) })
    }

    /// The timeouts in a stream that is known to exist. No round trip.
    pub(crate) fn attach(connection: &Connection, stream: &str, context: &ContextName) -> Self {
        let log = NatsLog::attach(connection, stream);
        Self { log, subjects: TimeoutSubjects::of(context) }
    }

    async fn set(&self, timeout: Timeout) -> Result<(), BackendError> {
        check_time(timeout.at)?;
        let (at, wish) = (timeout.at, timeout.wished);
        let due = self.subjects.due(&timeout.address);
        let scheduled = self.subjects.scheduled(&timeout.address);
        let mut message = message(timeout, scheduled);
        message.headers.push(SCHEDULE, format!("@at {at}"));
        message.headers.push(TARGET, due.as_str());
        supersede(&self.log, message, wish).await
    }

    async fn remove(&self, address: &TimeoutAddress, wish: Position) -> Result<(), BackendError> {
        let subject = self.subjects.scheduled(address);
        let Some(waiting) = self.log.last(&subject, ReadFrom::Leader).await? else { return Ok(()) };
        if wished(&waiting).is_some_and(|there| there >= wish) {
            return Ok(());
        }
        self.log.purge(&subject, waiting.position).await
    }
}

impl TimeoutQueue for NatsTimeouts {
    fn schedule(&self, timeout: Timeout) -> BoxFuture<'_, Result<(), BackendError>> {
        self.set(timeout).boxed()
    }

    fn cancel<'a>(
        &'a self,
        address: &'a TimeoutAddress,
        wished: Position,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        self.remove(address, wished).boxed()
    }

    fn due(&self, process: &str) -> BoxStream<'static, Result<Due, BackendError>> {
        let pattern = match self.subjects.all_due(process) {
            Ok(pattern) => pattern,
            Err(error) => {
                let invalid = BackendError::Invalid { detail: error.to_string() };
                return futures::stream::iter([Err(invalid)]).boxed();
            }
        };
        // What is done is gone, so that the beginning is what is still to be done.
        let start = Start::After(Position::START);
        let query = TailQuery { patterns: NonEmpty::one(pattern), start };
        let subjects = self.subjects.clone();
        let due = self.log.follow(query).filter_map(move |followed| {
            let due = match followed {
                Ok(Followed::CaughtUp) => None,
                Ok(Followed::Message(message)) => {
                    let address = subjects.parse_due(message.subject.as_str());
                    let timeout = address.and_then(|address| read(address, &message));
                    if timeout.is_none() {
                        tracing::warn!(subject = %message.subject, "not a timeout; passed over");
                    }
                    timeout.map(|timeout| Ok(Due { timeout, position: message.position }))
                }
                Err(error) => Some(Err(error)),
            };
            futures::future::ready(due)
        });
        due.boxed()
    }

    fn done<'a>(&'a self, due: &'a Due) -> BoxFuture<'a, Result<(), BackendError>> {
        async move {
            let subject = self.subjects.due(&due.timeout.address);
            self.log.purge(&subject, due.position).await
        }
        .boxed()
    }
}
