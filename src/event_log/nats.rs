//! The event log on a JetStream stream.
//!
//! How a message is put on the wire is in [`headers`], how it is read back in [`wire`]; this file says which requests are
//! made.

mod follow;
mod headers;
mod read;
mod wire;

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, try_join};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, Stream, StreamExt};
use serde_json::json;
use tokio::time::{sleep, timeout};

use self::headers::Place;
use super::{EventLog, LogLimits, LogQuery, LogStatus};
use crate::backend::nats::{Connection, Publisher, Sent, Wire};
use crate::backend::{
    BackendError, Bound, Count, Followed, Matching, NewMessage, Position, ReadFrom, StoredMessage,
    TailQuery,
};
use crate::event::NonEmpty;
use crate::subject::{Pattern, Subject};

/// The most messages of one atomic batch (`js_ack_max_batch` of the server, 1000 by default).
const MAX_BATCH_MESSAGES: usize = 1000;

/// How often a read is asked for again that nobody took or whose answer stays out.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);

/// A JetStream stream as an [`EventLog`]. Cloning is cheap.
///
/// A read that any replica may answer is asked again, for up to a second, where no server takes it, as in the first moments
/// of a cluster.
#[derive(Debug, Clone)]
pub struct NatsLog {
    connection: Connection,
    stream: Arc<str>,
}

impl NatsLog {
    /// The log in an existing stream. One round trip, to see that it is there.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] when there is no such stream, and what else can happen to a request.
    pub async fn open(connection: &Connection, stream: &str) -> Result<Self, BackendError> {
        let log = Self { connection: connection.clone(), stream: stream.into() };
        log.info(None).await?;
        Ok(log)
    }

    /// The log in a stream that is known to exist. No round trip.
    pub(crate) fn attach(connection: &Connection, stream: &str) -> Self {
        Self { connection: connection.clone(), stream: stream.into() }
    }

    /// The stream's own description; with a filter also its subjects and how many messages each has.
    pub(crate) async fn info(
        &self,
        subjects: Option<(&str, usize)>,
    ) -> Result<wire::Info, BackendError> {
        let payload = match subjects {
            Some((filter, offset)) => json!({ "subjects_filter": filter, "offset": offset }),
            None => json!({}),
        };
        self.api("STREAM.INFO", payload).await.map_err(wire::unread)
    }

    /// The last sequence, which may be one within a batch that is being stored. One round trip, answered by the leader.
    pub(crate) async fn last_sequence(&self) -> Result<u64, BackendError> {
        Ok(self.info(None).await?.status()?.last.get())
    }

    async fn api<T: serde::de::DeserializeOwned>(
        &self,
        verb: &str,
        payload: serde_json::Value,
    ) -> Result<T, BackendError> {
        let subject = format!("{}.{verb}.{}", self.connection.api_prefix(), self.stream);
        let payload = Bytes::from(payload.to_string());
        let answer = self.connection.request(&subject, None, payload).await?;
        wire::api_answer(&self.stream, &answer.payload)
    }

    /// Removes the messages of a subject up to a position, in a stream that lets that happen. One round trip.
    pub(crate) async fn purge(
        &self,
        subject: &Subject,
        up_to: Position,
    ) -> Result<(), BackendError> {
        let request = json!({ "filter": subject.as_str(), "seq": up_to.next() });
        self.api::<serde_json::Value>("STREAM.PURGE", request).await.map(drop)
    }

    fn direct_subject(&self) -> String {
        format!("{}.DIRECT.GET.{}", self.connection.api_prefix(), self.stream)
    }

    async fn get_direct(&self, subject: &Subject) -> Result<Option<StoredMessage>, BackendError> {
        self.direct(&format!("{}.{subject}", self.direct_subject()), Bytes::new()).await
    }

    /// The last message on any subject that matches. One round trip; any replica may answer.
    pub(crate) async fn newest(
        &self,
        pattern: &Pattern,
    ) -> Result<Option<StoredMessage>, BackendError> {
        let request = Bytes::from(json!({ "last_by_subj": pattern.as_str() }).to_string());
        self.direct(&self.direct_subject(), request).await
    }

    async fn direct(
        &self,
        subject: &str,
        request: Bytes,
    ) -> Result<Option<StoredMessage>, BackendError> {
        let mut attempts = 0;
        loop {
            match self.connection.request(subject, None, request.clone()).await {
                Err(BackendError::Unavailable { .. }) if attempts < ATTEMPTS => {
                    // Boxed, because it is rare and would make the future of every load large.
                    Box::pin(self.unheard(attempts)).await?;
                    attempts += 1;
                }
                answer => return wire::direct_answer(answer.map_err(wire::unread)?),
            }
        }
    }

    /// Waits before a direct get that nobody took is sent again. The replicas of a stream take them on a subject of their
    /// own, of which the other servers of a young cluster hear late (up to 270 ms measured). The API itself is heard from
    /// everywhere, and says whether there is a stream at all.
    async fn unheard(&self, attempts: u32) -> Result<(), BackendError> {
        self.info(None).await?;
        sleep(PAUSE * attempts).await;
        Ok(())
    }

    async fn get_leader(
        &self,
        request: serde_json::Value,
    ) -> Result<Option<StoredMessage>, BackendError> {
        match self.api::<wire::LeaderAnswer>("STREAM.MSG.GET", request).await {
            Ok(answer) => answer.message.into_stored().map(Some),
            Err(BackendError::NotFound { what }) if what == wire::NO_MESSAGE => Ok(None),
            Err(error) => Err(wire::unread(error)),
        }
    }

    /// The last message. Where a log ends is told by it, because while a batch is being stored the server says how far it has
    /// got, but gives its messages to nobody. One round trip.
    async fn newest_of_all(&self) -> Result<Option<StoredMessage>, BackendError> {
        self.get_leader(json!({ "last_by_subj": ">" })).await
    }

    /// Whether the leader has a message that matches, up to a position. One round trip for each pattern until there is one.
    async fn has_any(
        &self,
        patterns: &NonEmpty<Pattern>,
        up_to: Position,
    ) -> Result<bool, BackendError> {
        for pattern in patterns {
            let first = self.first_on(pattern.as_str(), Position::START).await?;
            if first.is_some_and(|first| first.position <= up_to) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first message after a position on a subject that matches, as the leader sees it. One round trip.
    async fn first_on(
        &self,
        filter: &str,
        after: Position,
    ) -> Result<Option<StoredMessage>, BackendError> {
        self.get_leader(json!({ "seq": after.next(), "next_by_subj": filter })).await
    }

    /// Refuses a message that not every place in a batch holds.
    pub(crate) fn check(&self, message: &NewMessage) -> Result<(), BackendError> {
        headers::check(message, Some(Place::WIDEST), self.connection.max_payload())
    }

    /// Hands one message over. Not a part of the future that waits for its answer, which would keep the headers.
    fn leave(&self, publisher: &Publisher, message: &NewMessage) -> Result<Sent, BackendError> {
        headers::check(message, None, self.connection.max_payload())?;
        let headers = headers::of(message, None)?;
        let patience = self.connection.timeout();
        Ok(publisher.publish(message.subject.clone(), headers, message.payload.clone(), patience))
    }

    async fn publish_all(&self, messages: NonEmpty<NewMessage>) -> Result<Position, BackendError> {
        let actual = messages.len().get();
        if actual > MAX_BATCH_MESSAGES {
            return Err(BackendError::TooMany { actual, limit: MAX_BATCH_MESSAGES });
        }
        let batch = Place::WIDEST.batch;
        for (message, number) in messages.iter().zip(1..) {
            let place = Place { batch, number, last: number == actual };
            headers::check(message, Some(place), self.connection.max_payload())?;
        }
        self.publish_each(stream::iter(messages.into_vec())).await
    }

    /// Sends the messages of a batch as they come. Each leaves when the next one shows that it is not the last, so the
    /// server works on the first ones meanwhile.
    async fn publish_each(
        &self,
        messages: impl Stream<Item = NewMessage>,
    ) -> Result<Position, BackendError> {
        let mut messages = pin!(messages);
        let nothing = || BackendError::Invalid { detail: "a batch without messages".into() };
        let mut message = messages.next().await.ok_or_else(nothing)?;
        let batch = headers::new_batch_id();
        let mut sent = Vec::new();
        while let Some(next) = messages.next().await {
            let place = Place { batch: &batch, number: sent.len() + 1, last: false };
            if place.number >= MAX_BATCH_MESSAGES {
                let actual = MAX_BATCH_MESSAGES + 1;
                return Err(BackendError::TooMany { actual, limit: MAX_BATCH_MESSAGES });
            }
            let message = std::mem::replace(&mut message, next);
            let left = self.send(&message, place).await;
            sent.push(message.subject);
            left.map_err(|error| self.explain(error, &sent))?;
        }
        let place = Place { batch: &batch, number: sent.len() + 1, last: true };
        let place = (place.number > 1).then_some(place);
        self.request_ack(&message, place).await.map_err(|error| self.explain(error, &sent))
    }

    /// A batch of which the server refused a message to this user is never stored. All that the commit shows of it is a
    /// batch with a gap.
    fn explain(&self, error: BackendError, subjects: &[Subject]) -> BackendError {
        if !matches!(error, BackendError::Unknown { .. }) {
            return error;
        }
        let denied = |subject: &Subject| {
            let detail = self.connection.denied_to_publish(subject.as_str())?;
            Some(BackendError::Denied { subject: subject.to_string(), detail })
        };
        subjects.iter().find_map(denied).unwrap_or(error)
    }

    /// A write that got no answer is not proven to have failed, unless the server refused the message itself.
    fn unproven(&self, subject: &Subject, error: BackendError) -> BackendError {
        match error {
            BackendError::Unavailable { detail, source } => {
                BackendError::Unknown { detail, source }
            }
            BackendError::Denied { detail, .. }
                if self.connection.denied_to_publish(subject.as_str()).is_none() =>
            {
                BackendError::unknown(detail)
            }
            error => error,
        }
    }

    /// Sends a message of a batch, to which there is no answer before the last one.
    async fn send(&self, message: &NewMessage, place: Place<'_>) -> Result<(), BackendError> {
        let headers = headers::of(message, Some(place))?;
        let (client, subject) = (self.connection.client(), Wire(message.subject.as_str()));
        let mut sending =
            pin!(client.publish_with_headers(subject, headers, message.payload.clone()));
        let sent = match futures::poll!(&mut sending) {
            Poll::Ready(sent) => sent,
            // The channel to the connection is full, also while there is none; nobody waits for it without bound.
            Poll::Pending => timeout(self.connection.timeout(), sending).await.map_err(|_| {
                BackendError::unknown("sending a batch took longer than the request timeout")
            })?,
        };
        sent.map_err(|e| BackendError::unknown(format!("sending a batch: {e}")))
    }

    async fn request_ack(
        &self,
        message: &NewMessage,
        place: Option<Place<'_>>,
    ) -> Result<Position, BackendError> {
        let headers = headers::of(message, place)?;
        let answer = self
            .connection
            .request(message.subject.as_str(), Some(headers), message.payload.clone())
            .await
            .map_err(|error| self.unproven(&message.subject, error))?;
        wire::ack(&self.stream, &answer.payload)
    }
}

impl EventLog for NatsLog {
    fn limits(&self) -> LogLimits {
        LogLimits {
            max_message_bytes: self.connection.max_payload(),
            max_batch_messages: MAX_BATCH_MESSAGES,
        }
    }

    fn publish(&self, message: NewMessage) -> BoxFuture<'_, Result<Position, BackendError>> {
        async move {
            let publisher = self.connection.publisher().await?;
            let sent = self.leave(&publisher, &message)?;
            let answer = self.connection.answer(message.subject.as_str(), sent).await;
            let answer = answer.map_err(|error| self.unproven(&message.subject, error))?;
            wire::ack(&self.stream, &answer)
        }
        .boxed()
    }

    fn publish_batch(
        &self,
        messages: NonEmpty<NewMessage>,
    ) -> BoxFuture<'_, Result<Position, BackendError>> {
        self.publish_all(messages).boxed()
    }

    fn admits(&self, message: &NewMessage) -> bool {
        self.check(message).is_ok()
    }

    fn publish_stream<'a>(
        &'a self,
        messages: BoxStream<'a, NewMessage>,
    ) -> BoxFuture<'a, Result<Position, BackendError>> {
        self.publish_each(messages).boxed()
    }

    fn last<'a>(
        &'a self,
        subject: &'a Subject,
        from: ReadFrom,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>> {
        match from {
            ReadFrom::Nearest => self.get_direct(subject).boxed(),
            ReadFrom::Leader => {
                self.get_leader(json!({ "last_by_subj": subject.as_str() })).boxed()
            }
        }
    }

    fn first_after<'a>(
        &'a self,
        subject: &'a Subject,
        after: Position,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>> {
        self.first_on(subject.as_str(), after).boxed()
    }

    fn first_matching<'a>(
        &'a self,
        pattern: &'a Pattern,
        after: Position,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>> {
        self.first_on(pattern.as_str(), after).boxed()
    }

    fn lasts<'a>(
        &'a self,
        subjects: &'a [Subject],
    ) -> BoxFuture<'a, Result<Vec<StoredMessage>, BackendError>> {
        read::lasts(self, subjects).boxed()
    }

    fn read(&self, query: LogQuery) -> BoxStream<'static, Result<StoredMessage, BackendError>> {
        Box::pin(read::read(self.clone(), query))
    }

    fn matching<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
        bound: Bound,
    ) -> BoxFuture<'a, Result<Matching<StoredMessage>, BackendError>> {
        read::matching(self, patterns, bound).boxed()
    }

    fn count<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
    ) -> BoxFuture<'a, Result<Count, BackendError>> {
        read::count(self, patterns).boxed()
    }

    fn follow(&self, query: TailQuery) -> BoxStream<'static, Result<Followed, BackendError>> {
        Box::pin(follow::follow(self.clone(), query))
    }

    fn status(&self) -> BoxFuture<'_, Result<LogStatus, BackendError>> {
        async move {
            let (info, newest) = try_join(self.info(None), self.newest_of_all()).await?;
            Ok(LogStatus { last: info.end(newest.as_ref()), ..info.status()? })
        }
        .boxed()
    }
}
