//! The configuration from a JSON file.

use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use super::{Auth, ConfigError, ConnectionConfig, Durability, JetStreamLocation, Tls};

/// The file's form. Unknown fields are refused, so that a misspelt one is not silently without effect.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    urls: Vec<SecretString>,
    #[serde(default)]
    auth: Auth,
    tls: Option<Tls>,
    client_name: Option<String>,
    inbox_prefix: Option<String>,
    #[serde(default)]
    jetstream: JetStreamLocation,
    connect_timeout_ms: Option<u64>,
    request_timeout_ms: Option<u64>,
    #[serde(default)]
    retry_on_initial_connect: bool,
    #[serde(default)]
    durability: Durability,
}

impl ConnectionConfig {
    /// The configuration that a JSON file describes. Only `urls` must be there; an unknown field is refused.
    ///
    /// ```json
    /// {
    ///   "urls": ["nats://n1.example.org:4222", "nats://n2.example.org:4222"],
    ///   "auth": { "credentials_file": "/etc/orders/nats.creds" },
    ///   "tls": {
    ///     "ca_file": "/etc/orders/ca.pem",
    ///     "identity": { "cert_file": "/etc/orders/cert.pem", "key_file": "/etc/orders/key.pem" },
    ///     "first": false
    ///   },
    ///   "client_name": "orders",
    ///   "inbox_prefix": "_INBOX_orders",
    ///   "jetstream": { "domain": "hub" },
    ///   "connect_timeout_ms": 5000,
    ///   "request_timeout_ms": 5000,
    ///   "retry_on_initial_connect": true,
    ///   "durability": "required"
    /// }
    /// ```
    /// `auth` may also be `{"user_password": {"user": …, "password": …}}`, `{"token": …}`, `{"nkey_seed": …}` or `"none"`,
    /// `jetstream` `{"api_prefix": …}` or `"default"`. Paths are relative to the working directory. Reads the file,
    /// blocking.
    ///
    /// # Errors
    /// [`ConfigError`] when the file cannot be read, is not of this form or contradicts itself. The text names the
    /// place, never a value.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            what: "configuration file",
            path: path.to_owned(),
            source,
        })?;
        let form: Form = serde_json::from_str(&text).map_err(|error| ConfigError::File {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
            reason: reason(&error),
        })?;
        let config = form.into_config();
        config.check()?;
        Ok(config)
    }
}

impl Form {
    fn into_config(self) -> ConnectionConfig {
        let default = ConnectionConfig::empty();
        let millis = |given: Option<u64>, or| given.map_or(or, Duration::from_millis);
        ConnectionConfig {
            urls: self.urls,
            auth: self.auth,
            tls: self.tls,
            client_name: self.client_name,
            inbox_prefix: self.inbox_prefix,
            jetstream: self.jetstream,
            connect_timeout: millis(self.connect_timeout_ms, default.connect_timeout),
            request_timeout: millis(self.request_timeout_ms, default.request_timeout),
            retry_on_initial_connect: self.retry_on_initial_connect,
            durability: self.durability,
        }
    }
}

/// What the decoder found wrong, as long as that names fields; its other texts quote values, and a value may be a
/// secret.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let names_fields =
        ["unknown field", "missing field", "duplicate field"].iter().any(|p| text.starts_with(p));
    if names_fields {
        return text.rsplit_once(" at line ").map_or(text.clone(), |(what, _)| what.to_owned());
    }
    match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Syntax => "it is not JSON",
        _ => "a value of another type or name is expected here",
    }
    .to_owned()
}
