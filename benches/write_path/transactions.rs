//! Units of work and the relay of the outbox, beside batches and a consumer by hand.

use std::time::{Duration, Instant};

use async_nats::header::{HeaderMap, HeaderName};
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::stream::Config;
use bytes::Bytes;
use cim_persistence::backend::nats::Connection;
use cim_persistence::event::NonEmpty;
use cim_persistence::outbox::{
    JetStreamPublisher, NatsPublisher, Outbox, OutboxMessage, Relay, RelayOptions, Subjects, Topic,
};
use cim_persistence::store::{CommitInfo, Context, NatsRepositoryConfig};
use cim_persistence::unit_of_work::{UnitError, UnitOfWork, UnitOptions};
use cim_persistence::{Freshness, Repository};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::domain::{Account, Booked, NOTE, accounts, fresh};
use crate::raw::Raw;

fn message(key: usize) -> OutboxMessage {
    let topic = Topic::new("transfers").expect("a topic");
    let message = OutboxMessage::json(topic, "bank.transferred", &NOTE).expect("text is JSON");
    message.with_key(key.to_string())
}

/// `callers` callers, each with two accounts of its own, each making `commits` transfers between them with a message.
pub async fn transfers(context: &Context, callers: usize, commits: usize) -> f64 {
    let run = fresh("run");
    let shared = accounts(context);
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (context, accounts) = (context.clone(), shared.clone());
            let (from, to) = (format!("{run}-{caller}-from"), format!("{run}-{caller}-to"));
            tokio::spawn(async move {
                for _ in 0..commits {
                    transfer(&context, &accounts, &from, &to, caller).await.expect("stored");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a caller finishes");
    }
    (callers * commits) as f64 / begun.elapsed().as_secs_f64()
}

async fn transfer(
    context: &Context,
    accounts: &Repository<Account>,
    from: &String,
    to: &String,
    caller: usize,
) -> Result<(), UnitError> {
    // What is cached will do, because the commit compares it with what is stored.
    let freshness = Freshness::Cached(Duration::MAX);
    let options = UnitOptions { freshness, ..UnitOptions::default() };
    UnitOfWork::run_with(context, options, async |mut unit| {
        unit.record(accounts, from, vec![Booked::new()]).await?;
        unit.record(accounts, to, vec![Booked::new()]).await?;
        unit.send(message(caller));
        Ok::<_, UnitError>((unit, ()))
    })
    .await
    .map(drop)
}

/// Raw: each transfer a batch of three messages, each guarded, forty batches at a time.
pub async fn raw_transfers(raw: &Raw, callers: usize, commits: usize, payload: &Bytes) -> f64 {
    let begun = Instant::now();
    let tasks = (0..callers).map(|caller| async move {
        let subject = |part: usize| raw.subject(3 * caller + part);
        let mut end = 2;
        for commit in 0..commits {
            let last = |part: u64| if commit == 0 { 0 } else { end - 2 + part };
            let parts: Vec<_> = (0..3).map(|part| (subject(part), last(part as u64))).collect();
            end = raw.batch(&parts, 1, payload).await;
        }
    });
    futures::stream::iter(tasks).buffer_unordered(40).collect::<Vec<()>>().await;
    (callers * commits) as f64 / begun.elapsed().as_secs_f64()
}

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// To whoever listens.
    Core,
    /// Into another stream.
    Stream,
}

/// Stores messages and lets a relay publish them; how many a second it published.
pub async fn relay(
    context: &Context,
    connection: &Connection,
    raw: &Raw,
    count: usize,
    target: Target,
) -> f64 {
    let outbox = Outbox::of(context);
    for chunk in (0..count).collect::<Vec<_>>().chunks(1000) {
        let messages = chunk.iter().map(|key| message(*key)).collect();
        let messages = NonEmpty::from_vec(messages).expect("a chunk is not empty");
        outbox.save_messages(&messages, &CommitInfo::default()).await.expect("saved");
    }
    let end = context.status().await.expect("answered").last;
    let name = target_stream(raw, target).await;
    let subjects = Subjects::under(name).expect("a name is a prefix");
    let begun = Instant::now();
    let options = RelayOptions::default();
    let mut relay = match target {
        Target::Core => Relay::start(&outbox, NatsPublisher::new(connection, subjects), options),
        Target::Stream => {
            Relay::start(&outbox, JetStreamPublisher::new(connection, subjects), options)
        }
    };
    let done = relay.wait_until(|status| status.position >= end && status.unpublished == 0);
    done.await.expect("published");
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    relay.stop().await.expect("stopped");
    rate
}

async fn target_stream(raw: &Raw, target: Target) -> String {
    let name = format!("TO{}", uuid::Uuid::new_v4().simple());
    if target == Target::Stream {
        let subjects = vec![format!("{name}.>")];
        raw.js
            .create_stream(Config { name: name.clone(), subjects, ..Config::default() })
            .await
            .expect("a stream can be made");
    }
    name
}

/// The headers that go along: not those by which the message was stored where it was.
fn carried(headers: &HeaderMap) -> HeaderMap {
    let own = |name: &HeaderName| {
        let name: &str = name.as_ref();
        name == "Nats-Msg-Id" || !name.starts_with("Nats-")
    };
    let carried = headers.iter().filter(|(name, _)| own(name));
    carried.map(|(name, values)| (name.clone(), values[0].clone())).collect()
}

/// Raw: an ordered consumer of the same outbox, whose messages are published again as they are, as many at a time as the
/// relay has under way.
pub async fn republish(raw: &Raw, context: &Context, count: usize, target: Target) -> f64 {
    let name = target_stream(raw, target).await;
    let source = NatsRepositoryConfig::for_context(context.scheme().context().to_string());
    let stream = raw.js.get_stream(source.names().event_stream).await.expect("it is there");
    let config = OrderedConfig {
        filter_subject: format!("cim.outbox.{}.>", context.scheme().context()),
        ..OrderedConfig::default()
    };
    let begun = Instant::now();
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let mut messages = consumer.messages().await.expect("messages").take(count);
    let mut under_way = FuturesUnordered::new();
    let subject = format!("{name}.transfers");
    while let Some(message) = messages.next().await {
        let message = message.expect("a message").message;
        let headers = carried(&message.headers.expect("a CloudEvent has headers"));
        match target {
            Target::Core => {
                let sent =
                    raw.client.publish_with_headers(subject.clone(), headers, message.payload);
                sent.await.expect("sent");
            }
            Target::Stream => {
                let sent = raw.js.publish_with_headers(subject.clone(), headers, message.payload);
                under_way.push(sent.await.expect("sent").into_future());
                if under_way.len() >= RelayOptions::default().concurrency {
                    under_way.next().await.expect("one is under way").expect("stored");
                }
            }
        }
    }
    while let Some(stored) = under_way.next().await {
        stored.expect("stored");
    }
    tokio::time::timeout(Duration::from_secs(60), raw.client.flush())
        .await
        .expect("in time")
        .expect("flushed");
    count as f64 / begun.elapsed().as_secs_f64()
}
