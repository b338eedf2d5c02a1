//! The examples do what their texts promise: run as programs, on a server, as a reader would run them.
#![allow(clippy::unwrap_used)]

mod flights;
mod programs;
mod quickstart;

/// The part of the quickstart that can be wrong in a way which no file brings about.
#[allow(dead_code)]
#[path = "../../examples/quickstart"]
mod code {
    pub(crate) mod domain;
    pub(crate) mod verify;
}
use code::domain;

use std::collections::BTreeSet;

use cim_persistence::server::{PrivateServer, ServerConfig};
use futures::TryStreamExt;

use programs::{example, run};

#[tokio::test]
async fn persistence_example_runs_as_often_as_one_likes() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    for _ in 0..2 {
        let output = run("persistence_example", server.url(), &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        assert!(text.contains("loaded    1000 cents at version 1"), "{text}");
        assert!(text.contains("withdrawn nothing, rejected: not enough money"), "{text}");
        assert!(text.contains("expected version 1, but the aggregate has version 2"), "{text}");
        assert!(text.contains("history   2 -300 cents"), "{text}");
    }
}

#[tokio::test]
async fn persistence_example_uses_the_same_streams_each_time() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..2 {
        assert!(run("persistence_example", server.url(), &[]).status.success());
        streams.push(stream_names(&server).await);
    }
    assert_eq!(streams[0], streams[1]);
    assert!(streams[0].iter().all(|name| name.ends_with("-persistence-example")), "{streams:?}");
}

#[tokio::test]
async fn examples_take_servers_and_credentials_from_the_environment() {
    let server = PrivateServer::start_with_config(
        "jetstream { store_dir: $CIM_STORE_DIR }\n\
         authorization { users: [{ user: kim, password: secret }] }",
    )
    .await
    .unwrap();
    // Nobody listens at the first.
    let urls = format!("nats://127.0.0.1:1, {}", server.url());
    for name in ["persistence_example", "quickstart", "schema_evolution"] {
        for (password, fits) in [("secret", true), ("wrong", false)] {
            let mut example = example(name, &urls);
            let output = example.env("NATS_USER", "kim").env("NATS_PASSWORD", password).output();
            let output = output.unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), fits, "{name} with {password}: {errors}");
        }
    }
}

/// It starts a server of its own, because it kills it.
#[test]
fn bank_transfer_conserves_money_while_the_server_is_killed() {
    let output = run("bank_transfer", "", &["64", "3"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("refused     number \"DE-7\" belongs to account account-7"), "{text}");
    assert_eq!(text.matches("the server was killed and is back").count(), 3, "{text}");
    assert!(text.contains("money       200000 cents of 200000 in 20 accounts"), "{text}");
    assert!(text.contains("reminders   0 still waiting"), "{text}");
    let number = |line: &str| {
        let rest = text.split_once(line).unwrap().1.trim_start();
        rest.split_once(' ').unwrap().0.parse::<u64>().unwrap()
    };
    assert!(number("transfers ") > 0);
    assert_eq!(number("transfers "), number("messages "), "each stored transfer is told once");
}

#[test]
fn persistence_example_is_short() {
    let source = std::fs::read_to_string("examples/persistence_example.rs").unwrap();
    assert!(source.lines().count() < 80);
}

#[tokio::test]
async fn schema_evolution_reads_as_today_what_was_written_long_ago() {
    let server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    for _ in 0..2 {
        let output = run("schema_evolution", server.url(), &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}{errors}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("written   version 3 of cim.aggregates.shop-"), "{text}");
        assert_eq!(
            lines[1..],
            [
                "refused   event placed version 1 has no path to version 3; add an upcaster from it",
                "loaded    1200 EUR in Ulm at version 3",
                r#"today     Placed { total: Money { cents: 1200, currency: "EUR" } }, stored as 1"#,
                r#"today     StreetChanged { street: "Hauptstr. 1" }, stored as 3"#,
                r#"today     CityChanged { city: "Ulm" }, stored as 3"#,
                "stored    1 Placed { total: 12 }",
                "stored    2 Pinged",
                r#"stored    3 Relocated { street: "Hauptstr. 1", city: "Ulm" }"#,
                "dry run   1 board would change",
                r#"migrated  {"cents":1200}"#,
                r#"back      {"euros":12}"#,
                "verified  version 3, no event that is stored has changed",
            ],
            "{text}"
        );
    }
}

async fn stream_names(server: &PrivateServer) -> BTreeSet<String> {
    let client = async_nats::connect(server.url()).await.unwrap();
    async_nats::jetstream::new(client).stream_names().try_collect().await.unwrap()
}
