//! A message for other systems, before it is stored, and how it is stored.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::cloud_event::names;
use super::percent;
use super::{OutboxError, Topic};
use crate::backend::{Guard, NewMessage};
use crate::event::{Headers, names::MSG_ID};
use crate::store::{CommitInfo, Context};

/// The longest attribute of a message, in bytes.
pub const MAX_ATTRIBUTE_BYTES: usize = 1024;

/// A message for other systems: stored with a commit, published after it, at least once.
///
/// It becomes a CloudEvent of version 1.0. Its id, a UUID of version 7, is made when it is stored, and so is its time.
/// What is wrong with an attribute is said when it is stored.
///
/// ```
/// use cim_persistence::outbox::{OutboxMessage, Topic};
/// use serde_json::json;
///
/// let placed = OutboxMessage::json(Topic::new("orders.placed")?, "com.example.order.placed", &json!({"cents": 950}))?
///     .with_key("order-42")
///     .with_subject("order-42");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxMessage {
    topic: Topic,
    event_type: String,
    content_type: String,
    data: Bytes,
    id: Option<Uuid>,
    source: Option<String>,
    key: Option<String>,
    subject: Option<String>,
    extensions: BTreeMap<String, String>,
}

impl OutboxMessage {
    /// A message whose data is written as JSON.
    ///
    /// # Errors
    /// [`OutboxError::Data`] when the data is not JSON: a key that is no text, a number that is not finite.
    pub fn json(
        topic: Topic,
        event_type: impl Into<String>,
        data: &impl Serialize,
    ) -> Result<Self, OutboxError> {
        let event_type = event_type.into();
        let data = serde_json::to_vec(data).map_err(|error| OutboxError::Data {
            event_type: event_type.clone(),
            reason: error.to_string(),
        })?;
        Ok(Self::bytes(topic, event_type, "application/json", data))
    }

    /// A message whose data is these bytes, of this media type.
    pub fn bytes(
        topic: Topic,
        event_type: impl Into<String>,
        content_type: impl Into<String>,
        data: impl Into<Bytes>,
    ) -> Self {
        Self {
            topic,
            event_type: event_type.into(),
            content_type: content_type.into(),
            data: data.into(),
            id: None,
            source: None,
            key: None,
            subject: None,
            extensions: BTreeMap::new(),
        }
    }

    /// The same message with an id that is already known, such as that of a message it repeats.
    pub fn with_id(self, id: Uuid) -> Self {
        Self { id: Some(id), ..self }
    }

    /// The same message from this source, a URI reference. Default: `cim://<context>`.
    pub fn with_source(self, source: impl Into<String>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// The same message with an ordering key: messages of one key are published in the order they were stored, those
    /// without one in any order. Becomes the attribute `partitionkey`.
    pub fn with_key(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// The same message about this subject, in the words of its source.
    pub fn with_subject(self, subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }

    /// The same message with one more attribute: an extension, or `dataschema`. The name has `a-z 0-9`, at most 20.
    pub fn with_extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.insert(name.into(), value.into());
        self
    }

    /// Its topic.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The message as it is stored: without a guard, so that it goes along with any commit. Each call makes an id,
    /// unless the message has one.
    ///
    /// Correlation, causation and the trace are those of the commit.
    pub(crate) fn encode(
        &self,
        context: &Context,
        info: &CommitInfo,
    ) -> Result<NewMessage, OutboxError> {
        let name = context.scheme().context();
        let id = self.id.unwrap_or_else(|| context.encoder().ids.next_id()).to_string();
        let source = self.source.clone().unwrap_or_else(|| format!("cim://{name}"));
        check_media_type(&self.content_type)?;
        let mut headers = Headers::with_capacity(12);
        headers.push(MSG_ID, &id);
        let mut put = |name: &str, value: &str| {
            check_value(name, value)?;
            headers.push(names::header(name), percent::encode(value));
            Ok::<(), OutboxError>(())
        };
        put(names::SPEC_VERSION, names::VERSION)?;
        put(names::ID, &id)?;
        put(names::SOURCE, &source)?;
        put(names::TYPE, &self.event_type)?;
        put(names::TIME, &context.clock().now().to_string())?;
        put(names::CONTENT_TYPE, &self.content_type)?;
        let ids = [
            (names::CORRELATION, info.correlation_id.map(|id| id.to_string())),
            (names::CAUSATION, info.causation_id.map(|id| id.to_string())),
        ];
        let own = [(names::SUBJECT, self.subject.clone()), (names::KEY, self.key.clone())];
        for (name, value) in own.into_iter().chain(ids) {
            value.map_or(Ok(()), |value| put(name, &value))?;
        }
        for (name, value) in &self.extensions {
            check_name(name)?;
            put(name, value)?;
        }
        for (name, value) in info.metadata.trace() {
            if !self.extensions.contains_key(name) {
                put(name, value)?;
            }
        }
        Ok(NewMessage {
            subject: self.topic.subject(name),
            headers,
            payload: self.data.clone(),
            guard: Guard::Free,
        })
    }
}

fn refused(name: &str, reason: &'static str) -> OutboxError {
    OutboxError::Attribute { name: name.to_owned(), reason }
}

fn check_name(name: &str) -> Result<(), OutboxError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty() || name.len() > 20 || !name.chars().all(plain) {
        return Err(refused(name, "a name has 1 to 20 of a-z 0-9"));
    }
    match names::OWN.contains(&name) {
        true => Err(refused(name, "it has a method of its own, or is set for every message")),
        false => Ok(()),
    }
}

fn check_value(name: &str, value: &str) -> Result<(), OutboxError> {
    if value.is_empty() {
        return Err(refused(name, "it is empty"));
    }
    if value.len() > MAX_ATTRIBUTE_BYTES {
        return Err(refused(name, "it is over 1024 bytes"));
    }
    // Code points that no text of CloudEvents holds.
    let hollow =
        |c: char| u32::from(c) & 0xFFFE == 0xFFFE || ('\u{FDD0}'..='\u{FDEF}').contains(&c);
    if value.chars().any(|c| c.is_control() || hollow(c)) {
        return Err(refused(name, "it holds a control character or a code point that is none"));
    }
    match name == names::SOURCE && value.contains(char::is_whitespace) {
        true => Err(refused(name, "a URI reference holds no white space")),
        false => Ok(()),
    }
}

fn check_media_type(text: &str) -> Result<(), OutboxError> {
    let plain = |c: char| c.is_ascii_graphic() || c == ' ';
    let named =
        text.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty());
    if !named || !text.chars().all(plain) {
        return Err(refused(names::CONTENT_TYPE, "it is not a media type"));
    }
    match names::is_structured(text) {
        // A receiver would take the data for the whole event.
        true => Err(refused(names::CONTENT_TYPE, "it stands for events in structured mode")),
        false => Ok(()),
    }
}
