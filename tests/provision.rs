//! Streams and buckets on real servers: made once whoever asks, refused by setting, never altered.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use async_nats::jetstream;
use cim_persistence::backend::nats::{Connection, provision, verify};
use cim_persistence::backend::{ConnectionConfig, Replicas, Topology, TopologyError};
use cim_persistence::server::{PrivateCluster, PrivateServer};
use cim_persistence::subject::{ContextName, Names, SubjectScheme};
use futures::{StreamExt, future};
use serde_json::{Value, json};
use support::{DURABLE, start, url_of};

fn topology(replicas: Replicas) -> Topology {
    let context = ContextName::new("sales").unwrap();
    let names = Names::of(&context);
    let scheme = SubjectScheme::new(context, "cim.events", "cim.aggregates").unwrap();
    Topology::new(&scheme, &names, replicas).unwrap()
}

async fn connect(url: String) -> Connection {
    Connection::connect(&ConnectionConfig::new(url)).await.unwrap()
}

/// Asks JetStream with nothing but the client.
async fn api(server: &PrivateServer, verb: &str, payload: Value) -> Value {
    let client = async_nats::connect(server.url()).await.unwrap();
    let answer =
        client.request(format!("$JS.API.{verb}"), payload.to_string().into()).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

async fn all_settings(server: &PrivateServer, topology: &Topology) -> Vec<Value> {
    let infos = topology.streams().iter().map(|stream| async move {
        let info = api(server, &format!("STREAM.INFO.{}", stream.name()), json!({})).await;
        json!([info["config"], info["created"]])
    });
    future::join_all(infos).await
}

#[tokio::test]
async fn what_is_missing_is_made_and_what_is_there_stays() {
    let server = start(DURABLE).await;
    let connection = connect(server.url().to_owned()).await;
    let topology = topology(Replicas::One);
    let missing = verify(&connection, &topology).await.unwrap_err();
    assert_eq!(
        missing.to_string(),
        "stream CIM-EVENTS-sales does not exist; provision it, or check its configured name"
    );
    provision(&connection, &topology).await.unwrap();
    let made = all_settings(&server, &topology).await;
    let events = &made[0][0];
    for (setting, wanted) in [
        ("subjects", json!(["cim.events.sales.>", "cim.outbox.sales.>", "cim.unique.sales.>"])),
        ("retention", json!("limits")),
        ("discard", json!("new")),
        ("storage", json!("file")),
        ("max_msgs", json!(-1)),
        ("max_bytes", json!(-1)),
        ("max_age", json!(0)),
        ("max_msgs_per_subject", json!(-1)),
        ("max_consumers", json!(100_000)),
        ("duplicate_window", json!(120_000_000_000_u64)),
        ("deny_delete", json!(true)),
        ("deny_purge", json!(true)),
        ("allow_rollup_hdrs", json!(false)),
        ("allow_direct", json!(true)),
        ("allow_atomic", json!(true)),
        ("num_replicas", json!(1)),
    ] {
        assert_eq!(events[setting], wanted, "{setting}");
    }
    provision(&connection, &topology).await.unwrap();
    verify(&connection, &topology).await.unwrap();
    assert_eq!(all_settings(&server, &topology).await, made);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_may_provision_at_once() {
    let server = start(DURABLE).await;
    let connections = future::join_all((0..8).map(|_| connect(server.url().to_owned()))).await;
    let topology = topology(Replicas::One);
    let all = connections.iter().map(|connection| provision(connection, &topology));
    for outcome in future::join_all(all).await {
        outcome.unwrap();
    }
    verify(&connections[0], &topology).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_may_provision_a_cluster_at_once() {
    let cluster = PrivateCluster::start().await.unwrap();
    let urls = cluster.urls().iter().cycle().take(8);
    let connections = future::join_all(urls.map(|url| connect(url.clone()))).await;
    let topology = topology(Replicas::Three);
    let all = connections.iter().map(|connection| provision(connection, &topology));
    for outcome in future::join_all(all).await {
        outcome.unwrap();
    }
    verify(&connections[0], &topology).await.unwrap();
}

/// No cluster says so on demand: a client answers in its place.
#[tokio::test]
async fn a_stream_that_has_no_place_while_a_server_is_away_is_asked_for_again() {
    let server = start("").await;
    let own = async_nats::connect(server.url()).await.unwrap();
    let mut requests = own.subscribe("$JS.API.STREAM.>").await.unwrap();
    own.flush().await.unwrap();
    let refusal = |err_code: u64, code: u64, description: &str| json!({"error": {"code": code, "err_code": err_code, "description": description}});
    let playing = tokio::spawn(async move {
        let mut wishes = 0;
        while let Some(request) = requests.next().await {
            let answer = match serde_json::from_slice::<Value>(&request.payload) {
                Ok(settings) => {
                    wishes += 1;
                    match wishes {
                        1..=3 => {
                            refusal(10005, 400, "no suitable peers for placement, peer offline")
                        }
                        _ => json!({ "config": settings }),
                    }
                }
                Err(_) => refusal(10059, 404, "stream not found"),
            };
            own.publish(request.reply.unwrap(), answer.to_string().into()).await.unwrap();
        }
    });
    let client = async_nats::connect(server.url()).await.unwrap();
    provision(&Connection::from_client(client), &topology(Replicas::Three)).await.unwrap();
    playing.abort();
}

#[tokio::test]
async fn a_stream_that_can_lose_events_is_refused_by_setting_and_left_alone() {
    let server = start(DURABLE).await;
    let connection = connect(server.url().to_owned()).await;
    let topology = topology(Replicas::One);
    let right = serde_json::to_value(topology.streams()[0].settings()).unwrap();
    for (setting, value, wanted) in [
        ("retention", json!("interest"), "retention must be limits and is interest"),
        ("discard", json!("old"), "discard must be new and is old"),
        ("storage", json!("memory"), "storage must be file and is memory"),
        ("max_msgs", json!(5), "max_msgs must be unset and is 5"),
        ("max_bytes", json!(5000), "max_bytes must be unset and is 5000"),
        ("max_age", json!(600_000_000_000_u64), "max_age must be unset and is 600s"),
        ("max_msgs_per_subject", json!(1), "max_msgs_per_subject must be unset and is 1"),
        ("max_msg_size", json!(1000), "max_msg_size must be at least 1048576 and is 1000"),
        ("max_consumers", json!(10), "max_consumers must be at least 100 and is 10"),
        (
            "duplicate_window",
            json!(30_000_000_000_u64),
            "duplicate_window must be at least 120s and is 30s",
        ),
        (
            "no_ack",
            json!(true),
            "no_ack must be false and is true, allow_atomic must be true and is false",
        ),
        ("deny_delete", json!(false), "deny_delete must be true and is false"),
        ("deny_purge", json!(false), "deny_purge must be true and is false"),
        ("allow_msg_ttl", json!(true), "allow_msg_ttl must be false and is true"),
        ("allow_direct", json!(false), "allow_direct must be true and is false"),
        ("allow_atomic", json!(false), "allow_atomic must be true and is false"),
        (
            "persist_mode",
            json!("async"),
            "allow_atomic must be true and is false, persist_mode must be default and is async",
        ),
        (
            "subjects",
            json!(["cim.events.sales.>", "cim.unique.>"]),
            "subjects must be covering cim.outbox.sales.> and is cim.events.sales.> cim.unique.>",
        ),
        (
            "subject_transform",
            json!({"src": "cim.>", "dest": "cim.>"}),
            "subject_transform must be unset and is {\"dest\":\"cim.>\",\"src\":\"cim.>\"}",
        ),
    ] {
        let mut settings = right.clone();
        settings[setting] = value;
        if wanted.contains("allow_atomic") {
            settings["allow_atomic"] = json!(false);
        }
        let made = api(&server, "STREAM.CREATE.CIM-EVENTS-sales", settings).await;
        assert_eq!(made["error"], Value::Null, "{setting}");
        for error in [verify(&connection, &topology).await, provision(&connection, &topology).await]
        {
            assert_eq!(
                error.unwrap_err().to_string(),
                format!(
                    "stream CIM-EVENTS-sales cannot be used: {wanted}; change its settings or use another name"
                )
            );
        }
        let now = api(&server, "STREAM.INFO.CIM-EVENTS-sales", json!({})).await;
        assert_eq!(now["config"], made["config"], "{setting}");
        let gone = api(&server, "STREAM.DELETE.CIM-EVENTS-sales", json!({})).await;
        assert_eq!(gone["success"], json!(true));
    }
    let rollup = json!({"name": "CIM-EVENTS-sales", "subjects": ["cim.>"], "discard": "new", "allow_rollup_hdrs": true});
    api(&server, "STREAM.CREATE.CIM-EVENTS-sales", rollup).await;
    let TopologyError::Mismatch { stream, settings } =
        verify(&connection, &topology).await.unwrap_err()
    else {
        panic!("it must be refused by its settings");
    };
    assert_eq!(stream, "CIM-EVENTS-sales");
    let fields: Vec<_> = settings.iter().map(|setting| setting.field).collect();
    assert_eq!(
        fields,
        ["deny_delete", "allow_rollup_hdrs", "allow_direct", "allow_atomic", "deny_purge"]
    );
}

#[tokio::test]
async fn a_stream_that_copies_another_is_refused() {
    let server = start(DURABLE).await;
    let connection = connect(server.url().to_owned()).await;
    let mirror = json!({"name": "CIM-EVENTS-sales", "mirror": {"name": "ORIGIN"}});
    api(&server, "STREAM.CREATE.ORIGIN", json!({"name": "ORIGIN", "subjects": ["o"]})).await;
    api(&server, "STREAM.CREATE.CIM-EVENTS-sales", mirror).await;
    let error = verify(&connection, &topology(Replicas::One)).await.unwrap_err().to_string();
    assert!(error.contains("mirror must be unset and is {\"name\":\"ORIGIN\""), "{error}");
}

#[tokio::test]
async fn a_user_who_may_only_look_can_run_on_what_an_operator_made() {
    let server = start(DURABLE).await;
    let topology = topology(Replicas::One);
    let viewer = connect(url_of(&server, "viewer:viewer")).await;
    let error = provision(&viewer, &topology).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no permission on $JS.API.STREAM.CREATE.CIM-EVENTS-sales for stream CIM-EVENTS-sales; grant it, or let an \
         operator provision the stream"
    );
    provision(&connect(server.url().to_owned()).await, &topology).await.unwrap();
    verify(&viewer, &topology).await.unwrap();
    provision(&viewer, &topology).await.unwrap();
}

#[tokio::test]
async fn what_the_server_cannot_do_is_said() {
    let server = start(DURABLE).await;
    let connection = connect(server.url().to_owned()).await;
    let error = provision(&connection, &topology(Replicas::Three)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stream CIM-EVENTS-sales could not be examined or created; correct what its cause names and ask again"
    );
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "the server does not support what is needed: replicas > 1 not supported in non-clustered mode (10074); \
         configure one replica or use a cluster"
    );
    api(&server, "STREAM.CREATE.OTHER", json!({"name": "OTHER", "subjects": ["cim.events.>"]}))
        .await;
    let error = provision(&connection, &topology(Replicas::One)).await.unwrap_err();
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "refused as invalid, as it would be again: subjects overlap with an existing stream (10065)"
    );
}

#[tokio::test]
async fn where_nobody_answers_the_error_says_that_asking_again_is_safe() {
    let server = start("").await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let connection = Connection::from_client(client).with_timeout(Duration::from_millis(100));
    let error = provision(&connection, &topology(Replicas::One)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stream CIM-EVENTS-sales could not be examined or created; is JetStream running, and may this user ask it? ask \
         again, which is safe"
    );
}

#[tokio::test]
async fn a_standard_client_uses_the_buckets_unnoticed() {
    let server = start(DURABLE).await;
    let connection = connect(server.url().to_owned()).await;
    provision(&connection, &topology(Replicas::One)).await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = jetstream::new(client);
    let bucket = context.get_key_value("cim-state-sales").await.unwrap();
    let mut watch = bucket.watch("order.>").await.unwrap();
    let first = bucket.create("order.42", "a".into()).await.unwrap();
    assert!(bucket.create("order.42", "b".into()).await.is_err());
    let second = bucket.update("order.42", "b".into(), first).await.unwrap();
    assert!(bucket.update("order.42", "c".into(), first).await.is_err());
    assert_eq!(bucket.get("order.42").await.unwrap().unwrap(), "b");
    bucket.delete("order.42").await.unwrap();
    assert_eq!(bucket.get("order.42").await.unwrap(), None);
    bucket.put("order.7", "x".into()).await.unwrap();
    bucket.purge("order.7").await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, first);
    assert_eq!(watch.next().await.unwrap().unwrap().revision, second);
    assert_eq!(bucket.status().await.unwrap().history(), 1);

    // A bucket that the standard client made lacks only what batches need.
    let own = jetstream::kv::Config { bucket: "cim-own".into(), ..Default::default() };
    context.create_key_value(own).await.unwrap();
    let names =
        Names { state_bucket: "cim-own".into(), ..Names::of(&ContextName::new("sales").unwrap()) };
    let scheme =
        SubjectScheme::new(ContextName::new("sales").unwrap(), "cim.events", "cim.aggregates")
            .unwrap();
    let adopting = Topology::new(&scheme, &names, Replicas::One).unwrap();
    assert_eq!(
        verify(&connection, &adopting).await.unwrap_err().to_string(),
        "stream KV_cim-own cannot be used: allow_atomic must be true and is false; change its settings or use another \
         name"
    );
}
