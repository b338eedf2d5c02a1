//! Events as IPLD blocks: their bytes, their CIDs, and the chain that the CIDs form.
//!
//! Pure: no I/O, no async. Where blocks are kept is the business of [`event_log`](crate::event_log).

mod canonical;
mod cbor_writer;
mod dag_json;
mod refusal;
mod codec;
mod event_cbor;
mod block;
mod chain;
mod serializer;
mod value;

pub(crate) use block::decode_data_as;
pub(crate) use block::encode_block;
pub use block::{Block, BlockError, EncodedEvent, decode_data, decode_event, encode_event};
pub use canonical::MAX_DEPTH;
pub use chain::{ChainError, ChainVerifier, ClaimedBlock};
pub use codec::{BlockFormat, Codec, EncodeError, Hash, cid_of, verify_cid};
pub(crate) use codec::{check_block, check_supported, codec_of_any, decode_any};
pub(crate) use serializer::WalkBack;
pub use serializer::{AddError, Chain, ChainHead, IpldSerializer};
pub(crate) use value::from_value;
