//! How to connect, as data: from code, from the environment, or from a JSON file.
//!
//! Knows no NATS client; [`Connection::connect`](super::nats::Connection::connect) uses it. Secrets are kept so
//! that nothing here prints them.

mod env;
mod error;
mod file;
mod url;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub(crate) use url::ServerUrl;

/// Who connects.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Auth {
    /// Nobody in particular.
    #[default]
    None,
    /// A user with a password.
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: SecretString,
    },
    /// Whoever holds this token.
    Token(SecretString),
    /// The holder of this nkey seed, which never leaves the process.
    #[serde(rename = "nkey_seed")]
    NKey(SecretString),
    /// The user of this credentials file: a JWT and its seed.
    CredentialsFile(PathBuf),
}

/// A certificate of one's own, for servers that ask for one. Both files are PEM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsIdentity {
    /// The certificate, with its chain.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// How TLS is spoken. That it is configured at all makes it required.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The authorities that are trusted, as PEM; `None` trusts those of the system.
    pub ca_file: Option<PathBuf>,
    /// The own certificate.
    pub identity: Option<TlsIdentity>,
    /// Whether TLS starts before the server's greeting (`handshake_first` in the server's configuration).
    pub first: bool,
}

/// Where JetStream answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JetStreamLocation {
    /// On `$JS.API`.
    #[default]
    Default,
    /// In this domain: on `$JS.<domain>.API`.
    Domain(String),
    /// On another prefix, as an import of another account gives it.
    ApiPrefix(String),
}

impl JetStreamLocation {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        match self {
            Self::Default => Ok(()),
            Self::Domain(domain) => check_token("JetStream domain", domain),
            Self::ApiPrefix(prefix) => check_tokens("JetStream API prefix", prefix),
        }
    }
}

/// What to do when the server does not put every acknowledged write on disk, or nobody can tell whether it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Refuse to connect, or to open a context.
    Required,
    /// Go on, and say so in a `tracing` warning.
    #[default]
    Reported,
}

/// How to connect to a NATS cluster.
///
/// ```
/// use std::time::Duration;
/// use cim_persistence::backend::{ConnectionConfig, Durability};
///
/// let config = ConnectionConfig::new("nats://n1.example.org:4222")
///     .url("nats://n2.example.org:4222")
///     .credentials_file("/etc/orders/nats.creds")
///     .client_name("orders")
///     .request_timeout(Duration::from_secs(2))
///     .durability(Durability::Required);
/// config.check()?;
/// # Ok::<(), cim_persistence::backend::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct ConnectionConfig {
    urls: Vec<SecretString>,
    pub(crate) auth: Auth,
    pub(crate) tls: Option<Tls>,
    pub(crate) client_name: Option<String>,
    pub(crate) inbox_prefix: Option<String>,
    pub(crate) jetstream: JetStreamLocation,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) retry_on_initial_connect: bool,
    pub(crate) durability: Durability,
}

impl ConnectionConfig {
    /// One server: `nats://host:port`, or `tls://…`; a user and a password, or a token, may stand before the host.
    ///
    /// Everything else is at its default: nobody in particular, TLS when the server asks for it, five seconds for a
    /// connection and for a request, no retry of the first connection, durability reported.
    pub fn new(url: impl Into<SecretString>) -> Self {
        Self { urls: vec![url.into()], ..Self::empty() }
    }

    /// Adds another server of the same cluster. They are tried in random order.
    pub fn url(mut self, url: impl Into<SecretString>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// Says who connects.
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// Connects as a user with a password.
    pub fn user_password(self, user: impl Into<String>, password: impl Into<SecretString>) -> Self {
        self.auth(Auth::UserPassword { user: user.into(), password: password.into() })
    }

    /// Connects with a token.
    pub fn token(self, token: impl Into<SecretString>) -> Self {
        self.auth(Auth::Token(token.into()))
    }

    /// Connects with an nkey, given its seed.
    pub fn nkey(self, seed: impl Into<SecretString>) -> Self {
        self.auth(Auth::NKey(seed.into()))
    }

    /// Connects as the user of a credentials file.
    pub fn credentials_file(self, path: impl Into<PathBuf>) -> Self {
        self.auth(Auth::CredentialsFile(path.into()))
    }

    /// Requires TLS, spoken like this.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The name that the server shows for this client.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = Some(name.into());
        self
    }

    /// Where answers are sent, instead of `_INBOX`: for users who may not see each other's answers.
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.inbox_prefix = Some(prefix.into());
        self
    }

    /// Where JetStream answers.
    pub fn jetstream(mut self, location: JetStreamLocation) -> Self {
        self.jetstream = location;
        self
    }

    /// How long one attempt to reach one server may take.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one request may take.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Whether connecting waits for a server that cannot be reached, without bound, instead of failing at once.
    ///
    /// Only absence is waited out, that of a leader of JetStream as well; a refusal fails at once all the same. A
    /// connection that is lost later is always made again.
    pub fn retry_on_initial_connect(mut self, retry: bool) -> Self {
        self.retry_on_initial_connect = retry;
        self
    }

    /// What to do about a server that is not durable.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Checks everything that can be checked without a server and without reading a file.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.servers()?;
        for (what, time) in
            [("connect timeout", self.connect_timeout), ("request timeout", self.request_timeout)]
        {
            if time.is_zero() {
                return Err(ConfigError::ZeroTimeout { what });
            }
        }
        if let Some(prefix) = &self.inbox_prefix {
            check_tokens("inbox prefix", prefix)?;
        }
        self.jetstream.check()?;
        match &self.auth {
            Auth::NKey(seed) if !is_user_seed(seed.expose_secret()) => Err(ConfigError::NKeySeed),
            _ => Ok(()),
        }
    }

    /// The servers' addresses, without secrets, and who connects, wherever that was said.
    pub(crate) fn servers(&self) -> Result<(Vec<String>, Auth), ConfigError> {
        let mut addresses = Vec::with_capacity(self.urls.len());
        let mut auth = self.auth.clone();
        let mut first = "the configuration";
        for url in &self.urls {
            let url = ServerUrl::parse(url.expose_secret())?;
            addresses.push(url.address);
            match (&auth, &url.auth) {
                (_, Auth::None) => {}
                (Auth::None, _) => (auth, first) = (url.auth, "one server URL"),
                (a, b) if same(a, b) && first == "one server URL" => {}
                _ => {
                    let second = if first == "one server URL" { "another" } else { "a server URL" };
                    return Err(ConfigError::TwoIdentities { first, second });
                }
            }
        }
        if addresses.is_empty() { Err(ConfigError::NoUrl) } else { Ok((addresses, auth)) }
    }

    /// The server URLs, fit to be shown.
    pub(crate) fn shown_urls(&self) -> Vec<String> {
        self.urls.iter().map(|url| url::redact(url.expose_secret())).collect()
    }

    fn empty() -> Self {
        Self {
            urls: Vec::new(),
            auth: Auth::None,
            tls: None,
            client_name: None,
            inbox_prefix: None,
            jetstream: JetStreamLocation::Default,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            retry_on_initial_connect: false,
            durability: Durability::Reported,
        }
    }
}

impl fmt::Debug for ConnectionConfig {
    /// Everything but the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionConfig")
            .field("urls", &self.shown_urls())
            .field("auth", &self.auth)
            .field("tls", &self.tls)
            .field("client_name", &self.client_name)
            .field("inbox_prefix", &self.inbox_prefix)
            .field("jetstream", &self.jetstream)
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("retry_on_initial_connect", &self.retry_on_initial_connect)
            .field("durability", &self.durability)
            .finish()
    }
}

fn same(a: &Auth, b: &Auth) -> bool {
    match (a, b) {
        (Auth::Token(a), Auth::Token(b)) => a.expose_secret() == b.expose_secret(),
        (
            Auth::UserPassword { user: a, password: p },
            Auth::UserPassword { user: b, password: q },
        ) => a == b && p.expose_secret() == q.expose_secret(),
        _ => false,
    }
}

fn check_token(what: &'static str, text: &str) -> Result<(), ConfigError> {
    if is_token(text) {
        return Ok(());
    }
    Err(ConfigError::Subject { what, text: text.to_owned(), wanted: "it must be one token" })
}

fn check_tokens(what: &'static str, text: &str) -> Result<(), ConfigError> {
    if text.split('.').all(is_token) {
        return Ok(());
    }
    let wanted = "it must be tokens joined with single dots";
    Err(ConfigError::Subject { what, text: text.to_owned(), wanted })
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !"*>.".contains(c))
}

fn is_user_seed(seed: &str) -> bool {
    let alphabet = |c: u8| c.is_ascii_uppercase() || (b'2'..=b'7').contains(&c);
    seed.len() == 58 && seed.starts_with("SU") && seed.bytes().all(alphabet)
}

#[cfg(test)]
mod tests;
