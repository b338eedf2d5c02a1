//! The connection to NATS: the client, how requests are sent, how its errors are translated.

use std::time::Duration;

use async_nats::header::HeaderMap;
use async_nats::{Client, Message, Request, RequestErrorKind};
use bytes::Bytes;

use super::BackendError;

/// A connection to a NATS cluster. Cloning is cheap and shares the connection.
#[derive(Debug, Clone)]
pub struct Connection {
    client: Client,
    api_prefix: String,
    timeout: Duration,
}

impl Connection {
    /// Uses a client that a service has already connected.
    pub fn from_client(client: Client) -> Self {
        Self { client, api_prefix: "$JS.API".to_owned(), timeout: Duration::from_secs(5) }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The prefix of JetStream's own subjects: `$JS.API`, or `$JS.<domain>.API`.
    pub(crate) fn api_prefix(&self) -> &str {
        &self.api_prefix
    }

    /// How long one request may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The largest message the server takes, in bytes with headers.
    pub(crate) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Sends one request and waits for its answer, at most [`timeout`](Self::timeout).
    pub(crate) async fn request(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Message, BackendError> {
        let mut request = Request::new().payload(payload).timeout(Some(self.timeout));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        match self.client.send_request(subject.to_owned(), request).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.request_failed(subject, error)),
        }
    }

    fn request_failed(
        &self,
        subject: &str,
        error: async_nats::client::RequestError,
    ) -> BackendError {
        let detail = format!("request on {subject}: {error}");
        match error.kind() {
            RequestErrorKind::NoResponders => {
                BackendError::Unavailable { detail, source: Some(Box::new(error)) }
            }
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                BackendError::Invalid { detail }
            }
            _ => BackendError::Unknown { detail, source: Some(Box::new(error)) },
        }
    }
}
