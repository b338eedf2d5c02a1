//! Relays on real servers: what plain clients see, another stream, killed relays, restarted servers.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream;
use cim_persistence::backend::ConnectionConfig;
use cim_persistence::backend::nats::Connection;
use cim_persistence::event::NonEmpty;
use cim_persistence::outbox::{
    JetStreamPublisher, NatsPublisher, Outbox, OutboxMessage, Publisher, Relay, RelayOptions,
    RelayPhase, Subjects, Topic,
};
use cim_persistence::server::{PrivateServer, ServerConfig};
use cim_persistence::store::CommitInfo;
use cim_persistence::{Context, NatsRepositoryConfig};
use futures::{StreamExt, TryStreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::domain::{config, options, order, send, send_many, until, until_done};
use crate::test_server::TestServer;

async fn connection(url: &str) -> Connection {
    Connection::connect(&ConnectionConfig::new(url)).await.unwrap()
}

async fn process(url: &str, context: &str) -> Context {
    let config =
        NatsRepositoryConfig { context: context.to_owned(), patience_ms: 60_000, ..config() };
    let connection = connection(url).await;
    cim_persistence::backend::nats::provision(&connection, &config.topology().unwrap())
        .await
        .unwrap();
    Context::open(&connection, &config).await.unwrap()
}

fn below(shop: &str) -> Subjects {
    Subjects::under(shop).unwrap()
}

/// A stream of another service, a shop, which takes what is published below its name.
async fn other_stream(client: &async_nats::Client, shop: &str) -> jetstream::stream::Stream {
    let config = jetstream::stream::Config {
        name: shop.to_owned(),
        subjects: vec![format!("{shop}.>")],
        ..Default::default()
    };
    jetstream::new(client.clone()).get_or_create_stream(config).await.unwrap()
}

/// A client that knows nothing of this crate reads CloudEvents: from the context's own stream, and from where they are
/// published.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_client_reads_cloud_events() {
    let server = TestServer::start().await;
    let (bank, shop) = (server.name("bank"), server.name("shop"));
    let context = process(server.url(), &bank).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut listening = client.subscribe(format!("{shop}.>")).await.unwrap();
    client.flush().await.unwrap();
    let publisher = NatsPublisher::new(&connection(server.url()).await, below(&shop));
    let mut relay = Relay::start(&Outbox::of(&context), publisher, options());
    let message = order("order 42", 7).with_subject("Größe \"XL\"").with_extension("tenant", "a");
    let position = send(&context, message).await;
    let published = listening.next().await.unwrap();
    assert_eq!(published.subject.as_str(), format!("{shop}.orders"));
    let stream = jetstream::new(client).get_stream(format!("CIM-EVENTS-{bank}")).await.unwrap();
    let stored = stream.get_raw_message(position.get()).await.unwrap();
    assert_eq!(stored.subject.as_str(), format!("cim.outbox.{bank}.orders"));
    for (headers, payload) in
        [(published.headers.unwrap(), published.payload), (stored.headers, stored.payload)]
    {
        let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        let is = |name: &str, value: &str| assert_eq!(header(name).as_deref(), Some(value));
        is("ce-specversion", "1.0");
        is("ce-type", "placed");
        is("ce-source", &format!("cim://{bank}"));
        is("ce-subject", "Gr%C3%B6%C3%9Fe%20%22XL%22");
        is("ce-datacontenttype", "application/json");
        is("ce-partitionkey", "order%2042");
        is("ce-tenant", "a");
        assert_eq!(header("ce-id"), header("Nats-Msg-Id"));
        let id = uuid::Uuid::parse_str(&header("ce-id").unwrap()).unwrap();
        assert_eq!(id.get_version_num(), 7);
        let time = header("ce-time").unwrap();
        time::OffsetDateTime::parse(&time, &time::format_description::well_known::Rfc3339).unwrap();
        assert_eq!(payload, "7");
    }
    let status = until_done(&mut relay, position).await;
    assert_eq!((status.published, status.trouble), (1, None));
    relay.stop().await.unwrap();
}

/// Relays killed and a server restarted at any moment: in the other stream each message lies once, those of a key in
/// order.
#[tokio::test(flavor = "multi_thread")]
async fn another_stream_gets_each_message_once_whatever_dies() {
    let mut server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut stream = other_stream(&client, "shop").await;
    let processes = [process(server.url(), "bank").await, process(server.url(), "bank").await];
    const ROUNDS: u64 = 50;
    const EACH: u64 = 24;
    let options = RelayOptions { lease: Duration::from_millis(200), ..options() };
    let mut relays = [None, None];
    let mut last = Default::default();
    for round in 0..ROUNDS {
        let turn = usize::from(round % 2 == 0);
        let publisher = JetStreamPublisher::new(&connection(server.url()).await, below("shop"));
        // The one before it is dropped wherever it is.
        relays[turn] = Some(Relay::start(&Outbox::of(&processes[turn]), publisher, options));
        last = send_many(&processes[0], round * EACH, EACH).await;
        tokio::time::sleep(Duration::from_millis(7 * (round % 12))).await;
        if round % 10 == 9 {
            server.kill();
            server.restart().await.unwrap();
        }
    }
    drop(relays);
    let publisher = JetStreamPublisher::new(&connection(server.url()).await, below("shop"));
    let mut relay = Relay::start(&Outbox::of(&processes[0]), publisher, options);
    let status = until_done(&mut relay, last).await;
    assert_eq!((status.parked, status.waiting), (0, 0), "{status:?}");
    let count = ROUNDS * EACH;
    assert_eq!(stream.info().await.unwrap().state.messages, count);
    let consumer =
        stream.create_consumer(jetstream::consumer::pull::OrderedConfig::default()).await.unwrap();
    let messages = consumer.messages().await.unwrap().take(usize::try_from(count).unwrap());
    let messages: Vec<_> = messages.try_collect().await.unwrap();
    let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for message in &messages {
        let key = message.headers.as_ref().unwrap().get("ce-partitionkey").unwrap();
        let number = serde_json::from_slice(&message.payload).unwrap();
        by_key.entry(key.to_string()).or_default().push(number);
    }
    for (key, numbers) in &by_key {
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
    }
    let mut all: Vec<u64> = by_key.into_values().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (0..count).collect::<Vec<_>>());
}

/// Connections that are lost at any moment, with what was on its way: nothing is missing in the end.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_connection_swallowed_is_published_again() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let context = process(server.url(), "bank").await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut stream = other_stream(&client, "shop").await;
    let proxy = Proxy::to(&server).await;
    let connection = Connection::connect(&ConnectionConfig::new(proxy.url.as_str())).await.unwrap();
    let publisher = NatsPublisher::new(&connection, below("shop"));
    let mut relay = Relay::start(&Outbox::of(&context), publisher, options());
    let count = 4000;
    let mut last = Default::default();
    for round in 0..5 {
        last = send_many(&context, round * count / 5, count / 5).await;
        tokio::time::sleep(Duration::from_millis(round)).await;
        proxy.cut.send_modify(|cuts| *cuts += 1);
    }
    let status = until_done(&mut relay, last).await;
    assert_eq!((status.parked, status.waiting), (0, 0), "{status:?}");
    // A stream stores a moment after the server has read, in order; and it keeps the first of each id.
    let end = jetstream::new(client).publish("shop.end", "".into()).await.unwrap();
    end.await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, count + 1);
}

/// A connection that was made anew may have lost what was taken before, also when it works again.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_does_not_vouch_for_what_an_earlier_connection_took() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let context = process(server.url(), "bank").await;
    send(&context, order("k", 1)).await;
    let pending = Outbox::of(&context).get_pending(1).await.unwrap();
    let proxy = Proxy::to(&server).await;
    let config = ConnectionConfig::new(proxy.url.as_str());
    let publisher = NatsPublisher::new(&Connection::connect(&config).await.unwrap(), below("shop"));
    publisher.publish(&pending[0]).await.unwrap();
    publisher.settle().await.unwrap();
    publisher.publish(&pending[0]).await.unwrap();
    let connections = *proxy.connections.borrow();
    proxy.cut.send_modify(|cuts| *cuts += 1);
    proxy.connections.clone().wait_for(|made| *made > connections).await.unwrap();
    let error = publisher.settle().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the receiver is not available: the connection to NATS was lost meanwhile"
    );
    publisher.settle().await.unwrap();
}

/// Passes bytes on to a server until it is told to cut all connections.
struct Proxy {
    url: String,
    cut: watch::Sender<u64>,
    /// How many connections there were.
    connections: watch::Receiver<u64>,
}

impl Proxy {
    async fn to(server: &PrivateServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let cut = watch::Sender::new(0);
        let (made, connections) = watch::channel(0);
        let (cuts, target) = (cut.subscribe(), server.url().replace("nats://", ""));
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut cuts, target) = (cuts.clone(), target.clone());
                cuts.mark_unchanged();
                made.send_modify(|made| *made += 1);
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { url, cut, connections }
    }
}

/// No stream listens: nothing is counted as failed, and everything comes when one does.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_made_late_gets_everything() {
    let server = TestServer::start().await;
    let context = process(server.url(), &server.name("bank")).await;
    let last = send_many(&context, 0, 200).await;
    let publisher =
        JetStreamPublisher::new(&connection(server.url()).await, below(&server.name("shop")));
    let mut relay = Relay::start(&Outbox::of(&context), publisher, options());
    let down = |status: &cim_persistence::outbox::RelayStatus| {
        status.phase == RelayPhase::ReceiverUnavailable
    };
    relay.wait_until(down).await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut stream = other_stream(&client, &server.name("shop")).await;
    let status = until_done(&mut relay, last).await;
    assert_eq!((status.parked, status.published), (0, 200));
    assert_eq!(stream.info().await.unwrap().state.messages, 200);
}

/// What a stream refuses for good is parked with what it said, and the rest goes on.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_refuses_is_parked() {
    let server = TestServer::start().await;
    let context = process(server.url(), &server.name("bank")).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let config = jetstream::stream::Config {
        name: server.name("SMALL"),
        subjects: vec![format!("{}.>", server.name("shop"))],
        max_message_size: 2000,
        ..Default::default()
    };
    let mut stream = jetstream::new(client).create_stream(config).await.unwrap();
    let topic = Topic::new("orders").unwrap();
    let large = OutboxMessage::bytes(topic, "placed", "text/plain", vec![b'x'; 3000]).with_key("k");
    let messages = NonEmpty::from([order("k", 0), large, order("k", 2)]);
    let outbox = Outbox::of(&context);
    let last = outbox.save_messages(&messages, &CommitInfo::default()).await.unwrap();
    let publisher =
        JetStreamPublisher::new(&connection(server.url()).await, below(&server.name("shop")));
    let mut relay = Relay::start(&outbox, publisher, options());
    let status = until(&mut relay, last).await;
    assert_eq!((status.parked, status.published), (1, 2));
    assert_eq!(stream.info().await.unwrap().state.messages, 2);
    let parked = outbox.list_parked().await.unwrap();
    let error =
        "refused for good: the stream refused it: message size exceeds maximum allowed (10054)";
    assert_eq!(parked[0].error.as_deref(), Some(error));
}
