//! The connection to NATS: the client, how requests are sent, how its errors are translated.
//!
//! How a connection is made is in `connect`, what is asked about disks in `durability`, how streams are made and
//! checked in `provision`; which permissions were refused is kept in `denials`, and how single messages are published
//! in `publisher`.

mod connect;
mod denials;
mod durability;
mod provision;
mod publisher;

use std::fmt;
use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_nats::header::HeaderMap;
use async_nats::{Client, Message, Request, RequestErrorKind, Subscriber, ToSubject};
use bytes::Bytes;
use tokio::time::timeout;

use super::{BackendError, ConfigError, ConnectError, Durability, JetStreamLocation};
use denials::Denials;
pub(crate) use publisher::{Publisher, Sent};

pub(crate) use provision::{change_settings, create_stream, find_settings, settings_of};
pub use provision::{provision, verify};

/// How long one request may take unless configured.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to a NATS cluster. Cloning is cheap and shares the connection.
///
/// It is made again by itself when it is lost. Made by [`Connection::connect`], or by
/// [`Connection::from_client`] from a client that a service has anyway.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    api_prefix: Arc<str>,
    timeout: Duration,
    /// `None` for a client of the service's own, whose events go elsewhere.
    denials: Option<Arc<Denials>>,
    /// Whether the servers were durable when they were first asked for a check.
    durable: Arc<OnceLock<bool>>,
    /// `None` before the first message.
    publisher: Arc<RwLock<Option<Arc<Publisher>>>>,
}

impl Connection {
    /// Uses a client that a service has already connected.
    ///
    /// Nothing is checked here. What [`connect`](Self::connect) checks at once, the server's version, JetStream and
    /// durability, is checked when a context is opened on it. The server reports refused permissions to the client's own
    /// event callback, so here they look like requests that nobody answers: after the [timeout](Self::with_timeout)
    /// [`BackendError::Unavailable`] for a read and [`BackendError::Unknown`] for a write, instead of
    /// [`BackendError::Denied`] at once.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use cim_persistence::backend::nats::Connection;
    /// let client = async_nats::connect("nats://127.0.0.1:4222").await?;
    /// let connection = Connection::from_client(client);
    /// # Ok(()) }
    /// ```
    pub fn from_client(client: Client) -> Self {
        Self {
            client,
            api_prefix: api_prefix(&JetStreamLocation::Default),
            timeout: DEFAULT_TIMEOUT,
            denials: None,
            durable: Arc::default(),
            publisher: Arc::default(),
        }
    }

    /// Uses JetStream in another place.
    ///
    /// # Errors
    /// [`ConfigError::Subject`] when the domain or the prefix cannot stand in a subject.
    pub fn with_jetstream(self, location: JetStreamLocation) -> Result<Self, ConfigError> {
        location.check()?;
        Ok(Self { api_prefix: api_prefix(&location), ..self })
    }

    /// Lets a request take this long.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Refuses a server that is too old; no round trip.
    pub(crate) fn check_version(&self) -> Result<(), ConnectError> {
        connect::check_version(&self.client)
    }

    /// Refuses or reports servers that are not durable. Asks and reports once; asks again only where durability is
    /// required and was not seen yet.
    pub(crate) async fn check_durability(&self, wanted: Durability) -> Result<(), ConnectError> {
        match (self.durable.get(), wanted) {
            (Some(true), _) | (Some(false), Durability::Reported) => return Ok(()),
            (Some(false), Durability::Required) | (None, _) => {}
        }
        let outcome = self.durability().await.require();
        self.durable.get_or_init(|| outcome.is_ok());
        match (outcome, wanted) {
            (Ok(()), _) => Ok(()),
            (Err(error), Durability::Required) => Err(error),
            (Err(error), Durability::Reported) => {
                tracing::warn!("{error}");
                Ok(())
            }
        }
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

    /// What the server said when it refused this user to use `subject`, if it did lately.
    ///
    /// For what is sent without [`request`](Self::request) and stays unanswered for its timeout: then it was refused
    /// and nothing was stored.
    pub(crate) fn denied(&self, subject: &str) -> Option<String> {
        self.denials.as_ref()?.within(self.timeout.saturating_mul(2), subject)
    }

    /// As [`denied`](Self::denied), for a message that was not stored because of it. Where only the answers are refused, it
    /// may be.
    pub(crate) fn denied_to_publish(&self, subject: &str) -> Option<String> {
        self.denials.as_ref()?.published_within(self.timeout.saturating_mul(2), subject)
    }

    /// Subscribes, if that leaves within [`timeout`](Self::timeout): it does not while there is no connection and more waits
    /// to leave than the client holds. No round trip.
    pub(crate) async fn subscribe(&self, subject: String) -> Result<Subscriber, BackendError> {
        let failed =
            |detail: String| BackendError::unavailable(format!("subscribing to answers: {detail}"));
        match timeout(self.timeout, self.client.subscribe(subject)).await {
            Ok(subscribed) => subscribed.map_err(|error| failed(error.to_string())),
            Err(_) => Err(failed("no connection".to_owned())),
        }
    }

    /// Sends one request and waits for its answer, at most [`timeout`](Self::timeout).
    pub(crate) async fn request(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Message, BackendError> {
        // The client's own timeout does not begin before the request has a place among what waits to leave.
        let mut request = Request::new().payload(payload).timeout(None);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let answer = self.client.send_request(Wire(subject), request);
        let answer = pin!(timeout(self.timeout, answer));
        match self.unless_refused(subject, answer).await? {
            Ok(answer) => answer.map_err(|error| request_failed(subject, error)),
            Err(_) => {
                let waited = self.timeout;
                let detail = format!("no answer to a request on {subject} in {waited:?}");
                Err(BackendError::unknown(detail))
            }
        }
    }

    /// What publishes single messages on this connection: what many callers publish at once leaves together. No round trip
    /// but for the first message.
    pub(crate) async fn publisher(&self) -> Result<Arc<Publisher>, BackendError> {
        match self.running_publisher() {
            Some(publisher) => Ok(publisher),
            // Boxed, because it is rare and would make the future of every message large.
            None => Box::pin(self.new_publisher()).await,
        }
    }

    /// Waits for the stream that takes a published message to answer, and returns the payload of its answer.
    pub(crate) async fn answer(&self, subject: &str, sent: Sent) -> Result<Bytes, BackendError> {
        let answer = pin!(sent.answer(subject));
        self.unless_refused(subject, answer).await?
    }

    /// The publisher that all clones of this connection share.
    fn running_publisher(&self) -> Option<Arc<Publisher>> {
        let slot = self.publisher.read().unwrap_or_else(PoisonError::into_inner);
        slot.clone().filter(|publisher| publisher.is_running())
    }

    /// Starts the publisher, again where it has ended with its runtime.
    async fn new_publisher(&self) -> Result<Arc<Publisher>, BackendError> {
        let starting = timeout(self.timeout, Publisher::start(&self.client)).await;
        let late = |_| BackendError::unavailable("subscribing to acknowledgements took too long");
        let new = Arc::new(starting.map_err(late)??);
        let mut slot = self.publisher.write().unwrap_or_else(PoisonError::into_inner);
        let running = slot.clone().filter(|publisher| publisher.is_running());
        Ok(running.unwrap_or_else(|| Arc::clone(slot.insert(new))))
    }

    /// What comes of `work`, unless the server refuses to let this user use `subject` before that. By reference, because a
    /// future that is passed on by value takes its place twice.
    async fn unless_refused<T>(
        &self,
        subject: &str,
        work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, BackendError> {
        if self.denials.is_none() {
            return Ok(work.await);
        }
        tokio::select! {
            biased;
            outcome = work => Ok(outcome),
            // Boxed, because it would make the future of every message large.
            detail = Box::pin(self.refused(Instant::now(), subject)) => {
                Err(BackendError::Denied { subject: subject.to_owned(), detail })
            }
        }
    }

    /// Waits until the server refuses `subject`; for ever when it does not or nobody would know.
    async fn refused(&self, since: Instant, subject: &str) -> String {
        match &self.denials {
            Some(denials) => denials.refused(since, subject).await,
            None => pending().await,
        }
    }
}

/// A subject as the client takes it, which copies a text of its own as well.
pub(crate) struct Wire<'s>(pub(crate) &'s str);

impl ToSubject for Wire<'_> {
    fn to_subject(&self) -> async_nats::Subject {
        self.0.into()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("state", &self.client.connection_state())
            .field("api_prefix", &self.api_prefix)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

fn api_prefix(location: &JetStreamLocation) -> Arc<str> {
    match location {
        JetStreamLocation::Default => "$JS.API".into(),
        JetStreamLocation::Domain(domain) => format!("$JS.{domain}.API").into(),
        JetStreamLocation::ApiPrefix(prefix) => prefix.as_str().into(),
    }
}

/// What becomes of a request that reached no server, or none that knows of what it is about.
pub(crate) fn untaken(subject: &str) -> BackendError {
    BackendError::unavailable(format!("no server takes requests on {subject}"))
}

fn request_failed(subject: &str, error: async_nats::client::RequestError) -> BackendError {
    let detail = format!("request on {subject}: {error}");
    match error.kind() {
        RequestErrorKind::NoResponders => untaken(subject),
        RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
            BackendError::Invalid { detail }
        }
        _ => BackendError::Unknown { detail, source: Some(Box::new(error)) },
    }
}
