//! The same work by hand on async-nats.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::{self, kv};
use futures::StreamExt;

use crate::domain::Board;

pub struct Raw {
    pub client: async_nats::Client,
    pub js: jetstream::Context,
}

impl Raw {
    pub fn new(client: &async_nats::Client) -> Self {
        Self { client: client.clone(), js: jetstream::new(client.clone()) }
    }

    /// Events per second of an ordered consumer that counts.
    pub async fn count(&self, stream: &str, count: u64) -> f64 {
        let stream = self.js.get_stream(stream).await.expect("the stream");
        let begun = Instant::now();
        let consumer = stream.create_consumer(OrderedConfig::default()).await.expect("a consumer");
        let mut messages = consumer.messages().await.expect("messages");
        let mut seen = 0;
        while seen < count {
            messages.next().await.expect("a message").expect("no error");
            seen += 1;
        }
        count as f64 / begun.elapsed().as_secs_f64()
    }

    /// Events per second where each is one put of a model, awaited.
    pub async fn puts(&self, count: u64) -> f64 {
        let bucket = format!("raw{}", uuid::Uuid::new_v4().simple());
        let config = kv::Config { bucket, history: 1, ..kv::Config::default() };
        let bucket = self.js.create_key_value(config).await.expect("a bucket");
        let model = r#"{"number":1234,"cents":100,"entries":100}"#;
        let begun = Instant::now();
        for n in 0..count {
            bucket.put(format!("customer.{}", n % 10_000), model.into()).await.expect("stored");
        }
        count as f64 / begun.elapsed().as_secs_f64()
    }

    /// The models of a pattern by one `multi_last` request, decoded.
    pub async fn multi_last(&self, bucket: &str, pattern: &str) -> Vec<Board> {
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.expect("subscribed");
        let request = serde_json::json!({
            "multi_last": [format!("$KV.{bucket}.{pattern}")], "batch": 1024,
        });
        let subject = format!("$JS.API.DIRECT.GET.KV_{bucket}");
        let payload = request.to_string().into();
        self.client.publish_with_reply(subject, inbox, payload).await.expect("sent");
        let mut boards = Vec::new();
        loop {
            let message = answers.next().await.expect("an answer");
            if message.status.is_some() {
                return boards;
            }
            boards.push(serde_json::from_slice(&message.payload).expect("a board"));
        }
    }

    /// The models of a pattern by a last-per-subject consumer, decoded.
    pub async fn last_per_subject(&self, bucket: &str, pattern: &str) -> Vec<Board> {
        let stream = self.js.get_stream(format!("KV_{bucket}")).await.expect("the stream");
        let consumer = stream
            .create_consumer(OrderedConfig {
                deliver_policy: DeliverPolicy::LastPerSubject,
                filter_subject: format!("$KV.{bucket}.{pattern}"),
                ..OrderedConfig::default()
            })
            .await
            .expect("a consumer");
        let mut messages = consumer.messages().await.expect("messages");
        let mut boards = Vec::new();
        loop {
            let message = messages.next().await.expect("a message").expect("no error");
            boards.push(serde_json::from_slice(&message.payload).expect("a board"));
            if message.info().expect("its place").pending == 0 {
                return boards;
            }
        }
    }
}

/// The median time of so many runs, in milliseconds.
pub async fn p50(count: usize, mut run: impl AsyncFnMut()) -> f64 {
    let mut times: Vec<Duration> = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        run().await;
        times.push(begun.elapsed());
    }
    times.sort();
    times[count / 2].as_secs_f64() * 1000.0
}
