//! Blocks in a bucket, found by their CIDs.
//!
//! Events lie in the event log, not here. This is for what events and states link to: documents, images as data,
//! copies of a history. What a block is, is said in [`ipld`]; what a bucket is, in [`state`](crate::state).

use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use cid::Cid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{BackendError, ReadFrom};
use crate::event::NonEmpty;
use crate::ipld::{self, BlockError, Chain, ChainError, EncodeError, IpldSerializer};
use crate::state::{Change, Expected, Key, KeyValue, KeyWrite};

/// Why a block was not stored or not given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// The value cannot be written as a block; nothing was stored. Change the value.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// What lies under the CID, or was to be stored, is not its block. Delete the damaged key and store the block again
    /// from a copy.
    #[error("block {cid} in bucket {bucket}: {source}")]
    Block {
        /// The CID.
        cid: Box<Cid>,
        /// The bucket.
        bucket: String,
        /// What is wrong.
        #[source]
        source: BlockError,
    },
    /// There is no such block. It was never stored here, or was deleted.
    #[error("block {cid} is not in bucket {bucket}")]
    NotFound {
        /// The CID.
        cid: Box<Cid>,
        /// The bucket.
        bucket: String,
    },
    /// The blocks that lead back from a head are not one aggregate's whole history.
    #[error("the chain in bucket {bucket} that ends with {head}: {source}")]
    Chain {
        /// The CID the walk began with.
        head: Box<Cid>,
        /// The bucket.
        bucket: String,
        /// What is wrong.
        #[source]
        source: ChainError,
    },
    /// The chain has more blocks than the caller wants in memory. Raise the bound, or read the event log instead.
    #[error("the chain that ends with {head} has more than {max} blocks")]
    TooLong {
        /// The CID the walk began with.
        head: Box<Cid>,
        /// The bound.
        max: usize,
    },
    /// The bucket failed. A store that failed may be repeated as it is: it has one effect however often it is done.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Blocks in a bucket, each under the text of its own CID.
///
/// - The same value has the same CID, so it is stored once however often it is stored.
/// - A block never changes. What is given back has been compared with its CID.
/// - Blocks of either codec and hash are found, whatever this one writes.
///
/// Futures may be dropped: a block is then stored whole or not at all.
///
/// ```
/// use std::sync::Arc;
/// use cim_persistence::content_store::{ContentAddressedStorage, ContentError};
/// use cim_persistence::ipld::IpldSerializer;
/// use cim_persistence::state::KeyValue;
///
/// async fn keep(bucket: Arc<dyn KeyValue>) -> Result<(), ContentError> {
///     let blocks = ContentAddressedStorage::new(bucket, IpldSerializer::default());
///     let cid = blocks.store(&["two chairs", "one table"]).await?;
///     let list: Vec<String> = blocks.retrieve(&cid).await?;
///     assert_eq!(list.len(), 2);
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct ContentAddressedStorage {
    bucket: Arc<dyn KeyValue>,
    ipld: IpldSerializer,
}

impl ContentAddressedStorage {
    /// Keeps blocks in `bucket`, and writes them with `ipld`.
    pub fn new(bucket: Arc<dyn KeyValue>, ipld: IpldSerializer) -> Self {
        Self { bucket, ipld }
    }

    /// Stores a value as a block and returns its CID.
    ///
    /// One round trip; one more when the block is there already.
    ///
    /// # Errors
    /// [`ContentError::Encode`] for a value that cannot be a block, [`ContentError::Block`] when something else lies
    /// under the CID, [`ContentError::Backend`].
    pub async fn store<T: Serialize + ?Sized>(&self, value: &T) -> Result<Cid, ContentError> {
        // Only the bytes outlive this line, so that the future needs nothing of `T`.
        let (bytes, cid) = self.ipld.serialize(value)?;
        self.put(cid, bytes).await?;
        Ok(cid)
    }

    /// Stores bytes that are a block already, in this store's codec, and returns their CID.
    ///
    /// One round trip; one more when the block is there already.
    ///
    /// # Errors
    /// [`ContentError::Block`] for bytes that are not a block in canonical form, and as for [`store`](Self::store).
    pub async fn store_block(&self, bytes: impl Into<Bytes>) -> Result<Cid, ContentError> {
        let bytes = bytes.into();
        let cid = self.ipld.cid_of(&bytes);
        self.check(&cid, &bytes)?;
        self.put(cid, bytes).await?;
        Ok(cid)
    }

    /// Reads a stored value. One round trip; one more, to the leader, when the nearest replica has none.
    ///
    /// # Errors
    /// [`ContentError::NotFound`]; [`ContentError::Block`] for a block that is damaged, or has not the shape of `T`;
    /// [`ContentError::Backend`].
    pub async fn retrieve<T: DeserializeOwned>(&self, cid: &Cid) -> Result<T, ContentError> {
        let bytes = self.fetch(cid).await?.ok_or_else(|| self.not_found(cid))?;
        self.ipld.deserialize(&bytes, cid).map_err(|source| self.block_error(cid, source))
    }

    /// Reads the bytes of a stored block. Round trips as for [`retrieve`](Self::retrieve).
    ///
    /// # Errors
    /// [`ContentError::NotFound`]; [`ContentError::Block`] for a block that is damaged; [`ContentError::Backend`].
    pub async fn retrieve_block(&self, cid: &Cid) -> Result<Bytes, ContentError> {
        let bytes = self.fetch(cid).await?.ok_or_else(|| self.not_found(cid))?;
        self.check(cid, &bytes)?;
        Ok(bytes)
    }

    /// Whether something lies under the CID; it is not verified. Round trips as for [`retrieve`](Self::retrieve).
    ///
    /// # Errors
    /// [`ContentError::Backend`], and [`ContentError::Block`] for a CID that no block of this crate has.
    pub async fn exists(&self, cid: &Cid) -> Result<bool, ContentError> {
        Ok(self.fetch(cid).await?.is_some())
    }

    /// Follows the links from an event block back to the first of its aggregate, verifies all of them, and returns the
    /// history from the first block to `head`.
    ///
    /// Holds at most `max_blocks` blocks. One round trip per block, one after the other, because each names the next.
    ///
    /// # Errors
    /// [`ContentError::TooLong`] for a longer history; [`ContentError::Chain`] when a block is missing, damaged, or not
    /// of this history; [`ContentError::Backend`].
    pub async fn get_chain(
        &self,
        head: &Cid,
        max_blocks: NonZeroUsize,
    ) -> Result<Chain, ContentError> {
        let mut walk = ipld::WalkBack::from(*head);
        let mut left = max_blocks.get();
        while let Some(cid) = walk.wanted() {
            if left == 0 {
                return Err(ContentError::TooLong { head: Box::new(*head), max: max_blocks.get() });
            }
            left -= 1;
            match self.fetch(&cid).await? {
                Some(bytes) => walk.found(bytes),
                None => Err(walk.missing(cid)),
            }
            .map_err(|source| self.chain_error(head, source))?;
        }
        walk.finish().map_err(|source| self.chain_error(head, source))
    }

    async fn put(&self, cid: Cid, bytes: Bytes) -> Result<(), ContentError> {
        let key = key_of(&cid);
        let mut revision = 0;
        loop {
            let change = Change::Put(bytes.clone());
            let write = KeyWrite::new(key.clone(), change, Expected::Revision(revision));
            let conflict = match self.bucket.write(NonEmpty::one(write)).await {
                Ok(_) => return Ok(()),
                Err(conflict @ BackendError::Conflict { .. }) => conflict,
                Err(other) => return Err(other.into()),
            };
            // The key was set before: to the same bytes, or to a value that was deleted since.
            let slot = self.bucket.get(&key, ReadFrom::Leader).await?;
            match slot.value {
                Some(stored) => return self.check(&cid, &stored),
                None if revision == slot.revision => return Err(conflict.into()),
                None => revision = slot.revision,
            }
        }
    }

    async fn fetch(&self, cid: &Cid) -> Result<Option<Bytes>, ContentError> {
        ipld::check_supported(cid).map_err(|source| self.block_error(cid, source))?;
        let key = key_of(cid);
        let near = self.bucket.get(&key, ReadFrom::Nearest).await?;
        // A block never changes, so a replica can be wrong only about there being none.
        match near.value {
            Some(bytes) => Ok(Some(bytes)),
            None => Ok(self.bucket.get(&key, ReadFrom::Leader).await?.value),
        }
    }

    fn check(&self, cid: &Cid, bytes: &Bytes) -> Result<(), ContentError> {
        ipld::check_block(bytes, cid).map_err(|source| self.block_error(cid, source))
    }

    fn block_error(&self, cid: &Cid, source: BlockError) -> ContentError {
        ContentError::Block { cid: Box::new(*cid), bucket: self.bucket.bucket().to_owned(), source }
    }

    fn not_found(&self, cid: &Cid) -> ContentError {
        ContentError::NotFound { cid: Box::new(*cid), bucket: self.bucket.bucket().to_owned() }
    }

    fn chain_error(&self, head: &Cid, source: ChainError) -> ContentError {
        let bucket = self.bucket.bucket().to_owned();
        ContentError::Chain { head: Box::new(*head), bucket, source }
    }
}

fn key_of(cid: &Cid) -> Key {
    Key::new(cid.to_string()).expect("the text of a CID is letters and digits")
}
