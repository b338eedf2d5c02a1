//! Where a relay's ledger is kept: the bucket of read models. Reading it whole and writing it under the cursor's guard.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::OutboxError;
use super::ledger::{Delta, Ledger};
use super::records::{Cursor, FORMAT, HeldMessage, Keys};
use crate::backend::{BackendError, Matching, Position, ReadFrom, Start};
use crate::event::NonEmpty;
use crate::event_log::status_since;
use crate::state::{Entry, Key, KeyValue, Watched};
use crate::store::Context;

/// The ledger of one relay, as it is kept.
#[derive(Debug, Clone)]
pub(super) struct Book {
    context: Context,
    pub(super) keys: Keys,
}

/// How long a write is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as it takes, for a relay, which has nothing else to do and is stopped all the same.
    Endless,
    /// At most 30 s, for those who wait for the answer.
    Bounded,
}

const PATIENCE: Duration = Duration::from_secs(30);

/// How often a replica that is behind is asked again.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(50);

/// The records as they were found.
enum Shown {
    /// All at one moment.
    Together(Vec<Entry>),
    /// One after the other: they belong together only if nothing was written meanwhile.
    OneByOne(Vec<Entry>),
}

impl Book {
    pub(super) fn new(context: &Context, keys: Keys) -> Self {
        Self { context: context.clone(), keys }
    }

    fn bucket(&self) -> &dyn KeyValue {
        self.context.read_models().as_ref()
    }

    /// The ledger, and the messages that are parked. A relay that never ran stands before the first message.
    pub(super) async fn load(&self) -> Result<(Ledger, Vec<HeldMessage>), OutboxError> {
        for _ in 0..ATTEMPTS {
            let (newest, _) = self.cursor().await?;
            // Held messages are those of a cursor only if they were seen together with it.
            let (entries, together) = match self.entries().await? {
                Shown::Together(entries) => (entries, true),
                Shown::OneByOne(entries) => (entries, false),
            };
            let seen = entries.iter().find(|entry| entry.key == self.keys.cursor);
            let revision = seen.map_or(0, |entry| entry.revision);
            if revision < newest || (revision > newest && !together) {
                sleep(PAUSE).await;
                continue;
            }
            let value = seen.and_then(|entry| entry.value.as_ref());
            let cursor: Option<Cursor> =
                value.map(|value| decode(&self.keys.cursor, value)).transpose()?;
            // After the cursor, whose messages are in the log then.
            let log = self.context.log().as_ref();
            let log = match &cursor {
                Some(cursor) => status_since(log, cursor.log_created, cursor.position).await?,
                None => log.status().await?,
            };
            let cursor = cursor.unwrap_or_else(|| Cursor {
                format: FORMAT,
                position: Position::START,
                log_created: log.created,
                published: 0,
                parked: 0,
                deferred: 0,
                writer: Uuid::nil(),
            });
            if cursor.log_created != log.created || cursor.position > log.last {
                let position = cursor.position.get();
                return Err(OutboxError::LogTruncated { position, last: log.last.get() });
            }
            let mut held = Vec::new();
            for entry in entries.iter().filter(|entry| entry.key != self.keys.cursor) {
                if let Some(value) = &entry.value {
                    held.push(decode::<HeldMessage>(&entry.key, value)?);
                }
            }
            let (waiting, mut parked): (Vec<_>, Vec<_>) =
                held.into_iter().partition(HeldMessage::is_waiting);
            parked.sort_by_key(|message| message.position);
            let waiting: BTreeMap<_, _> =
                waiting.into_iter().map(|message| (message.position, message)).collect();
            return Ok((Ledger { cursor, revision, waiting }, parked));
        }
        Err(BackendError::unavailable("a replica of the bucket of read models is far behind")
            .into())
    }

    /// The cursor as the leader sees it, with its revision.
    pub(super) async fn cursor(&self) -> Result<(u64, Option<Cursor>), OutboxError> {
        let slot = self.bucket().get(&self.keys.cursor, ReadFrom::Leader).await?;
        let cursor = slot.value.map(|value| decode(&self.keys.cursor, &value)).transpose()?;
        Ok((slot.revision, cursor))
    }

    /// Writes a change of the ledger, and tells the ledger after it.
    ///
    /// An answer that proves nothing is looked into until it is known what happened, or patience is over.
    ///
    /// # Errors
    /// [`BackendError::Conflict`] when somebody else has changed the ledger; nothing was written then.
    pub(super) async fn save(
        &self,
        ledger: &Ledger,
        delta: &Delta,
        patience: Patience,
    ) -> Result<Ledger, OutboxError> {
        let (writer, begun) = (Uuid::new_v4(), Instant::now());
        let mut unproven = false;
        let (mut next, writes) = ledger.step(&self.keys, delta, writer);
        let writes = NonEmpty::from_vec(writes).expect("the cursor is in it");
        loop {
            let error = match self.bucket().write(writes.clone()).await {
                Ok(revisions) => {
                    next.revision = *revisions.last().expect("a revision for each write");
                    return Ok(next);
                }
                Err(error) => error,
            };
            let open = matches!(
                error,
                BackendError::Conflict { .. }
                    | BackendError::Duplicate { .. }
                    | BackendError::Unknown { .. }
                    | BackendError::Unavailable { .. }
            );
            if !open {
                return Err(error.into());
            }
            match self.cursor().await {
                Ok((revision, Some(cursor))) if cursor.writer == writer => {
                    next.revision = revision;
                    return Ok(next);
                }
                Ok((revision, _)) if revision != ledger.revision => {
                    let detail = "somebody else changed the outbox meanwhile".to_owned();
                    return Err(BackendError::Conflict { detail }.into());
                }
                // Not stored so far, and the identical write is admitted at most once.
                Ok(_) => {}
                Err(OutboxError::Backend(error)) if error.is_transient() => {}
                Err(error) => return Err(error),
            }
            unproven |= !matches!(error, BackendError::Unavailable { .. });
            if patience == Patience::Bounded && begun.elapsed() >= PATIENCE {
                return Err(match unproven {
                    true => BackendError::unknown(error.to_string()),
                    false => error,
                }
                .into());
            }
            sleep(PAUSE).await;
        }
    }

    /// Cursor and held messages, those that are held no more among them.
    async fn entries(&self) -> Result<Shown, OutboxError> {
        let patterns = NonEmpty::from(self.keys.all());
        if let Matching::All(entries) = self.bucket().matching(&patterns).await? {
            return Ok(Shown::Together(entries));
        }
        // Every message that was ever held has left a marker, and they are too many for one answer.
        let mut entries = BTreeMap::new();
        let mut watched = self.bucket().watch(patterns, Start::Latest);
        while let Some(watched) = watched.next().await {
            match watched? {
                Watched::Entry(entry) => drop(entries.insert(entry.key.clone(), entry)),
                Watched::CaughtUp => break,
            }
        }
        Ok(Shown::OneByOne(entries.into_values().collect()))
    }
}

fn decode<T: DeserializeOwned>(key: &Key, value: &Bytes) -> Result<T, OutboxError> {
    serde_json::from_slice(value)
        .map_err(|error| OutboxError::Record { key: key.to_string(), reason: error.to_string() })
}
