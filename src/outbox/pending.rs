//! A message of the outbox that is to be published.

use std::sync::Arc;

use bytes::Bytes;

use super::cloud_event::names;
use super::{CloudEvent, InvalidCloudEvent, Topic, percent};
use crate::backend::{Position, StoredMessage};
use crate::clock::Timestamp;
use crate::event::{Headers, names::MSG_ID};
use crate::subject::ContextName;

/// A message of the outbox that is to be published. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct PendingMessage {
    message: StoredMessage,
    topic: Topic,
    key: Option<Arc<str>>,
    failed: u32,
}

impl PendingMessage {
    /// What a message of the stream is; `None` when it does not lie in this context's outbox.
    pub(super) fn read(context: &ContextName, message: StoredMessage) -> Option<Self> {
        let topic = Topic::of_subject(context, message.subject.as_str())?;
        let header = message.headers.get(names::KEY_HEADER);
        // A key that does not decode is a key all the same.
        let key = header.map(|text| percent::decode(text).unwrap_or_else(|| text.to_owned()));
        Some(Self { message, topic, key: key.map(Into::into), failed: 0 })
    }

    pub(super) fn after_tries(self, failed: u32) -> Self {
        Self { failed, ..self }
    }

    /// Where it lies in the context's stream.
    pub fn position(&self) -> Position {
        self.message.position
    }

    /// Its topic.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Its id, by which receivers recognise a repetition; empty when whoever wrote it gave it none.
    pub fn id(&self) -> &str {
        self.message.headers.get(MSG_ID).unwrap_or_default()
    }

    /// Its ordering key.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// How often it was tried and failed.
    pub fn failed_tries(&self) -> u32 {
        self.failed
    }

    /// When the server stored it.
    pub fn stored_at(&self) -> Timestamp {
        self.message.time
    }

    /// Its headers, as CloudEvents in binary mode has them.
    pub fn headers(&self) -> &Headers {
        &self.message.headers
    }

    /// Its data.
    pub fn data(&self) -> &Bytes {
        &self.message.payload
    }

    /// The event it holds.
    ///
    /// # Errors
    /// [`InvalidCloudEvent`] when it holds none.
    pub fn event(&self) -> Result<CloudEvent, InvalidCloudEvent> {
        CloudEvent::read(&self.message)
    }

    pub(super) fn lane(&self) -> Lane {
        Lane::of(self.key.as_ref(), self.position())
    }

    /// Its memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.message.payload.len() + 512
    }
}

/// What is published one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// The messages of an ordering key.
    Key(Arc<str>),
    /// A message without one.
    Alone(Position),
}

impl Lane {
    pub(super) fn of(key: Option<&Arc<str>>, position: Position) -> Self {
        key.map_or(Self::Alone(position), |key| Self::Key(Arc::clone(key)))
    }
}
