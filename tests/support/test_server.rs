//! The server that a test works on when it does not need one of its own: the one that `NATS_URL` names, or a private one.

use std::{panic, thread};

use cim_persistence::server::{self, Server, ServerConfig};
use futures::TryStreamExt;
use uuid::Uuid;

/// A server, and names on it that nobody else has. Streams of such names are removed from somebody else's server when
/// this is dropped.
pub(crate) struct TestServer {
    server: Server,
    /// What the names end with on somebody else's server.
    suffix: Option<String>,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::on(server::from_env_or(ServerConfig::Single).await.unwrap())
    }

    pub(crate) fn on(server: Server) -> Self {
        let external = matches!(server, Server::External { .. });
        let suffix = external.then(|| Uuid::new_v4().simple().to_string()[..12].to_owned());
        Self { server, suffix }
    }

    pub(crate) fn url(&self) -> &str {
        self.server.url()
    }

    /// What a context, a stream, a bucket or a token of a subject is called here that is called so on a private server.
    pub(crate) fn name(&self, name: &str) -> String {
        match &self.suffix {
            Some(suffix) => format!("{name}-{suffix}"),
            None => name.to_owned(),
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let Some(suffix) = &self.suffix else { return };
        // The runtime of the test is not there for a future while this blocks its thread.
        let removed = thread::scope(|scope| scope.spawn(|| remove(self.url(), suffix)).join());
        match removed {
            // A test that fails tells of that.
            Err(why) if !thread::panicking() => panic::resume_unwind(why),
            _ => {}
        }
    }
}

/// Removes the streams, those of buckets among them, that have this in their names.
fn remove(url: &str, suffix: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let jetstream = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
        let names: Vec<String> = jetstream.stream_names().try_collect().await.unwrap();
        for name in names.iter().filter(|name| name.contains(suffix)) {
            jetstream.delete_stream(name).await.unwrap();
        }
    });
}
