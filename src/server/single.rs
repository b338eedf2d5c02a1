//! One private server. Three of them together are in `cluster`.

use std::fmt;
use std::time::Duration;

use super::config::ServerConfig;
use super::error::ServerError;
use super::process::{Process, password};
use super::ready;

/// How long a server may take to become ready. It takes well under a second; this is for machines
/// that do a hundred other things.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A nats-server of this process's own, on loopback, with a temporary folder for its data.
///
/// - Dropping it ends the server and removes its data, also while a panic unwinds. Nothing is dropped
///   when the process aborts, is killed or calls `exit`, nor when the value is in a `static`: then the
///   server stays.
/// - Its port stays the same over [`kill`](Self::kill) and [`restart`](Self::restart), and so does its
///   data.
/// - Clients need no credentials. Anything on this machine can connect to it.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use cim_persistence::server::{PrivateServer, ServerConfig};
///
/// let mut server = PrivateServer::start(ServerConfig::Single).await?;
/// let client = async_nats::connect(server.url()).await?;
/// server.kill();
/// server.restart().await?;
/// # Ok(())
/// # }
/// ```
pub struct PrivateServer {
    process: Process,
    port: u16,
    url: String,
    ready: Ready,
}

/// What a server must do to be ready.
#[derive(Clone, Copy)]
enum Ready {
    /// Listen for clients.
    Listens,
    /// Answer about JetStream to whoever asks.
    JetStreamAnswers,
}

impl PrivateServer {
    /// Starts a server on a free port and waits until JetStream answers.
    ///
    /// Takes about 20 ms; the first time on a machine without nats-server 2.15.1 the binary is fetched
    /// (see [`find_binary`](super::find_binary)). Which binary is used is settled by the first call in
    /// a process.
    ///
    /// # Errors
    /// When no binary can be had, the temporary folder cannot be used, or the server ends or is not
    /// ready within 30 s; the end of the server's log is in the error.
    ///
    /// # Cancel safety
    /// Dropping the future ends a server that it has started. A fetch goes on in the background, to the
    /// benefit of the next call.
    pub async fn start(config: ServerConfig) -> Result<Self, ServerError> {
        let variables = vec![("CIM_SYS_PASSWORD", password()), ("CIM_PASSWORD", password())];
        let mut process = Process::prepare(config.text(), variables).await?;
        if config == ServerConfig::Dev {
            // This file fixes its monitoring port and leaves its folder to the command line.
            let store = process.store_folder();
            process.argue(["-m".into(), "-1".into(), "-sd".into(), store.into()]);
        }
        Self::run(process, Ready::JetStreamAnswers).await
    }

    /// Starts a server with settings of one's own, written in the server's configuration language, and
    /// waits until it listens: for tests of permissions, TLS and whatever else the ready-made settings
    /// leave out.
    ///
    /// `$CIM_STORE_DIR` is a folder for its data. The text chooses neither address nor port. Whether
    /// clients need credentials is the text's choice.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use cim_persistence::server::PrivateServer;
    ///
    /// let without_jetstream = PrivateServer::start_with_config("").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Cancel safety
    /// As [`start`](Self::start).
    pub async fn start_with_config(text: &str) -> Result<Self, ServerError> {
        let process = Process::prepare(text, Vec::new()).await?;
        Self::run(process, Ready::Listens).await
    }

    async fn run(mut process: Process, ready: Ready) -> Result<Self, ServerError> {
        process.spawn(None)?;
        let port = process.client_port(READY_WITHIN).await?;
        let url = format!("nats://127.0.0.1:{port}");
        let mut server = Self { process, port, url, ready };
        server.until_ready().await?;
        Ok(server)
    }

    async fn until_ready(&mut self) -> Result<(), ServerError> {
        let url = self.url.as_str();
        match self.ready {
            Ready::Listens => Ok(()),
            Ready::JetStreamAnswers => {
                self.process.until(READY_WITHIN, || ready::jetstream_answers(url)).await
            }
        }
    }

    /// The address to connect to, for example `nats://127.0.0.1:40123`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The id of the server's process while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Ends the server at once, as a crash would, and keeps its data. Nothing happens if it has ended.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Lets the server end in order, in at most five seconds, and keeps its data. On Windows it is
    /// killed.
    ///
    /// # Cancel safety
    /// The server may still be running when the future was dropped; dropping `self` ends it.
    pub async fn stop(&mut self) {
        self.process.stop().await;
    }

    /// Starts the server again, on the same port with the same data, and waits until JetStream
    /// answers. A server that still runs is killed first.
    ///
    /// # Errors
    /// As [`start`](Self::start); [`ServerError::PortTaken`] when another process listens on the port.
    ///
    /// # Cancel safety
    /// The server may run or not when the future was dropped; call it again.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.process.spawn(Some(self.port))?;
        self.process.client_port(READY_WITHIN).await?;
        self.until_ready().await
    }
}

impl fmt::Debug for PrivateServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateServer")
            .field("url", &self.url)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}
