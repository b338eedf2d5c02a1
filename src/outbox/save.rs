//! Messages that are saved by themselves, outside any commit of events.
//!
//! Nothing guards them, so that they are stored once rests on their ids: for two minutes the server refuses an id that it
//! knows, and an answer that proves nothing is resolved by a look at what was stored since.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, sleep};

use super::{Outbox, OutboxError, OutboxMessage};
use crate::backend::{BackendError, NewMessage, Position, StoredMessage};
use crate::event::{NonEmpty, names::MSG_ID};
use crate::event_log::LogQuery;
use crate::store::CommitInfo;

/// How long an unknown outcome is looked into: well within the time for which the server knows an id.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

impl Outbox {
    /// Saves messages by themselves, all or none, and returns the position of the last; at most 1000.
    ///
    /// For what belongs to no event. What tells of an event belongs into the unit of work that stores the event. Two round
    /// trips, more when an answer is lost. Saving a message again [with the same id](OutboxMessage::with_id) within two
    /// minutes stores nothing and is refused with [`BackendError::Duplicate`]. When dropped, the messages are stored whole
    /// or not at all.
    ///
    /// # Errors
    /// [`OutboxError::Attribute`] for a message that is refused; [`OutboxError::OutcomeUnknown`] when it is not known what
    /// is stored, after 30 s; else [`OutboxError::Backend`], and nothing is stored. A message that was not given an id gets
    /// another one each time it is saved: give ids to what may have to be saved again.
    pub async fn save_messages(
        &self,
        messages: &NonEmpty<OutboxMessage>,
        info: &CommitInfo,
    ) -> Result<Position, OutboxError> {
        let encoded: Result<Vec<_>, _> =
            messages.iter().map(|message| message.encode(&self.context, info)).collect();
        let encoded = NonEmpty::from_vec(encoded?).expect("made from a NonEmpty");
        let before = self.context.log().status().await?.last;
        let begun = Instant::now();
        let mut unproven = false;
        loop {
            let failure = match self.send(&encoded).await {
                Ok(position) => return Ok(position),
                Err(BackendError::Duplicate { stream }) if !unproven => {
                    return Err(BackendError::Duplicate { stream }.into());
                }
                Err(error @ (BackendError::Unknown { .. } | BackendError::Duplicate { .. })) => {
                    unproven = true;
                    error
                }
                // What was sent before may still arrive.
                Err(error @ BackendError::Unavailable { .. }) if unproven => error,
                Err(error) => return Err(error.into()),
            };
            let source = match self.find(&encoded, before).await {
                Ok(Some(position)) => return Ok(position),
                Ok(None) => failure,
                Err(error) if error.is_transient() => error,
                Err(error) => return Err(error.into()),
            };
            let waited = begun.elapsed();
            if waited >= PATIENCE {
                return Err(OutboxError::OutcomeUnknown { waited, source });
            }
            sleep(PAUSE).await;
        }
    }

    async fn send(&self, messages: &NonEmpty<NewMessage>) -> Result<Position, BackendError> {
        let log = self.context.log();
        match messages.as_slice() {
            [message] => log.publish(message.clone()).await,
            _ => log.publish_batch(messages.clone()).await,
        }
    }

    /// Where the last message lies, if they were stored after a position. They are stored whole.
    async fn find(
        &self,
        messages: &NonEmpty<NewMessage>,
        after: Position,
    ) -> Result<Option<Position>, BackendError> {
        let last = messages.last();
        let wanted = last.headers.get(MSG_ID);
        let filter = Some(last.subject.to_string());
        let mut stored = self.context.log().read(LogQuery { filter, after });
        while let Some(message) = stored.next().await {
            let StoredMessage { headers, position, .. } = message?;
            if headers.get(MSG_ID) == wanted {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }
}
