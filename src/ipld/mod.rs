//! Events as IPLD blocks: their bytes, their CIDs, and the chain that the CIDs form.
//!
//! Pure: no I/O, no async. Where blocks are kept is the business of [`event_log`](crate::event_log).

mod codec;
mod walk;
mod block;
mod chain;

pub(crate) use block::decode_data_as;
pub use block::{Block, BlockError, EncodedEvent, decode_data, decode_event, encode_event};
pub use chain::{ChainError, ChainVerifier, ClaimedBlock};
pub(crate) use codec::decode_any;
pub use codec::{BlockFormat, Codec, EncodeError, Hash, cid_of, verify_cid};
