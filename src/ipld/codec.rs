//! The codecs and hashes a block may use.

use std::borrow::Cow;
use std::collections::TryReserveError;

use cid::Cid;
use multihash_codetable::{Code, MultihashDigest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_ipld_dagcbor::ser::{BufWriter, Serializer};

use super::{BlockError, canonical, cbor_writer, dag_json, refusal};

/// How blocks are written: as IPLD with a CID, or as plain JSON without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlockFormat {
    /// An IPLD block: it has a CID, and links to the block before it.
    Ipld(Codec, Hash),
    /// Plain JSON: no CID, no chain, no proof that nothing was changed.
    PlainJson,
}

impl BlockFormat {
    /// The CID of a block with these bytes; `None` for plain JSON.
    pub(super) fn cid_of(self, bytes: &[u8]) -> Option<Cid> {
        match self {
            Self::Ipld(codec, hash) => Some(cid_of(codec, hash, bytes)),
            Self::PlainJson => None,
        }
    }
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
#[error("{what} cannot be encoded: {reason}; change the value, nothing was stored")]
pub struct EncodeError {
    /// What was to be encoded.
    pub what: String,
    /// Why the codec refused it, such as a number that is not finite or a map key that is not text.
    pub reason: String,
}

/// The CID of `bytes`: version 1, with this codec and hash.
///
/// ```
/// use cim_persistence::ipld::{Codec, Hash, cid_of, verify_cid};
/// let cid = cid_of(Codec::DagCbor, Hash::Sha2, b"\x63abc");
/// assert_eq!(verify_cid(&cid, b"\x63abc")?, Codec::DagCbor);
/// assert!(verify_cid(&cid, b"\x63abd").is_err());
/// # Ok::<(), cim_persistence::ipld::BlockError>(())
/// ```
pub fn cid_of(codec: Codec, hash: Hash, bytes: &[u8]) -> Cid {
    Cid::new_v1(codec.code(), hash.digest(bytes))
}

/// Recomputes the CID of `bytes` with the codec and hash that `claimed` names, and compares.
///
/// # Errors
/// [`BlockError::UnsupportedCid`] for a codec, hash or CID version this crate does not write,
/// [`BlockError::CidMismatch`] when the bytes are not what the CID covers.
pub fn verify_cid(claimed: &Cid, bytes: &[u8]) -> Result<Codec, BlockError> {
    let (codec, hash) = supported(claimed)?;
    let actual = cid_of(codec, hash, bytes);
    if actual != *claimed {
        return Err(BlockError::CidMismatch {
            claimed: Box::new(*claimed),
            actual: Box::new(actual),
        });
    }
    Ok(codec)
}

/// Refuses a CID that no block of this crate has.
pub(crate) fn check_supported(cid: &Cid) -> Result<(), BlockError> {
    supported(cid).map(drop)
}

/// Checks that bytes are the block that a CID names, in canonical form.
pub(crate) fn check_block(bytes: &[u8], cid: &Cid) -> Result<(), BlockError> {
    let codec = verify_cid(cid, bytes)?;
    canonical::check(&as_cbor(codec, bytes)?)
}

fn supported(cid: &Cid) -> Result<(Codec, Hash), BlockError> {
    let known = Codec::of(cid.codec()).zip(Hash::of(cid.hash().code()));
    known
        .filter(|_| cid.version() == cid::Version::V1)
        .ok_or_else(|| BlockError::UnsupportedCid { cid: Box::new(*cid) })
}

/// Writes any value as a block of this format. What it writes can be read back.
pub(super) fn to_bytes<T: Serialize + ?Sized>(
    format: BlockFormat,
    value: &T,
) -> Result<Vec<u8>, String> {
    match format {
        BlockFormat::Ipld(Codec::DagCbor, _) => cbor(value),
        BlockFormat::Ipld(Codec::DagJson, _) => dag_json::from_cbor(&cbor(value)?),
        BlockFormat::PlainJson => plain_json(value),
    }
}

/// Reads a value from DAG-CBOR or DAG-JSON bytes that are in canonical form.
pub(super) fn from_bytes<T: DeserializeOwned>(codec: Codec, bytes: &[u8]) -> Result<T, BlockError> {
    let cbor = as_cbor(codec, bytes)?;
    canonical::check(&cbor)?;
    from_cbor(&cbor)
}

/// The DAG-CBOR form of a block. Bytes of DAG-CBOR are given back unchecked.
pub(super) fn as_cbor(codec: Codec, bytes: &[u8]) -> Result<Cow<'_, [u8]>, BlockError> {
    match codec {
        Codec::DagCbor => Ok(Cow::Borrowed(bytes)),
        Codec::DagJson => dag_json::to_cbor(bytes).map(Cow::Owned),
    }
}

/// Reads a value from DAG-CBOR bytes, whose form was checked before or does not matter.
pub(super) fn from_cbor<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, BlockError> {
    serde_ipld_dagcbor::from_slice(bytes).map_err(|error| match error {
        serde_ipld_dagcbor::DecodeError::Msg(reason) => BlockError::Malformed { reason },
        other => BlockError::malformed(other),
    })
}

/// Reads a value whose codec is told by its first byte: `{` begins both kinds of JSON, and no DAG-CBOR map.
///
/// For derived records, which have no CID beside them to name their codec, and none that covers them, so that the form of
/// DAG-CBOR is not checked. JSON that is not in the canonical form of DAG-JSON is plain: its keys stand in the order of the
/// fields, so the two are told apart as long as that order is not the sorted one. What was told wrongly does not decode, because
/// texts stand for what is no text in DAG-JSON, and is read as plain then.
pub(crate) fn decode_any<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if bytes.first() != Some(&b'{') {
        return from_cbor(bytes).map_err(|error| error.to_string());
    }
    let plain = || serde_json::from_slice(bytes).map_err(|error| error.to_string());
    match canonical_json(bytes) {
        Some(cbor) => from_cbor(&cbor).or_else(|error| plain().map_err(|_| error.to_string())),
        None => plain(),
    }
}

/// The codec of a record that [`decode_any`] reads, `None` being plain JSON.
pub(crate) fn codec_of_any(bytes: &[u8]) -> Option<Codec> {
    match bytes.first() {
        Some(b'{') => canonical_json(bytes).map(|_| Codec::DagJson),
        _ => Some(Codec::DagCbor),
    }
}

/// Canonical DAG-JSON as DAG-CBOR; nothing for any other text.
fn canonical_json(bytes: &[u8]) -> Option<Vec<u8>> {
    let cbor = dag_json::to_cbor(bytes).ok()?;
    canonical::check(&cbor).ok()?;
    Some(cbor)
}

/// More than most values take.
const USUAL_BYTES: usize = 256;

/// Writes a value as DAG-CBOR behind what is there already.
pub(super) fn append_cbor<T: Serialize + ?Sized>(
    out: Vec<u8>,
    value: &T,
) -> Result<Vec<u8>, EncodeFailure> {
    let (out, written) = cbor_writer::append(out, value);
    if written.is_ok() {
        return Ok(out);
    }
    let mut serializer = Serializer::new(BufWriter::new(out));
    value.serialize(&mut serializer)?;
    Ok(serializer.into_inner().into_inner())
}

type EncodeFailure = serde_ipld_dagcbor::EncodeError<TryReserveError>;

fn cbor<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, String> {
    let bytes = append_cbor(Vec::with_capacity(USUAL_BYTES), value)
        .map_err(|error| refusal::explain(value, error))?;
    canonical::check(&bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn plain_json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, String> {
    // The plain codec would write null for a number that is not finite. The other one refuses.
    serde_ipld_dagjson::to_writer(std::io::sink(), &value)
        .map_err(|error| refusal::explain(value, error))?;
    let bytes = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    if dag_json::nesting(&bytes) > canonical::MAX_DEPTH {
        return Err(BlockError::TooDeep.to_string());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use ipld_core::ipld::Ipld;
    use serde::de::IgnoredAny;

    use super::*;

    /// In DAG-JSON a UUID is bytes, and bytes are no text.
    #[test]
    fn a_plain_record_whose_keys_happen_to_be_sorted_is_read() {
        let id = uuid::Uuid::from_u128(7);
        let plain = format!(r#"{{"a":"{id}","b":1}}"#);
        assert_eq!(codec_of_any(plain.as_bytes()), Some(Codec::DagJson));
        #[derive(Debug, PartialEq, Deserialize)]
        struct Record {
            a: uuid::Uuid,
            b: u8,
        }
        assert_eq!(decode_any(plain.as_bytes()), Ok(Record { a: id, b: 1 }));
        assert!(decode_any::<Record>(br#"{"a":"x","b":1}"#).is_err());
    }

    /// Nobody has looked at the form of a record before it is read.
    #[test]
    fn a_record_that_is_nested_without_end_is_refused() {
        let mut lists = vec![0x81; 1_000_000];
        lists.push(0xf6);
        assert!(decode_any::<Ipld>(&lists).is_err());
        assert!(decode_any::<IgnoredAny>(&lists).is_err());
        let maps = [0xa1, 0x61, b'a'].repeat(1_000_000);
        assert!(decode_any::<Ipld>(&maps).is_err());
        assert!(decode_any::<IgnoredAny>(&maps).is_err());
    }
}
