//! A publisher to web services: CloudEvents over HTTP, in binary mode.
//!
//! Attributes are headers, the data is the body: section 3.1 of the HTTP protocol binding,
//! <https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/http-protocol-binding.md>.

use std::fmt;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::cloud_event::names;
use super::{PendingMessage, PublishError, Publisher, percent};

/// Posts each message to a web service, as a CloudEvent in binary mode.
///
/// A status of 2xx is a yes. 408, 425, and whatever is neither 2xx nor 4xx is tried again, other 4xx is refused for good. No
/// connection, 429, 502, 503 and 504 mean that the service is not available. Redirects are not followed. Connections are
/// kept and used again; with TLS the certificates of the operating system are trusted.
///
/// ```no_run
/// # fn example() -> Result<(), cim_persistence::outbox::InvalidWebhook> {
/// use cim_persistence::outbox::WebhookPublisher;
///
/// let publisher = WebhookPublisher::new("https://billing.example.org/events")?
///     .with_header("authorization", "Bearer …")?;
/// # Ok(()) }
/// ```
pub struct WebhookPublisher {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    headers: HeaderMap,
}

/// A web service cannot be called like this. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidWebhook {
    /// The address is none. Write `https://` or `http://`, a host and a path.
    #[error("{text:?} is not the address of a web service: http or https, a host, a path")]
    Url {
        /// The address.
        text: String,
    },
    /// A header cannot be sent, or belongs to every event. Its value is not shown.
    #[error("header {name:?} cannot be sent with every event")]
    Header {
        /// Its name.
        name: String,
    },
    /// The operating system has no certificates to trust. Install them.
    #[error("no certificates to trust were found: {0}")]
    Certificates(#[source] std::io::Error),
}

impl WebhookPublisher {
    /// Posts to this address. Reads the certificates of the operating system; no request.
    ///
    /// # Errors
    /// [`InvalidWebhook::Url`], [`InvalidWebhook::Certificates`].
    pub fn new(url: &str) -> Result<Self, InvalidWebhook> {
        let parsed: Option<Uri> = url.parse().ok();
        let usable =
            |uri: &Uri| uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https"));
        let refused = || InvalidWebhook::Url { text: url.to_owned() };
        let url = parsed.filter(usable).ok_or_else(refused)?;
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            .map_err(InvalidWebhook::Certificates)?
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, url, headers: HeaderMap::new() })
    }

    /// Sends a header with each message, such as an authorization. Its value appears in no log.
    ///
    /// # Errors
    /// [`InvalidWebhook::Header`] for what is no header, and for those of CloudEvents.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, InvalidWebhook> {
        let refused = || InvalidWebhook::Header { name: name.to_owned() };
        let key = HeaderName::try_from(name).map_err(|_| refused())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| refused())?;
        value.set_sensitive(true);
        if key == CONTENT_TYPE || key.as_str().starts_with(names::PREFIX) {
            return Err(refused());
        }
        self.headers.insert(key, value);
        Ok(self)
    }

    fn request(&self, message: &PendingMessage) -> Result<Request<Full<Bytes>>, PublishError> {
        // Whoever receives it must be able to read it.
        message.event().map_err(PublishError::permanent)?;
        let mut request = Request::post(self.url.clone());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        for (name, value) in message.headers().iter() {
            let lower = name.to_ascii_lowercase();
            let Some(attribute) = lower.strip_prefix(names::PREFIX) else { continue };
            request = if attribute == names::CONTENT_TYPE {
                // The one attribute that HTTP has a header for, which is not escaped.
                request.header(CONTENT_TYPE, percent::decode(value).unwrap_or_default())
            } else {
                request.header(lower.as_str(), value)
            };
        }
        request.body(Full::new(message.data().clone())).map_err(PublishError::permanent)
    }
}

impl Publisher for WebhookPublisher {
    async fn publish(&self, message: &PendingMessage) -> Result<(), PublishError> {
        let request = self.request(message)?;
        let response =
            self.client.request(request).await.map_err(|error| match error.is_connect() {
                true => PublishError::unavailable(error),
                false => PublishError::retryable(error),
            })?;
        let status = response.status();
        // Read to its end, so that the connection is used again.
        let said = body(response).await;
        if status.is_success() {
            return Ok(());
        }
        let reason = format!("{} answered {status}{said}", self.url);
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => PublishError::unavailable(reason),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => PublishError::retryable(reason),
            status if status.is_client_error() => PublishError::permanent(reason),
            _ => PublishError::retryable(reason),
        })
    }
}

impl fmt::Debug for WebhookPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookPublisher").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The most bytes of an answer that are read, and the most characters that are told.
const MOST_READ: usize = 64 * 1024;
const MOST_TOLD: usize = 200;

/// The beginning of what a service said, as the end of a sentence.
async fn body(response: Response<hyper::body::Incoming>) -> String {
    let Ok(body) = Limited::new(response.into_body(), MOST_READ).collect().await else {
        return String::new();
    };
    let bytes = body.to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    let told: String = text.trim().chars().take(MOST_TOLD).filter(|c| !c.is_control()).collect();
    if told.is_empty() { told } else { format!(": {told}") }
}
