//! What blocks promise: the bytes and CIDs of other implementations, strict reading, refusals, chains.

mod chain;
mod common;
mod properties;
mod refusal;
mod strict;
mod vectors;
