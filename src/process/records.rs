//! What is written down of a process: how far it is, to what an instance has reacted, what it wishes of timeouts, what was
//! parked. All of it is JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::error::ProcessError;
use crate::backend::{Guard, NewMessage, Position, ReadFrom, StoredMessage};
use crate::clock::Timestamp;
use crate::event::{Headers, names};
use crate::state::{InvalidKey, Key};
use crate::store::Context;
use crate::subject::{AggregateId, ContextName, Pattern, Subject};

/// The form of all these records.
pub(super) const FORMAT: u32 = 1;

/// What the keys of all cursors begin with.
pub(crate) const CURSORS: &str = "=process.";

/// To what an instance has reacted. The one record that decides what took effect: each reaction replaces it under its guard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) format: u32,
    /// The last event that it has reacted to.
    pub(super) handled: Position,
    /// The timeouts that it waits for, by name, and their ids.
    pub(super) pending: BTreeMap<String, Uuid>,
}

/// A mark, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct HeldMark {
    pub(super) mark: Mark,
    pub(super) position: Position,
}

impl HeldMark {
    pub(super) async fn read(
        context: &Context,
        subject: &Subject,
        from: ReadFrom,
    ) -> Result<Self, ProcessError> {
        let Some(message) = context.log().last(subject, from).await? else {
            return Ok(Self::default());
        };
        let position = message.position;
        let mark = serde_json::from_slice(&message.payload).map_err(|error| {
            let place = format!("{subject} at position {position}");
            ProcessError::Record { place, reason: error.to_string() }
        })?;
        Ok(Self { mark, position })
    }
}

impl Mark {
    /// The message that replaces the mark at a position.
    pub(super) fn message(&self, subject: Subject, over: Position, id: Uuid) -> NewMessage {
        message(subject, self, id, Guard::Last(over))
    }
}

/// Where the mark of an instance lies.
pub(super) fn mark_subject(
    context: &ContextName,
    process: &str,
    instance: &AggregateId,
) -> Subject {
    Subject::trusted(format!("{}{}", marks_of(context, process), instance.as_str()))
}

/// What the subjects of all marks of a process begin with.
pub(crate) fn marks_of(context: &ContextName, process: &str) -> String {
    format!("cim.unique.{context}.=process.{process}.")
}

/// What an instance wishes of a timeout, until the queue knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct WishRecord {
    pub(super) format: u32,
    pub(super) instance: AggregateId,
    pub(super) name: String,
    pub(super) wish: Wish,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wish {
    Schedule { id: Uuid, at: Timestamp, correlation_id: Uuid, data: Value },
    Cancel,
}

impl WishRecord {
    pub(super) fn message(&self, context: &ContextName, process: &str, id: Uuid) -> NewMessage {
        message(Subject::trusted(wishes_of(context, process)), self, id, Guard::Free)
    }

    pub(super) fn read(message: &StoredMessage) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(&message.payload)
    }
}

fn wishes_of(context: &ContextName, process: &str) -> String {
    format!("cim.outbox.{context}.=timeouts.{process}")
}

/// The subject of the wishes of a process.
pub(super) fn wishes_pattern(context: &ContextName, process: &str) -> Pattern {
    Pattern::parse(&wishes_of(context, process)).expect("names with dots between them")
}

fn message<T: Serialize>(subject: Subject, record: &T, id: Uuid, guard: Guard) -> NewMessage {
    let payload = serde_json::to_vec(record).expect("records have string keys");
    let mut headers = Headers::with_capacity(1);
    headers.push(names::MSG_ID, id.to_string());
    NewMessage { subject, headers, payload: payload.into(), guard }
}

/// Something that a process manager could not react to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedReaction {
    /// The wire format: 1.
    pub format: u32,
    /// What it could not react to.
    pub trigger: Trigger,
    /// Why not; the first 4096 bytes of it.
    pub reason: String,
    /// When that was.
    pub parked_at: Timestamp,
}

/// What a reaction is to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trigger {
    /// An event.
    Event {
        /// Where it lies.
        position: Position,
        /// Its type, as far as it could be read.
        event_type: Option<String>,
    },
    /// A timeout.
    Timeout {
        /// Its id.
        id: Uuid,
        /// The instance that waited for it.
        instance: AggregateId,
        /// Its name.
        name: String,
    },
}

impl Trigger {
    pub(super) fn key(&self, process: &str) -> Result<Key, InvalidKey> {
        match self {
            Self::Event { position, .. } => {
                Key::new(format!("=process-parked.{process}.{position}"))
            }
            Self::Timeout { id, .. } => Key::new(format!("=process-parked.{process}.{id}")),
        }
    }
}

pub(super) fn all_parked(process: &str) -> String {
    format!("=process-parked.{process}.*")
}

/// How far a process is. What it says may be behind: marks decide what took effect.
pub(super) fn cursor_key(process: &str) -> Result<Key, InvalidKey> {
    Key::new(format!("{CURSORS}{process}"))
}

pub(super) fn lease_key(process: &str) -> Result<Key, InvalidKey> {
    Key::new(format!("=lease.{process}.process"))
}
