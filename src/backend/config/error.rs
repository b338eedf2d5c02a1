//! What can be wrong with a configuration. No text here ever holds a secret.

use std::io;
use std::path::PathBuf;

/// A configuration that cannot be used. Nothing was sent to any server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No server is named. Name one.
    #[error(
        "no server URL is given; name one such as nats://127.0.0.1:4222 in code, in NATS_URL or in the file's urls"
    )]
    NoUrl,
    /// A server URL cannot be read. Correct it.
    #[error("server URL {url:?} cannot be used: {reason}")]
    Url {
        /// The URL, as far as it holds no secret.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Two places say who connects. Keep one.
    #[error("{first} and {second} both say who connects; keep one of them")]
    TwoIdentities {
        /// One place.
        first: &'static str,
        /// Another place.
        second: &'static str,
    },
    /// One half of a pair is missing. Give both or neither.
    #[error("{given} is given without {missing}; give both or neither")]
    Half {
        /// What is there.
        given: &'static str,
        /// What is not.
        missing: &'static str,
    },
    /// Two settings exclude each other. Keep one.
    #[error("{first} and {second} exclude each other; keep one of them")]
    Exclusive {
        /// One setting.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// An environment variable has a value that it cannot have. Correct it.
    #[error("environment variable {name} must be {wanted}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What it may hold.
        wanted: &'static str,
    },
    /// A file cannot be read. Check its path and who may read it.
    #[error("{what} {} cannot be read; check its path and its permissions", path.display())]
    Unreadable {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A configuration file is not what it must be. Correct it where the text says.
    #[error("configuration file {} is wrong at line {line} column {column}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong, without any value of the file.
        reason: String,
    },
    /// A credentials file holds no user JWT with its seed. Generate it again.
    #[error("{} is not a credentials file: it must hold a user JWT and its nkey seed", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
    },
    /// An nkey seed cannot be used. A user's seed starts with `SU` and has 58 characters.
    #[error(
        "the nkey seed cannot be used; a user's seed starts with SU and has 58 characters of A-Z and 2-7"
    )]
    NKeySeed,
    /// A time is zero. Give at least a millisecond.
    #[error("{what} is zero; give at least a millisecond")]
    ZeroTimeout {
        /// Which time.
        what: &'static str,
    },
    /// A text cannot stand in a subject. Correct it.
    #[error(
        "{what} {text:?} cannot stand in a subject: {wanted} of printable characters without spaces and wildcards"
    )]
    Subject {
        /// What the text is for.
        what: &'static str,
        /// The text.
        text: String,
        /// What it must be.
        wanted: &'static str,
    },
}
