//! The codecs and hashes a block may use.

use cid::Cid;
use ipld_core::ipld::Ipld;
use multihash_codetable::{Code, MultihashDigest};
use serde::{Deserialize, Serialize};

use super::BlockError;

/// How blocks are written: as IPLD with a CID, or as plain JSON without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlockFormat {
    /// An IPLD block: it has a CID, and links to the block before it.
    Ipld(Codec, Hash),
    /// Plain JSON: no CID, no chain, no proof that nothing was changed.
    PlainJson,
}

impl Default for BlockFormat {
    fn default() -> Self {
        Self::Ipld(Codec::DagCbor, Hash::Sha2)
    }
}

/// The codec of an IPLD block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Codec {
    /// DAG-CBOR, code 0x71.
    DagCbor,
    /// DAG-JSON, code 0x0129.
    DagJson,
}

impl Codec {
    /// Its code in the multicodec table.
    pub const fn code(self) -> u64 {
        match self {
            Self::DagCbor => 0x71,
            Self::DagJson => 0x0129,
        }
    }

    /// The codec a CID names, if it is one of these.
    pub fn of_cid(cid: &Cid) -> Option<Self> {
        Self::of(cid.codec())
    }

    fn of(code: u64) -> Option<Self> {
        [Self::DagCbor, Self::DagJson].into_iter().find(|codec| codec.code() == code)
    }
}

/// The hash in a block's CID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Hash {
    /// SHA2-256, code 0x12.
    Sha2,
    /// BLAKE3 with 256 bits, code 0x1e.
    Blake3,
}

impl Hash {
    /// Its code in the multicodec table.
    pub const fn code(self) -> u64 {
        match self {
            Self::Sha2 => 0x12,
            Self::Blake3 => 0x1e,
        }
    }

    fn of(code: u64) -> Option<Self> {
        [Self::Sha2, Self::Blake3].into_iter().find(|hash| hash.code() == code)
    }

    fn digest(self, bytes: &[u8]) -> multihash::Multihash<64> {
        match self {
            Self::Sha2 => Code::Sha2_256.digest(bytes),
            Self::Blake3 => Code::Blake3_256.digest(bytes),
        }
    }
}

/// A value cannot be written as a block. Change the value; nothing was stored.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be encoded: {reason}")]
pub struct EncodeError {
    /// What was to be encoded.
    pub what: String,
    /// Why the codec refused it, such as a number that is not finite or a map key that is not text.
    pub reason: String,
}

/// The CID of `bytes`: version 1, with this codec and hash.
pub fn cid_of(codec: Codec, hash: Hash, bytes: &[u8]) -> Cid {
    Cid::new_v1(codec.code(), hash.digest(bytes))
}

/// Recomputes the CID of `bytes` with the codec and hash that `claimed` names, and compares.
///
/// # Errors
/// [`BlockError::UnsupportedCid`] for a codec, hash or CID version this crate does not write,
/// [`BlockError::CidMismatch`] when the bytes are not what the CID covers.
pub fn verify_cid(claimed: &Cid, bytes: &[u8]) -> Result<Codec, BlockError> {
    let known = Codec::of(claimed.codec()).zip(Hash::of(claimed.hash().code()));
    let Some((codec, hash)) = known.filter(|_| claimed.version() == cid::Version::V1) else {
        return Err(BlockError::UnsupportedCid { cid: Box::new(*claimed) });
    };
    let actual = cid_of(codec, hash, bytes);
    if actual != *claimed {
        return Err(BlockError::CidMismatch {
            claimed: Box::new(*claimed),
            actual: Box::new(actual),
        });
    }
    Ok(codec)
}

/// Writes any value as a block of this format.
pub(crate) fn to_bytes<T: Serialize + ?Sized>(
    format: BlockFormat,
    value: &T,
) -> Result<Vec<u8>, String> {
    match format {
        BlockFormat::Ipld(Codec::DagCbor, _) => {
            serde_ipld_dagcbor::to_vec(value).map_err(|e| e.to_string())
        }
        BlockFormat::Ipld(Codec::DagJson, _) => {
            // Through the data model: only there are the keys of every map sorted.
            let value = ipld_core::serde::to_ipld(value).map_err(|e| e.to_string())?;
            serde_ipld_dagjson::to_vec(&value).map_err(|e| e.to_string())
        }
        BlockFormat::PlainJson => serde_json::to_vec(value).map_err(|e| e.to_string()),
    }
}

/// Reads a value from DAG-CBOR or DAG-JSON bytes that are in canonical form.
pub(crate) fn from_ipld_bytes<T: for<'de> Deserialize<'de>>(
    codec: Codec,
    bytes: &[u8],
) -> Result<T, BlockError> {
    match codec {
        // The decoder itself refuses what is not canonical: long heads, unsorted keys, short floats.
        Codec::DagCbor => Ok(serde_ipld_dagcbor::from_slice(bytes)?),
        Codec::DagJson => {
            let value: Ipld =
                serde_ipld_dagjson::from_slice(bytes).map_err(BlockError::malformed)?;
            let again = serde_ipld_dagjson::to_vec(&value).map_err(BlockError::malformed)?;
            if again != bytes {
                return Err(BlockError::NonCanonical);
            }
            ipld_core::serde::from_ipld(value).map_err(BlockError::malformed)
        }
    }
}

/// Reads a value whose codec is told by its first byte: `{` begins both kinds of JSON, and no DAG-CBOR map.
///
/// For derived records, which have no CID beside them to name their codec.
pub(crate) fn decode_any<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, String> {
    if bytes.first() != Some(&b'{') {
        return serde_ipld_dagcbor::from_slice(bytes).map_err(|e| e.to_string());
    }
    serde_ipld_dagjson::from_slice(bytes).map_err(|e| e.to_string())
}
