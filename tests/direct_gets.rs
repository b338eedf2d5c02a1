//! Direct gets that no server takes, as in the first moments of a cluster, or answers.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, stream};
use cim_persistence::backend::nats::Connection;
use cim_persistence::backend::{BackendError, Bound, Count, Matching, Position, ReadFrom};
use cim_persistence::event::NonEmpty;
use cim_persistence::event_log::{EventLog, LogQuery, NatsLog};
use cim_persistence::server::{Node, PrivateCluster, PrivateServer, ServerConfig};
use cim_persistence::state::{Change, Expected, Key, KeyValue, KeyWrite, NatsKeyValue};
use cim_persistence::subject::Pattern;
use futures::future::{join, join_all};
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::time::timeout;

use test_server::TestServer;

#[path = "support/test_server.rs"]
mod test_server;

/// Every read that any replica may answer.
#[derive(Debug, Clone, Copy)]
enum Read {
    Get,
    GetMany,
    Newest,
    Matching,
    Count,
    All,
}

const READS: [Read; 6] =
    [Read::Get, Read::GetMany, Read::Newest, Read::Matching, Read::Count, Read::All];

const TIMEOUT: Duration = Duration::from_millis(500);

/// A bucket of one entry, which is read as a log as well.
struct Bench<S> {
    jetstream: jetstream::Context,
    bucket: NatsKeyValue,
    log: NatsLog,
    server: S,
}

impl Bench<TestServer> {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let (url, name) = (server.url().to_owned(), server.name("books"));
        Self::on(server, &url, &name, 1).await
    }
}

impl Bench<PrivateServer> {
    async fn alone(settings: ServerConfig) -> Self {
        let server = PrivateServer::start(settings).await.unwrap();
        let url = server.url().to_owned();
        Self::on(server, &url, "books", 1).await
    }
}

/// Stores the entry once. A young cluster may not hear at first that its stream listens.
async fn store_one(jetstream: &jetstream::Context, bucket: &str) {
    let stored = async {
        loop {
            let message = PublishMessage::build().message_id("one").payload("1".into());
            let sent = jetstream.send_publish(format!("$KV.{bucket}.one"), message).await.unwrap();
            match sent.await {
                Ok(_) => return,
                Err(error) => assert_eq!(error.kind(), PublishErrorKind::StreamNotFound),
            }
        }
    };
    timeout(Duration::from_secs(60), stored).await.expect("the stream takes messages");
}

impl<S> Bench<S> {
    async fn on(server: S, url: &str, name: &str, num_replicas: usize) -> Self {
        let client = async_nats::connect(url).await.unwrap();
        let jetstream = jetstream::new(client.clone());
        let settings = stream::Config { num_replicas, ..settings(name, true) };
        jetstream.create_stream(settings).await.unwrap();
        store_one(&jetstream, name).await;
        let connection = Connection::from_client(client).with_timeout(TIMEOUT);
        let bucket = NatsKeyValue::open(&connection, name).await.unwrap();
        let log = NatsLog::open(&connection, &format!("KV_{name}")).await.unwrap();
        Self { jetstream, bucket, log, server }
    }

    /// Lets the server take direct gets, or nobody.
    async fn allow_direct(&self, allowed: bool) {
        let settings = settings(self.bucket.bucket(), allowed);
        self.jetstream.update_stream(settings).await.unwrap();
    }

    /// The name of the bucket's stream.
    fn stream(&self) -> String {
        format!("KV_{}", self.bucket.bucket())
    }

    /// Whoever asks something of the stream.
    async fn asking(&self, what: &str) -> Subscriber {
        let client = self.jetstream.client();
        let subject = format!("$JS.API.{what}.{}", self.stream());
        let asking = client.subscribe(subject).await.unwrap();
        client.flush().await.unwrap();
        asking
    }

    /// How many entries a read finds.
    async fn find(&self, read: Read) -> Result<u64, BackendError> {
        let keys = [Key::new("one").unwrap()];
        let pattern = Pattern::parse(">").unwrap();
        let patterns = NonEmpty::from_vec(vec![pattern.clone()]).unwrap();
        Ok(match read {
            Read::Get => {
                u64::from(self.bucket.get(&keys[0], ReadFrom::Nearest).await?.value.is_some())
            }
            Read::GetMany => {
                let slots = self.bucket.get_many(&keys).await?;
                slots.iter().filter(|slot| slot.value.is_some()).count() as u64
            }
            Read::Newest => u64::from(self.bucket.newest(&pattern).await?.is_some()),
            Read::Matching => match self.bucket.matching(&patterns).await? {
                Matching::All(entries) => entries.len() as u64,
                Matching::TooMany => panic!("there is one"),
            },
            Read::Count => match self.bucket.count(&patterns).await? {
                Count::Exactly(count) => count,
                more => panic!("there is one, not {more:?}"),
            },
            Read::All => {
                let all = LogQuery { filter: None, after: Position::START };
                let stored: Vec<_> = self.log.read(all).try_collect().await?;
                stored.len() as u64
            }
        })
    }
}

fn settings(bucket: &str, allow_direct: bool) -> stream::Config {
    stream::Config {
        name: format!("KV_{bucket}"),
        subjects: vec![format!("$KV.{bucket}.>")],
        max_messages_per_subject: 1,
        allow_direct,
        ..Default::default()
    }
}

/// What a read says that found nobody.
fn unavailable(detail: &str) -> String {
    format!("unavailable, nothing was stored: {detail}; try again later")
}

#[tokio::test]
async fn a_read_that_nobody_takes_is_asked_again_until_somebody_does() {
    let bench = Bench::start().await;
    let mut asking = bench.asking("STREAM.INFO").await;
    for read in READS {
        bench.allow_direct(false).await;
        // Nobody took it, so it asks what is the matter.
        let heard = async {
            asking.next().await.unwrap();
            bench.allow_direct(true).await;
        };
        let (found, ()) = join(bench.find(read), heard).await;
        assert_eq!(found.unwrap(), 1, "{read:?}");
    }
}

#[tokio::test]
async fn a_read_that_nobody_ever_takes_says_so() {
    let bench = Bench::start().await;
    bench.allow_direct(false).await;
    let requests = format!("$JS.API.DIRECT.GET.{}", bench.stream());
    let reads = READS.map(|read| bench.find(read));
    for (read, found) in READS.into_iter().zip(join_all(reads).await) {
        let subject = match read {
            Read::Get => format!("{requests}.$KV.{}.one", bench.bucket.bucket()),
            _ => requests.clone(),
        };
        let wanted = unavailable(&format!("no server takes requests on {subject}"));
        assert_eq!(found.unwrap_err().to_string(), wanted, "{read:?}");
    }
}

#[tokio::test]
async fn a_read_of_a_stream_that_is_gone_says_so() {
    let bench = Bench::start().await;
    let stream = bench.stream();
    bench.jetstream.delete_stream(&stream).await.unwrap();
    let wanted =
        format!("stream {stream} does not exist; provision it or check the configured name");
    for read in READS {
        assert_eq!(bench.find(read).await.unwrap_err().to_string(), wanted, "{read:?}");
    }
}

/// More than the client lets wait for a connection.
const CALLERS: usize = 3000;

#[tokio::test]
async fn every_read_ends_in_its_time_while_there_is_no_server() {
    let mut bench = Bench::alone(ServerConfig::Single).await;
    bench.server.kill();
    let reads = (0..CALLERS).map(|_| bench.find(Read::Get));
    let reads = timeout(60 * TIMEOUT, join_all(reads)).await.expect("no read waits for the server");
    let subject = "$JS.API.DIRECT.GET.KV_books.$KV.books.one";
    let wanted = unavailable(&format!("no answer to a request on {subject} in 500ms"));
    for read in reads {
        assert_eq!(read.unwrap_err().to_string(), wanted);
    }
    let found = timeout(60 * TIMEOUT, bench.find(Read::GetMany)).await.unwrap();
    assert_eq!(
        found.unwrap_err().to_string(),
        unavailable("subscribing to answers: no connection")
    );
}

/// On three servers a replica that is behind finds nothing as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_nothing_matches_is_said_as_soon_as_the_leader_says_so() {
    let cluster = PrivateCluster::start().await.unwrap();
    let url = cluster.url(Node::One).to_owned();
    let bench = Bench::on(cluster, &url, "books", 3).await;
    assert_eq!(bench.find(Read::Get).await.unwrap(), 1);
    let mut asking = bench.asking("DIRECT.GET").await;
    let pattern = |text| NonEmpty::one(Pattern::parse(text).unwrap());
    let first = Bound::Position(Position::new(1));
    for (text, wanted) in [("$KV.books.none", 0), ("$KV.books.>", 1)] {
        match bench.log.matching(&pattern(text), first).await.unwrap() {
            Matching::All(found) => assert_eq!(found.len(), wanted, "{text}"),
            Matching::TooMany => panic!("there is one"),
        }
        bench.jetstream.client().flush().await.unwrap();
        assert!(asking.next().now_or_never().is_some(), "{text}");
        assert!(wanted > 0 || asking.next().now_or_never().is_none(), "asked once");
    }
}

/// Of a few more than 250 such entries an answer is full.
fn large(key: usize) -> KeyWrite {
    let key = Key::new(format!("k.{key}")).unwrap();
    KeyWrite::new(key, Change::Put(vec![b'x'; 32 * 1024].into()), Expected::Anything)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_is_full_before_its_last_entry_finds_it() {
    let bench = Bench::alone(ServerConfig::DefaultSync).await;
    let pattern = NonEmpty::one(Pattern::parse("k.*").unwrap());
    let keys: Vec<Key> = (0..270).map(|key| Key::new(format!("k.{key}")).unwrap()).collect();
    for count in 1..=keys.len() {
        bench.bucket.write(NonEmpty::one(large(count - 1))).await.unwrap();
        if count < 245 {
            continue;
        }
        match bench.bucket.matching(&pattern).await.unwrap() {
            Matching::All(found) => assert_eq!(found.len(), count),
            Matching::TooMany => panic!("there are {count}"),
        }
        let slots = bench.bucket.get_many(&keys[..count]).await.unwrap();
        assert!(slots.iter().all(|slot| slot.value.is_some()), "{count}");
    }
}

/// One request asks for 8 MiB at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_is_changed_between_two_requests_of_a_read_is_found() {
    const KEYS: usize = 900;
    let bench = Bench::alone(ServerConfig::DefaultSync).await;
    for key in 0..KEYS {
        bench.bucket.write(NonEmpty::one(large(key))).await.unwrap();
    }
    let mut asking = bench.asking("DIRECT.GET").await;
    let pattern = NonEmpty::one(Pattern::parse("k.*").unwrap());
    let changing = async {
        asking.next().await.expect("the read begins");
        bench.bucket.write(NonEmpty::one(large(KEYS - 1))).await.unwrap();
    };
    let (found, ()) = join(bench.bucket.matching(&pattern), changing).await;
    let Matching::All(found) = found.unwrap() else { panic!("there are {KEYS}") };
    assert_eq!(found.len(), KEYS);
    assert!(asking.next().now_or_never().is_some(), "the read took several requests");
}
