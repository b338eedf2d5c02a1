//! Messages as a consumer delivers them: where they lie in the stream is in the subject to reply to.

use async_nats::Message;

use crate::backend::{BackendError, Position, StoredMessage};
use crate::clock::Timestamp;
use crate::event_log::nats::wire;
use crate::subject::Subject;

/// A message, and what the consumer says of itself beside it.
pub(super) struct Delivered {
    pub(super) message: StoredMessage,
    /// How many messages the consumer has still to deliver.
    pub(super) pending: u64,
}

/// Reads a message and its number among those of its consumer.
pub(super) fn delivered(message: Message) -> Result<(u64, Delivered), BackendError> {
    let reply = message.reply.as_deref().unwrap_or_default();
    let place = Place::parse(reply).ok_or_else(|| BackendError::Corrupt {
        detail: format!("a message from a consumer with the reply subject {reply:?}"),
    })?;
    let stored = StoredMessage {
        subject: Subject::trusted(message.subject.as_str()),
        position: Position::new(place.sequence),
        time: Timestamp::from_micros(place.nanos / 1000),
        headers: message.headers.as_ref().map(wire::neutral_headers).unwrap_or_default(),
        payload: message.payload,
    };
    Ok((place.number, Delivered { message: stored, pending: place.pending }))
}

#[derive(Debug, PartialEq, Eq)]
struct Place {
    sequence: u64,
    number: u64,
    nanos: u64,
    pending: u64,
}

impl Place {
    /// Reads `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<number>.<time>.<pending>`; before the stream there may
    /// be domain and account, and after the last number whatever a later server adds.
    fn parse(reply: &str) -> Option<Self> {
        const SHORT: usize = 7;
        let tokens = reply.strip_prefix("$JS.ACK.")?;
        let dots = tokens.bytes().filter(|byte| *byte == b'.').count();
        let skipped = if dots < SHORT { 3 } else { 5 };
        let mut numbers = tokens.split('.').skip(skipped).map(|token| token.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Self { sequence: next()?, number: next()?, nanos: next()?, pending: next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_read_in_every_form() {
        let wanted =
            Place { sequence: 22, number: 3, nanos: 1_700_000_000_123_456_789, pending: 7 };
        for reply in [
            "$JS.ACK.S.c.1.22.3.1700000000123456789.7",
            "$JS.ACK._.AHASH.S.c.1.22.3.1700000000123456789.7",
            "$JS.ACK.hub.AHASH.S.c.1.22.3.1700000000123456789.7.random",
        ] {
            assert_eq!(Place::parse(reply).as_ref(), Some(&wanted), "{reply}");
        }
        for reply in ["", "_INBOX.x", "$JS.ACK.", "$JS.ACK.S.c.1.22.3.x.7", "$JS.ACK.S.c.1.22.3.17"]
        {
            assert_eq!(Place::parse(reply), None, "{reply}");
        }
    }
}
