//! Those who follow the events and write down how far they are, on their way to another stream: process managers, handlers of
//! effects, and relays.
//!
//! Their records name positions of the old stream, and the stream itself by when it was made. What they say of the new one
//! follows from the origin that each of its messages names. Records are changed as JSON, so that what else they hold stays.

use futures::TryStreamExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{EventCopy, PAUSE, origin};
use crate::backend::{BackendError, Position, ReadFrom, StoredMessage};
use crate::event::NonEmpty;
use crate::event_log::{LogQuery, LogStatus};
use crate::migration::MigrationError;
use crate::migration::held::patiently;
use crate::migration::models::unreadable;
use crate::outbox::{self, HELD, held_at};
use crate::process;
use crate::projection::EFFECTS;
use crate::state::{Change, Expected, Key, KeyWrite};

const FOLLOWERS: [&str; 3] = [process::CURSORS, EFFECTS, outbox::CURSORS];
/// How many held messages are moved at once: each takes two writes of at most a thousand.
const HELD_BATCH: usize = 250;

/// A record, and the revision at which it was read.
struct Found {
    revision: u64,
    record: Value,
}

/// The two streams, as they were when the move began.
struct Logs {
    old: LogStatus,
    new: LogStatus,
}

impl EventCopy {
    /// Looks whether each process manager is as far as its record says. One that has reacted to more would react to it again
    /// in the new stream, because its marks name positions of the old one.
    ///
    /// # Errors
    /// [`MigrationError::Refused`] with the record of one that is not.
    pub(super) async fn check_processes(&self) -> Result<(), MigrationError> {
        let old = patiently(self.patience, || self.from.log().status()).await?;
        for key in self.records_of(&format!("{}*", process::CURSORS)).await? {
            let Some(found) = self.record(&key).await?.filter(|found| found.is_of(&old)) else {
                continue;
            };
            let at = found.position(&key)?;
            let context = self.from.scheme().context();
            let name = &key.as_str()[process::CURSORS.len()..];
            let filter = Some(format!("{}>", process::marks_of(context, name)));
            let read = || async {
                let query = LogQuery { filter: filter.clone(), after: at };
                self.from.log().read(query).try_collect::<Vec<_>>().await
            };
            for mark in patiently(self.patience, read).await? {
                let record: Value = serde_json::from_slice(&mark.payload)
                    .map_err(|error| unreadable(&key, &error))?;
                if record["handled"].as_u64().is_none_or(|handled| handled > at.get()) {
                    let reason = format!(
                        "it stands at position {at}, and what it did at {} was for a later event; abandon the switch, \
                         start the process and stop it when it is at rest, then switch again",
                        mark.position
                    );
                    return Err(MigrationError::Refused { key: key.to_string(), reason });
                }
            }
        }
        Ok(())
    }

    /// Changes the records that name positions of the old stream, so that those whose they are go on in the new one behind the
    /// same messages. Those that are changed already stay so.
    pub(super) async fn move_followers(&self) -> Result<(), MigrationError> {
        let old = patiently(self.patience, || self.from.log().status()).await?;
        let new = patiently(self.patience, || self.to.status()).await?;
        let logs = Logs { old, new };
        for kind in FOLLOWERS {
            for key in self.records_of(&format!("{kind}*")).await? {
                self.move_follower(&key, &logs).await?;
            }
        }
        Ok(())
    }

    async fn move_follower(&self, key: &Key, logs: &Logs) -> Result<(), MigrationError> {
        let begun = Instant::now();
        loop {
            let found = self.record(key).await?.filter(|found| found.is_of(&logs.old));
            let Some(found) = found else { return Ok(()) };
            match self.try_to_move(key, found, logs).await {
                // Stored or not: the record itself says.
                Err(MigrationError::Backend(error))
                    if (error.is_transient() || matches!(error, BackendError::Conflict { .. }))
                        && begun.elapsed() < self.patience =>
                {
                    sleep(PAUSE).await;
                }
                moved => moved?,
            }
        }
    }

    /// Moves a record, and before it the messages that a relay holds, each batch on the condition that the record is as it
    /// was read.
    async fn try_to_move(
        &self,
        key: &Key,
        mut found: Found,
        logs: &Logs,
    ) -> Result<(), MigrationError> {
        let held = match key.as_str().starts_with(outbox::CURSORS) {
            true => self.records_of(&format!("{key}{HELD}*")).await?,
            false => Vec::new(),
        };
        for keys in held.chunks(HELD_BATCH) {
            let mut writes = Vec::with_capacity(2 * keys.len() + 1);
            for held in keys {
                let Some(Found { mut record, .. }) = self.record(held).await? else { continue };
                let at = position(held, &record)?;
                if at > logs.old.last {
                    continue;
                }
                let moved = self.located(at, logs).await?;
                record["position"] = json!(moved);
                let place = format!("{key}{HELD}{}", held_at(moved));
                writes.push(put(Key::new(place)?, &record, Expected::Anything));
                writes.push(KeyWrite::new(held.clone(), Change::Delete, Expected::Anything));
            }
            if !writes.is_empty() {
                self.write(key, &mut found, writes).await?;
            }
        }
        let moved = self.located(found.position(key)?, logs).await?;
        found.record["position"] = json!(moved);
        found.record["log_created"] = json!(logs.new.created);
        if let Some(mark) = found.record.get_mut("mark") {
            *mark = Value::Null;
        }
        self.write(key, &mut found, Vec::new()).await
    }

    /// One batch with the record.
    async fn write(
        &self,
        key: &Key,
        found: &mut Found,
        mut writes: Vec<KeyWrite>,
    ) -> Result<(), MigrationError> {
        // Whoever else changes the record sees that he was not the last.
        found.record["writer"] = json!(Uuid::new_v4());
        writes.push(put(key.clone(), &found.record, Expected::Revision(found.revision)));
        let writes = NonEmpty::from_vec(writes).expect("the record is in it");
        let revisions = self.from.read_models().write(writes).await?;
        found.revision = *revisions.last().expect("a revision for each write");
        Ok(())
    }

    /// Where the last message of the new stream lies that was made of the message at a position of the old one, or of one
    /// before it.
    async fn located(&self, at: Position, logs: &Logs) -> Result<Position, MigrationError> {
        if at == Position::START || logs.new.messages == 0 {
            return Ok(Position::START);
        }
        let (mut found, mut end) = (Position::START.get(), logs.new.last.get());
        while found < end {
            let middle = end - (end - found) / 2;
            let message = self.first_from(Position::new(middle)).await?;
            match origin(&message).filter(|origin| *origin <= at) {
                Some(_) => found = message.position.get(),
                None => end = middle - 1,
            }
        }
        Ok(Position::new(found))
    }

    /// The first message of the new stream at a position or behind it, which is there.
    async fn first_from(&self, at: Position) -> Result<StoredMessage, MigrationError> {
        let after = Position::new(at.get().saturating_sub(1));
        let begun = Instant::now();
        loop {
            let read = || async { self.to.read(LogQuery { filter: None, after }).try_next().await };
            if let Some(message) = patiently(self.patience, read).await? {
                return Ok(message);
            }
            if begun.elapsed() >= self.patience {
                return Err(BackendError::unavailable("no replica has the end of the copy").into());
            }
            sleep(PAUSE).await;
        }
    }

    async fn records_of(&self, pattern: &str) -> Result<Vec<Key>, MigrationError> {
        let bucket = self.from.read_models();
        Ok(patiently(self.patience, || bucket.keys(pattern)).await?)
    }

    async fn record(&self, key: &Key) -> Result<Option<Found>, MigrationError> {
        let bucket = self.from.read_models();
        let slot = patiently(self.patience, || bucket.get(key, ReadFrom::Leader)).await?;
        let Some(value) = slot.value else { return Ok(None) };
        let record = serde_json::from_slice(&value).map_err(|error| unreadable(key, &error))?;
        Ok(Some(Found { revision: slot.revision, record }))
    }
}

impl Found {
    fn is_of(&self, log: &LogStatus) -> bool {
        self.record["log_created"] == json!(log.created)
    }

    fn position(&self, key: &Key) -> Result<Position, MigrationError> {
        position(key, &self.record)
    }
}

fn position(key: &Key, record: &Value) -> Result<Position, MigrationError> {
    let position = record["position"].as_u64().map(Position::new);
    position.ok_or_else(|| unreadable(key, &"it has no position"))
}

fn put(key: Key, record: &Value, expected: Expected) -> KeyWrite {
    KeyWrite::new(key, Change::Put(record.to_string().into()), expected)
}
