//! The same on a real server: killed processes, two at once, and restarts before and after a timeout is due.

use std::time::Duration;

use cim_persistence::backend::nats::provision;
use cim_persistence::process::RunningProcess;
use cim_persistence::server::{PrivateServer, ServerConfig};
use cim_persistence::state::MemoryKeyValue;
use cim_persistence::store::Ports;
use cim_persistence::{Connection, ConnectionConfig, Context};

use crate::domain::*;

async fn connect(server: &PrivateServer) -> Connection {
    let config = ConnectionConfig::new(server.url());
    // What is lost with the server is missed after this time.
    let patience = Duration::from_secs(1);
    let connection = Connection::connect(&config).await.unwrap().with_timeout(patience);
    provision(&connection, &crate::domain::config().topology().unwrap()).await.unwrap();
    connection
}

fn context(connection: &Connection) -> Context {
    Context::on(Ports::nats(connection, &config()), &config()).unwrap()
}

/// A process whose leases and cursors nobody else sees, so that it is always active.
fn apart(connection: &Connection) -> Context {
    let read_models = std::sync::Arc::new(MemoryKeyValue::new("readmodels"));
    Context::on(Ports { read_models, ..Ports::nats(connection, &config()) }, &config()).unwrap()
}

fn start(context: &Context) -> RunningProcess {
    RunningProcess::start(context, Follow::on(context), options()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_all_the_time_and_two_at_once_it_does_everything_once() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let connection = connect(&server).await;
    let writing = tokio::spawn({
        let context = context(&connection);
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
        let both = [start(&apart(&connection)), start(&apart(&connection))];
        tokio::time::sleep(Duration::from_millis(5 + n * 37 % 60)).await;
        drop(both);
    }
    writing.await.unwrap();
    let context = context(&connection);
    let process = start(&context);
    happens(&context, "sentinel", OrderEvent::Remind(later(Duration::from_millis(500)))).await;
    noted_at_least(&context, "sentinel", 2).await;
    process.stop().await.unwrap();
    let reminders = each_took_effect_once(&context).await;
    let mut all = reminders[ALL].clone();
    all.sort_unstable();
    let count = all.len();
    all.dedup();
    assert_eq!(all.len(), count, "a reminder took effect twice");
}

#[tokio::test]
async fn a_timeout_comes_once_whether_the_server_restarts_before_or_after_it_is_due() {
    let mut server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let connection = connect(&server).await;
    let context = context(&connection);
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
