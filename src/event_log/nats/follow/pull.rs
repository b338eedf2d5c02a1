//! One consumer, and the requests that it answers with messages.
//!
//! It lives in the memory of one server, and is deleted when it is dropped. It knows nothing of what was before it:
//! whatever is wrong with it is an error, and the follower makes another.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::delivery::{Delivered, delivered};
use crate::backend::{BackendError, Start};
use crate::clock::Timestamp;
use crate::event_log::nats::{NatsLog, wire};
use crate::subject::Pattern;

/// How many messages and bytes one request asks for. Two of them at most are open: what bounds the memory of a follower.
const BATCH: usize = 1000;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// How long a request stays open when nothing happens. Its end shows a consumer to be unused.
const EXPIRES: Duration = Duration::from_secs(15);

/// How often an open request is told that the consumer lives, and how long a silence is borne.
const HEARTBEAT: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(5);

/// How often a follower that hears nothing looks at its connection.
const TICK: Duration = Duration::from_secs(1);

/// When the server removes a consumer that nobody asks for anything: the net below the deletion.
const UNUSED: Duration = Duration::from_secs(15);

/// What a consumer says.
pub(super) enum Answer {
    Message(Delivered),
    /// Everything that it had to deliver has come.
    Idle,
    /// It is there.
    Alive,
}

/// The consumer as it was when it was made.
#[derive(Deserialize)]
pub(super) struct Made {
    pub(super) num_pending: u64,
    pub(super) delivered: MadeAt,
}

#[derive(Deserialize)]
pub(super) struct MadeAt {
    /// The sequence before the first one that it looks at.
    pub(super) stream_seq: u64,
}

pub(super) struct Pull {
    log: NatsLog,
    name: String,
    runtime: Handle,
    /// The request that makes the consumer, until it is answered.
    making: Option<JoinHandle<Result<Message, BackendError>>>,
    inbox: String,
    answers: Subscriber,
    connects: u64,
    /// How many messages were received.
    received: u64,
    /// How many messages were asked for and did not come yet.
    outstanding: usize,
    bytes: usize,
    /// Whether another one was before it.
    pub(super) again: bool,
}

impl Pull {
    /// Makes a consumer. One round trip.
    pub(super) async fn create(
        log: &NatsLog,
        filters: &[Pattern],
        start: Start,
        again: bool,
    ) -> Result<(Self, Made), BackendError> {
        let client = log.connection.client();
        let inbox = client.new_inbox();
        let connects = client.statistics().connects.load(Ordering::Relaxed);
        let answers = log.connection.subscribe(inbox.clone()).await?;
        // Made before the consumer, so that the consumer is deleted when this future is dropped.
        let mut pull = Self {
            log: log.clone(),
            name: format!("cim-follow-{}", Uuid::new_v4().simple()),
            runtime: Handle::current(),
            making: None,
            inbox,
            answers,
            connects,
            received: 0,
            outstanding: 0,
            bytes: BATCH_BYTES,
            again,
        };
        let filters: Vec<&str> = filters.iter().map(Pattern::as_str).collect();
        let mut config = json!({
            "name": pull.name,
            "filter_subjects": filters,
            "ack_policy": "none",
            "replay_policy": "instant",
            "max_waiting": 8,
            "num_replicas": 1,
            "mem_storage": true,
            "inactive_threshold": nanos(UNUSED),
        });
        match start {
            Start::After(position) => {
                config["deliver_policy"] = json!("by_start_sequence");
                config["opt_start_seq"] = json!(position.next());
            }
            Start::Since(time) => {
                config["deliver_policy"] = json!("by_start_time");
                config["opt_start_time"] = json!(rfc3339(time)?);
            }
            Start::Now => config["deliver_policy"] = json!("new"),
            Start::Latest => config["deliver_policy"] = json!("last_per_subject"),
        }
        let request = json!({
            "stream_name": log.stream.as_ref(),
            "config": config,
            "action": "create",
        });
        let subject = pull.subject("CONSUMER.CREATE");
        let connection = log.connection.clone();
        let making = pull.making.insert(pull.runtime.spawn(async move {
            connection.request(&subject, None, request.to_string().into()).await
        }));
        let answer = making.await;
        pull.making = None;
        let answer = answer.map_err(|_| closed())??;
        let made = wire::api_answer(&log.stream, &answer.payload)?;
        Ok((pull, made))
    }

    /// The next answer. Asks for more in time, so that the consumer need not wait; nothing when nobody calls this.
    pub(super) async fn next(&mut self) -> Result<Answer, BackendError> {
        loop {
            if self.outstanding <= BATCH / 2 {
                self.request().await?;
            }
            let message = match self.answers.next().now_or_never() {
                Some(answer) => answer.ok_or_else(closed)?,
                None => self.wait().await?,
            };
            match message.status.map(|status| status.as_u16()) {
                None => return self.message(message).map(Answer::Message),
                Some(100) => return self.heartbeat(&message),
                Some(code) => self.ended(code, &message)?,
            }
        }
    }

    fn message(&mut self, message: Message) -> Result<Delivered, BackendError> {
        let (number, delivered) = delivered(message)?;
        if number != self.received + 1 {
            return Err(self.gap(number));
        }
        self.received = number;
        self.outstanding = self.outstanding.saturating_sub(1);
        Ok(delivered)
    }

    /// A consumer that is idle has delivered what it had. Whether that arrived is another question.
    fn heartbeat(&self, message: &Message) -> Result<Answer, BackendError> {
        match number(message, "Nats-Last-Consumer") {
            Some(last) if last != self.received => Err(self.gap(last)),
            Some(_) => Ok(Answer::Idle),
            None => Ok(Answer::Alive),
        }
    }

    fn gap(&self, number: u64) -> BackendError {
        let (name, received) = (&self.name, self.received);
        let detail = format!("consumer {name} is at message {number}, after {received} that came");
        BackendError::unavailable(detail)
    }

    async fn request(&mut self) -> Result<(), BackendError> {
        let request = json!({
            "batch": BATCH,
            "max_bytes": self.bytes,
            "expires": nanos(EXPIRES),
            "idle_heartbeat": nanos(HEARTBEAT),
        });
        let client = self.log.connection.client();
        let subject = self.subject("CONSUMER.MSG.NEXT");
        let payload = Bytes::from(request.to_string());
        let sending = client.publish_with_reply(subject, self.inbox.clone(), payload);
        match timeout(self.log.connection.timeout(), sending).await {
            Ok(Ok(())) => {
                self.outstanding += BATCH;
                Ok(())
            }
            Ok(Err(e)) => Err(BackendError::unavailable(format!("asking to follow: {e}"))),
            Err(_) => Err(BackendError::unavailable("asking to follow: no connection")),
        }
    }

    /// A request has ended, or the consumer has.
    fn ended(&mut self, code: u16, message: &Message) -> Result<(), BackendError> {
        let text = message.description.as_deref().unwrap_or_default();
        let too_large = text.starts_with("Message Size Exceeds");
        let only_the_request = code == 408 || text.starts_with("Batch Completed") || too_large;
        if !only_the_request {
            let detail = format!("consumer {}: {code} {text}", self.name);
            return Err(BackendError::unavailable(detail));
        }
        let left = number(message, "Nats-Pending-Messages");
        let left = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(self.outstanding);
        self.outstanding = self.outstanding.saturating_sub(left);
        if too_large && left == BATCH {
            // Not even one message was small enough.
            self.bytes = self.bytes.saturating_mul(2);
        }
        Ok(())
    }

    async fn wait(&mut self) -> Result<Message, BackendError> {
        let since = Instant::now();
        loop {
            match timeout(TICK, self.answers.next()).await {
                Ok(answer) => return answer.ok_or_else(closed),
                Err(_) => self.look(since)?,
            }
        }
    }

    fn look(&self, since: Instant) -> Result<(), BackendError> {
        let connection = &self.log.connection;
        let subject = self.subject("CONSUMER.MSG.NEXT");
        if let Some(detail) = connection.denied(&subject) {
            return Err(BackendError::Denied { subject, detail });
        }
        let connects = connection.client().statistics().connects.load(Ordering::Relaxed);
        if connects != self.connects {
            return Err(BackendError::unavailable("the connection was made again"));
        }
        if since.elapsed() >= SILENCE {
            return Err(BackendError::unavailable(format!("consumer {} is silent", self.name)));
        }
        Ok(())
    }

    fn subject(&self, verb: &str) -> String {
        format!("{}.{verb}.{}.{}", self.log.connection.api_prefix(), self.log.stream, self.name)
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        let subject = self.subject("CONSUMER.DELETE");
        let connection = self.log.connection.clone();
        let making = self.making.take();
        self.runtime.spawn(async move {
            // A server does not promise to take two requests in the order they were sent.
            if let Some(making) = making {
                let _ = making.await;
            }
            // A consumer that cannot be deleted now is removed by the server when it was unused for a while.
            let _ = connection.request(&subject, None, Bytes::new()).await;
        });
    }
}

fn number(message: &Message, header: &'static str) -> Option<u64> {
    message.headers.as_ref()?.get(header)?.as_str().parse().ok()
}

fn closed() -> BackendError {
    BackendError::unavailable("the connection was closed")
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn rfc3339(time: Timestamp) -> Result<String, BackendError> {
    let nanos = i128::from(time.as_micros()) * 1000;
    let invalid = |error: &dyn std::fmt::Display| BackendError::Invalid {
        detail: format!("the time {time} to follow from: {error}"),
    };
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|e| invalid(&e))?;
    time.format(&Rfc3339).map_err(|e| invalid(&e))
}
