//! The files of `nats-config/`, carried in the crate so that it works without the folder.
//! What each sets, and who should use it, is in the files. How they are started is in `process`.

/// Which settings a [`PrivateServer`](super::PrivateServer) runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerConfig {
    /// `nats-config/dev.conf`: what a developer runs by hand; durable, with monitoring pages.
    Dev,
    /// `nats-config/single.conf`: every acknowledged write is fsynced. What tests should use.
    Single,
    /// `nats-config/default-sync.conf`: the server's default of one fsync every two minutes. Only to
    /// measure what durability costs, and to see that a client notices when it is missing.
    DefaultSync,
}

impl ServerConfig {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Dev => include_str!("../../nats-config/dev.conf"),
            Self::Single => include_str!("../../nats-config/single.conf"),
            Self::DefaultSync => include_str!("../../nats-config/default-sync.conf"),
        }
    }
}

pub(super) const CLUSTER: &str = include_str!("../../nats-config/cluster.conf");
