//! What a client is called, as the server tells its operator.

use cim_persistence::backend::ConnectionConfig;
use serde_json::{Value, json};

use super::accepted;
use super::support::{DURABLE, start, url_of};

#[tokio::test]
async fn the_server_shows_the_name_that_a_client_was_given() {
    let server = start(DURABLE).await;
    let config = ConnectionConfig::new(url_of(&server, "app:app"));
    let _named = accepted(config.clone().client_name("orders")).await;
    let _unnamed = accepted(config).await;
    assert_eq!(names_of_app(server.url()).await, [Value::from("orders"), Value::Null]);
}

/// The names of all clients that are connected as `app`, in the order in which they came.
async fn names_of_app(url: &str) -> Vec<Value> {
    let operator = async_nats::ConnectOptions::with_user_and_password("sys".into(), "sys".into());
    let operator = operator.connect(url).await.unwrap();
    let question = json!({ "auth": true, "user": "app", "sort": "cid" }).to_string();
    let answer = operator.request("$SYS.REQ.SERVER.PING.CONNZ", question.into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    let clients = answer["data"]["connections"].as_array().unwrap();
    clients.iter().map(|client| client["name"].clone()).collect()
}
