//! Headers: what consumers filter on, repeated from the block so that any NATS client can read it.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;

use cid::Cid;
use smallvec::SmallVec;
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

/// One text for all, because millions of events have several short headers each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Lines {
    /// A line for each header, as in a message.
    text: String,
    /// Where each name ends, and each value.
    ends: SmallVec<[(usize, usize); USUAL_COUNT]>,
    /// Whether something may not stand in a line.
    has_odd: bool,
}

/// Between a name and its value.
const COLON: &str = ": ";

const LINE_END: &str = "\r\n";

impl Lines {
    fn with_capacity(count: usize, bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
            ends: SmallVec::with_capacity(count),
            has_odd: false,
        }
    }

    fn push(&mut self, name: &str, value: &str) {
        self.has_odd |= !fits_a_line(name, value);
        self.push_fitting(name, value);
    }

    /// Adds what is known to fit a line.
    fn push_fitting(&mut self, name: &str, value: &str) {
        self.text.push_str(name);
        let end = self.text.len();
        self.text.extend([COLON, value]);
        self.ends.push((end, self.text.len()));
        self.text.push_str(LINE_END);
    }
}

fn fits_a_line(name: &str, value: &str) -> bool {
    // Without an early end, so that many bytes are compared at once.
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
        && !value.bytes().fold(false, |found, byte| found | byte.is_ascii_control())
}

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// No headers, with room for `count`.
    pub fn with_capacity(count: usize) -> Self {
        Self(Arc::new(Lines::with_capacity(count, count * USUAL_BYTES / USUAL_COUNT)))
    }

    /// Adds a header. Names are compared with their case.
    pub fn push(&mut self, name: impl AsRef<str>, value: impl AsRef<str>) {
        Arc::make_mut(&mut self.0).push(name.as_ref(), value.as_ref());
    }

    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// All headers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let (text, mut begin) = (self.0.text.as_str(), 0);
        self.0.ends.iter().map(move |(name_end, end)| {
            let header = (&text[begin..*name_end], &text[name_end + COLON.len()..*end]);
            begin = end + LINE_END.len();
            header
        })
    }

    /// The headers as they stand in a message, a line for each.
    pub(crate) fn lines(&self) -> &str {
        &self.0.text
    }

    /// Whether a name or a value may hold what cannot stand in a line.
    pub(crate) fn has_odd(&self) -> bool {
        self.0.has_odd
    }

    /// The headers of an event: what its envelope and its CID say.
    pub fn of_event<D>(envelope: &Envelope<D>, cid: Option<&Cid>) -> Self {
        let mut lines = Lines::with_capacity(USUAL_COUNT, USUAL_BYTES);
        let Ok(()) = each_field(envelope, cid, |name, value| {
            if let Some(value) = value {
                lines.push_fitting(name, value);
            }
            Ok::<(), Infallible>(())
        });
        for (name, value) in envelope.metadata.trace() {
            lines.push_fitting(name, value);
        }
        Self(Arc::new(lines))
    }

    /// Whether the headers are those of an event of this version and CID.
    pub(crate) fn name_event(&self, version: u64, cid: Option<&Cid>) -> bool {
        let (mut digits, mut text) = (itoa::Buffer::new(), [0; USUAL_CID_TEXT]);
        self.get(names::VERSION) == Some(digits.format(version))
            && self.get(names::CID) == cid.map(|cid| cid_text(cid, &mut text)).as_deref()
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

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut lines = Lines::with_capacity(0, USUAL_BYTES);
        for (name, value) in headers {
            lines.push(name.as_ref(), value.as_ref());
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
    let (mut uuid, mut digits) = (Uuid::encode_buffer(), itoa::Buffer::new());
    visit(names::EVENT_ID, Some(envelope.event_id.hyphenated().encode_lower(&mut uuid)))?;
    visit(names::EVENT_TYPE, Some(envelope.event_type.as_str()))?;
    visit(names::SCHEMA_VERSION, Some(digits.format(envelope.schema_version)))?;
    visit(names::VERSION, Some(digits.format(envelope.version)))?;
    let mut text = [0; USUAL_CID_TEXT];
    visit(names::CID, cid.map(|cid| cid_text(cid, &mut text)).as_deref())?;
    // An event that begins its own correlation says so by saying nothing.
    let correlation = Some(&envelope.correlation_id).filter(|id| **id != envelope.event_id);
    visit(names::CORRELATION_ID, correlation.map(|id| &*id.hyphenated().encode_lower(&mut uuid)))?;
    let causation = envelope.causation_id.as_ref();
    visit(names::CAUSATION_ID, causation.map(|id| &*id.hyphenated().encode_lower(&mut uuid)))
}

/// As many headers as most events have, or more.
const USUAL_COUNT: usize = names::ALL.len();

/// More than an event's headers have together, most of the time.
const USUAL_BYTES: usize = 320;

/// The text of a CID of version 1 with 32 bytes of hash has 59 characters.
const USUAL_CID_TEXT: usize = 64;

/// The same as [`Cid`]'s own text, several times as fast.
fn cid_text<'t>(cid: &Cid, text: &'t mut [u8; USUAL_CID_TEXT]) -> Cow<'t, str> {
    let mut bytes = [0; USUAL_CID_TEXT];
    let written = match cid.write_bytes(&mut bytes[..]) {
        Ok(length) if cid.version() == cid::Version::V1 => base32(&bytes[..length], text),
        _ => None,
    };
    written.map_or_else(|| Cow::Owned(cid.to_string()), Cow::Borrowed)
}

/// Multibase's `b`, if there is room for it.
fn base32<'t>(bytes: &[u8], text: &'t mut [u8]) -> Option<&'t str> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let length = 1 + (bytes.len() * 8).div_ceil(5);
    let text = text.get_mut(..length)?;
    text[0] = b'b';
    for (five, letters) in bytes.chunks(5).zip(text[1..].chunks_mut(8)) {
        let bits = five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        let bits = bits << (8 * (5 - five.len()));
        for (number, letter) in letters.iter_mut().enumerate() {
            *letter = LETTERS[(bits >> (35 - 5 * number) & 31) as usize];
        }
    }
    std::str::from_utf8(text).ok()
}
