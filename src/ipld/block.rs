//! The event block: an envelope as bytes, and bytes as an envelope that can be trusted.

use bytes::Bytes;
use cid::Cid;
use serde::{Deserialize, Serialize};

use super::codec::{self, BlockFormat, Codec, EncodeError};
use super::walk::Walked;
use crate::event::{DomainEvent, Envelope};

/// Bytes with the CID that covers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The CID; `None` for plain JSON.
    pub cid: Option<Cid>,
    /// The exact bytes that are stored.
    pub bytes: Bytes,
}

impl Block {
    /// Writes a value as a block.
    ///
    /// # Errors
    /// The codec's reason, as text, when it refuses the value.
    pub fn encode<T: Serialize + ?Sized>(format: BlockFormat, value: &T) -> Result<Self, String> {
        let bytes = codec::to_bytes(format, value)?;
        let cid = match format {
            BlockFormat::Ipld(codec, hash) => Some(codec::cid_of(codec, hash, &bytes)),
            BlockFormat::PlainJson => None,
        };
        Ok(Self { cid, bytes: bytes.into() })
    }
}

/// Why stored bytes are not the block they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The bytes were changed after they were written. Restore the stream from a copy; see `verify`.
    #[error(
        "the block's bytes hash to {actual}, not to {claimed}; it was changed after it was written"
    )]
    CidMismatch {
        /// The CID stored beside the block.
        claimed: Box<Cid>,
        /// The CID of the bytes.
        actual: Box<Cid>,
    },
    /// The CID has a version, codec or hash this crate does not write. Read it with the software that wrote it.
    #[error("CID {cid} is not version 1 with DAG-CBOR or DAG-JSON and SHA2-256 or BLAKE3-256")]
    UnsupportedCid {
        /// The CID.
        cid: Box<Cid>,
    },
    /// A text that should be a CID is none.
    #[error("{text:?} is not a CID: {reason}")]
    NotACid {
        /// The text.
        text: String,
        /// Why not.
        reason: String,
    },
    /// The block has no CID but the context keeps chains (`enable_ipld`). It was not written with this configuration.
    #[error("the event has no CID, but this context keeps chains (enable_ipld = true)")]
    NoCid,
    /// The bytes mean something, but they are not how a block with this meaning is written.
    #[error("the block is not in canonical form")]
    NonCanonical,
    /// The bytes are not a block of this codec, or have other fields than an event.
    #[error("the block cannot be decoded: {reason}")]
    Malformed {
        /// Why not.
        reason: String,
    },
    /// The block was written by a newer version of this crate. Upgrade.
    #[error(
        "the block has wire format {found}, this version reads format {}; upgrade",
        Envelope::FORMAT
    )]
    UnknownFormat {
        /// The format's number.
        found: u32,
    },
}

impl BlockError {
    pub(super) fn malformed(error: impl ToString) -> Self {
        Self::Malformed { reason: error.to_string() }
    }
}

impl From<serde_ipld_dagcbor::DecodeError<std::convert::Infallible>> for BlockError {
    fn from(error: serde_ipld_dagcbor::DecodeError<std::convert::Infallible>) -> Self {
        use serde_ipld_dagcbor::DecodeError as E;
        match error {
            E::NonMinimal { .. } | E::UnorderedKey | E::IndefiniteSize => Self::NonCanonical,
            other => Self::malformed(other),
        }
    }
}

/// An event that is ready to be stored: its block, and the envelope it was made from.
#[derive(Debug, Clone)]
pub struct EncodedEvent {
    /// The envelope, without the data.
    pub envelope: Envelope<()>,
    /// The block.
    pub block: Block,
}

/// Writes an event as a block.
///
/// # Errors
/// [`EncodeError`] when the event holds what the codec cannot write: a float that is not finite, a map key that is
/// not text, an integer beyond 64 bits.
pub fn encode_event<D: Serialize>(
    format: BlockFormat,
    envelope: Envelope<&D>,
) -> Result<EncodedEvent, EncodeError> {
    let block = Block::encode(format, &envelope).map_err(|reason| EncodeError {
        what: format!("event {} of {}/{}", envelope.event_type, envelope.aggregate, envelope.id),
        reason,
    })?;
    Ok(EncodedEvent { envelope: with_data(envelope, ()), block })
}

/// Reads a stored event: first its CID is recomputed over the bytes, then they are decoded, strictly.
///
/// `claimed` is the CID stored beside the block. Without one the bytes are read as plain JSON.
///
/// # Errors
/// [`BlockError`], as its variants say.
pub fn decode_event(bytes: &[u8], claimed: Option<&Cid>) -> Result<Envelope<()>, BlockError> {
    let envelope: Envelope<Walked> = match claimed {
        Some(cid) => {
            let codec = codec::verify_cid(cid, bytes)?;
            codec::from_ipld_bytes(codec, bytes)?
        }
        None => serde_json::from_slice(bytes).map_err(BlockError::malformed)?,
    };
    if envelope.format != Envelope::FORMAT {
        return Err(BlockError::UnknownFormat { found: envelope.format });
    }
    Ok(with_data(envelope, ()))
}

/// Reads the domain event out of a block that [`decode_event`] has accepted.
///
/// # Errors
/// [`BlockError::Malformed`] when the data does not have the shape of `E`.
pub fn decode_data<E: DomainEvent>(bytes: &[u8], codec: Option<Codec>) -> Result<E, BlockError> {
    decode_data_as(bytes, codec)
}

pub(crate) fn decode_data_as<T: for<'de> Deserialize<'de>>(
    bytes: &[u8],
    codec: Option<Codec>,
) -> Result<T, BlockError> {
    #[derive(Deserialize)]
    struct OnlyData<T> {
        data: T,
    }
    let block: OnlyData<T> = match codec {
        Some(codec) => codec::from_ipld_bytes(codec, bytes)?,
        None => serde_json::from_slice(bytes).map_err(BlockError::malformed)?,
    };
    Ok(block.data)
}

fn with_data<D, N>(envelope: Envelope<D>, data: N) -> Envelope<N> {
    let Envelope {
        format,
        context,
        aggregate,
        id,
        version,
        event_type,
        schema_version,
        event_id,
        occurred_at,
        correlation_id,
        causation_id,
        metadata,
        previous,
        data: _,
    } = envelope;
    Envelope {
        format,
        context,
        aggregate,
        id,
        version,
        event_type,
        schema_version,
        event_id,
        occurred_at,
        correlation_id,
        causation_id,
        metadata,
        previous,
        data,
    }
}
