//! The chain: each block links to the one before, so one CID stands for a whole history.

use bytes::Bytes;
use cid::Cid;

use super::{BlockError, decode_event};
use crate::event::Envelope;
use crate::subject::{AggregateId, AggregateType, ContextName};

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
    /// A block is damaged. Nothing from this version on can be trusted; restore it from a copy.
    #[error("version {version}: {source}")]
    Block {
        /// The version the block should have; 0 for a head whose version is not known.
        version: u64,
        /// What is wrong with it.
        #[source]
        source: BlockError,
    },
    /// Two blocks follow the same one: somebody wrote past the expectation, or added a block later. Find out which of
    /// them was acknowledged; the other one is not part of the history.
    #[error("version {version} is there twice, as {kept} and as {other}; the history was forked")]
    Fork {
        /// The version after the block that both link to.
        version: u64,
        /// The block that came first.
        kept: Box<Cid>,
        /// The block that came after it.
        other: Box<Cid>,
    },
    /// A block does not link to the one before it: it was replaced, reordered, or belongs to a fork. Compare the
    /// history with a copy from this version on.
    #[error(
        "version {version} links to {}, not to {}; the history was reordered, replaced or forked",
        show(.found), show(.expected)
    )]
    Link {
        /// The block's version.
        version: u64,
        /// The CID of the block before it.
        expected: Option<Box<Cid>>,
        /// The CID it links to.
        found: Option<Box<Cid>>,
    },
    /// A version is missing, doubled or out of order. Read the history again, from the leader; compare with a copy.
    #[error("version {found} stands where version {expected} should be")]
    Version {
        /// The version after the last block.
        expected: u64,
        /// The version of this block.
        found: u64,
    },
    /// The block belongs to another aggregate. It was stored in the wrong place.
    #[error("version {version} belongs to {found}, not to {expected}")]
    Foreign {
        /// The block's version.
        version: u64,
        /// The aggregate of the chain.
        expected: String,
        /// The aggregate the block names.
        found: String,
    },
    /// The history ends before the head that is known for it. Restore what follows from a copy.
    #[error("the history ends at version {version}, but its head is {head}; it was cut off")]
    CutOff {
        /// The last version that was found.
        version: u64,
        /// The CID the history should end with.
        head: Box<Cid>,
    },
    /// A block that the history links to is not among those given. Restore it from a copy.
    #[error("version {version}, block {cid}, is missing")]
    Missing {
        /// The version the block should have; 0 for a head whose version is not known.
        version: u64,
        /// The CID that is linked to.
        cid: Box<Cid>,
    },
}

fn show(cid: &Option<Box<Cid>>) -> String {
    cid.as_ref().map_or_else(|| "nothing".to_owned(), |cid| cid.to_string())
}

/// Follows one aggregate's history block by block and says whether each one continues it.
///
/// Holds the last link only, so a history of any length is verified in constant memory, with one hash and one decoding
/// per block.
///
/// ```
/// use cim_persistence::ipld::{ChainVerifier, ClaimedBlock};
/// # use cim_persistence::ipld::ChainError;
/// # fn example(history: Vec<ClaimedBlock>, head: cid::Cid) -> Result<(), ChainError> {
/// let mut chain = ChainVerifier::new();
/// for block in &history {
///     chain.push(block)?;
/// }
/// chain.finish(&head)
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct ChainVerifier {
    aggregate: Option<(ContextName, AggregateType, AggregateId)>,
    version: u64,
    head: Option<Cid>,
    /// What the head links to: another block with this link is a fork.
    before: Option<Cid>,
}

impl ChainVerifier {
    /// A verifier at the beginning of a history.
    pub fn new() -> Self {
        Self::default()
    }

    /// A verifier that takes the history up to this event, whose block has `cid`, as verified.
    pub fn after<D>(envelope: &Envelope<D>, cid: Option<Cid>) -> Self {
        Self {
            aggregate: Some(aggregate_of(envelope)),
            version: envelope.version,
            head: cid,
            before: envelope.previous,
        }
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
        let version = self.version.saturating_add(1);
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
        self.check(envelope, cid)?;
        if self.aggregate.is_none() {
            self.aggregate = Some(aggregate_of(envelope));
        }
        self.version = envelope.version;
        self.before = envelope.previous;
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

    fn check<D>(&self, envelope: &Envelope<D>, cid: Option<Cid>) -> Result<(), ChainError> {
        let found = envelope.version;
        if let Some((context, aggregate, id)) = &self.aggregate
            && (*context != envelope.context
                || *aggregate != envelope.aggregate
                || *id != envelope.id)
        {
            return Err(ChainError::Foreign {
                version: found,
                expected: format!("{context}/{aggregate}/{id}"),
                found: format!("{}/{}/{}", envelope.context, envelope.aggregate, envelope.id),
            });
        }
        if let (Some(kept), Some(other)) = (self.head, cid)
            && kept != other
            && envelope.previous == self.before
        {
            let (kept, other) = (Box::new(kept), Box::new(other));
            return Err(ChainError::Fork { version: self.version, kept, other });
        }
        if found.checked_sub(1) != Some(self.version) {
            let expected = self.version.saturating_add(1);
            return Err(ChainError::Version { expected, found });
        }
        if envelope.previous != self.head {
            return Err(ChainError::Link {
                version: found,
                expected: self.head.map(Box::new),
                found: envelope.previous.map(Box::new),
            });
        }
        Ok(())
    }
}

fn aggregate_of<D>(envelope: &Envelope<D>) -> (ContextName, AggregateType, AggregateId) {
    (envelope.context.clone(), envelope.aggregate.clone(), envelope.id.clone())
}
