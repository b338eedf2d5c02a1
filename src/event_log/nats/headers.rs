//! The headers that a message travels with.

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use uuid::Uuid;

use crate::backend::{BackendError, Guard, NewMessage};
use crate::event::names;

const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
const EXPECTED_OF: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// Where in an atomic batch a message stands.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) batch: &'a str,
    /// Counted from 1.
    pub(super) number: usize,
    /// Whether the batch is to be stored with this message.
    pub(super) last: bool,
}

impl Place<'static> {
    /// The place that takes the most bytes.
    pub(super) const WIDEST: Self = Self { batch: "AAAAAAAAAAAAAAAA", number: 1000, last: true };
}

/// A name for a batch. Every message of it keeps the name, so it is short; only batches that are open at the same time, of
/// which a stream admits fifty, need different ones.
pub(super) fn new_batch_id() -> String {
    URL_SAFE_NO_PAD.encode(&Uuid::new_v4().as_bytes()[..12])
}

/// Refuses a message that cannot travel. The whole batch is looked at before any of it is sent.
pub(super) fn check(
    message: &NewMessage,
    place: Option<Place<'_>>,
    limit: usize,
) -> Result<(), BackendError> {
    check_lines(message)?;
    // The version line, a line for each header, an empty line.
    let mut actual =
        "NATS/1.0\r\n\r\n".len() + message.payload.len() + message.headers.lines().len();
    each_of_protocol(message, place, |name, value| {
        actual += name.len() + value.len() + ": \r\n".len();
    });
    if actual > limit {
        return Err(BackendError::TooLarge { subject: message.subject.clone(), actual, limit });
    }
    Ok(())
}

/// The headers that a message travels with: its own, its guard, its place in a batch.
///
/// To the client they are one header, whose value goes on with the lines of the others: a map of them all has two
/// allocations for each, and hashes each name.
pub(super) fn of(
    message: &NewMessage,
    place: Option<Place<'_>>,
) -> Result<HeaderMap, BackendError> {
    check_lines(message)?;
    let (mut first, mut lines) = (None, String::with_capacity(USUAL_BYTES));
    if let Some((name, rest)) = message.headers.lines().split_once(": ") {
        first = Some(header_name(name)?);
        lines.push_str(rest);
    }
    each_of_protocol(message, place, |name, value| {
        match first {
            None => first = Some(HeaderName::from_static(name)),
            Some(_) => lines.extend([name, ": "]),
        }
        lines.extend([value, "\r\n"]);
    });
    let Some(first) = first else { return Ok(HeaderMap::new()) };
    lines.truncate(lines.len() - "\r\n".len());
    // Deserialized, a value is taken as it is; a client that refuses line breaks there gets a map of them all.
    match HeaderValue::deserialize(lines.into_deserializer()) {
        Ok::<_, serde::de::value::Error>(value) => Ok([(first, value)].into_iter().collect()),
        Err(_) => separate_headers(message, place),
    }
}

/// Refuses a header that would be more than one, or none.
fn check_lines(message: &NewMessage) -> Result<(), BackendError> {
    if message.headers.has_odd() {
        for (name, value) in message.headers.iter() {
            header_name(name)?;
            header_value(name, value)?;
        }
    }
    Ok(())
}

fn separate_headers(
    message: &NewMessage,
    place: Option<Place<'_>>,
) -> Result<HeaderMap, BackendError> {
    let mut map = HeaderMap::new();
    for (name, value) in message.headers.iter() {
        map.insert(header_name(name)?, header_value(name, value)?);
    }
    each_of_protocol(message, place, |name, value| map.insert(name, value));
    Ok(map)
}

/// More than the headers of a message have together, most of the time.
const USUAL_BYTES: usize = 512;

/// The headers that a message has beside its own. None of them holds what cannot stand in a line.
fn each_of_protocol(
    message: &NewMessage,
    place: Option<Place<'_>>,
    mut visit: impl FnMut(&'static str, &str),
) {
    let mut digits = itoa::Buffer::new();
    match &message.guard {
        Guard::Free => {}
        Guard::Last(position) => visit(EXPECTED, digits.format(position.get())),
        Guard::LastOf(subject, position) => {
            visit(EXPECTED, digits.format(position.get()));
            visit(EXPECTED_OF, subject.as_str());
        }
    }
    if let Some(place) = place {
        visit(BATCH_ID, place.batch);
        visit(BATCH_SEQUENCE, digits.format(place.number));
        if place.last {
            visit(BATCH_COMMIT, "1");
        }
    }
}

fn header_name(name: &str) -> Result<HeaderName, BackendError> {
    if let Some(known) = names::ALL.into_iter().find(|known| *known == name) {
        return Ok(HeaderName::from_static(known));
    }
    HeaderName::try_from(name).map_err(|error| invalid_header(name, &error))
}

/// `HeaderMap::insert` panics on a line break in a text, parsing it does not.
fn header_value(name: &str, value: &str) -> Result<HeaderValue, BackendError> {
    value.parse().map_err(|error| invalid_header(name, &error))
}

fn invalid_header(name: &str, error: &dyn std::fmt::Display) -> BackendError {
    BackendError::Invalid { detail: format!("header {name}: {error}") }
}

#[cfg(test)]
mod tests {
    use super::{Place, of, separate_headers};
    use crate::backend::{Guard, NewMessage, Position};
    use crate::event::Headers;
    use crate::subject::Subject;

    fn message(guard: Guard) -> NewMessage {
        let mut headers = Headers::new();
        headers.push("Cim-Event-Type", "booked");
        headers.push("X-Of-Its-Own", "a: b");
        NewMessage { subject: Subject::trusted("a.b"), headers, payload: "x".into(), guard }
    }

    /// The lines as the client writes them, without the order that it gives to the headers of a map.
    fn lines(map: &async_nats::HeaderMap) -> Vec<String> {
        let written: String = map
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |value| (name, value)))
            .map(|(name, value)| format!("{}: {}\r\n", AsRef::<str>::as_ref(name), value.as_str()))
            .collect();
        let mut lines: Vec<_> = written.split_terminator("\r\n").map(str::to_owned).collect();
        lines.sort();
        lines
    }

    #[test]
    fn one_header_with_all_lines_is_written_as_the_headers_are() {
        let other = Guard::LastOf(Subject::trusted("c.d"), Position::new(7));
        for guard in [Guard::Free, Guard::Last(Position::new(42)), other] {
            for place in [None, Some(Place { batch: "b", number: 3, last: true })] {
                let message = message(guard.clone());
                let one = of(&message, place).unwrap();
                assert_eq!(one.len(), 1);
                assert_eq!(lines(&one), lines(&separate_headers(&message, place).unwrap()));
            }
        }
    }

    #[test]
    fn message_without_headers_has_none() {
        let message = NewMessage { headers: Headers::new(), ..message(Guard::Free) };
        assert!(of(&message, None).unwrap().is_empty());
    }

    #[test]
    fn line_break_begins_no_header() {
        let mut message = message(Guard::Free);
        message.headers.push("A", "b\r\nNats-Rollup: all");
        of(&message, None).unwrap_err();
        let mut message = self::message(Guard::Free);
        message.headers.push("A: b\r\nNats-Rollup", "all");
        of(&message, None).unwrap_err();
    }
}
