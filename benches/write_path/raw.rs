//! The same work by hand on async-nats: prepared messages, only the headers the protocol needs.

use std::time::{Duration, Instant};

use async_nats::header::{HeaderMap, HeaderValue};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;

use crate::domain::fresh;

/// A stream with the settings of an event stream, and subjects in it.
pub struct Raw {
    pub client: async_nats::Client,
    pub js: Context,
    pub stream: String,
    /// What the subjects begin with.
    prefix: String,
}

#[derive(serde::Deserialize)]
struct Ack {
    seq: Option<u64>,
}

impl Raw {
    pub async fn new(client: &async_nats::Client, replicas: usize) -> Self {
        let mut js = jetstream::new(client.clone());
        js.set_timeout(Duration::from_secs(60));
        let stream = fresh("raw-stream-bench");
        js.create_stream(Config {
            name: stream.clone(),
            subjects: vec![format!("{stream}.>")],
            discard: DiscardPolicy::New,
            allow_direct: true,
            allow_atomic_publish: true,
            deny_delete: true,
            deny_purge: true,
            num_replicas: replicas,
            ..Config::default()
        })
        .await
        .expect("a raw stream can be made");
        let raw = Self { client: client.clone(), js, prefix: stream.clone(), stream };
        raw.wait_until_known().await;
        raw
    }

    /// Other subjects in the same stream, which nobody has used.
    pub fn afresh(&self) -> Self {
        let (client, js, stream) = (self.client.clone(), self.js.clone(), self.stream.clone());
        Self { client, js, prefix: format!("{stream}.{}", fresh("run")), stream }
    }

    /// The other nodes know of a stream a moment after it is made. That it refuses a message shows that it is known, and
    /// leaves it empty.
    async fn wait_until_known(&self) {
        for _ in 0..500 {
            let sent = self.js.publish_with_headers(self.subject(0), expecting(1), Bytes::new());
            match sent.await.expect("sent").await {
                Err(error) if error.kind() == PublishErrorKind::StreamNotFound => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                _ => return,
            }
        }
        panic!("nobody knows of the stream that was made");
    }

    pub fn subject(&self, id: usize) -> String {
        format!("{}.account.{id}", self.prefix)
    }

    /// One message, published with the expectation of its subject's last sequence and awaited. A replicated stream refuses
    /// now and then because of the write it has just acknowledged; then again.
    pub async fn publish(&self, subject: String, last: u64, payload: Bytes) -> u64 {
        for _ in 0..100 {
            let headers = expecting(last);
            let sent = self.js.publish_with_headers(subject.clone(), headers, payload.clone());
            match sent.await.expect("sent").await {
                Ok(ack) => return ack.sequence,
                Err(error) if format!("{error:?}").contains("10164") => {}
                Err(error) => panic!("not stored: {error}"),
            }
        }
        panic!("refused again and again")
    }

    /// One atomic batch: for each subject so many messages, the first with the expectation. Returns the last sequence.
    pub async fn batch(&self, parts: &[(String, u64)], each: usize, payload: &Bytes) -> u64 {
        let batch = uuid::Uuid::new_v4().simple().to_string();
        let total = parts.len() * each;
        let mut place = 0;
        for (subject, last) in parts {
            for nth in 0..each {
                place += 1;
                let mut headers = if nth == 0 { expecting(*last) } else { HeaderMap::new() };
                headers.insert("Nats-Batch-Id", batch.as_str());
                headers.insert("Nats-Batch-Sequence", HeaderValue::from(place as u64));
                if place < total {
                    let sent =
                        self.client.publish_with_headers(subject.clone(), headers, payload.clone());
                    sent.await.expect("sent");
                    continue;
                }
                headers.insert("Nats-Batch-Commit", "1");
                let request = async_nats::Request::new()
                    .headers(headers)
                    .payload(payload.clone())
                    .timeout(Some(Duration::from_secs(60)));
                let answer =
                    self.client.send_request(subject.clone(), request).await.expect("answered");
                let ack: Ack = serde_json::from_slice(&answer.payload).expect("an acknowledgement");
                return ack.seq.expect("stored");
            }
        }
        unreachable!("the last message returns")
    }

    /// `rounds` batches of one commit for each subject, `each` messages a commit, at most `most` commits a batch, one batch
    /// after the other. Returns what each batch took.
    pub async fn packed(
        &self,
        subjects: usize,
        each: usize,
        most: usize,
        rounds: usize,
        payload: &Bytes,
    ) -> Vec<Duration> {
        let mut times = Vec::with_capacity(rounds * subjects.div_ceil(most));
        let mut last = vec![0_u64; subjects];
        for _ in 0..rounds {
            for from in (0..subjects).step_by(most) {
                let begun = Instant::now();
                let to = (from + most).min(subjects);
                let parts: Vec<_> = (from..to).map(|id| (self.subject(id), last[id])).collect();
                let end = self.batch(&parts, each, payload).await;
                for (back, id) in (from..to).rev().enumerate() {
                    last[id] = end - (back * each) as u64;
                }
                times.push(begun.elapsed());
            }
        }
        times
    }
}

fn expecting(last: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Subject-Sequence", HeaderValue::from(last));
    headers
}
