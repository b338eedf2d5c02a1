//! Copying, batch by batch, from where the copy ends.

use std::collections::HashSet;

use futures::TryStreamExt;
use tokio::time::{Instant, sleep};

use super::rewrite::{Heads, Rewritten};
use super::{Copied, EventCopy, PAUSE, Transform, origin};
use crate::backend::{BackendError, Guard, NewMessage, Position, StoredMessage};
use crate::event::NonEmpty;
use crate::event_log::LogQuery;
use crate::migration::MigrationError;
use crate::migration::held::patiently;
use crate::store::Head;
use crate::subject::Subject;

/// How many messages of the old stream are gathered, and how many bytes of the new one make a batch.
const PAGE: usize = 250;
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// How many heads are remembered between batches.
const HEADS: usize = 100_000;

impl EventCopy {
    /// Copies what is not copied yet, up to the end that the old stream has when this begins. What is no event is copied byte
    /// for byte.
    ///
    /// One batch for some hundred messages, guarded by where each of its aggregates ends in the new stream; so every event is
    /// copied once, in order, whoever else copies. Memory is bounded.
    ///
    /// Cancel safe: the next call goes on.
    ///
    /// # Errors
    /// [`MigrationError::Refused`] with what `transform` returns; [`MigrationError::Store`] at an event that cannot be trusted;
    /// [`MigrationError::Copy`] when the new stream holds something else; [`MigrationError::Backend`].
    pub async fn copy(&self, transform: impl Transform) -> Result<Copied, MigrationError> {
        let end = patiently(self.patience, || self.from.log().status()).await?.last;
        let mut copied = Copied::default();
        let mut after = self.copied_up_to().await?;
        let mut heads = Heads::new();
        let mut moved = Instant::now();
        while after < end {
            let page = match self.page(after).await {
                Err(error) if error.is_transient() && moved.elapsed() < self.patience => Vec::new(),
                page => page?,
            };
            let Some(last) = page.last().map(|message| message.position) else {
                // A replica that is behind has nothing there yet.
                if moved.elapsed() >= self.patience {
                    let detail = format!("nothing was read after position {after} of {end}");
                    return Err(BackendError::unavailable(detail).into());
                }
                sleep(PAUSE).await;
                continue;
            };
            let read = page.len() as u64;
            match self.store(page, &transform, &mut heads).await {
                Ok((written, dropped)) => {
                    copied.read += read;
                    copied.written += written;
                    copied.dropped += dropped;
                    after = last;
                    moved = Instant::now();
                }
                // Stored or not, by us or by another one: the copy itself says.
                Err(MigrationError::Backend(error)) if is_open(&error) => {
                    if moved.elapsed() >= self.patience {
                        return Err(error.into());
                    }
                    sleep(PAUSE).await;
                    heads.clear();
                    let reached = self.copied_up_to().await?;
                    if reached > after {
                        (after, moved) = (reached, Instant::now());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        copied.up_to = after;
        Ok(copied)
    }

    /// The position of the old stream up to which the new one has everything; what became nothing after it comes again.
    async fn copied_up_to(&self) -> Result<Position, MigrationError> {
        let begun = Instant::now();
        loop {
            let last = patiently(self.patience, || self.to.status()).await?.last;
            if last == Position::START {
                return Ok(last);
            }
            let query = || LogQuery { filter: None, after: Position::new(last.get() - 1) };
            let read = || async { self.to.read(query()).try_next().await };
            if let Some(message) = patiently(self.patience, read).await? {
                return origin(&message).ok_or_else(|| MigrationError::Copy {
                    reason: format!(
                        "the message at position {} of it was not copied there",
                        message.position
                    ),
                });
            }
            let status = patiently(self.patience, || self.to.status()).await?;
            // A stream whose first position was chosen ends before it as long as it is empty.
            if status.messages == 0 {
                return Ok(Position::START);
            }
            if begun.elapsed() >= self.patience {
                return Err(BackendError::unavailable("no replica has the end of the copy").into());
            }
            sleep(PAUSE).await;
        }
    }

    async fn page(&self, after: Position) -> Result<Vec<StoredMessage>, BackendError> {
        use futures::StreamExt;
        self.from.log().read(LogQuery { filter: None, after }).take(PAGE).try_collect().await
    }

    /// Stores what becomes of a page, in batches; how many messages that are, and how many became nothing.
    async fn store(
        &self,
        page: Vec<StoredMessage>,
        transform: &impl Transform,
        heads: &mut Heads,
    ) -> Result<(u64, u64), MigrationError> {
        self.learn(&page, heads).await?;
        let most = self.to.limits().max_batch_messages;
        let (mut batch, mut bytes, mut ids) = (Vec::new(), 0, HashSet::new());
        let (mut written, mut dropped) = (0, 0);
        for message in page {
            let position = message.position;
            let rewritten = self.rewrite(message, transform, heads)?;
            if rewritten.len() > most {
                let key = format!("event at position {position}");
                let reason = format!("it becomes more than {most} events");
                return Err(MigrationError::Refused { key, reason });
            }
            dropped += u64::from(rewritten.is_empty());
            written += rewritten.len() as u64;
            let more: usize = rewritten.iter().map(|message| message.payload.len()).sum();
            // What one event became is stored together, so that the copy never ends amid it. An id that was stored twice is
            // not admitted in one batch.
            let twice = rewritten.iter().filter_map(Rewritten::id).any(|id| !ids.insert(id));
            if batch.len() + rewritten.len() > most || bytes + more > BATCH_BYTES || twice {
                self.publish(std::mem::take(&mut batch), heads).await?;
                bytes = 0;
                ids = rewritten.iter().filter_map(Rewritten::id).collect();
            }
            bytes += more;
            batch.extend(rewritten);
        }
        self.publish(batch, heads).await?;
        Ok((written, dropped))
    }

    /// Reads where the subjects of a page end, as far as that is not known. One round trip.
    async fn learn(&self, page: &[StoredMessage], heads: &mut Heads) -> Result<(), MigrationError> {
        if heads.len() > HEADS {
            heads.clear();
        }
        let unknown: HashSet<Subject> = page
            .iter()
            .map(|message| &message.subject)
            .filter(|subject| !heads.contains_key(*subject))
            .cloned()
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<Subject> = unknown.into_iter().collect();
        heads.extend(unknown.iter().map(|subject| (subject.clone(), Head::default())));
        for message in self.to.lasts(&unknown).await? {
            let (subject, position) = (message.subject.clone(), message.position);
            let head = match subject.as_str().starts_with(self.from.scheme().event_prefix()) {
                true => Head::of(&self.verified(message)?),
                false => Head { position, ..Head::default() },
            };
            heads.insert(subject, head);
        }
        Ok(())
    }

    /// One batch. The first message of each subject is guarded by where the subject ends.
    async fn publish(
        &self,
        batch: Vec<Rewritten>,
        heads: &mut Heads,
    ) -> Result<(), MigrationError> {
        let subjects: Vec<Subject> = batch.iter().map(|message| message.subject.clone()).collect();
        let mut guarded = HashSet::new();
        let mut messages = Vec::with_capacity(batch.len());
        for message in batch {
            let end = heads.get(&message.subject).map(|head| head.position).unwrap_or_default();
            let guard = match guarded.insert(message.subject.clone()) {
                true => Guard::Last(end),
                false => Guard::Free,
            };
            let subject = Subject::trusted(format!("{}{}", self.prefix, message.subject));
            let (headers, payload) = (message.headers, message.payload);
            messages.push(NewMessage { subject, headers, payload, guard });
        }
        let count = messages.len() as u64;
        let last = match NonEmpty::from_vec(messages) {
            None => return Ok(()),
            Some(messages) if count == 1 => self.to.publish(messages.into_vec().remove(0)).await?,
            Some(messages) => self.to.publish_batch(messages).await?,
        };
        for (subject, position) in subjects.into_iter().zip(last.get() + 1 - count..) {
            heads.entry(subject).or_default().position = Position::new(position);
        }
        Ok(())
    }
}

/// Whether a look at the copy says how it goes on.
fn is_open(error: &BackendError) -> bool {
    let known = matches!(error, BackendError::Conflict { .. } | BackendError::Duplicate { .. });
    known || error.is_transient()
}
