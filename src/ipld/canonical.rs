//! The strict reader of DAG-CBOR: walks over bytes and refuses every form that is not the canonical one.
//!
//! It builds nothing. What the values mean is decided by [`event_cbor`](super::event_cbor) and by serde.

use cid::Cid;

use super::BlockError;

/// The most maps and lists that may lie within each other in a block, the block's own map among them.
///
/// Refused when a block is written as well as when it is read, so that what is stored can be read back.
pub const MAX_DEPTH: usize = 64;

/// Checks that `bytes` are one value in canonical DAG-CBOR.
pub(super) fn check(bytes: &[u8]) -> Result<(), BlockError> {
    let mut reader = Reader::new(bytes);
    reader.value(MAX_DEPTH)?;
    Ok(reader.end()?)
}

/// Checks a value that lies `above` maps and lists deep in a block.
pub(super) fn check_within(bytes: &[u8], above: usize) -> Result<(), BlockError> {
    let mut reader = Reader::new(bytes);
    reader.value(MAX_DEPTH - above)?;
    Ok(reader.end()?)
}

/// What is wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    NonCanonical,
    TooDeep,
    Malformed { at: usize, what: &'static str },
}

impl From<Flaw> for BlockError {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::NonCanonical => Self::NonCanonical,
            Flaw::TooDeep => Self::TooDeep,
            Flaw::Malformed { at, what } => {
                Self::Malformed { reason: format!("{what} at byte {at}") }
            }
        }
    }
}

type Read<T> = Result<T, Flaw>;

/// A place in DAG-CBOR bytes. Every reading method leaves it after what it has read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// These bytes and no others.
    pub(super) fn expect(&mut self, bytes: &[u8]) -> Read<()> {
        if !self.bytes[self.at..].starts_with(bytes) {
            return Err(self.malformed("something else than expected"));
        }
        self.at += bytes.len();
        Ok(())
    }

    pub(super) fn end(&self) -> Read<()> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.malformed("more bytes")) }
    }

    pub(super) fn text(&mut self) -> Read<&'a str> {
        let start = self.at;
        match self.head()? {
            (3, length) => {
                let bytes = self.take(length)?;
                std::str::from_utf8(bytes)
                    .map_err(|_| Flaw::Malformed { at: start, what: "text that is not UTF-8" })
            }
            _ => Err(Flaw::Malformed { at: start, what: "something else than text" }),
        }
    }

    pub(super) fn unsigned(&mut self) -> Read<u64> {
        match self.head()? {
            (0, value) => Ok(value),
            _ => Err(self.malformed("something else than an unsigned integer")),
        }
    }

    /// The number of entries of a map; its keys and values follow.
    pub(super) fn map(&mut self) -> Read<u64> {
        match self.head()? {
            (5, entries) => Ok(entries),
            _ => Err(self.malformed("something else than a map")),
        }
    }

    /// Whether the next value is null; if so it is read.
    pub(super) fn null(&mut self) -> bool {
        let null = self.bytes.get(self.at) == Some(&0xf6);
        self.at += usize::from(null);
        null
    }

    pub(super) fn link(&mut self) -> Read<Cid> {
        let start = self.at;
        let flaw = |what| Flaw::Malformed { at: start, what };
        match self.head()? {
            (6, 42) => {}
            _ => return Err(flaw("a tag that is not 42, a link")),
        }
        let (2, length) = self.head()? else { return Err(flaw("a link that is not bytes")) };
        let [0, bytes @ ..] = self.take(length)? else {
            return Err(flaw("a link without its leading zero"));
        };
        let cid = Cid::try_from(bytes).map_err(|_| flaw("a link that is not a CID"))?;
        // The parser of CIDs does not say whether it used all of the bytes.
        if cid.encoded_len() != bytes.len() {
            return Err(flaw("a link with more bytes than a CID"));
        }
        Ok(cid)
    }

    /// Any value; `depth` maps and lists may still be opened. Returns its bytes.
    pub(super) fn value(&mut self, depth: usize) -> Read<&'a [u8]> {
        let start = self.at;
        match self.bytes.get(start).map(|byte| byte >> 5) {
            Some(3) => drop(self.text()?),
            Some(6) => drop(self.link()?),
            Some(7) => self.simple()?,
            _ => match self.head()? {
                (2, length) => drop(self.take(length)?),
                (4, length) => {
                    let inner = depth.checked_sub(1).ok_or(Flaw::TooDeep)?;
                    for _ in 0..length {
                        self.value(inner)?;
                    }
                }
                (5, length) => self.entries(length, depth.checked_sub(1).ok_or(Flaw::TooDeep)?)?,
                _ => {}
            },
        }
        Ok(&self.bytes[start..self.at])
    }

    fn entries(&mut self, length: u64, depth: usize) -> Read<()> {
        let mut last: Option<&str> = None;
        for _ in 0..length {
            let key = self.text()?;
            if last.is_some_and(|last| !is_before(last, key)) {
                return Err(Flaw::NonCanonical);
            }
            last = Some(key);
            self.value(depth)?;
        }
        Ok(())
    }

    fn simple(&mut self) -> Read<()> {
        let start = self.at;
        match self.take(1)? {
            [0xf4..=0xf6] => Ok(()),
            [0xfb] => {
                let bytes = self.take(8)?.first_chunk().copied().unwrap_or_default();
                let value = f64::from_be_bytes(bytes);
                if !value.is_finite() {
                    return Err(Flaw::Malformed { at: start, what: "a float that is not finite" });
                }
                let negative_zero = value == 0.0 && value.is_sign_negative();
                if negative_zero { Err(Flaw::NonCanonical) } else { Ok(()) }
            }
            // Floats are written with eight bytes, however few would do.
            [0xf9 | 0xfa] => Err(Flaw::NonCanonical),
            _ => Err(Flaw::Malformed { at: start, what: "a simple value that IPLD does not have" }),
        }
    }

    fn head(&mut self) -> Read<(u8, u64)> {
        let [byte] = *self.take(1)? else { return Err(self.malformed("the end")) };
        let (argument, least) = match byte & 31 {
            small @ 0..=23 => (u64::from(small), 0),
            24 => (self.number(1)?, 24),
            25 => (self.number(2)?, 1 << 8),
            26 => (self.number(4)?, 1 << 16),
            27 => (self.number(8)?, 1 << 32),
            31 => return Err(Flaw::NonCanonical),
            _ => return Err(self.malformed("a reserved head before")),
        };
        if argument < least { Err(Flaw::NonCanonical) } else { Ok((byte >> 5, argument)) }
    }

    fn number(&mut self, length: u64) -> Read<u64> {
        let bytes = self.take(length)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn take(&mut self, length: u64) -> Read<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(length).ok().and_then(|length| rest.get(..length)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(self.malformed("the end of the bytes within a value")),
        }
    }

    fn malformed(&self, what: &'static str) -> Flaw {
        Flaw::Malformed { at: self.at, what }
    }
}

/// The order of map keys in DAG-CBOR: shorter ones first, then by their bytes.
pub(super) fn is_before(a: &str, b: &str) -> bool {
    (a.len(), a) < (b.len(), b)
}
