//! What a relay keeps of itself in the bucket of read models: how far it is, and what it passed without publishing it.
//!
//! All are JSON with `format` 1, so that any client can read them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::pending::Lane;
use super::{PendingMessage, RetryPolicy};
use crate::backend::Position;
use crate::clock::Timestamp;
use crate::state::{InvalidKey, Key};
use crate::subject::Pattern;

/// The form of all these records.
pub(super) const FORMAT: u32 = 1;

/// What the keys of all cursors begin with.
pub(crate) const CURSORS: &str = "=outbox.";

/// What stands between a relay's cursor and the place of a message that it holds.
pub(crate) const HELD: &str = ".=held.";

/// The place of a held message at the end of its key, in the order of positions.
pub(crate) fn held_at(position: Position) -> String {
    format!("{:020}", position.get())
}

/// The keys of a relay.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub(super) cursor: Key,
    pub(super) lease: Key,
    held: String,
}

impl Keys {
    pub(super) fn of(relay: &str) -> Result<Self, InvalidKey> {
        Ok(Self {
            cursor: Key::new(format!("{CURSORS}{relay}"))?,
            lease: Key::new(format!("=lease.{relay}.outbox"))?,
            held: format!("{CURSORS}{relay}{HELD}"),
        })
    }

    pub(super) fn held(&self, position: Position) -> Key {
        let key = Key::new(format!("{}{}", self.held, held_at(position)));
        key.expect("a key and digits are a key")
    }

    /// The keys of everything: cursor and held messages.
    pub(super) fn all(&self) -> [Pattern; 2] {
        [self.cursor.to_string(), format!("{}*", self.held)].map(|text| {
            Pattern::parse(&text).expect("a key is a pattern, and so is one with * at its end")
        })
    }
}

/// How far a relay is. Whoever changes anything changes this record, on the condition that nobody else did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Cursor {
    pub(super) format: u32,
    /// Every message up to here is published, passed over, or held.
    pub(super) position: Position,
    /// When the log was created, to know it by.
    pub(super) log_created: Timestamp,
    /// How many messages were published.
    pub(super) published: u64,
    /// How many are parked.
    pub(super) parked: u64,
    /// How many are waiting.
    pub(super) deferred: u64,
    /// Who wrote it, anew for each write: by this an answer that was lost is told from another's write.
    pub(super) writer: Uuid,
}

/// A message that was passed and is not published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldMessage {
    /// The wire format: 1.
    pub format: u32,
    /// Whether it is tried again.
    pub state: HeldState,
    /// Where it lies in the context's stream.
    pub position: Position,
    /// Its topic.
    pub topic: String,
    /// Its id.
    pub id: String,
    /// Its ordering key.
    pub key: Option<String>,
    /// When the server stored it.
    pub stored_at: Timestamp,
    /// How often it was tried and failed.
    pub attempts: u32,
    /// Why the last try failed; null for one that only waits behind another of its key.
    pub error: Option<String>,
    /// When it is tried again, at the earliest.
    pub due: Timestamp,
}

/// What becomes of a held message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeldState {
    /// It is tried again, and the messages behind it with its ordering key wait for it.
    Waiting,
    /// It is not tried again until it is requeued, and nothing waits for it.
    Parked,
}

impl HeldMessage {
    /// One that waits without having been tried.
    pub(super) fn behind(message: &PendingMessage, now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            state: HeldState::Waiting,
            position: message.position(),
            topic: message.topic().to_string(),
            id: message.id().to_owned(),
            key: message.key().map(str::to_owned),
            stored_at: message.stored_at(),
            attempts: message.failed_tries(),
            error: None,
            due: now,
        }
    }

    /// The same message after one more failed try: parked when the policy says so, else to be tried again after a pause.
    pub(super) fn after_failure(
        self,
        reason: String,
        parked: bool,
        policy: &RetryPolicy,
        now: Timestamp,
    ) -> (Self, Duration) {
        let attempts = self.attempts.saturating_add(1);
        let parked = parked || attempts >= policy.tries;
        let state = if parked { HeldState::Parked } else { HeldState::Waiting };
        let pause = if parked { Duration::ZERO } else { policy.pause_after(attempts) };
        let due = Timestamp::from_micros(now.as_micros().saturating_add(micros(pause)));
        (Self { state, attempts, error: Some(reason), due, ..self }, pause)
    }

    /// The same message, to be tried again at once as if it never had been.
    pub(super) fn requeued(self, now: Timestamp) -> Self {
        Self { state: HeldState::Waiting, attempts: 0, due: now, ..self }
    }

    pub(super) fn lane(&self) -> Lane {
        let key: Option<Arc<str>> = self.key.as_deref().map(Into::into);
        Lane::of(key.as_ref(), self.position)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.state == HeldState::Waiting
    }
}

fn micros(pause: Duration) -> u64 {
    u64::try_from(pause.as_micros()).unwrap_or(u64::MAX)
}
