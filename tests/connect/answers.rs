//! Answers that servers give only now and then, given here by a client in their place: to what is asked about disks,
//! and to the question whether JetStream is there.

use async_nats::Client;
use cim_persistence::backend::nats::Connection;
use cim_persistence::backend::{BackendError, ConnectError, ConnectionConfig, DurabilityReport};
use futures::StreamExt;
use serde_json::{Value, json};

use super::support::{start, url_of};
use super::{accepted, refused};

const JETSTREAM: &str = "$JS.API.INFO";
const DISKS: &str = "$SYS.REQ.SERVER.PING.JSZ";

/// Answers each question with the next of these texts, and with the last of them when there are no more.
async fn answer(client: &Client, subject: &'static str, texts: Vec<String>) {
    let mut questions = client.subscribe(subject).await.unwrap();
    // Whoever asks next is heard.
    client.flush().await.unwrap();
    let client = client.clone();
    tokio::spawn(async move {
        let mut texts = texts.into_iter().peekable();
        while let Some(question) = questions.next().await {
            let text = texts.peek().unwrap().clone();
            if texts.len() > 1 {
                texts.next();
            }
            client.publish(question.reply.unwrap(), text.into()).await.unwrap();
        }
    });
}

fn refusal(code: u64, err_code: u64) -> String {
    json!({"error": {"code": code, "err_code": err_code, "description": "no"}}).to_string()
}

#[tokio::test]
async fn a_server_without_jetstream_does_not_end_the_wait_for_those_that_have_it() {
    let server = start("jetstream { store_dir: $CIM_STORE_DIR }").await;
    let own = async_nats::connect(server.url()).await.unwrap();
    let reply =
        |name: &str, data: Value| json!({"server": {"id": name, "name": name}, "data": data});
    let holder = |name: &str| {
        let cluster = json!({"cluster_size": 3});
        reply(name, json!({"config": {"sync_always": true}, "meta_cluster": cluster}))
    };
    let replies =
        [holder("a"), reply("without", json!({"disabled": true})), holder("b"), holder("c")];
    let mut questions = own.subscribe(DISKS).await.unwrap();
    own.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            let to = question.reply.unwrap();
            for reply in &replies {
                own.publish(to.clone(), reply.to_string().into()).await.unwrap();
            }
        }
    });
    let client = async_nats::connect(server.url()).await.unwrap();
    assert_eq!(Connection::from_client(client).durability().await, DurabilityReport::Durable);
}

#[tokio::test]
async fn a_cluster_without_a_leader_is_waited_for() {
    let server = start("").await;
    let own = async_nats::connect(server.url()).await.unwrap();
    let later = json!({"memory": 0}).to_string();
    answer(&own, JETSTREAM, vec![refusal(503, 10008), refusal(500, 10023), later]).await;
    let config = ConnectionConfig::new(server.url());
    accepted(config.retry_on_initial_connect(true)).await;
}

#[tokio::test]
async fn an_answer_that_will_not_change_is_not_waited_out() {
    const WRONG: &str =
        "JetStream answers wrongly; is this its API, and is nobody else answering in its place?";
    let server = start("").await;
    let own = async_nats::connect(server.url()).await.unwrap();
    let texts = vec!["nonsense".to_owned(), refusal(400, 10003)];
    answer(&own, JETSTREAM, texts).await;
    let config = ConnectionConfig::new(server.url()).retry_on_initial_connect(true);
    let corrupt = refused(config.clone()).await;
    assert!(matches!(corrupt, ConnectError::JetStreamUnavailable(BackendError::Corrupt { .. })));
    assert_eq!(corrupt.to_string(), WRONG);
    let invalid = refused(config).await;
    assert!(matches!(invalid, ConnectError::JetStreamUnavailable(BackendError::Invalid { .. })));
    assert_eq!(invalid.to_string(), WRONG);
}

#[tokio::test]
async fn a_user_who_may_not_ask_is_told_so_at_once() {
    let user = "{user: ann, password: ann, permissions: {publish: [\"orders\"]}}";
    let server = start(&format!("authorization {{ users: [{user}] }}")).await;
    let config = ConnectionConfig::new(url_of(&server, "ann:ann")).retry_on_initial_connect(true);
    let denied = refused(config).await;
    assert!(matches!(denied, ConnectError::JetStreamUnavailable(BackendError::Denied { .. })));
    assert_eq!(
        denied.to_string(),
        "JetStream cannot be asked; let this user publish to INFO of its API and receive answers"
    );
}
