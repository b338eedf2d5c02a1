//! The configuration from environment variables.

use std::env::VarError;
use std::time::Duration;

use secrecy::SecretString;

use super::{Auth, ConfigError, ConnectionConfig, Durability, JetStreamLocation, Tls, TlsIdentity};

impl ConnectionConfig {
    /// The configuration that the environment describes. An empty variable counts as unset.
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `NATS_URL` | the servers, separated by commas; must be set |
    /// | `NATS_CREDS` | path of a credentials file |
    /// | `NATS_NKEY_SEED` | seed of an nkey |
    /// | `NATS_USER`, `NATS_PASSWORD` | a user and the password |
    /// | `NATS_TOKEN` | a token |
    /// | `NATS_CA` | path of the trusted authorities |
    /// | `NATS_CERT`, `NATS_KEY` | paths of the own certificate and its key |
    /// | `CIM_TLS_FIRST` | `true` or `false` |
    /// | `CIM_CLIENT_NAME`, `CIM_INBOX_PREFIX` | as the methods of the same name |
    /// | `CIM_JETSTREAM_DOMAIN`, `CIM_JETSTREAM_API_PREFIX` | where JetStream answers |
    /// | `CIM_CONNECT_TIMEOUT_MS`, `CIM_REQUEST_TIMEOUT_MS` | milliseconds |
    /// | `CIM_RETRY_ON_INITIAL_CONNECT` | `true` or `false` |
    /// | `CIM_DURABILITY` | `required` or `reported` |
    ///
    /// # Errors
    /// [`ConfigError`] when something is missing, contradicts something else or cannot be read.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(|name| std::env::var(name))
    }

    pub(super) fn from_variables(
        lookup: impl Fn(&str) -> Result<String, VarError>,
    ) -> Result<Self, ConfigError> {
        let env = Variables { lookup };
        let mut config = Self::empty();
        let urls = env.text("NATS_URL")?.unwrap_or_default();
        config.urls =
            urls.split(',').map(str::trim).filter(|url| !url.is_empty()).map(Into::into).collect();
        config.auth = env.auth()?;
        config.tls = env.tls()?;
        config.client_name = env.text("CIM_CLIENT_NAME")?;
        config.inbox_prefix = env.text("CIM_INBOX_PREFIX")?;
        config.jetstream = env.jetstream()?;
        if let Some(timeout) = env.millis("CIM_CONNECT_TIMEOUT_MS")? {
            config.connect_timeout = timeout;
        }
        if let Some(timeout) = env.millis("CIM_REQUEST_TIMEOUT_MS")? {
            config.request_timeout = timeout;
        }
        config.retry_on_initial_connect = env.flag("CIM_RETRY_ON_INITIAL_CONNECT")?;
        config.durability = env.durability()?;
        config.check()?;
        Ok(config)
    }
}

struct Variables<F> {
    lookup: F,
}

impl<F: Fn(&str) -> Result<String, VarError>> Variables<F> {
    fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        match (self.lookup)(name) {
            Ok(text) if text.is_empty() => Ok(None),
            Ok(text) => Ok(Some(text)),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(ConfigError::Variable { name, wanted: "UTF-8" }),
        }
    }

    fn millis(&self, name: &'static str) -> Result<Option<Duration>, ConfigError> {
        let wanted = "a number of milliseconds";
        let number =
            |text: String| text.parse().map_err(|_| ConfigError::Variable { name, wanted });
        Ok(self.text(name)?.map(number).transpose()?.map(Duration::from_millis))
    }

    fn flag(&self, name: &'static str) -> Result<bool, ConfigError> {
        match self.text(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ConfigError::Variable { name, wanted: "true or false" }),
        }
    }

    fn auth(&self) -> Result<Auth, ConfigError> {
        let secret = |name| Ok::<_, ConfigError>(self.text(name)?.map(SecretString::from));
        let user = match (self.text("NATS_USER")?, secret("NATS_PASSWORD")?) {
            (None, None) => None,
            (Some(user), Some(password)) => Some(Auth::UserPassword { user, password }),
            (Some(_), None) => return Err(half("NATS_USER", "NATS_PASSWORD")),
            (None, Some(_)) => return Err(half("NATS_PASSWORD", "NATS_USER")),
        };
        let given = [
            ("NATS_CREDS", self.text("NATS_CREDS")?.map(|p| Auth::CredentialsFile(p.into()))),
            ("NATS_NKEY_SEED", secret("NATS_NKEY_SEED")?.map(Auth::NKey)),
            ("NATS_USER", user),
            ("NATS_TOKEN", secret("NATS_TOKEN")?.map(Auth::Token)),
        ];
        let mut given = given.into_iter().filter_map(|(name, auth)| Some((name, auth?)));
        match (given.next(), given.next()) {
            (None, _) => Ok(Auth::None),
            (Some((_, auth)), None) => Ok(auth),
            (Some((first, _)), Some((second, _))) => {
                Err(ConfigError::TwoIdentities { first, second })
            }
        }
    }

    fn tls(&self) -> Result<Option<Tls>, ConfigError> {
        let ca_file = self.text("NATS_CA")?.map(Into::into);
        let first = self.flag("CIM_TLS_FIRST")?;
        let identity = match (self.text("NATS_CERT")?, self.text("NATS_KEY")?) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                Some(TlsIdentity { cert_file: cert.into(), key_file: key.into() })
            }
            (Some(_), None) => return Err(half("NATS_CERT", "NATS_KEY")),
            (None, Some(_)) => return Err(half("NATS_KEY", "NATS_CERT")),
        };
        let tls = Tls { ca_file, identity, first };
        Ok((tls != Tls::default()).then_some(tls))
    }

    fn jetstream(&self) -> Result<JetStreamLocation, ConfigError> {
        let (domain, prefix) = ("CIM_JETSTREAM_DOMAIN", "CIM_JETSTREAM_API_PREFIX");
        match (self.text(domain)?, self.text(prefix)?) {
            (None, None) => Ok(JetStreamLocation::Default),
            (Some(name), None) => Ok(JetStreamLocation::Domain(name)),
            (None, Some(name)) => Ok(JetStreamLocation::ApiPrefix(name)),
            (Some(_), Some(_)) => Err(ConfigError::Exclusive { first: domain, second: prefix }),
        }
    }

    fn durability(&self) -> Result<Durability, ConfigError> {
        let name = "CIM_DURABILITY";
        match self.text(name)?.as_deref() {
            None | Some("reported") => Ok(Durability::Reported),
            Some("required") => Ok(Durability::Required),
            Some(_) => Err(ConfigError::Variable { name, wanted: "required or reported" }),
        }
    }
}

fn half(given: &'static str, missing: &'static str) -> ConfigError {
    ConfigError::Half { given, missing }
}
