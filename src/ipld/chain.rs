//! The chain: each block links to the one before, so one CID stands for a whole history.

use bytes::Bytes;
use cid::Cid;

use super::{BlockError, decode_event};
use crate::event::Envelope;

/// One stored block with the CID that is claimed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedBlock {
    /// The CID under which the block was stored.
    pub cid: Cid,
    /// The bytes that were found.
    pub bytes: Bytes,
}

/// Why a sequence of blocks is not one aggregate's whole and unchanged history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// A block is damaged. Everything from this version on cannot be trusted.
    #[error("version {version}: {source}")]
    Block {
        /// The version the block should have.
        version: u64,
        /// What is wrong with it.
        #[source]
        source: BlockError,
    },
    /// A block does not link to the one before it: it was replaced, reordered, or belongs to a fork.
    #[error(
        "version {version} links to {found:?}, not to {expected:?}; the history was reordered, replaced or forked"
    )]
    Link {
        /// The block's version.
        version: u64,
        /// The CID of the block before it.
        expected: Option<Box<Cid>>,
        /// The CID it links to.
        found: Option<Box<Cid>>,
    },
    /// A version is missing or doubled.
    #[error("version {found} stands where version {expected} should be")]
    Version {
        /// The version after the last block.
        expected: u64,
        /// The version of this block.
        found: u64,
    },
    /// The block belongs to another aggregate.
    #[error("version {version} belongs to {found}, not to {expected}")]
    Foreign {
        /// The block's version.
        version: u64,
        /// The aggregate of the chain.
        expected: String,
        /// The aggregate the block names.
        found: String,
    },
    /// The history ends before the head that is known for it.
    #[error("the history ends at version {version}, but its head is {head}; it was cut off")]
    CutOff {
        /// The last version that was found.
        version: u64,
        /// The CID the history should end with.
        head: Box<Cid>,
    },
}

/// Follows one aggregate's history block by block and says whether each one continues it.
///
/// Holds the last link only, so a history of any length is verified in constant memory.
#[derive(Debug, Clone, Default)]
pub struct ChainVerifier {
    aggregate: Option<String>,
    version: u64,
    head: Option<Cid>,
}

impl ChainVerifier {
    /// A verifier at the beginning of a history.
    pub fn new() -> Self {
        Self::default()
    }

    /// The version of the last block that was accepted, 0 before the first.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The CID of the last block that was accepted: it covers the whole history so far.
    pub fn head(&self) -> Option<&Cid> {
        self.head.as_ref()
    }

    /// Recomputes the block's CID, decodes it, and accepts it if it continues the history.
    ///
    /// # Errors
    /// [`ChainError`]; the verifier then stays where it was.
    pub fn push(&mut self, block: &ClaimedBlock) -> Result<Envelope<()>, ChainError> {
        let version = self.version + 1;
        let envelope = decode_event(&block.bytes, Some(&block.cid))
            .map_err(|source| ChainError::Block { version, source })?;
        self.accept(&envelope, Some(block.cid))?;
        Ok(envelope)
    }

    /// Accepts an envelope whose block has been checked against `cid` already.
    ///
    /// # Errors
    /// [`ChainError`]; the verifier then stays where it was.
    pub fn accept<D>(
        &mut self,
        envelope: &Envelope<D>,
        cid: Option<Cid>,
    ) -> Result<(), ChainError> {
        let expected = self.version + 1;
        if envelope.version != expected {
            return Err(ChainError::Version { expected, found: envelope.version });
        }
        if envelope.previous != self.head {
            return Err(ChainError::Link {
                version: expected,
                expected: self.head.map(Box::new),
                found: envelope.previous.map(Box::new),
            });
        }
        let found = format!("{}/{}/{}", envelope.context, envelope.aggregate, envelope.id);
        match &self.aggregate {
            Some(aggregate) if *aggregate != found => {
                return Err(ChainError::Foreign {
                    version: expected,
                    expected: aggregate.clone(),
                    found,
                });
            }
            Some(_) => {}
            None => self.aggregate = Some(found),
        }
        self.version = expected;
        self.head = cid;
        Ok(())
    }

    /// Says that the history must end here, with this head.
    ///
    /// # Errors
    /// [`ChainError::CutOff`] when the last block accepted is another one.
    pub fn finish(&self, head: &Cid) -> Result<(), ChainError> {
        if self.head.as_ref() == Some(head) {
            return Ok(());
        }
        Err(ChainError::CutOff { version: self.version, head: Box::new(*head) })
    }
}
