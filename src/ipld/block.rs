//! The event block: an envelope as bytes, and bytes as an envelope that can be trusted.

use bytes::Bytes;
use cid::Cid;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::canonical::{self, MAX_DEPTH};
use super::codec::{self, BlockFormat, Codec, EncodeError};
use super::{dag_json, event_cbor, refusal};
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
        Ok(Self { cid: format.cid_of(&bytes), bytes: bytes.into() })
    }

    /// The CID of the block that a value would be.
    pub(crate) fn cid<T: Serialize + ?Sized>(
        format: BlockFormat,
        value: &T,
    ) -> Result<Option<Cid>, String> {
        Ok(format.cid_of(&codec::to_bytes(format, value)?))
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
    #[error(
        "CID {cid} is not version 1 with DAG-CBOR or DAG-JSON and SHA2-256 or BLAKE3-256; another program wrote it, or a \
         newer version of this crate; upgrade, or read it with the program that wrote it"
    )]
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
    /// Maps and lists lie within each other too deep. No block of this crate does; keep such data as text.
    #[error("the block nests maps and lists more than {MAX_DEPTH} deep")]
    TooDeep,
    /// The bytes are not a block of this codec, or have other fields than an event. They were not written by this crate.
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
/// not text, an integer beyond 64 bits, more than [`MAX_DEPTH`] maps and lists within each other, in DAG-JSON also a map
/// key `/`.
pub fn encode_event<D: Serialize>(
    format: BlockFormat,
    envelope: Envelope<&D>,
) -> Result<EncodedEvent, EncodeError> {
    let block = encode_block(format, &envelope)?;
    Ok(EncodedEvent { envelope: with_data(envelope, ()), block })
}

/// As [`encode_event`], for an envelope that is still needed.
pub(crate) fn encode_block<D: Serialize>(
    format: BlockFormat,
    envelope: &Envelope<&D>,
) -> Result<Block, EncodeError> {
    event_block(format, envelope).map_err(|reason| EncodeError {
        what: format!("event {} of {}/{}", envelope.event_type, envelope.aggregate, envelope.id),
        reason,
    })
}

fn event_block<D: Serialize>(
    format: BlockFormat,
    envelope: &Envelope<&D>,
) -> Result<Block, String> {
    let BlockFormat::Ipld(codec, hash) = format else {
        return Block::encode(format, envelope);
    };
    let (cbor, data) =
        event_cbor::write(envelope).map_err(|error| refusal::explain(envelope, error))?;
    // Code of the event's own may have written it. What cannot be read back must not be stored.
    canonical::check_within(&cbor[data], 1).map_err(|error| error.to_string())?;
    let bytes = match codec {
        Codec::DagCbor => cbor,
        Codec::DagJson => dag_json::from_cbor(&cbor)?,
    };
    Ok(Block { cid: Some(codec::cid_of(codec, hash, &bytes)), bytes: bytes.into() })
}

/// Reads a stored event: first its CID is recomputed over the bytes, then they are decoded, strictly.
///
/// `claimed` is the CID stored beside the block. Without one the bytes are read as plain JSON.
///
/// # Errors
/// [`BlockError`], as its variants say.
pub fn decode_event(bytes: &[u8], claimed: Option<&Cid>) -> Result<Envelope<()>, BlockError> {
    let envelope = match claimed {
        Some(cid) => {
            let cbor = codec::as_cbor(codec::verify_cid(cid, bytes)?, bytes)?;
            match event_cbor::read(&cbor) {
                Some(envelope) => envelope,
                None => decode_slowly(&cbor)?,
            }
        }
        None => serde_json::from_slice(bytes).map(ignoring).map_err(BlockError::malformed)?,
    };
    if envelope.format != Envelope::FORMAT {
        return Err(BlockError::UnknownFormat { found: envelope.format });
    }
    Ok(envelope)
}

/// Finds out what is wrong with bytes that are not quite an event.
#[cold]
fn decode_slowly(cbor: &[u8]) -> Result<Envelope<()>, BlockError> {
    #[derive(Deserialize)]
    struct OnlyFormat {
        format: u32,
    }
    canonical::check(cbor)?;
    // Another format may have other fields, so it is looked at first.
    if let Ok(OnlyFormat { format: found }) = codec::from_cbor(cbor)
        && found != Envelope::FORMAT
    {
        return Err(BlockError::UnknownFormat { found });
    }
    codec::from_cbor(cbor).map(ignoring)
}

/// Reads the domain event out of a block that [`decode_event`] has accepted.
///
/// # Errors
/// [`BlockError::Malformed`] when the data does not have the shape of `E`.
pub fn decode_data<E: DomainEvent>(bytes: &[u8], codec: Option<Codec>) -> Result<E, BlockError> {
    decode_data_as(bytes, codec)
}

pub(crate) fn decode_data_as<T: DeserializeOwned>(
    bytes: &[u8],
    codec: Option<Codec>,
) -> Result<T, BlockError> {
    #[derive(Deserialize)]
    struct OnlyData<T> {
        data: T,
    }
    let Some(codec) = codec else {
        let block: OnlyData<T> = serde_json::from_slice(bytes).map_err(BlockError::malformed)?;
        return Ok(block.data);
    };
    let cbor = codec::as_cbor(codec, bytes)?;
    let data = event_cbor::data(&cbor)
        .ok_or_else(|| BlockError::Malformed { reason: "it is not an event".to_owned() })?;
    codec::from_cbor(data)
}

fn ignoring(envelope: Envelope<IgnoredAny>) -> Envelope<()> {
    with_data(envelope, ())
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
