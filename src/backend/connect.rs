//! Why a connection was not made, and whether the server keeps what it acknowledges.
//!
//! Texts never hold a secret. What talks to the server is in [`nats`](super::nats).

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::{BackendError, ConfigError};

/// A connection was not made. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The configuration cannot be used. Correct it; no server was contacted.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No server answers. Start one, correct the URLs, or let the first connection be retried
    /// ([`ConnectionConfig::retry_on_initial_connect`](super::ConnectionConfig::retry_on_initial_connect)).
    #[error("no NATS server can be reached at {servers}; is it running, and is the URL right?")]
    Unreachable {
        /// The addresses that were tried.
        servers: String,
        /// The last error.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A server does not accept who connects. Correct the user, password, token, nkey or credentials file.
    #[error("the NATS server at {servers} refuses to authorize {who}; check the credentials")]
    Unauthorized {
        /// The addresses that were tried.
        servers: String,
        /// Which kind of identity was used, and its public part.
        who: String,
    },
    /// TLS could not be agreed on. Check the authorities, the own certificate, the host name in the URL and whether the
    /// server wants TLS first.
    #[error(
        "no TLS with the NATS server at {servers}: {detail}; check the CA file, the certificate, the host name and TLS first"
    )]
    Tls {
        /// The addresses that were tried.
        servers: String,
        /// What TLS says.
        detail: String,
    },
    /// A client of the service's own has had no connection so far, and got none in the time that one request may take.
    /// Start a server, correct the client's URL, or open the context again later.
    #[error(
        "the client that was handed in is not connected yet; is a NATS server running, and is the client's URL right?"
    )]
    NotConnected,
    /// The server is older than [`MIN_SERVER_VERSION`](super::MIN_SERVER_VERSION). Upgrade it.
    #[error("nats-server {found} is too old; upgrade every server to {needed} or later")]
    ServerTooOld {
        /// The server's version.
        found: String,
        /// The version that is needed.
        needed: &'static str,
    },
    /// The server, or the account, has no JetStream. Enable it, or correct the domain or the API prefix.
    #[error(
        "JetStream is not enabled: {detail}; enable it for the server and the account, or correct the domain or API prefix"
    )]
    NoJetStream {
        /// What was found.
        detail: String,
    },
    /// JetStream is there and does not answer as it should. Where the source is
    /// [transient](BackendError::is_transient), try again later and look at the cluster's quorum; else do what the text
    /// says.
    #[error("{}", of_jetstream(.0))]
    JetStreamUnavailable(#[source] BackendError),
    /// A server loses acknowledged writes when its machine fails. Configure `sync_interval: always`, or accept it with
    /// [`Durability::Reported`](super::Durability::Reported).
    #[error(
        "acknowledged writes are not durable: {}; set `sync_interval: always` in the server's jetstream block",
        listed(servers)
    )]
    NotDurable {
        /// The servers, and how long each may keep a write off the disk.
        servers: Vec<LooseServer>,
    },
    /// Nobody can tell whether acknowledged writes are durable. Do what the text says, or accept it with
    /// [`Durability::Reported`](super::Durability::Reported).
    #[error("whether acknowledged writes are durable cannot be verified: {reason}")]
    DurabilityUnknown {
        /// Why, and what to configure.
        reason: String,
    },
}

/// Whether every JetStream server puts a write on disk before it acknowledges it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DurabilityReport {
    /// Every server does.
    Durable,
    /// These do not: when one loses power, what it acknowledged in the time given may be gone.
    NotDurable {
        /// The servers.
        servers: Vec<LooseServer>,
    },
    /// It cannot be told.
    Unverified {
        /// Why, and what to configure.
        reason: String,
    },
}

/// A server that acknowledges before its disk has the write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LooseServer {
    /// Its name.
    pub name: String,
    /// How long an acknowledged write may stay off the disk.
    pub sync_interval: Duration,
}

impl DurabilityReport {
    /// `Ok` when durable, else the error that says what to do.
    ///
    /// # Errors
    /// [`ConnectError::NotDurable`] and [`ConnectError::DurabilityUnknown`].
    pub fn require(self) -> Result<(), ConnectError> {
        match self {
            Self::Durable => Ok(()),
            Self::NotDurable { servers } => Err(ConnectError::NotDurable { servers }),
            Self::Unverified { reason } => Err(ConnectError::DurabilityUnknown { reason }),
        }
    }
}

impl fmt::Display for LooseServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server {} syncs every {:?}", self.name, self.sync_interval)
    }
}

fn of_jetstream(source: &BackendError) -> &'static str {
    match source {
        BackendError::Denied { .. } => {
            "JetStream cannot be asked; let this user publish to INFO of its API and receive answers"
        }
        source if source.is_transient() => {
            "JetStream does not answer; does the cluster have a leader?"
        }
        _ => {
            "JetStream answers wrongly; is this its API, and is nobody else answering in its place?"
        }
    }
}

fn listed(servers: &[LooseServer]) -> String {
    servers.iter().map(LooseServer::to_string).collect::<Vec<_>>().join(", ")
}
