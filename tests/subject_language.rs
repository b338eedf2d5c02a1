//! What `Pattern` promises beside a real server: it matches what the server delivers, and refuses what
//! the server refuses. What needs no server is tested beside the code, in `src/subject/tests`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream};
use async_nats::{Client, HeaderMap};
use cim_persistence::subject::{InvalidPattern, Pattern};
use futures::{StreamExt as _, TryStreamExt as _};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use test_server::TestServer;

#[path = "support/test_server.rs"]
mod test_server;

const SOON: Duration = Duration::from_secs(20);

/// A token that means itself: a few short ones, so that patterns meet subjects, and any other.
fn literal() -> impl Strategy<Value = String> {
    let other = vec(any::<char>(), 1..6).prop_map(String::from_iter);
    let other = other.prop_filter("means something", |token| {
        !token.contains(|c: char| c.is_whitespace() || c.is_control() || ".*>".contains(c))
    });
    prop_oneof![8 => prop_oneof![Just("a"), Just("b"), Just("ab")].prop_map(str::to_owned), 1 => other]
}

/// What stands below the root of a pattern.
fn pattern_tail() -> impl Strategy<Value = Vec<String>> {
    let token = prop_oneof![2 => literal(), 1 => Just("*".to_owned())];
    (vec(token, 0..5), prop::bool::weighted(0.3)).prop_map(|(mut tokens, tail)| {
        if tail {
            tokens.push(">".to_owned());
        }
        tokens
    })
}

/// What stands below the root of a subject: literal tokens, some with a wildcard among other characters, and now and
/// then one of `odd`.
fn subject_tail(odd: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    let odd = proptest::sample::select(odd).prop_map(str::to_owned);
    vec(prop_oneof![12 => literal(), 1 => odd], 0..6)
}

fn below(root: &str, tail: &[String]) -> String {
    tail.iter().fold(root.to_owned(), |subject, token| format!("{subject}.{token}"))
}

fn matched<'a>(pattern: &str, subjects: &'a BTreeSet<String>) -> BTreeSet<&'a str> {
    let pattern = Pattern::parse(pattern).unwrap();
    subjects.iter().map(String::as_str).filter(|subject| pattern.matches(subject)).collect()
}

/// Runs `property` on random pattern and subject tails; a failure is shrunk and printed.
fn check(
    runtime: &tokio::runtime::Runtime,
    subject: impl Strategy<Value = Vec<String>>,
    property: impl AsyncFn(Vec<Vec<String>>, BTreeSet<Vec<String>>) -> Result<(), TestCaseError>,
) {
    let config =
        Config { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    let cases = (vec(pattern_tail(), 1..24), btree_set(subject, 1..120));
    TestRunner::new(config)
        .run(&cases, |(patterns, subjects)| runtime.block_on(property(patterns, subjects)))
        .unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A first token, and a stream's name, that nobody else uses.
fn new_root() -> String {
    format!("subject-language-{}", Uuid::new_v4().simple())
}

#[test]
fn a_pattern_matches_what_a_subscription_receives() {
    let runtime = runtime();
    let server = runtime.block_on(TestServer::start());
    let client = runtime.block_on(async_nats::connect(server.url())).unwrap();
    // A server takes wildcards in the subject of a message literally.
    check(&runtime, subject_tail(&["*", ">", "a*", ">b"]), async |patterns, subjects| {
        let root = new_root();
        let mut patterns: Vec<String> = patterns
            .iter()
            .zip([root.as_str(), "*", "other"].iter().cycle())
            .map(|(tail, first)| below(first, tail))
            .collect();
        patterns.push(">".to_owned());
        let subjects = subjects.iter().map(|tail| below(&root, tail)).collect();
        for (pattern, received) in
            patterns.iter().zip(subscribe(&client, &root, &patterns, &subjects).await)
        {
            let received: BTreeSet<&str> = received.iter().map(String::as_str).collect();
            prop_assert_eq!(matched(pattern, &subjects), received, "pattern {}", pattern);
        }
        Ok(())
    });
}

/// What a subscription to each of the patterns receives when a message is published on each of the subjects.
async fn subscribe(
    client: &Client,
    root: &str,
    patterns: &[String],
    subjects: &BTreeSet<String>,
) -> Vec<Vec<String>> {
    let mut subscriptions = Vec::new();
    for pattern in patterns {
        subscriptions.push(client.subscribe(pattern.clone()).await.unwrap());
    }
    let end = client.new_inbox();
    let mut ended = client.subscribe(end.clone()).await.unwrap();
    let mark = HeaderMap::from_iter([("Root".parse().unwrap(), root.parse().unwrap())]);
    for subject in subjects {
        client.publish_with_headers(subject.clone(), mark.clone(), "".into()).await.unwrap();
    }
    client.publish(end, "".into()).await.unwrap();
    // One connection keeps order: once the last message has come back, so have all before it.
    timeout(SOON, ended.next()).await.unwrap().unwrap();
    let mut all = Vec::new();
    for subscription in &mut subscriptions {
        // Ends the subscription; what has come in stays readable.
        subscription.unsubscribe().await.unwrap();
        let mut received = Vec::new();
        while let Some(message) = subscription.next().await {
            if message
                .headers
                .is_some_and(|headers| headers.get("Root").is_some_and(|of| of.as_str() == root))
            {
                received.push(message.subject.to_string());
            }
        }
        received.sort();
        all.push(received);
    }
    all
}

#[test]
fn a_pattern_matches_what_a_stream_filters_by_it() {
    let runtime = runtime();
    let server = runtime.block_on(TestServer::start());
    let client = runtime.block_on(async_nats::connect(server.url())).unwrap();
    let store = runtime.block_on(async { jetstream::new(client) });
    // No whole wildcards here: a stream keeps a message that is published on one, and a filter may count it and not
    // deliver it. This crate never writes such a subject.
    check(&runtime, subject_tail(&["a*", ">b"]), async |patterns, subjects| {
        let root = server.name(&new_root());
        let stream = store_on(&store, &root, subjects.iter().map(|tail| below(&root, tail))).await;
        let subjects = subjects.iter().map(|tail| below(&root, tail)).collect();
        let mut result = Ok(());
        for pattern in patterns.iter().map(|tail| below(&root, tail)) {
            let expected: Vec<&str> = matched(&pattern, &subjects).into_iter().collect();
            let (listed, delivered) =
                (listed(&stream, &pattern).await, delivered(&stream, &pattern).await);
            if expected != listed || expected != delivered {
                result = Err(TestCaseError::fail(format!(
                    "{pattern} matches {expected:?}, the stream lists {listed:?}, a consumer got {delivered:?}"
                )));
            }
        }
        store.delete_stream(&root).await.unwrap();
        result
    });
}

/// A stream that holds one message on each of the subjects.
async fn store_on(
    store: &jetstream::Context,
    root: &str,
    subjects: impl Iterator<Item = String>,
) -> stream::Stream<stream::Info> {
    let stream = store
        .create_stream(stream::Config {
            name: root.to_owned(),
            subjects: vec![root.to_owned(), format!("{root}.>")],
            storage: stream::StorageType::File,
            ..Default::default()
        })
        .await
        .unwrap();
    let mut acks = Vec::new();
    for subject in subjects {
        acks.push(store.publish(subject, "".into()).await.unwrap());
    }
    futures::future::try_join_all(acks.into_iter().map(IntoFuture::into_future)).await.unwrap();
    stream
}

/// The subjects that the stream lists when it is asked for those of `pattern`.
async fn listed(stream: &stream::Stream<stream::Info>, pattern: &str) -> Vec<String> {
    let subjects = stream.info_with_subjects(pattern).await.unwrap();
    let mut subjects: Vec<String> =
        subjects.map_ok(|(subject, _)| subject).try_collect().await.unwrap();
    subjects.sort();
    subjects
}

/// The subjects of the messages that a consumer filtered by `pattern` delivers.
async fn delivered(stream: &stream::Stream<stream::Info>, pattern: &str) -> Vec<String> {
    let consumer = stream
        .create_consumer(consumer::pull::Config {
            filter_subject: pattern.to_owned(),
            ack_policy: consumer::AckPolicy::None,
            ..Default::default()
        })
        .await
        .unwrap();
    let pending = usize::try_from(consumer.cached_info().num_pending).unwrap();
    if pending == 0 {
        return Vec::new();
    }
    let batch = consumer.fetch().max_messages(pending).messages().await.unwrap();
    let mut subjects: Vec<String> =
        batch.map_ok(|message| message.subject.to_string()).try_collect().await.unwrap();
    subjects.sort();
    subjects
}

#[test]
fn what_a_server_refuses_to_subscribe_to_is_no_pattern() {
    let runtime = runtime();
    let server = runtime.block_on(TestServer::start());
    let mut texts: Vec<String> =
        ["a*", "$JS.>", "ä.=2E", "a,b", "a;b", "\"a\"", "{a}"].map(str::to_owned).to_vec();
    texts.extend(["a".repeat(1024), vec!["*"; 512].join("."), format!("a.{}", "ä".repeat(511))]);
    // Every text of up to five of these characters.
    let mut last = vec![String::new()];
    for _ in 0..5 {
        last = last
            .iter()
            .flat_map(|text| [".", "*", ">", "a"].map(|next| format!("{text}{next}")))
            .collect();
        texts.extend_from_slice(&last);
    }
    let answers = runtime.block_on(accepted(server.url(), &texts));
    for (text, accepted) in texts.iter().zip(answers) {
        match Pattern::parse(text) {
            Ok(_) => assert!(accepted, "the server refuses {text:?}, Pattern takes it"),
            Err(InvalidPattern::MixedWildcard { .. }) => {
                assert!(accepted, "the server refuses {text:?} too")
            }
            Err(error) => assert!(!accepted, "the server takes {text:?}: {error}"),
        }
    }
}

/// Whether the server accepts a subscription to each of the texts, which hold no white space. Spoken by hand, because
/// clients refuse some texts before a server sees them.
async fn accepted(url: &str, texts: &[String]) -> Vec<bool> {
    let address: async_nats::ServerAddr = url.parse().unwrap();
    let connection = TcpStream::connect((address.host(), address.port())).await.unwrap();
    let (read, mut write) = connection.into_split();
    let mut lines = BufReader::new(read).lines();
    let login = serde_json::json!({
        "verbose": false, "user": address.username(), "pass": address.password(),
    });
    let mut request = format!("CONNECT {login}\r\n");
    for (text, id) in texts.iter().zip(1..) {
        request += &format!("SUB {text} {id}\r\nPING\r\n");
    }
    write.write_all(request.as_bytes()).await.unwrap();
    let (mut answers, mut fine) = (Vec::new(), true);
    while answers.len() < texts.len() {
        let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
        if line.starts_with("-ERR 'Invalid Subject'") {
            fine = false;
        } else if line == "PONG" {
            answers.push(std::mem::replace(&mut fine, true));
        } else {
            assert!(line.starts_with("INFO "), "{line}");
        }
    }
    answers
}
