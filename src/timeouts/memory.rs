//! Timeouts in memory, for tests without a server.
//!
//! A log in memory holds what was scheduled, what came due and what is done, so that the faults of a log meet this as well.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};

use super::{Due, Timeout, TimeoutQueue, check_time, message, read, supersede, wished};
use crate::backend::memory::Faults;
use crate::backend::{BackendError, Guard, NewMessage, Position, ReadFrom, StoredMessage};
use crate::clock::{Clock, System};
use crate::event::{Headers, NonEmpty};
use crate::event_log::{EventLog, LogQuery, MemoryLog};
use crate::subject::{ContextName, Subject, TimeoutAddress, TimeoutSubjects};

/// How often the clock is looked at, which may be one that a test moves.
const TICK: Duration = Duration::from_millis(2);

/// What follows a timeout that no longer waits, and what is done of those that came due.
const GONE: &str = "Cim-Gone";

/// A [`TimeoutQueue`] in memory. Cloning shares what is scheduled. Timeouts come due while somebody follows them, by the
/// clock that was given.
#[derive(Debug, Clone)]
pub struct MemoryTimeouts {
    log: MemoryLog,
    /// The same log, where the clock's work meets no faults: a server's own is not a caller's request.
    own: MemoryLog,
    clock: Arc<dyn Clock>,
    subjects: TimeoutSubjects,
}

impl MemoryTimeouts {
    /// An empty queue on the machine's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(System))
    }

    /// An empty queue whose timeouts come due when this clock says so.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let log = MemoryLog::new();
        let name = ContextName::new("memory").expect("plain letters");
        Self { own: log.clone(), log, clock, subjects: TimeoutSubjects::of(&name) }
    }

    /// The same queue, where what is done through this handle and its clones meets these faults.
    pub fn with_faults(self, faults: &Faults) -> Self {
        Self { log: self.log.with_faults(faults), ..self }
    }

    /// What waits, in no order.
    pub async fn waiting(&self) -> Result<Vec<Timeout>, BackendError> {
        let mut last = HashMap::new();
        for message in self.all().await? {
            if let Some(address) = self.subjects.parse_scheduled(message.subject.as_str()) {
                last.insert(address, message);
            }
        }
        let waits = |(address, message): (_, StoredMessage)| match is_gone(&message) {
            true => None,
            false => read(address, &message),
        };
        Ok(last.into_iter().filter_map(waits).collect())
    }

    /// Whether there is a timeout of a process that is due and not done.
    pub(crate) async fn has_due(&self, process: &str) -> Result<bool, BackendError> {
        Ok(!self.due_after(process, Position::START).await?.is_empty())
    }

    async fn all(&self) -> Result<Vec<StoredMessage>, BackendError> {
        let query = LogQuery { filter: None, after: Position::START };
        self.own.read(query).collect::<Vec<_>>().await.into_iter().collect()
    }

    async fn remove(&self, address: &TimeoutAddress, wish: Position) -> Result<(), BackendError> {
        let subject = self.subjects.scheduled(address);
        let Some(waiting) = self.log.last(&subject, ReadFrom::Leader).await? else { return Ok(()) };
        if is_gone(&waiting) || wished(&waiting).is_some_and(|there| there >= wish) {
            return Ok(());
        }
        match self.log.publish(gone(subject, waiting.position)).await {
            // It came due meanwhile, or was replaced: neither is to be undone.
            Ok(_) | Err(BackendError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Lets come due whose time has come.
    async fn fire(&self) -> Result<(), BackendError> {
        let now = self.clock.now();
        let mut ready = self.waiting().await?;
        ready.retain(|timeout| timeout.at <= now);
        ready.sort_by_key(|timeout| (timeout.at, timeout.wished));
        for timeout in ready {
            let scheduled = self.subjects.scheduled(&timeout.address);
            let Some(waiting) = self.own.last(&scheduled, ReadFrom::Leader).await? else {
                continue;
            };
            let due = message(timeout.clone(), self.subjects.due(&timeout.address));
            let batch = NonEmpty::from([gone(scheduled, waiting.position), due]);
            match self.own.publish_batch(batch).await {
                Ok(_) | Err(BackendError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is due and not done, after a position.
    async fn due_after(&self, process: &str, after: Position) -> Result<Vec<Due>, BackendError> {
        self.fire().await?;
        let mut due = Vec::new();
        let mut done = HashSet::new();
        for message in self.all().await? {
            let Some(address) = self.subjects.parse_due(message.subject.as_str()) else { continue };
            if is_gone(&message) {
                done.extend(message.headers.get(GONE).map(str::to_owned));
            } else if address.process() == process
                && message.position > after
                && let Some(timeout) = read(address, &message)
            {
                due.push(Due { timeout, position: message.position });
            }
        }
        due.retain(|due| !done.contains(&due.position.to_string()));
        Ok(due)
    }
}

impl Default for MemoryTimeouts {
    fn default() -> Self {
        Self::new()
    }
}

impl TimeoutQueue for MemoryTimeouts {
    fn schedule(&self, timeout: Timeout) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            check_time(timeout.at)?;
            let (subject, wish) = (self.subjects.scheduled(&timeout.address), timeout.wished);
            supersede(&self.log, message(timeout, subject), wish).await
        }
        .boxed()
    }

    fn cancel<'a>(
        &'a self,
        address: &'a TimeoutAddress,
        wished: Position,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        self.remove(address, wished).boxed()
    }

    fn due(&self, process: &str) -> BoxStream<'static, Result<Due, BackendError>> {
        let following = (self.clone(), process.to_owned(), Position::START, VecDeque::new());
        futures::stream::unfold(following, |(queue, process, mut after, mut ready)| async move {
            loop {
                if let Some(due) = ready.pop_front() {
                    let due: Due = due;
                    after = due.position;
                    return Some((Ok(due), (queue, process, after, ready)));
                }
                match queue.due_after(&process, after).await {
                    Ok(due) if !due.is_empty() => ready.extend(due),
                    Ok(_) => tokio::time::sleep(TICK).await,
                    Err(error) => return Some((Err(error), (queue, process, after, ready))),
                }
            }
        })
        .boxed()
    }

    fn done<'a>(&'a self, due: &'a Due) -> BoxFuture<'a, Result<(), BackendError>> {
        async move {
            let mut message = gone(self.subjects.due(&due.timeout.address), due.position);
            message.guard = Guard::Free;
            self.log.publish(message).await.map(drop)
        }
        .boxed()
    }
}

fn gone(subject: Subject, position: Position) -> NewMessage {
    let mut headers = Headers::new();
    headers.push(GONE, position.to_string());
    NewMessage { subject, headers, payload: Default::default(), guard: Guard::Last(position) }
}

fn is_gone(message: &StoredMessage) -> bool {
    message.headers.get(GONE).is_some()
}
