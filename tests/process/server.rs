//! The same on a real server: killed processes, two at once, and restarts before and after a timeout is due.

use std::time::Duration;

use cim_persistence::backend::nats::provision;
use cim_persistence::process::{ProcessError, RunningProcess};
use cim_persistence::server::{Node, PrivateCluster, PrivateServer, ServerConfig};
use cim_persistence::state::MemoryKeyValue;
use cim_persistence::store::Ports;
use cim_persistence::{Connection, ConnectionConfig, Context, NatsRepositoryConfig};

use crate::domain::*;
use crate::test_server::TestServer;

/// A context on a server.
struct Place {
    connection: Connection,
    config: NatsRepositoryConfig,
}

impl Place {
    async fn on(url: &str, context: String) -> Self {
        // What is lost with the server is missed after this time.
        let patience = Duration::from_secs(1);
        let connection = Connection::connect(&ConnectionConfig::new(url)).await.unwrap();
        let connection = connection.with_timeout(patience);
        let config = NatsRepositoryConfig { context, ..config() };
        provision(&connection, &config.topology().unwrap()).await.unwrap();
        Self { connection, config }
    }

    fn context(&self) -> Context {
        Context::on(Ports::nats(&self.connection, &self.config), &self.config).unwrap()
    }

    /// A process whose leases and cursors nobody else sees, so that it is always active.
    fn apart(&self) -> Context {
        let read_models = std::sync::Arc::new(MemoryKeyValue::new("readmodels"));
        let ports = Ports { read_models, ..Ports::nats(&self.connection, &self.config) };
        Context::on(ports, &self.config).unwrap()
    }
}

fn start(context: &Context) -> RunningProcess {
    RunningProcess::start(context, Follow::on(context), options()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_all_the_time_and_two_at_once_it_does_everything_once() {
    let server = TestServer::start().await;
    let place = Place::on(server.url(), server.name("bank")).await;
    let writing = tokio::spawn({
        let context = place.context();
        async move {
            for n in 0..90 {
                let event = match n % 9 {
                    0 => OrderEvent::Remind(later(Duration::from_millis(300))),
                    4 => OrderEvent::Paid,
                    _ => OrderEvent::Placed,
                };
                happens(&context, &format!("o{}", n % 4), event).await;
            }
        }
    });
    for n in 0..30_u64 {
        let both = [start(&place.apart()), start(&place.apart())];
        tokio::time::sleep(Duration::from_millis(5 + n * 37 % 60)).await;
        drop(both);
    }
    writing.await.unwrap();
    let context = place.context();
    let process = start(&context);
    happens(&context, "sentinel", OrderEvent::Remind(later(Duration::from_millis(500)))).await;
    noted_at_least(&context, "sentinel", 2).await;
    process.stop().await.unwrap();
    let reminders = each_took_effect_once(&context).await;
    no_reminder_came_twice(&reminders);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_made_anew_under_a_running_process_stops_it() {
    let server = TestServer::start().await;
    let place = Place::on(server.url(), server.name("bank")).await;
    let context = place.context();
    let mut process = start(&context);
    // The second one shows that the log is followed behind what was there before.
    for order in ["o1", "o2"] {
        let position = happens(&context, order, OrderEvent::Placed).await;
        process.handled(position).await.unwrap();
    }
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let name = context.scheme().all_events();
    let name = jetstream.stream_by_subject(name).await.unwrap();
    let stream = jetstream.get_stream(name).await.unwrap().cached_info().config.clone();
    jetstream.delete_stream(&stream.name).await.unwrap();
    jetstream.create_stream(stream).await.unwrap();
    // Longer than the old one, so that only its age tells.
    let mut last = happens(&context, "o3", OrderEvent::Placed).await;
    for n in 0..10 {
        last = happens(&context, &format!("n{n}"), OrderEvent::Placed).await;
    }
    let ended = process.handled(last).await;
    assert!(matches!(ended, Err(ProcessError::LogTruncated { .. })), "{ended:?}");
}

#[tokio::test]
async fn a_timeout_comes_once_whether_the_server_restarts_before_or_after_it_is_due() {
    let mut server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let place = Place::on(server.url(), "bank".to_owned()).await;
    let context = place.context();
    let mut process = start(&context);
    let before = later(Duration::from_millis(600));
    let after = later(Duration::from_millis(2_500));
    let mut last = happens(&context, "paid", OrderEvent::Remind(before)).await;
    for (order, event) in [
        ("before", OrderEvent::Remind(before)),
        ("after", OrderEvent::Remind(before)),
        ("after", OrderEvent::Remind(after)),
        ("paid", OrderEvent::Paid),
    ] {
        last = happens(&context, order, event).await;
    }
    process.handled(last).await.unwrap();
    server.kill();
    while later(Duration::ZERO) < before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // It came due while nobody was there.
    server.restart().await.unwrap();
    noted_at_least(&context, "before", 2).await;
    server.kill();
    server.restart().await.unwrap();
    noted_at_least(&context, "after", 3).await;
    process.stop().await.unwrap();
    let process = start(&context);
    happens(&context, "sentinel", OrderEvent::Remind(later(Duration::from_millis(100)))).await;
    noted_at_least(&context, "sentinel", 2).await;
    process.stop().await.unwrap();
    let reminders = each_took_effect_once(&context).await;
    assert_eq!(reminders["before"], [before]);
    assert_eq!(reminders["after"], [after]);
    assert_eq!(reminders.get("paid"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_three_servers_a_timeout_comes_once_although_the_leader_of_the_timeouts_dies() {
    let mut cluster = PrivateCluster::start().await.unwrap();
    let urls = cluster.urls().clone();
    let config =
        ConnectionConfig::new(urls[0].as_str()).url(urls[1].as_str()).url(urls[2].as_str());
    let patience = Duration::from_secs(1);
    let connection = Connection::connect(&config).await.unwrap();
    let config = NatsRepositoryConfig { replicas: 3, ..crate::domain::config() };
    provision(&connection, &config.topology().unwrap()).await.unwrap();
    let connection = connection.with_timeout(patience);
    let context = Context::on(Ports::nats(&connection, &config), &config).unwrap();
    let mut process = start(&context);
    let at = later(Duration::from_millis(1_500));
    let mut last = happens(&context, "kim", OrderEvent::Remind(at)).await;
    last = last.max(happens(&context, "paid", OrderEvent::Remind(at)).await);
    last = last.max(happens(&context, "paid", OrderEvent::Paid).await);
    process.handled(last).await.unwrap();

    let addresses: Vec<async_nats::ServerAddr> =
        urls.iter().map(|url| url.parse().unwrap()).collect();
    let jetstream = async_nats::jetstream::new(async_nats::connect(addresses).await.unwrap());
    let timeouts = jetstream.get_stream("CIM-TIMEOUTS-bank").await.unwrap();
    let leader = timeouts.cached_info().cluster.as_ref().unwrap().leader.clone().unwrap();
    let node = Node::ALL.into_iter().find(|node| node.server_name() == leader).unwrap();
    cluster.kill(node);
    noted_at_least(&context, "kim", 2).await;
    cluster.restart(node).await.unwrap();
    happens(&context, "sentinel", OrderEvent::Remind(later(Duration::ZERO))).await;
    noted_at_least(&context, "sentinel", 2).await;
    process.stop().await.unwrap();
    let reminders = each_took_effect_once(&context).await;
    assert_eq!(reminders["kim"], [at]);
    assert_eq!(reminders.get("paid"), None);
    no_reminder_came_twice(&reminders);
}
