//! Values without a type, between what is stored and what the code reads.

use ipld_core::ipld::Ipld;
use serde::de::DeserializeOwned;

use super::BlockError;
use super::codec::{self, Codec};

/// Reads a type from a value as it is read from a block of this codec, `None` being plain JSON.
///
/// By way of the bytes, because the types of serde that find out what they are given, such as untagged enums, take what a
/// codec gives them and not what a value does.
pub(crate) fn from_value<T: DeserializeOwned>(
    codec: Option<Codec>,
    value: &Ipld,
) -> Result<T, BlockError> {
    match codec {
        Some(_) => {
            let bytes = serde_ipld_dagcbor::to_vec(value).map_err(BlockError::malformed)?;
            codec::from_cbor(&bytes)
        }
        None => {
            let bytes = serde_json::to_vec(value).map_err(BlockError::malformed)?;
            serde_json::from_slice(&bytes).map_err(BlockError::malformed)
        }
    }
}
