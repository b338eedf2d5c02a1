//! What a client refuses before anything is sent, and how large a message is on its way.

use crate::backend::{BackendError, Guard, NewMessage, Position};
use crate::event::Headers;

use super::{Limits, Write};

/// The write as a server gets it, or why it is not sent.
pub(super) fn checked(mut write: Write, limits: &Limits) -> Result<Write, BackendError> {
    let limit = limits.max_message_bytes;
    match &mut write {
        Write::One(message) => {
            message.headers = legal_headers(&message.headers)?;
            size_within(message, 0, limit)?;
        }
        Write::Batch(messages) => {
            let (actual, limit_messages) = (messages.len(), limits.max_batch_messages);
            if actual > limit_messages {
                return Err(BackendError::TooMany { actual, limit: limit_messages });
            }
            for (message, place) in messages.iter_mut().zip(1..) {
                message.headers = legal_headers(&message.headers)?;
                size_within(message, batch_header_bytes(place, actual), limit)?;
            }
        }
    }
    Ok(write)
}

/// The headers as they come back from a server, or why they cannot be sent.
fn legal_headers(headers: &Headers) -> Result<Headers, BackendError> {
    for (name, value) in headers.iter() {
        let refuse =
            |why: &str| Err(BackendError::Invalid { detail: format!("header {name:?} {why}") });
        if name.is_empty() || name.contains(|c: char| !c.is_ascii_graphic() || c == ':') {
            return refuse("is not a name");
        }
        if value.contains(['\r', '\n']) {
            return refuse("has a line break in its value");
        }
    }
    Ok(headers.iter().map(|(name, value)| (name, value.trim())).collect())
}

/// Whether a message fits, with its headers as they are on the wire and what the protocol adds.
fn size_within(message: &NewMessage, protocol: usize, limit: usize) -> Result<(), BackendError> {
    let digits = |position: &Position| position.to_string().len();
    let expected = "Nats-Expected-Last-Subject-Sequence".len();
    let guard = match &message.guard {
        Guard::Free => 0,
        Guard::Last(position) => line(expected, digits(position)),
        Guard::LastOf(subject, position) => {
            line(expected, digits(position))
                + line(expected + "-Subject".len(), subject.as_str().len())
        }
    };
    let headers: usize =
        message.headers.iter().map(|(name, value)| line(name.len(), value.len())).sum();
    let actual = "NATS/1.0\r\n\r\n".len() + headers + guard + protocol + message.payload.len();
    if actual > limit {
        return Err(BackendError::TooLarge { subject: message.subject.clone(), actual, limit });
    }
    Ok(())
}

/// The bytes of a header on the wire: name, colon, space, value, line break.
fn line(name: usize, value: usize) -> usize {
    name + value + 4
}

fn batch_header_bytes(place: usize, count: usize) -> usize {
    const ID_BYTES: usize = 16;
    let commit = if place == count { line("Nats-Batch-Commit".len(), 1) } else { 0 };
    line("Nats-Batch-Id".len(), ID_BYTES)
        + line("Nats-Batch-Sequence".len(), place.to_string().len())
        + commit
}
