//! A private nats-server for examples, tests and benches, with nothing to install by hand.
//!
//! Here live starting, killing and restarting servers that this process owns: one
//! ([`PrivateServer`]) or a cluster of three ([`PrivateCluster`]). They listen on loopback, on ports
//! of their own, keep their data in a temporary folder, and end when they are dropped. Nothing here
//! creates streams for a service or talks to a server of somebody else. The settings they run on are
//! the files of `nats-config/`; how the binary is found is in `binary`, how it is fetched in `fetch`.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use cim_persistence::server::{self, ServerConfig};
//!
//! let server = server::from_env_or(ServerConfig::Single).await?;
//! let client = async_nats::connect(server.url()).await?;
//! # Ok(())
//! # }
//! ```

mod binary;
mod cluster;
mod config;
mod error;
mod fetch;
mod process;
mod ready;
mod single;

use std::fmt;

use crate::backend::ConnectionConfig;

pub use binary::{BinarySources, find_binary};
pub use cluster::{Node, PrivateCluster};
pub use config::ServerConfig;
pub use error::{Attempt, ServerError, Unfit};
pub use single::PrivateServer;

/// The server to work on: the one that `NATS_URL` names, or a private one.
#[non_exhaustive]
pub enum Server {
    /// Somebody else's server. Its streams may belong to others: choose names that cannot clash, and
    /// remove only what you made.
    External {
        /// The value of `NATS_URL`, unchanged; it may hold credentials, so do not print it. `Debug`
        /// of the whole leaves them out.
        url: String,
    },
    /// A server of this process's own, gone when this value is dropped.
    Private(PrivateServer),
}

impl Server {
    /// The address to connect to.
    pub fn url(&self) -> &str {
        match self {
            Self::External { url } => url,
            Self::Private(server) => server.url(),
        }
    }
}

impl fmt::Debug for Server {
    /// Everything but the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // As one text, even where it is a list: a comma may belong to a password.
            Self::External { url } => {
                let shown = ConnectionConfig::new(url.as_str()).shown_urls().join(",");
                f.debug_struct("External").field("url", &shown).finish()
            }
            Self::Private(server) => f.debug_tuple("Private").field(server).finish(),
        }
    }
}

/// The server that `NATS_URL` names if it is set and not empty, else a private one started with
/// `config`.
///
/// An external server is not contacted here: connecting to it will tell whether it is there.
///
/// # Errors
/// Those of [`PrivateServer::start`]; none when `NATS_URL` is set.
///
/// # Cancel safety
/// As [`PrivateServer::start`].
pub async fn from_env_or(config: ServerConfig) -> Result<Server, ServerError> {
    match std::env::var("NATS_URL") {
        Ok(url) if !url.is_empty() => Ok(Server::External { url }),
        _ => PrivateServer::start(config).await.map(Server::Private),
    }
}
