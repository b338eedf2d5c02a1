//! Headers: what consumers filter on, repeated from the block so that any NATS client can read it.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;

use cid::Cid;
use uuid::Uuid;

use super::Envelope;

/// The names of the headers.
pub mod names {
    /// What the server deduplicates messages by that no guard admits only once. No event has it: the server would have to
    /// remember each for nothing.
    pub const MSG_ID: &str = "Nats-Msg-Id";
    /// The event id.
    pub const EVENT_ID: &str = "Cim-Event-Id";
    /// The event type.
    pub const EVENT_TYPE: &str = "Cim-Event-Type";
    /// The version of the event type's shape.
    pub const SCHEMA_VERSION: &str = "Cim-Schema-Version";
    /// The event's version in its aggregate.
    pub const VERSION: &str = "Cim-Version";
    /// The block's CID.
    pub const CID: &str = "Cim-Cid";
    /// The correlation id; absent from an event that belongs to nothing but itself.
    pub const CORRELATION_ID: &str = "Cim-Correlation-Id";
    /// The causation id.
    pub const CAUSATION_ID: &str = "Cim-Causation-Id";

    /// All of them.
    pub(crate) const ALL: [&str; 8] =
        [EVENT_ID, EVENT_TYPE, SCHEMA_VERSION, VERSION, CID, CORRELATION_ID, CAUSATION_ID, MSG_ID];
}

/// The headers of one message, in the order they were added. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(Arc<Lines>);

/// All values in one text, because millions of events have several short ones each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Lines {
    /// Each name with the end of its value.
    names: Vec<(Cow<'static, str>, usize)>,
    values: String,
}

impl Lines {
    fn with_capacity(count: usize, bytes: usize) -> Self {
        Self { names: Vec::with_capacity(count), values: String::with_capacity(bytes) }
    }

    fn push(&mut self, name: Cow<'static, str>, value: &str) {
        self.values.push_str(value);
        self.names.push((name, self.values.len()));
    }
}

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// No headers, with room for `count`.
    pub fn with_capacity(count: usize) -> Self {
        Self(Arc::new(Lines::with_capacity(count, 0)))
    }

    /// Adds a header. Names are compared with their case.
    pub fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl AsRef<str>) {
        Arc::make_mut(&mut self.0).push(name.into(), value.as_ref());
    }

    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// All headers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut begin = 0;
        self.0.names.iter().map(move |(name, end)| {
            let value = &self.0.values[begin..*end];
            begin = *end;
            (name.as_ref(), value)
        })
    }

    /// The headers of an event: what its envelope and its CID say.
    pub fn of_event<D>(envelope: &Envelope<D>, cid: Option<&Cid>) -> Self {
        let mut lines = Lines::with_capacity(names::ALL.len(), USUAL_BYTES);
        let Ok(()) = each_field(envelope, cid, |name, value| {
            if let Some(value) = value {
                lines.push(name.into(), value);
            }
            Ok::<(), Infallible>(())
        });
        for (name, value) in envelope.metadata.trace() {
            lines.push(name.into(), value);
        }
        Self(Arc::new(lines))
    }

    /// Compares the headers of a stored event with its block.
    ///
    /// # Errors
    /// [`HeaderMismatch`] for the first header that says something else than the block, or is missing.
    pub fn check<D>(
        &self,
        envelope: &Envelope<D>,
        cid: Option<&Cid>,
    ) -> Result<(), HeaderMismatch> {
        each_field(envelope, cid, |name, block| {
            let header = self.get(name);
            if header == block {
                return Ok(());
            }
            Err(HeaderMismatch {
                name,
                header: header.map(str::to_owned),
                block: block.map(str::to_owned),
            })
        })
    }
}

impl<V: AsRef<str>> FromIterator<(Cow<'static, str>, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (Cow<'static, str>, V)>>(headers: I) -> Self {
        let mut lines = Lines::default();
        for (name, value) in headers {
            lines.push(name, value.as_ref());
        }
        Self(Arc::new(lines))
    }
}

/// A header says something else than the block it stands beside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header {name} is {header:?} but the block says {block:?}")]
pub struct HeaderMismatch {
    /// The header's name.
    pub name: &'static str,
    /// What the header says; `None` when it is missing.
    pub header: Option<String>,
    /// What the block says; `None` when the header should be missing.
    pub block: Option<String>,
}

/// Shows each header with the value that the block and its CID give it. The values are made in one place, one by one,
/// because millions of events are compared with their headers.
fn each_field<D, E>(
    envelope: &Envelope<D>,
    cid: Option<&Cid>,
    mut visit: impl FnMut(&'static str, Option<&str>) -> Result<(), E>,
) -> Result<(), E> {
    let mut uuid = Uuid::encode_buffer();
    let mut text = String::with_capacity(USUAL_CID_TEXT);
    visit(names::EVENT_ID, Some(envelope.event_id.hyphenated().encode_lower(&mut uuid)))?;
    visit(names::EVENT_TYPE, Some(envelope.event_type.as_str()))?;
    visit(names::SCHEMA_VERSION, Some(number_text(envelope.schema_version.into(), &mut text)))?;
    visit(names::VERSION, Some(number_text(envelope.version, &mut text)))?;
    visit(names::CID, cid.map(|cid| cid_text(cid, &mut text)))?;
    // An event that begins its own correlation says so by saying nothing.
    let correlation = Some(&envelope.correlation_id).filter(|id| **id != envelope.event_id);
    visit(names::CORRELATION_ID, correlation.map(|id| &*id.hyphenated().encode_lower(&mut uuid)))?;
    let causation = envelope.causation_id.as_ref();
    visit(names::CAUSATION_ID, causation.map(|id| &*id.hyphenated().encode_lower(&mut uuid)))
}

/// More than the values of an event's headers have together, most of the time.
const USUAL_BYTES: usize = 256;

/// The text of a CID of version 1 with 32 bytes of hash has 59 characters.
const USUAL_CID_TEXT: usize = 64;

fn number_text(number: u64, text: &mut String) -> &str {
    text.clear();
    // Writing into a string does not fail.
    let _ = write!(text, "{number}");
    text
}

/// The same as [`Cid`]'s own text, several times as fast.
fn cid_text<'t>(cid: &Cid, text: &'t mut String) -> &'t str {
    text.clear();
    let mut bytes = [0; USUAL_CID_TEXT];
    match cid.write_bytes(&mut bytes[..]) {
        Ok(length) if cid.version() == cid::Version::V1 => {
            text.push('b');
            base32(&bytes[..length], text);
        }
        _ => {
            let _ = write!(text, "{cid}");
        }
    }
    text
}

fn base32(bytes: &[u8], text: &mut String) {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    for five in bytes.chunks(5) {
        let bits = five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        let bits = bits << (8 * (5 - five.len()));
        for letter in 0..(five.len() * 8).div_ceil(5) {
            text.push(char::from(LETTERS[(bits >> (35 - 5 * letter) & 31) as usize]));
        }
    }
}
