//! Reading many messages by batched direct gets.
//!
//! One request is answered by up to a thousand messages and a closing status message. What belongs to which request
//! is told by the last token of the reply subject, so that a late answer to a request that was given up is dropped.

use std::collections::HashSet;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use serde_json::json;
use tokio::time::timeout;

use super::{ATTEMPTS, NatsLog, PAUSE, wire};
use crate::backend::nats::untaken;
use crate::backend::{BackendError, Bound, Count, MAX_MATCHING, Matching, Position, StoredMessage};
use crate::event::NonEmpty;
use crate::event_log::LogQuery;
use crate::subject::{Pattern, Subject};

/// How many messages and bytes one request asks for: what bounds the memory of a read.
const CHUNK_MESSAGES: usize = 1000;
const CHUNK_BYTES: usize = 8 * 1024 * 1024;

/// The first request asks for less: a reader that finds it needs something else has not caused much work.
const FIRST_CHUNK_MESSAGES: usize = 128;

/// One subscription that several requests, one after the other, are answered on.
struct Channel {
    log: NatsLog,
    inbox: String,
    answers: Subscriber,
    request: u64,
    asked: Bytes,
    /// How many requests nobody took.
    unheard: u32,
    /// The last message of the answer so far. Each names the one before it, so that none is lost unseen.
    last: Position,
}

enum Piece {
    Message(StoredMessage),
    /// The answer is complete; so many messages are left.
    End {
        pending: u64,
        /// Up to which sequence a request for the last of many subjects looked.
        up_to: u64,
    },
}

impl Channel {
    async fn open(log: NatsLog) -> Result<Self, BackendError> {
        let inbox = log.connection.client().new_inbox();
        let answers = log.connection.subscribe(format!("{inbox}.*")).await?;
        let (request, asked, unheard, last) = (0, Bytes::new(), 0, Position::START);
        Ok(Self { log, inbox, answers, request, asked, unheard, last })
    }

    async fn ask(&mut self, request: &serde_json::Value) -> Result<(), BackendError> {
        self.request += 1;
        self.asked = Bytes::from(request.to_string());
        self.last = Position::START;
        self.send().await
    }

    async fn send(&self) -> Result<(), BackendError> {
        let reply = format!("{}.{}", self.inbox, self.request);
        let client = self.log.connection.client();
        let subject = self.log.direct_subject();
        let sending = client.publish_with_reply(subject, reply, self.asked.clone());
        match timeout(self.log.connection.timeout(), sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(BackendError::unavailable(format!("sending a read: {e}"))),
            Err(_) => Err(BackendError::unavailable("sending a read: no connection")),
        }
    }

    async fn next(&mut self) -> Result<Piece, BackendError> {
        loop {
            let message = self.answer().await?;
            let current = message.subject.rsplit('.').next().and_then(|n| n.parse().ok());
            if current != Some(self.request) {
                continue;
            }
            if message.status != Some(StatusCode::NO_RESPONDERS) || self.unheard == ATTEMPTS {
                return self.piece(message);
            }
            self.log.unheard(self.unheard).await?;
            self.unheard += 1;
            self.send().await?;
        }
    }

    /// The next message on the subscription. Most are there already, and need no timer.
    async fn answer(&mut self) -> Result<Message, BackendError> {
        let next = match self.answers.next().now_or_never() {
            Some(next) => next,
            None => match timeout(self.log.connection.timeout(), self.answers.next()).await {
                Ok(next) => next,
                Err(_) => return Err(self.unanswered()),
            },
        };
        next.ok_or_else(|| BackendError::unavailable("the connection was closed"))
    }

    fn unanswered(&self) -> BackendError {
        let subject = self.log.direct_subject();
        match self.log.connection.denied(&subject) {
            Some(detail) => BackendError::Denied { subject, detail },
            None => BackendError::unavailable("no answer to a read"),
        }
    }

    fn piece(&mut self, message: Message) -> Result<Piece, BackendError> {
        match message.status.map(|status| status.as_u16()) {
            None => {
                let wire::Delivered { message, after } = wire::delivered(message)?;
                self.follows(after)?;
                self.last = message.position;
                Ok(Piece::Message(message))
            }
            Some(204) => {
                let wire::Closing { after, pending, up_to } = wire::closing(&message);
                self.follows(after)?;
                Ok(Piece::End { pending, up_to })
            }
            Some(404) => Ok(Piece::End { pending: 0, up_to: 0 }),
            Some(503) => Err(untaken(&self.log.direct_subject())),
            Some(code) => Err(wire::direct_refused(code, &message)),
        }
    }

    /// A client that takes messages too slowly throws some away.
    fn follows(&self, after: Option<Position>) -> Result<(), BackendError> {
        match after {
            Some(after) if after != self.last => {
                Err(BackendError::unavailable("messages of a read were lost on their way"))
            }
            _ => Ok(()),
        }
    }
}

/// A request that was sent before the answer to the one before it was read.
struct Ahead {
    channel: Channel,
    after: Position,
}

struct Reading {
    channel: Channel,
    filter: Option<String>,
    after: Position,
    asked: bool,
    ahead: Option<Ahead>,
    /// The last answer said that more is left.
    more: bool,
    failures: u32,
}

/// Reads chunk after chunk until nothing is left.
pub(super) fn read(
    log: NatsLog,
    query: LogQuery,
) -> impl Stream<Item = Result<StoredMessage, BackendError>> + Send + 'static {
    let opening = async move {
        match Channel::open(log).await {
            Ok(channel) => {
                let LogQuery { filter, after } = query;
                let (asked, ahead, more, failures) = (false, None, false, 0);
                let reading = Reading { channel, filter, after, asked, ahead, more, failures };
                Box::new(reading).run().left_stream()
            }
            Err(error) => futures::stream::iter([Err(error)]).right_stream(),
        }
    };
    futures::stream::once(opening).flatten()
}

impl Reading {
    fn run(self: Box<Self>) -> impl Stream<Item = Result<StoredMessage, BackendError>> + Send {
        futures::stream::unfold(Some(self), |reading| async move {
            let mut reading = reading?;
            match reading.advance().await {
                Ok(Some(message)) => Some((Ok(message), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// The next message, through as many requests and failures as that takes.
    async fn advance(&mut self) -> Result<Option<StoredMessage>, BackendError> {
        loop {
            match self.checked_step().await {
                // What was asked for ahead may begin with what was read already.
                Ok(Piece::Message(message)) if message.position <= self.after => {}
                Ok(Piece::Message(message)) => {
                    self.after = message.position;
                    (self.more, self.failures) = (false, 0);
                    return Ok(Some(message));
                }
                Ok(Piece::End { pending: 0, .. }) => return Ok(None),
                Ok(Piece::End { .. }) => (self.asked, self.more) = (false, true),
                Err(error) if error.is_transient() && self.failures < ATTEMPTS => {
                    (self.asked, self.ahead) = (false, None);
                    self.failures += 1;
                    tokio::time::sleep(PAUSE * self.failures).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The next piece. That nothing is left, where another replica has just said that more is, must be what the leader says.
    async fn checked_step(&mut self) -> Result<Piece, BackendError> {
        let piece = self.step().await?;
        if !self.more || !matches!(piece, Piece::End { pending: 0, .. }) {
            return Ok(piece);
        }
        let filter = self.filter.as_deref().unwrap_or(">");
        match self.channel.log.first_on(filter, self.after).await? {
            Some(_) => Err(behind()),
            None => Ok(piece),
        }
    }

    async fn step(&mut self) -> Result<Piece, BackendError> {
        if !self.asked {
            self.ask().await?;
            self.asked = true;
        }
        self.channel.next().await
    }

    /// Has a chunk under way: the one that was asked for ahead, if it goes on where the last one ended.
    async fn ask(&mut self) -> Result<(), BackendError> {
        let first = self.channel.request == 0;
        let spare = match self.ahead.take() {
            Some(Ahead { channel, after }) if after <= self.after => {
                Some(std::mem::replace(&mut self.channel, channel))
            }
            ahead => {
                let batch = if first { FIRST_CHUNK_MESSAGES } else { CHUNK_MESSAGES };
                let request = self.request(self.after, batch);
                self.channel.ask(&request).await?;
                ahead.map(|ahead| ahead.channel)
            }
        };
        // Where a chunk will end is known only where every message counts.
        if self.filter.is_none() && !first {
            let mut channel = match spare {
                Some(channel) => channel,
                None => Channel::open(self.channel.log.clone()).await?,
            };
            let after = Position::new(self.after.get() + CHUNK_MESSAGES as u64);
            channel.ask(&self.request(after, CHUNK_MESSAGES)).await?;
            self.ahead = Some(Ahead { channel, after });
        }
        Ok(())
    }

    fn request(&self, after: Position, batch: usize) -> serde_json::Value {
        let mut request = json!({ "seq": after.next(), "batch": batch, "max_bytes": CHUNK_BYTES });
        if let Some(filter) = &self.filter {
            request["next_by_subj"] = json!(filter);
        }
        request
    }
}

/// The last message of each subject, by one request where one answer holds them all.
pub(super) async fn lasts(
    log: &NatsLog,
    subjects: &[Subject],
) -> Result<Vec<StoredMessage>, BackendError> {
    if subjects.is_empty() {
        return Ok(Vec::new());
    }
    let mut channel = Channel::open(log.clone()).await?;
    let mut found: Vec<StoredMessage> = Vec::with_capacity(subjects.len());
    loop {
        // An answer is bounded in bytes too: what it leaves out is asked for again.
        let have: HashSet<&str> = found.iter().map(|message| message.subject.as_str()).collect();
        let missing: Vec<&str> =
            subjects.iter().map(Subject::as_str).filter(|name| !have.contains(name)).collect();
        let request = json!({
            "multi_last": missing, "batch": missing.len(), "max_bytes": CHUNK_BYTES,
        });
        channel.ask(&request).await?;
        let before = found.len();
        let left = loop {
            match channel.next().await? {
                Piece::Message(message) => found.push(message),
                Piece::End { pending, .. } => break pending,
            }
        };
        if left == 0 || found.len() == before {
            found.sort_by_key(|message| message.position);
            return Ok(found);
        }
    }
}

/// The last message of each subject that matches.
///
/// A server finds nothing at all when it has not got as far as the position in question. Then the leader is asked whether
/// there is something.
pub(super) async fn matching(
    log: &NatsLog,
    patterns: &NonEmpty<Pattern>,
    bound: Bound,
) -> Result<Matching<StoredMessage>, BackendError> {
    let mut attempts = 0;
    loop {
        let found = matching_in_one(log, patterns, bound).await?;
        let (Bound::Position(position), true) = (bound, found.is_none()) else { return Ok(found) };
        let info = log.info(None).await?;
        if info.status()?.last < position {
            let newest = matching_in_one(log, patterns, Bound::Newest).await?;
            if !newest.goes_beyond(position) {
                return Ok(newest);
            }
        } else if info.config.num_replicas == 1 || !log.has_any(patterns, position).await? {
            return Ok(found);
        } else if attempts == ATTEMPTS {
            return Err(behind());
        }
        attempts += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

impl Matching<StoredMessage> {
    fn is_none(&self) -> bool {
        matches!(self, Self::All(found) if found.is_empty())
    }

    fn goes_beyond(&self, position: Position) -> bool {
        matches!(self, Self::All(found) if found.last().is_some_and(|last| last.position > position))
    }
}

/// The same by one request, or by as many as the bytes of the answer take.
async fn matching_in_one(
    log: &NatsLog,
    patterns: &NonEmpty<Pattern>,
    bound: Bound,
) -> Result<Matching<StoredMessage>, BackendError> {
    let mut request = last_of(patterns);
    match bound {
        Bound::Newest => {}
        Bound::Position(Position::START) => return Ok(Matching::All(Vec::new())),
        Bound::Position(position) => request["up_to_seq"] = json!(position.get()),
        Bound::Time(time) => request["up_to_time"] = json!(time.to_string()),
    }
    request["batch"] = json!(MAX_MATCHING);
    let mut channel = Channel::open(log.clone()).await?;
    for _ in 0..ATTEMPTS {
        match whole(&mut channel, request.clone()).await {
            Ok(Some(found)) => return Ok(Matching::All(found)),
            Ok(None) => {}
            Err(BackendError::TooMany { .. }) => return Ok(Matching::TooMany),
            Err(error) => return Err(error),
        }
    }
    // A sweep copes with that.
    Ok(Matching::TooMany)
}

/// All that a request finds; `None` when some of it was replaced before its turn came, in a stream that keeps the last
/// message only.
async fn whole(
    channel: &mut Channel,
    mut request: serde_json::Value,
) -> Result<Option<Vec<StoredMessage>>, BackendError> {
    let mut found: Vec<StoredMessage> = Vec::new();
    let mut expected = None;
    loop {
        channel.ask(&request).await?;
        let before = found.len();
        let (left, up_to) = loop {
            match channel.next().await? {
                Piece::Message(message) => found.push(message),
                Piece::End { pending, up_to } => break (pending, up_to),
            }
        };
        let came = (found.len() - before) as u64;
        match expected {
            // Nothing that the answer was to hold is there any more, or a replica that is behind does not have it yet.
            Some(_) if came == 0 && up_to > 0 => return Err(behind()),
            Some(expected) if came + left < expected => return Ok(None),
            _ if left == 0 => return Ok(Some(found)),
            _ => {}
        }
        // The rest is asked for as of the same moment.
        expected = Some(left);
        request["seq"] = json!(found.last().map_or(1, |last| last.position.next()));
        request["up_to_seq"] = json!(up_to);
        if let Some(fields) = request.as_object_mut() {
            fields.remove("up_to_time");
        }
    }
}

/// How many subjects match: what the answer to a request for one of them says is left.
pub(super) async fn count(
    log: &NatsLog,
    patterns: &NonEmpty<Pattern>,
) -> Result<Count, BackendError> {
    let mut request = last_of(patterns);
    request["batch"] = json!(1);
    let mut channel = Channel::open(log.clone()).await?;
    channel.ask(&request).await?;
    let mut count = 0;
    loop {
        match channel.next().await {
            Ok(Piece::Message(_)) => count += 1,
            Ok(Piece::End { pending, .. }) => return Ok(Count::Exactly(count + pending)),
            Err(BackendError::TooMany { limit, .. }) => return Ok(Count::MoreThan(limit as u64)),
            Err(error) => return Err(error),
        }
    }
}

fn behind() -> BackendError {
    BackendError::unavailable("a replica that is behind answered a read")
}

/// Without a bound the server sends as much at once as it bears to have pending, and then cuts the connection.
fn last_of(patterns: &NonEmpty<Pattern>) -> serde_json::Value {
    let patterns: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
    json!({ "multi_last": patterns, "max_bytes": CHUNK_BYTES })
}
