//! What a queue of timeouts promises, in memory and on a server.

use std::sync::Arc;
use std::time::Duration;

use cim_persistence::backend::nats::provision;
use cim_persistence::backend::{BackendError, Position};
use cim_persistence::clock::Timestamp;
use cim_persistence::server::{PrivateServer, ServerConfig};
use cim_persistence::subject::{AggregateId, ContextName, TimeoutAddress};
use cim_persistence::testing::faults::{Fault, Faults};
use cim_persistence::timeouts::{
    Due, MAX_TIMEOUT, MemoryTimeouts, NatsTimeouts, Timeout, TimeoutQueue,
};
use cim_persistence::{Connection, ConnectionConfig, NatsRepositoryConfig};
use futures::StreamExt;
use uuid::Uuid;

use crate::test_server::TestServer;

async fn nats(url: &str, context: String) -> Arc<dyn TimeoutQueue> {
    let connection = Connection::connect(&ConnectionConfig::new(url)).await.unwrap();
    let config = NatsRepositoryConfig::for_context(context);
    provision(&connection, &config.topology().unwrap()).await.unwrap();
    let context = ContextName::new(&config.context).unwrap();
    let stream = config.names().timeout_stream;
    Arc::new(NatsTimeouts::open(&connection, &stream, &context).await.unwrap())
}

fn address(name: &str) -> TimeoutAddress {
    let instance = AggregateId::from_tokens(["kim@home", "7"]).unwrap();
    TimeoutAddress::new("dunning", &instance, name).unwrap()
}

fn later(by: Duration) -> Timestamp {
    Timestamp::from_micros(Timestamp::now().as_micros() + u64::try_from(by.as_micros()).unwrap())
}

fn timeout(name: &str, at: Timestamp, wished: u64) -> Timeout {
    Timeout {
        address: address(name),
        id: Uuid::now_v7(),
        at,
        wished: Position::new(wished),
        correlation_id: Uuid::now_v7(),
        data: format!("{name} {wished}").into(),
    }
}

const SOON: Duration = Duration::from_millis(300);

async fn next(queue: &dyn TimeoutQueue) -> Due {
    let mut due = queue.due("dunning");
    let due = tokio::time::timeout(Duration::from_secs(30), due.next());
    due.await.unwrap().unwrap().unwrap()
}

/// Everything that a queue promises without a fault.
async fn keeps_its_promises(queue: &dyn TimeoutQueue) {
    // It comes whole, at its time, and stays until it is done.
    let first = timeout("first", later(SOON), 1);
    queue.schedule(first.clone()).await.unwrap();
    let due = next(queue).await;
    assert!(Timestamp::now() >= first.at);
    assert_eq!(due.timeout, first);
    assert_eq!(next(queue).await, due);
    queue.done(&due).await.unwrap();
    queue.done(&due).await.unwrap();

    // A later wish replaces an earlier one, one of before changes nothing; what is cancelled does not come.
    let sooner = later(SOON);
    let old = timeout("moved", sooner, 2);
    let new = timeout("moved", later(2 * SOON), 4);
    queue.schedule(old.clone()).await.unwrap();
    queue.schedule(new.clone()).await.unwrap();
    queue.schedule(old).await.unwrap();
    let cancelled = timeout("cancelled", sooner, 5);
    queue.schedule(cancelled.clone()).await.unwrap();
    queue.cancel(&cancelled.address, Position::new(6)).await.unwrap();
    queue.cancel(&new.address, Position::new(3)).await.unwrap();
    queue.cancel(&address("unknown"), Position::new(6)).await.unwrap();
    let due = next(queue).await;
    assert_eq!(due.timeout, new);
    queue.done(&due).await.unwrap();

    // What is overdue comes at once; what is not for this manager does not.
    let other = AggregateId::new("1").unwrap();
    let foreign = TimeoutAddress::new("shipping", &other, "overdue").unwrap();
    let foreign = Timeout { address: foreign, ..timeout("x", Timestamp::from_micros(0), 7) };
    queue.schedule(foreign).await.unwrap();
    let overdue = timeout("overdue", Timestamp::from_micros(1), 8);
    queue.schedule(overdue.clone()).await.unwrap();
    assert_eq!(next(queue).await.timeout, overdue);

    // A server would take what is too far ahead for overdue.
    let far = Timestamp::from_micros(MAX_TIMEOUT.as_micros() + 1);
    let refused = queue.schedule(timeout("far", far, 9)).await.unwrap_err();
    assert!(matches!(refused, BackendError::Invalid { .. }), "{refused}");
    queue.schedule(timeout("last", MAX_TIMEOUT, 10)).await.unwrap();
    let sentinel = timeout("sentinel", later(SOON), 11);
    queue.schedule(sentinel.clone()).await.unwrap();
    let names: Vec<_> = queue
        .due("dunning")
        .map(|due| due.unwrap().timeout.address.name().to_owned())
        .take(2)
        .collect()
        .await;
    assert_eq!(names, ["overdue", "sentinel"]);
}

#[tokio::test]
async fn a_queue_in_memory_keeps_its_promises() {
    keeps_its_promises(&MemoryTimeouts::new()).await;
}

#[tokio::test]
async fn a_stream_of_a_server_keeps_the_same_promises() {
    let server = TestServer::start().await;
    keeps_its_promises(nats(server.url(), server.name("bank")).await.as_ref()).await;
}

#[tokio::test]
async fn a_restart_of_the_server_loses_no_timeout_and_repeats_none_that_is_done() {
    let mut server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let queue = nats(server.url(), "bank".to_owned()).await;
    let past = Timestamp::from_micros(1);
    let (done, cancelled) = (timeout("done", past, 1), timeout("cancelled", later(SOON), 2));
    queue.schedule(done).await.unwrap();
    queue.done(&next(queue.as_ref()).await).await.unwrap();
    queue.schedule(cancelled.clone()).await.unwrap();
    queue.cancel(&cancelled.address, Position::new(3)).await.unwrap();
    let left = timeout("left", past, 4);
    queue.schedule(left.clone()).await.unwrap();
    assert_eq!(next(queue.as_ref()).await.timeout, left);
    let meanwhile = timeout("meanwhile", later(SOON), 5);
    let after = timeout("after", later(4 * SOON), 6);
    queue.schedule(meanwhile.clone()).await.unwrap();
    queue.schedule(after.clone()).await.unwrap();

    server.kill();
    while Timestamp::now() < meanwhile.at {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.restart().await.unwrap();

    let due: Vec<_> = queue.due("dunning").map(|due| due.unwrap().timeout).take(3).collect().await;
    assert_eq!(due, [left, meanwhile, after]);
}

#[tokio::test]
async fn a_call_without_an_answer_may_be_repeated() {
    let faults = Faults::new();
    let queue = MemoryTimeouts::new().with_faults(&faults);
    let (old, new) = (timeout("moved", later(SOON), 1), timeout("moved", later(SOON), 2));
    faults.plan(Fault::LostAck);
    queue.schedule(old.clone()).await.unwrap_err();
    queue.schedule(old.clone()).await.unwrap();
    // A writer that was held up arrives when another wish is there.
    let gate = cim_persistence::testing::faults::Gate::new();
    faults.plan(Fault::PauseBefore(gate.clone()));
    let held_up = tokio::spawn({
        let (queue, old) = (queue.clone(), old.clone());
        async move { queue.schedule(old).await }
    });
    gate.reached().await;
    faults.plan(Fault::LostAck);
    let lost = async {
        // The first publish meets the conflict, the second one loses its answer.
        queue.schedule(new.clone()).await
    };
    let _ = lost.await;
    queue.schedule(new.clone()).await.unwrap();
    gate.open();
    held_up.await.unwrap().unwrap();
    assert_eq!(queue.waiting().await.unwrap(), [new]);
}
