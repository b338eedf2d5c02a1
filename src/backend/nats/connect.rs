//! Making a connection: options, the first contact, what is checked before it is handed out.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerError};
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::timeout;

use super::{Connection, api_prefix};
use crate::backend::nats::denials::Denials;
use crate::backend::{
    Auth, BackendError, ConfigError, ConnectError, ConnectionConfig, Durability, JetStreamLocation,
    MIN_SERVER_VERSION, ServerVersion, Tls,
};

/// The pause before the second attempt of a first connection; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Connection {
    /// Connects, and checks what everything else stands on: the server's version, JetStream, durability.
    ///
    /// Takes three round trips when the server is there. Dropping the future gives up and leaves nothing behind.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), cim_persistence::backend::ConnectError> {
    /// use cim_persistence::backend::{ConnectionConfig, nats::Connection};
    /// let connection = Connection::connect(&ConnectionConfig::new("nats://127.0.0.1:4222")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ConnectError`] when the configuration is wrong, no server can be reached (at once, unless the configuration
    /// says to retry), or the server is not fit.
    pub async fn connect(config: &ConnectionConfig) -> Result<Self, ConnectError> {
        config.check()?;
        let plan = Plan::new(config)?;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match plan.try_once().await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            if !(config.retry_on_initial_connect && is_absence(&error)) {
                return Err(error);
            }
            tracing::warn!(error = %error, retry_in = ?pause, "cannot connect to NATS yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Checks what [`connect`](Self::connect) checks, for whoever opens something on a connection.
    ///
    /// Two round trips on a client of the service's own that nobody has checked yet; none on a checked one, unless more
    /// durability is required than was seen. A client that has no connection yet is waited for, at most as long as one
    /// request may take.
    pub(crate) async fn check(&self, durability: Durability) -> Result<(), ConnectError> {
        self.wait_until_connected().await;
        self.check_version()?;
        // Whoever asked for durability, here or in `connect`, had found JetStream before.
        if self.durable.get().is_none() {
            check_jetstream(self).await?;
        }
        self.check_durability(durability).await
    }

    /// A client that retries its first connection is handed out before it has one. Whether it has got one is for the
    /// check of its version to say.
    async fn wait_until_connected(&self) {
        if self.client.server_info().version.is_empty() {
            // The client takes a flush up when it is connected.
            let _ = timeout(self.timeout, self.client.flush()).await;
        }
    }
}

/// Whether it is worth while to wait. What was refused, or answered wrongly, will be so again.
fn is_absence(error: &ConnectError) -> bool {
    match error {
        ConnectError::Unreachable { .. } => true,
        ConnectError::JetStreamUnavailable(source) => source.is_transient(),
        _ => false,
    }
}

/// A configuration with its files read and its secrets in place.
struct Plan<'a> {
    config: &'a ConnectionConfig,
    addresses: Vec<String>,
    who: String,
    auth: Auth,
    credentials: Option<SecretString>,
}

impl<'a> Plan<'a> {
    fn new(config: &'a ConnectionConfig) -> Result<Self, ConfigError> {
        let (addresses, auth) = config.servers()?;
        if let Some(tls) = &config.tls {
            check_tls_files(tls)?;
        }
        let credentials = match &auth {
            Auth::CredentialsFile(path) => Some(read_credentials(path)?),
            _ => None,
        };
        Ok(Self { config, addresses, who: who(&auth), auth, credentials })
    }

    async fn try_once(&self) -> Result<Connection, ConnectError> {
        let config = self.config;
        let denials = Arc::new(Denials::new(config.inbox_prefix.as_deref().unwrap_or("_INBOX")));
        let options = self.options(denials.clone())?;
        let addresses = self.addresses.as_slice();
        let client = options.connect(addresses).await.map_err(|error| self.failed(error))?;
        check_version(&client)?;
        let connection = Connection {
            client,
            api_prefix: api_prefix(&config.jetstream),
            timeout: config.request_timeout,
            denials: Some(denials),
            durable: Arc::default(),
            publisher: Arc::default(),
        };
        check_jetstream(&connection).await?;
        connection.check_durability(config.durability).await?;
        Ok(connection)
    }

    fn options(&self, denials: Arc<Denials>) -> Result<ConnectOptions, ConfigError> {
        let config = self.config;
        let mut options = ConnectOptions::new()
            .connection_timeout(config.connect_timeout)
            .request_timeout(Some(config.request_timeout))
            .event_callback(move |event| {
                match event {
                    Event::ServerError(ServerError::Other(text)) => denials.note(&text),
                    Event::Connected => denials.forget(),
                    _ => {}
                }
                std::future::ready(())
            });
        if let Some(name) = &config.client_name {
            options = options.name(name);
        }
        if let Some(prefix) = &config.inbox_prefix {
            options = options.custom_inbox_prefix(prefix);
        }
        if let Some(tls) = &config.tls {
            options = with_tls(options, tls);
        }
        Ok(match &self.auth {
            Auth::None => options,
            Auth::UserPassword { user, password } => {
                options.user_and_password(user.clone(), password.expose_secret().to_owned())
            }
            Auth::Token(token) => options.token(token.expose_secret().to_owned()),
            Auth::NKey(seed) => options.nkey(seed.expose_secret().to_owned()),
            Auth::CredentialsFile(path) => {
                let text = self.credentials.as_ref().map_or("", |text| text.expose_secret());
                // The error of the client is dropped: it may quote the file.
                options
                    .credentials(text)
                    .map_err(|_| ConfigError::Credentials { path: path.clone() })?
            }
        })
    }

    fn failed(&self, error: async_nats::ConnectError) -> ConnectError {
        let servers = self.addresses.join(", ");
        match (error.kind(), &self.auth) {
            (ConnectErrorKind::Authentication, Auth::NKey(_)) => ConfigError::NKeySeed.into(),
            (ConnectErrorKind::Authentication, Auth::CredentialsFile(path)) => {
                ConfigError::Credentials { path: path.clone() }.into()
            }
            (ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation, _) => {
                ConnectError::Unauthorized { servers, who: self.who.clone() }
            }
            _ if is_refusal(&error) => {
                ConnectError::Unauthorized { servers, who: self.who.clone() }
            }
            _ => match tls_detail(&error) {
                Some(detail) => ConnectError::Tls { servers, detail },
                None => ConnectError::Unreachable { servers, source: Box::new(error) },
            },
        }
    }
}

fn who(auth: &Auth) -> String {
    match auth {
        Auth::None => "a client without credentials".to_owned(),
        Auth::UserPassword { user, .. } => format!("user {user:?}"),
        Auth::Token(_) => "the token".to_owned(),
        Auth::NKey(_) => "the nkey".to_owned(),
        Auth::CredentialsFile(path) => format!("the user of {}", path.display()),
    }
}

fn read_credentials(path: &Path) -> Result<SecretString, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        what: "credentials file",
        path: path.to_owned(),
        source,
    })?;
    Ok(text.into())
}

fn check_tls_files(tls: &Tls) -> Result<(), ConfigError> {
    let identity = tls.identity.as_ref();
    let files = [
        ("CA file", tls.ca_file.as_ref()),
        ("certificate file", identity.map(|identity| &identity.cert_file)),
        ("key file", identity.map(|identity| &identity.key_file)),
    ];
    for (what, path) in files {
        let Some(path) = path else { continue };
        std::fs::read(path).map_err(|source| ConfigError::Unreadable {
            what,
            path: path.clone(),
            source,
        })?;
    }
    Ok(())
}

fn with_tls(options: ConnectOptions, tls: &Tls) -> ConnectOptions {
    let mut options = options.require_tls(true);
    if let Some(ca_file) = &tls.ca_file {
        options = options.add_root_certificates(ca_file.clone());
    }
    if let Some(identity) = &tls.identity {
        options =
            options.add_client_certificate(identity.cert_file.clone(), identity.key_file.clone());
    }
    if tls.first { options.tls_first() } else { options }
}

pub(crate) fn check_version(client: &Client) -> Result<(), ConnectError> {
    let found = client.server_info().version;
    if found.is_empty() {
        return Err(ConnectError::NotConnected);
    }
    // What cannot be read counts as older than everything.
    match ServerVersion::parse(&found).is_some_and(ServerVersion::is_enough) {
        true => Ok(()),
        false => Err(ConnectError::ServerTooOld { found, needed: MIN_SERVER_VERSION }),
    }
}

#[derive(Deserialize)]
struct AccountInfo {
    error: Option<super::provision::ApiError>,
}

async fn check_jetstream(connection: &Connection) -> Result<(), ConnectError> {
    let subject = format!("{}.INFO", connection.api_prefix());
    let answer = match connection.request(&subject, None, Bytes::new()).await {
        Ok(answer) => answer,
        Err(BackendError::Unavailable { .. }) => {
            return Err(ConnectError::NoJetStream {
                detail: format!("nothing answers on {subject}"),
            });
        }
        // Whoever may not ask may still be allowed to work; the server's greeting has to do.
        Err(error) if may_be_refused(connection, &error) && is_likely(connection) => return Ok(()),
        Err(error) => return Err(ConnectError::JetStreamUnavailable(error)),
    };
    let info: AccountInfo = serde_json::from_slice(&answer.payload).map_err(|error| {
        ConnectError::JetStreamUnavailable(BackendError::Corrupt { detail: error.to_string() })
    })?;
    match info.error {
        None => Ok(()),
        Some(error) if matches!(error.err_code, 10039 | 10076) => {
            Err(ConnectError::NoJetStream { detail: error.to_string() })
        }
        Some(error) => {
            Err(ConnectError::JetStreamUnavailable(error.into_backend_error("JetStream")))
        }
    }
}

/// Whether the server refused the question. On a client of the service's own that looks like silence.
fn may_be_refused(connection: &Connection, error: &BackendError) -> bool {
    match error {
        BackendError::Denied { .. } => true,
        BackendError::Unknown { .. } => connection.denials.is_none(),
        _ => false,
    }
}

/// Whether there should be a JetStream, as far as can be told without asking it: the greeting knows of the server's own
/// only, not of one in another domain or account.
fn is_likely(connection: &Connection) -> bool {
    let elsewhere = *connection.api_prefix != *api_prefix(&JetStreamLocation::Default);
    elsewhere || connection.client.server_info().jetstream
}

/// Whether the server named another reason not to let this client in than the one with a kind of its own.
fn is_refusal(error: &async_nats::ConnectError) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<ServerError>());
    matches!(source, Some(ServerError::Other(text)) if text.to_lowercase().contains("auth"))
}

/// What TLS says, wherever it stands in the chain of sources.
fn tls_detail(error: &async_nats::ConnectError) -> Option<String> {
    if error.kind() == ConnectErrorKind::Tls {
        return Some(error.source().map_or_else(|| error.to_string(), ToString::to_string));
    }
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<async_nats::rustls::Error>() {
            return Some(tls.to_string());
        }
        // An io::Error that wraps another passes over it in its own chain.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}
