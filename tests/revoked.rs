//! What becomes of writes when the server takes a right from a user that has opened its log before.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use cim_persistence::backend::nats::Connection;
use cim_persistence::backend::{
    BackendError, ConnectionConfig, Guard, NewMessage, Position, ReadFrom,
};
use cim_persistence::event::{Headers, NonEmpty};
use cim_persistence::event_log::{EventLog, NatsLog};
use cim_persistence::outbox::{NatsPublisher, PublishError, Publisher, Subjects};
use cim_persistence::server::PrivateServer;
use cim_persistence::subject::Subject;
use tempfile::TempDir;

const STREAM: &str = "BOOKS";

/// A server on which the rights of the user ann stand in a file of their own, and ann's log.
struct Library {
    rights: TempDir,
    server: PrivateServer,
    connection: Connection,
    log: NatsLog,
}

impl Library {
    async fn open() -> Self {
        // Beside the folder that the server has for its settings, from which it finds what they include.
        let rights = tempfile::tempdir().unwrap();
        grant(rights.path(), "");
        let name = rights.path().file_name().unwrap().to_str().unwrap();
        let settings = format!(
            "jetstream {{ store_dir: $CIM_STORE_DIR, sync_interval: always }}\ninclude \"../{name}/rights.conf\""
        );
        let server = PrivateServer::start_with_config(&settings).await.unwrap();
        let config = stream::Config {
            name: STREAM.to_owned(),
            subjects: vec!["books.>".to_owned()],
            allow_direct: true,
            allow_atomic_publish: true,
            ..Default::default()
        };
        jetstream::new(librarian(&server).await).create_stream(config).await.unwrap();
        let config = ConnectionConfig::new(server.url())
            .user_password("ann", "ann")
            .request_timeout(Duration::from_secs(1));
        let connection = Connection::connect(&config).await.unwrap();
        let log = NatsLog::open(&connection, STREAM).await.unwrap();
        Self { rights, server, connection, log }
    }

    /// Forbids ann something and lets her come back. Returns when she has been told.
    async fn forbid(&mut self, what: &str) {
        grant(self.rights.path(), what);
        self.server.kill();
        self.server.restart().await.unwrap();
        let told = async {
            while !matches!(
                self.log.last(&books(1), ReadFrom::Leader).await,
                Err(BackendError::Denied { .. })
            ) {}
        };
        tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
    }
}

fn grant(folder: &Path, rights: &str) {
    let ann = format!("{{ user: ann, password: ann, permissions: {{ {rights} }} }}");
    let librarian = "{ user: librarian, password: librarian }";
    let text = format!("authorization {{ users: [ {ann}, {librarian} ] }}\n");
    std::fs::write(folder.join("rights.conf"), text).unwrap();
}

async fn librarian(server: &PrivateServer) -> async_nats::Client {
    let options = async_nats::ConnectOptions::with_user_and_password(
        "librarian".to_owned(),
        "librarian".to_owned(),
    );
    options.connect(server.url()).await.unwrap()
}

fn books(shelf: u64) -> Subject {
    Subject::parse(&format!("books.{shelf}")).unwrap()
}

fn message(shelf: u64) -> NewMessage {
    NewMessage {
        subject: books(shelf),
        headers: Headers::new(),
        payload: "payload".into(),
        guard: Guard::Last(Position::START),
    }
}

/// The server may store what it does not answer: whoever took that for a refusal would decide as if it were not there.
#[tokio::test]
async fn a_write_is_not_said_to_be_refused_because_answers_are() {
    let mut library = Library::open().await;
    library.log.publish(message(1)).await.unwrap();
    library.forbid("subscribe: { deny: \"_INBOX.>\" }").await;
    let alone = library.log.publish(message(2)).await.unwrap_err();
    assert!(matches!(alone, BackendError::Unknown { .. }), "{alone}");
    let batch = NonEmpty::from([message(3), message(4)]);
    let together = library.log.publish_batch(batch).await.unwrap_err();
    assert!(matches!(together, BackendError::Unknown { .. }), "{together}");
}

/// Whoever is told of no answers cannot know what the server has read; whoever is refused the question itself can.
#[tokio::test]
async fn a_publisher_that_hears_no_answers_vouches_for_nothing() {
    let mut library = Library::open().await;
    library.forbid("publish: { deny: \"$JS.API.>\" }").await;
    let publisher = NatsPublisher::new(&library.connection, Subjects::under("shop").unwrap());
    publisher.settle().await.unwrap();
    library.forbid("subscribe: { deny: \"_INBOX.>\" }").await;
    let publisher = NatsPublisher::new(&library.connection, Subjects::under("shop").unwrap());
    let unsettled = publisher.settle().await.unwrap_err();
    assert!(matches!(unsettled, PublishError::Unavailable(_)), "{unsettled}");
}
