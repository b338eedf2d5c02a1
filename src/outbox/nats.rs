//! Publishers to NATS: to whoever listens, and to another stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::connection::State;
use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use serde::Deserialize;

use super::{PendingMessage, PublishError, Publisher, Subjects};
use crate::backend::BackendError;
use crate::backend::nats::Connection;

/// Publishes to core NATS: a message reaches those who listen at that moment, and nobody else.
///
/// Before a relay writes down that messages are published, the server has confirmed that it read them; after a lost
/// connection they are published again, those that were lost after others of their key. Where every message must arrive,
/// and in order, let a stream take them: [`JetStreamPublisher`]. The server's confirmation needs the permission to publish
/// on `$JS.API.INFO`; whether there is a JetStream does not matter.
#[derive(Debug)]
pub struct NatsPublisher {
    connection: Connection,
    subjects: Subjects,
    /// How often the connection was made when it was last known that everything had arrived.
    connects: AtomicU64,
}

impl NatsPublisher {
    /// Publishes on this connection, which may be the context's own. No round trip.
    pub fn new(connection: &Connection, subjects: Subjects) -> Self {
        let connects = AtomicU64::new(connects(connection));
        Self { connection: connection.clone(), subjects, connects }
    }
}

impl Publisher for NatsPublisher {
    async fn publish(&self, message: &PendingMessage) -> Result<(), PublishError> {
        let client = self.connection.client();
        if client.connection_state() != State::Connected {
            return Err(PublishError::unavailable("there is no connection to NATS"));
        }
        let headers = headers(message)?;
        let subject = self.subjects.of(message.topic());
        client
            .publish_with_headers(subject, headers, message.data().clone())
            .await
            .map_err(PublishError::retryable)
    }

    async fn settle(&self) -> Result<(), PublishError> {
        // The server reads a connection in order: when it answers, whatever the answer, it has read what came before.
        let subject = format!("{}.INFO", self.connection.api_prefix());
        match self.connection.request(&subject, None, Bytes::new()).await {
            Ok(_) | Err(BackendError::Unavailable { .. }) => {}
            // Where answers are refused to this user it has not asked at all, and remembers what the server said once.
            Err(BackendError::Denied { detail, .. })
                if self.connection.denied_to_publish(&subject).as_ref() == Some(&detail) => {}
            Err(error) => return Err(PublishError::unavailable(error)),
        }
        let connects = connects(&self.connection);
        if self.connects.swap(connects, Ordering::Relaxed) != connects {
            return Err(PublishError::unavailable("the connection to NATS was lost meanwhile"));
        }
        Ok(())
    }
}

/// Publishes into another JetStream stream, under the id of the message: within that stream's duplicate window each
/// message is stored once, however often it is published.
///
/// Each message is acknowledged by the stream; messages of several keys are under way at a time.
#[derive(Debug, Clone)]
pub struct JetStreamPublisher {
    connection: Connection,
    subjects: Arc<Subjects>,
}

impl JetStreamPublisher {
    /// Publishes on this connection, which may be the context's own, to subjects that a stream listens on. No round trip.
    pub fn new(connection: &Connection, subjects: Subjects) -> Self {
        Self { connection: connection.clone(), subjects: Arc::new(subjects) }
    }
}

impl Publisher for JetStreamPublisher {
    async fn publish(&self, message: &PendingMessage) -> Result<(), PublishError> {
        let (subject, headers) = (self.subjects.of(message.topic()), headers(message)?);
        let payload = message.data().clone();
        match self.connection.request(&subject, Some(headers), payload).await {
            Ok(answer) => acknowledged(&answer.payload),
            Err(error @ BackendError::Invalid { .. }) => Err(PublishError::permanent(error)),
            // No stream listens, or the permission is missing: no message is the reason for that.
            Err(error) => Err(PublishError::unavailable(error)),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    error: Option<Refusal>,
    #[serde(default)]
    seq: u64,
}

#[derive(Deserialize)]
struct Refusal {
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// What a stream's answer means. That it knows the message already is a yes.
fn acknowledged(payload: &[u8]) -> Result<(), PublishError> {
    let answer: Answer = serde_json::from_slice(payload).map_err(PublishError::retryable)?;
    match answer.error {
        None if answer.seq > 0 => Ok(()),
        None => Err(PublishError::retryable("whoever answered is no stream")),
        Some(Refusal { code, err_code, description }) => {
            let reason = format!("the stream refused it: {description} ({err_code})");
            Err(match (code, err_code) {
                // The account has no room left, or the stream is sealed: no message is the reason for that.
                (_, 10002 | 10109) | (503, _) => PublishError::unavailable(reason),
                (400, _) => PublishError::permanent(reason),
                _ => PublishError::retryable(reason),
            })
        }
    }
}

fn connects(connection: &Connection) -> u64 {
    connection.client().statistics().connects.load(Ordering::Relaxed)
}

/// The headers that almost every message has.
const USUAL: [&str; 11] = [
    "Nats-Msg-Id",
    "ce-specversion",
    "ce-id",
    "ce-source",
    "ce-type",
    "ce-time",
    "ce-datacontenttype",
    "ce-subject",
    "ce-partitionkey",
    "ce-correlationid",
    "ce-causationid",
];

fn headers(message: &PendingMessage) -> Result<HeaderMap, PublishError> {
    let mut map = HeaderMap::new();
    for (name, value) in message.headers().iter() {
        let name = match USUAL.into_iter().find(|usual| *usual == name) {
            Some(usual) => HeaderName::from_static(usual),
            None => HeaderName::try_from(name).map_err(PublishError::permanent)?,
        };
        let value: HeaderValue = value.parse().map_err(PublishError::permanent)?;
        map.append(name, value);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_the_message_is_refused_for_good() {
        let refused = |code: u16, err_code: u64| {
            let error = serde_json::json!({ "code": code, "err_code": err_code });
            let answer = serde_json::json!({ "error": error, "stream": "S", "seq": 0 });
            acknowledged(answer.to_string().as_bytes()).unwrap_err()
        };
        // Larger than the stream takes.
        assert!(matches!(refused(400, 10054), PublishError::Permanent(_)));
        // No resources left for the account; a sealed stream; no resources left for the server.
        for (code, err_code) in [(400, 10002), (400, 10109), (503, 10023)] {
            assert!(matches!(refused(code, err_code), PublishError::Unavailable(_)), "{err_code}");
        }
    }
}
