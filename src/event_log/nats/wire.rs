//! Messages and answers as JetStream has them on the wire.

use std::borrow::Cow;

use async_nats::header::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::backend::{BackendError, MAX_MATCHING, Position, StoredMessage};
use crate::clock::Timestamp;
use crate::event::{Headers, names};
use crate::event_log::LogStatus;
use crate::subject::Subject;

const SUBJECT: &str = "Nats-Subject";
const SEQUENCE: &str = "Nats-Sequence";
const TIME: &str = "Nats-Time-Stamp";
const LAST_SEQUENCE: &str = "Nats-Last-Sequence";
const PENDING: &str = "Nats-Num-Pending";
const UP_TO: &str = "Nats-UpTo-Sequence";

/// What [`api_answer`] calls a message that is not there.
pub(super) const NO_MESSAGE: &str = "the message";

#[derive(Deserialize)]
struct ApiError {
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    error: Option<&'a serde_json::value::RawValue>,
    /// Empty where there is none: an optional text would be copied.
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
}

/// Reads the answer to a publish.
pub(super) fn ack(stream: &str, payload: &[u8]) -> Result<Position, BackendError> {
    let answer: Answer<'_> = parse(payload)?;
    if let Some(error) = answer.error {
        return Err(write_refused(stream, &parse(error.get().as_bytes())?));
    }
    if !answer.stream.is_empty() && answer.stream != stream {
        let taker = answer.stream;
        let detail =
            format!("stream {taker} took a message meant for {stream}; their subjects overlap");
        return Err(BackendError::Corrupt { detail });
    }
    if answer.duplicate {
        return Err(BackendError::Duplicate { stream: stream.to_owned() });
    }
    match answer.seq {
        Some(sequence) => Ok(Position::new(sequence)),
        None => Err(BackendError::Corrupt { detail: "an acknowledgement without sequence".into() }),
    }
}

/// What a refused write means. What is not known to be refused counts as unproven.
fn write_refused(stream: &str, error: &ApiError) -> BackendError {
    let detail = format!("{} ({}) from stream {stream}", error.description, error.err_code);
    match error.err_code {
        10071 | 10164 => BackendError::Conflict { detail },
        10201 => BackendError::Duplicate { stream: stream.to_owned() },
        // The account has no room left; or too many batches are open, and the batch was never begun.
        10002 | 10210 => BackendError::Unavailable { detail, source: None },
        10174 => BackendError::Unsupported {
            detail: format!("{detail}; the stream needs allow_atomic = true"),
        },
        10158 | 10176 => BackendError::unknown(detail),
        10059 => BackendError::NotFound { what: format!("stream {stream}") },
        _ if error.code == 400 => BackendError::Invalid { detail },
        _ => BackendError::unknown(detail),
    }
}

/// A read that got no answer leaves nothing unknown.
pub(super) fn unread(error: BackendError) -> BackendError {
    match error {
        BackendError::Unknown { detail, source } => BackendError::Unavailable { detail, source },
        other => other,
    }
}

/// Reads the answer to a request of the JetStream API.
pub(super) fn api_answer<T: serde::de::DeserializeOwned>(
    stream: &str,
    payload: &[u8],
) -> Result<T, BackendError> {
    let answer: Answer<'_> = parse(payload)?;
    let Some(error) = answer.error else { return parse(payload) };
    let error: ApiError = parse(error.get().as_bytes())?;
    let detail = format!("{} ({}) from stream {stream}", error.description, error.err_code);
    Err(match (error.err_code, error.code) {
        (10037, _) => BackendError::NotFound { what: NO_MESSAGE.to_owned() },
        (10059, _) => BackendError::NotFound { what: format!("stream {stream}") },
        (_, 400..500) => BackendError::Invalid { detail },
        _ => BackendError::unavailable(detail),
    })
}

#[derive(Deserialize)]
pub(crate) struct Info {
    created: String,
    /// How many subjects match the filter, where one was given.
    #[serde(default)]
    pub(crate) total: usize,
    pub(super) config: InfoConfig,
    pub(crate) state: InfoState,
}

#[derive(Deserialize)]
pub(super) struct InfoConfig {
    pub(super) num_replicas: usize,
    /// How many messages of a subject are kept; -1 for all.
    pub(super) max_msgs_per_subject: i64,
}

#[derive(Deserialize)]
pub(crate) struct InfoState {
    messages: u64,
    first_seq: u64,
    last_seq: u64,
    #[serde(default)]
    pub(crate) subjects: std::collections::BTreeMap<String, u64>,
}

impl Info {
    pub(super) fn status(&self) -> Result<LogStatus, BackendError> {
        Ok(LogStatus {
            last: Position::new(self.state.last_seq),
            messages: self.state.messages,
            created: timestamp(&self.created)?,
        })
    }

    /// Where the stream ends, by its last message.
    pub(super) fn end(&self, newest: Option<&StoredMessage>) -> Position {
        let before_first = || Position::new(self.state.first_seq.saturating_sub(1));
        newest.map_or_else(before_first, |newest| newest.position)
    }
}

#[derive(Deserialize)]
pub(super) struct LeaderAnswer {
    pub(super) message: LeaderMessage,
}

#[derive(Deserialize)]
pub(super) struct LeaderMessage {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: String,
}

impl LeaderMessage {
    pub(super) fn into_stored(self) -> Result<StoredMessage, BackendError> {
        let decode = |text: &str| BASE64.decode(text).map_err(corrupt);
        let lines = String::from_utf8(decode(&self.hdrs)?).map_err(corrupt)?;
        let headers = lines.lines().skip(1).filter_map(|line| line.split_once(':'));
        Ok(StoredMessage {
            subject: Subject::trusted(self.subject),
            position: Position::new(self.seq),
            time: timestamp(&self.time)?,
            headers: headers
                .filter(|(name, _)| !is_protocol(name))
                .map(|(name, value)| (name, value.trim()))
                .collect(),
            payload: decode(&self.data)?.into(),
        })
    }
}

/// Reads the answer to a direct get of one message.
pub(super) fn direct_answer(
    message: async_nats::Message,
) -> Result<Option<StoredMessage>, BackendError> {
    match message.status.map(|status| status.as_u16()) {
        None => delivered(message).map(|delivered| Some(delivered.message)),
        Some(404) => Ok(None),
        Some(code) => Err(direct_refused(code, &message)),
    }
}

pub(super) fn direct_refused(code: u16, message: &async_nats::Message) -> BackendError {
    let detail = format!("direct get: {code} {}", message.description.as_deref().unwrap_or(""));
    match code {
        413 => BackendError::TooMany { actual: MAX_MATCHING + 1, limit: MAX_MATCHING },
        408 | 400 => BackendError::Invalid { detail },
        _ => BackendError::unavailable(detail),
    }
}

/// A message as a direct get delivers it.
pub(super) struct Delivered {
    pub(super) message: StoredMessage,
    /// What the server sent before it in answer to the same request; `None` where it answers with one message only.
    pub(super) after: Option<Position>,
}

/// Reads a message as a direct get delivers it. One pass over the headers: millions of messages are read this way.
pub(super) fn delivered(message: async_nats::Message) -> Result<Delivered, BackendError> {
    let missing = || BackendError::Corrupt { detail: "a direct get without its headers".into() };
    let map = message.headers.ok_or_else(missing)?;
    let (mut subject, mut sequence, mut time, mut after) = (None, None, None, None);
    let mut own = Headers::with_capacity(names::ALL.len());
    for (name, values) in map.iter() {
        let Some(value) = values.first().map(HeaderValue::as_str) else { continue };
        let name: &str = name.as_ref();
        match name {
            SUBJECT => subject = Some(Subject::trusted(value)),
            SEQUENCE => sequence = Some(position(value)?),
            TIME => time = Some(timestamp(value)?),
            LAST_SEQUENCE => after = Some(position(value)?),
            _ if is_protocol(name) => {}
            _ => own.push(name, value),
        }
    }
    let message = StoredMessage {
        subject: subject.ok_or_else(missing)?,
        position: sequence.ok_or_else(missing)?,
        time: time.ok_or_else(missing)?,
        headers: own,
        payload: message.payload,
    };
    Ok(Delivered { message, after })
}

/// What the server had sent when it closed its answer to a batched direct get.
pub(super) struct Closing {
    pub(super) after: Option<Position>,
    pub(super) pending: u64,
    /// Up to where the server looked; 0 where it does not say.
    pub(super) up_to: u64,
}

/// Reads the status message that closes an answer.
pub(super) fn closing(message: &async_nats::Message) -> Closing {
    let number = |name: &str| {
        let headers = message.headers.as_ref()?;
        headers.get(name)?.as_str().parse().ok()
    };
    Closing {
        after: number(LAST_SEQUENCE).map(Position::new),
        pending: number(PENDING).unwrap_or(0),
        up_to: number(UP_TO).unwrap_or(0),
    }
}

pub(super) fn neutral_headers(map: &HeaderMap) -> Headers {
    map.iter()
        .filter_map(|(name, values)| {
            let name: &str = name.as_ref();
            let value = values.first()?;
            (!is_protocol(name)).then(|| (name, value.as_str()))
        })
        .collect()
}

fn position(text: &str) -> Result<Position, BackendError> {
    text.parse().map(Position::new).map_err(corrupt)
}

/// Headers that say how a message travelled, not what it is.
fn is_protocol(name: &str) -> bool {
    name.starts_with("Nats-") && name != names::MSG_ID
}

fn timestamp(text: &str) -> Result<Timestamp, BackendError> {
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(corrupt)?;
    let seconds = u64::try_from(time.unix_timestamp()).unwrap_or(0);
    Ok(Timestamp::from_micros(seconds * 1_000_000 + u64::from(time.microsecond())))
}

fn parse<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, BackendError> {
    serde_json::from_slice(payload).map_err(corrupt)
}

fn corrupt(error: impl std::fmt::Display) -> BackendError {
    BackendError::Corrupt { detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_without_room_may_have_some_later() {
        let refused = |err_code: u64| {
            let error = serde_json::json!({ "code": 400, "err_code": err_code });
            ack("S", serde_json::json!({ "error": error }).to_string().as_bytes()).unwrap_err()
        };
        assert!(matches!(refused(10002), BackendError::Unavailable { .. }));
        assert!(matches!(refused(10054), BackendError::Invalid { .. }));
    }
}
