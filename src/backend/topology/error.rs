//! Why what a context needs is not there.

use std::fmt;

use crate::backend::BackendError;

/// A context's stream or bucket is not what it must be. Nothing that existed was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// A name cannot be that of a stream or a bucket. Choose another.
    #[error(
        "{what} {text:?} must have 1 to {max} characters of A-Z a-z 0-9 _ and -; choose another name"
    )]
    Name {
        /// What the name is for.
        what: &'static str,
        /// The name.
        text: String,
        /// The most characters.
        max: usize,
    },
    /// Two buckets have one name. Give each its own.
    #[error("two buckets are called {bucket:?}; give each a name of its own")]
    SameBucket {
        /// The name.
        bucket: String,
    },
    /// A number of replicas that no stream should have. Choose 1, 3 or 5.
    #[error("{found} replicas are not possible; choose 1, 3 or 5")]
    Replicas {
        /// The number.
        found: usize,
    },
    /// A stream is not there. Let an operator provision it, or check the configured name.
    #[error("stream {stream} does not exist; provision it, or check its configured name")]
    Missing {
        /// The stream.
        stream: String,
    },
    /// A stream is set so that it may lose data or refuse what is needed. Change it (`nats stream edit`), or use
    /// another name.
    #[error(
        "stream {stream} cannot be used: {}; change its settings or use another name",
        listed(settings)
    )]
    Mismatch {
        /// The stream.
        stream: String,
        /// Every setting that is wrong.
        settings: Vec<SettingMismatch>,
    },
    /// The server does not let this user look at a stream or create it. Grant the permission, or let an operator
    /// provision the stream and only verify it.
    #[error(
        "no permission on {subject} for stream {stream}; grant it, or let an operator provision the stream"
    )]
    Denied {
        /// The stream.
        stream: String,
        /// The subject that was refused.
        subject: String,
    },
    /// The server could not be asked, or refused to create a stream. The source says which: correct what it names, or
    /// ask again where it is [transient](BackendError::is_transient), which is always safe.
    #[error("stream {stream} could not be examined or created; {}", remedy(source))]
    Backend {
        /// The stream.
        stream: String,
        /// What happened.
        #[source]
        source: BackendError,
    },
}

/// One setting of a stream that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingMismatch {
    /// The setting, as JetStream calls it.
    pub field: &'static str,
    /// What it must be.
    pub wanted: String,
    /// What it is.
    pub found: String,
}

impl fmt::Display for SettingMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {} and is {}", self.field, self.wanted, self.found)
    }
}

fn remedy(source: &BackendError) -> &'static str {
    match source.is_transient() {
        true => "is JetStream running, and may this user ask it? ask again, which is safe",
        false => "correct what its cause names and ask again",
    }
}

fn listed(settings: &[SettingMismatch]) -> String {
    settings.iter().map(SettingMismatch::to_string).collect::<Vec<_>>().join(", ")
}
