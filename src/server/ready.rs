//! When a server is ready: questions to a running one, each asked once. Repeating them until the
//! answer is yes is in `process`.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::{Client, ConnectOptions};
use serde_json::{Value, json};

use super::process::password;

/// Whether JetStream answers an ordinary client at `url`.
pub(super) async fn jetstream_answers(url: &str) -> Result<(), String> {
    let client = connect(options(), url).await?;
    let answer = ask(&client, "$JS.API.INFO", Value::Null).await?;
    match answer.get("error") {
        Some(error) => Err(format!("JetStream answers {error}")),
        None => Ok(()),
    }
}

/// Whether the server `name`, asked at `url` as its operator, has caught up with its cluster.
pub(super) async fn caught_up(url: &str, name: &str, system_password: &str) -> Result<(), String> {
    let operator = options().user_and_password("sys".to_owned(), system_password.to_owned());
    let client = connect(operator, url).await?;
    let only = json!({ "server_name": name });
    let answer = ask(&client, "$SYS.REQ.SERVER.PING.HEALTHZ", only).await?;
    match answer["data"]["status"].as_str() {
        Some("ok") => Ok(()),
        _ => Err(format!("{name} is not healthy: {answer}")),
    }
}

/// Whether a stream of three replicas can be made at `url`; the one it makes it removes.
pub(super) async fn replicates(url: &str) -> Result<(), String> {
    let client = connect(options(), url).await?;
    let context = jetstream::new(client);
    let name = format!("CIM-PROBE-{}", password());
    let stream = jetstream::stream::Config {
        name: name.clone(),
        num_replicas: 3,
        storage: jetstream::stream::StorageType::Memory,
        ..Default::default()
    };
    let made = context.create_stream(stream).await;
    made.map_err(|error| format!("no stream of three replicas: {error}"))?;
    let removed = context.delete_stream(&name).await;
    removed.map_err(|error| format!("cannot remove the stream {name}: {error}"))?;
    Ok(())
}

fn options() -> ConnectOptions {
    ConnectOptions::new()
        .name("cim-persistence private server")
        .connection_timeout(Duration::from_secs(2))
        .request_timeout(Some(Duration::from_secs(1)))
}

async fn connect(options: ConnectOptions, url: &str) -> Result<Client, String> {
    let connected = options.connect(url).await;
    connected.map_err(|error| format!("cannot connect to {url}: {error}"))
}

async fn ask(client: &Client, subject: &'static str, question: Value) -> Result<Value, String> {
    let payload = match question {
        Value::Null => String::new(),
        question => question.to_string(),
    };
    let answer = client.request(subject, payload.into()).await;
    let answer = answer.map_err(|error| format!("{subject} is not answered: {error}"))?;
    serde_json::from_slice(&answer.payload).map_err(|error| format!("{subject} answers: {error}"))
}
