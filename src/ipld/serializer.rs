//! Values and histories as blocks, in memory: for whoever wants bytes and CIDs without a store.

use std::collections::HashMap;

use bytes::Bytes;
use cid::Cid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::chain::{ChainError, ChainVerifier, ClaimedBlock};
use super::codec::{self, BlockFormat, Codec, EncodeError, Hash};
use super::{Block, BlockError, decode_event, encode_event};
use crate::event::Envelope;

/// Writes values as IPLD blocks, reads them back, and builds and verifies chains of event blocks.
///
/// Holds no blocks: a history is a [`Chain`], a value of the caller's. No I/O. Blocks of either codec and hash are read
/// whatever this one writes.
///
/// ```
/// use cim_persistence::ipld::IpldSerializer;
/// let ipld = IpldSerializer::default();
/// let (bytes, cid) = ipld.serialize(&("apples", 3))?;
/// let read: (String, u32) = ipld.deserialize(&bytes, &cid)?;
/// assert_eq!(read, ("apples".to_owned(), 3));
/// assert!(ipld.deserialize::<(String, u32)>(b"\x82\x61a\x03", &cid).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpldSerializer {
    codec: Codec,
    hash: Hash,
}

impl Default for IpldSerializer {
    /// DAG-CBOR with SHA2-256.
    fn default() -> Self {
        Self::new(Codec::DagCbor, Hash::Sha2)
    }
}

impl IpldSerializer {
    /// Writes blocks of this codec, named by this hash.
    pub const fn new(codec: Codec, hash: Hash) -> Self {
        Self { codec, hash }
    }

    /// The format it writes.
    pub const fn format(&self) -> BlockFormat {
        BlockFormat::Ipld(self.codec, self.hash)
    }

    /// Writes a value as a block, and names it.
    ///
    /// # Errors
    /// [`EncodeError`] when the value holds what a block cannot: a float that is not finite, a map key that is not
    /// text, an integer beyond 64 bits, more than [`MAX_DEPTH`](super::MAX_DEPTH) maps and lists within each other, in
    /// DAG-JSON also a map key `/`.
    pub fn serialize<T: Serialize + ?Sized>(&self, value: &T) -> Result<(Bytes, Cid), EncodeError> {
        let block = Block::encode(self.format(), value).map_err(|reason| EncodeError {
            what: format!("a {}", std::any::type_name::<T>()),
            reason,
        })?;
        let cid = self.cid_of(&block.bytes);
        Ok((block.bytes, cid))
    }

    /// Reads a block back: its CID is recomputed over the bytes first, then they are decoded, strictly.
    ///
    /// # Errors
    /// [`BlockError`], as its variants say; [`BlockError::Malformed`] also for a block of another shape than `T`.
    pub fn deserialize<T: DeserializeOwned>(
        &self,
        bytes: &[u8],
        cid: &Cid,
    ) -> Result<T, BlockError> {
        codec::from_bytes(codec::verify_cid(cid, bytes)?, bytes)
    }

    /// The CID that bytes have as a block of this codec and hash.
    pub fn cid_of(&self, bytes: &[u8]) -> Cid {
        codec::cid_of(self.codec, self.hash, bytes)
    }

    /// Writes an event as the next block of a chain.
    ///
    /// The chain says where the event stands: `version` and `previous` of the envelope are set from its head. Only the
    /// chain's last block is verified, so adding costs the same however long the chain is.
    ///
    /// # Errors
    /// [`AddError`]; the chain is then unchanged.
    pub fn add_to_chain<D: Serialize>(
        &self,
        chain: &mut Chain,
        mut envelope: Envelope<&D>,
    ) -> Result<Cid, AddError> {
        let mut verifier = chain.verifier_at_head()?;
        envelope.version = verifier.version().saturating_add(1);
        envelope.previous = verifier.head().copied();
        let encoded = encode_event(self.format(), envelope)?;
        let cid = self.cid_of(&encoded.block.bytes);
        verifier.accept(&encoded.envelope, Some(cid))?;
        chain.blocks.push(ClaimedBlock { cid, bytes: encoded.block.bytes });
        chain.head = Some(cid);
        Ok(cid)
    }

    /// Finds the history that ends with `head` among blocks in any order, by following the links back to the first
    /// block, and verifies it. Blocks that are not part of it, of a fork say, are left out.
    ///
    /// # Errors
    /// [`ChainError::Missing`] for a link to a block that is not there, otherwise as [`verify_chain`](Self::verify_chain).
    pub fn get_chain(&self, blocks: &[ClaimedBlock], head: &Cid) -> Result<Chain, ChainError> {
        let by_cid: HashMap<&Cid, &Bytes> =
            blocks.iter().map(|block| (&block.cid, &block.bytes)).collect();
        let mut walk = WalkBack::from(*head);
        while let Some(cid) = walk.wanted() {
            match by_cid.get(&cid) {
                Some(bytes) => walk.found((*bytes).clone())?,
                None => return Err(walk.missing(cid)),
            }
        }
        walk.finish()
    }

    /// Recomputes every CID of a chain and follows every link from the first block to the head.
    ///
    /// Returns the head, `None` for a chain without blocks.
    ///
    /// # Errors
    /// [`ChainError`] for the first block that is damaged or does not continue the history, or when it does not end
    /// with the chain's head.
    pub fn verify_chain(&self, chain: &Chain) -> Result<Option<ChainHead>, ChainError> {
        let mut verifier = ChainVerifier::new();
        for block in &chain.blocks {
            verifier.push(block)?;
        }
        let Some(head) = chain.head else { return Ok(None) };
        verifier.finish(&head)?;
        Ok(Some(ChainHead { version: verifier.version(), cid: head }))
    }
}

/// One aggregate's history in memory: its blocks from the first to the last, and the CID it must end with.
///
/// It says what was found or claimed, not that it is right: [`IpldSerializer::verify_chain`] says that.
///
/// ```
/// use cim_persistence::clock::Timestamp;
/// use cim_persistence::event::{Envelope, Metadata};
/// use cim_persistence::ipld::{Chain, IpldSerializer};
/// use cim_persistence::subject::{AggregateId, AggregateType, ContextName, EventType};
/// use uuid::Uuid;
///
/// let envelope = Envelope {
///     format: Envelope::FORMAT,
///     context: ContextName::new("sales")?,
///     aggregate: AggregateType::new("order")?,
///     id: AggregateId::new("42")?,
///     version: 0, // set by the chain, as is `previous`
///     event_type: EventType::new("placed")?,
///     schema_version: 1,
///     event_id: Uuid::now_v7(),
///     occurred_at: Timestamp::now(),
///     correlation_id: Uuid::now_v7(),
///     causation_id: None,
///     metadata: Metadata::default(),
///     previous: None,
///     data: &"two chairs",
/// };
/// let ipld = IpldSerializer::default();
/// let mut chain = Chain::new();
/// ipld.add_to_chain(&mut chain, envelope.clone())?;
/// let head = ipld.add_to_chain(&mut chain, envelope)?;
/// assert_eq!(ipld.verify_chain(&chain)?.map(|head| (head.version, head.cid)), Some((2, head)));
///
/// let cut_off = Chain::claimed(chain.blocks()[..1].to_vec(), head);
/// assert!(ipld.verify_chain(&cut_off).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    blocks: Vec<ClaimedBlock>,
    /// `None` only when there are no blocks.
    head: Option<Cid>,
}

impl Chain {
    /// A chain without blocks.
    pub fn new() -> Self {
        Self::default()
    }

    /// A history as it was found somewhere, with the head that is known for it.
    pub fn claimed(blocks: Vec<ClaimedBlock>, head: Cid) -> Self {
        Self { blocks, head: Some(head) }
    }

    /// The blocks from the first to the last.
    pub fn blocks(&self) -> &[ClaimedBlock] {
        &self.blocks
    }

    /// The CID the history ends with: it covers the whole history.
    pub fn head(&self) -> Option<&Cid> {
        self.head.as_ref()
    }

    /// How many blocks there are.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there are no blocks.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The blocks as a vector, from the first to the last.
    pub fn into_blocks(self) -> Vec<ClaimedBlock> {
        self.blocks
    }

    fn verifier_at_head(&self) -> Result<ChainVerifier, ChainError> {
        let Some(head) = &self.head else { return Ok(ChainVerifier::new()) };
        let version = self.blocks.len() as u64;
        match self.blocks.last() {
            Some(last) if last.cid == *head => {
                let envelope = decode_event(&last.bytes, Some(head))
                    .map_err(|source| ChainError::Block { version, source })?;
                Ok(ChainVerifier::after(&envelope, Some(*head)))
            }
            _ => Err(ChainError::CutOff { version, head: Box::new(*head) }),
        }
    }
}

/// What a verified history ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHead {
    /// The version of the last event.
    pub version: u64,
    /// The CID of its block, which covers the whole history.
    pub cid: Cid,
}

/// Why an event cannot be added to a chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// The event cannot be written as a block. Change it.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The event is of another aggregate than the chain, or the chain's last block is not its head. Use the right
    /// chain, or verify this one.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// A walk from a head back to the first block, for blocks that are fetched one after the other.
#[derive(Debug)]
pub(crate) struct WalkBack {
    head: Cid,
    wanted: Option<Cid>,
    /// From the head backwards.
    found: Vec<(ClaimedBlock, Envelope<()>)>,
}

impl WalkBack {
    pub(crate) fn from(head: Cid) -> Self {
        Self { head, wanted: Some(head), found: Vec::new() }
    }

    /// The block to fetch next; `None` when the first block was found.
    pub(crate) fn wanted(&self) -> Option<Cid> {
        self.wanted
    }

    /// Takes the bytes that were fetched for the wanted block.
    pub(crate) fn found(&mut self, bytes: Bytes) -> Result<(), ChainError> {
        let Some(cid) = self.wanted else { return Ok(()) };
        let envelope = decode_event(&bytes, Some(&cid))
            .map_err(|source| ChainError::Block { version: self.version(), source })?;
        self.wanted = envelope.previous;
        self.found.push((ClaimedBlock { cid, bytes }, envelope));
        Ok(())
    }

    /// The error for a wanted block that is nowhere.
    pub(crate) fn missing(&self, cid: Cid) -> ChainError {
        ChainError::Missing { version: self.version(), cid: Box::new(cid) }
    }

    /// Verifies what was found from the first block to the head.
    pub(crate) fn finish(self) -> Result<Chain, ChainError> {
        let mut verifier = ChainVerifier::new();
        let mut blocks = Vec::with_capacity(self.found.len());
        for (block, envelope) in self.found.into_iter().rev() {
            verifier.accept(&envelope, Some(block.cid))?;
            blocks.push(block);
        }
        verifier.finish(&self.head)?;
        Ok(Chain::claimed(blocks, self.head))
    }

    /// The version of the wanted block, 0 for the head.
    fn version(&self) -> u64 {
        self.found.last().map_or(0, |(_, envelope)| envelope.version.saturating_sub(1))
    }
}
