//! What was stored since a revision: how those who hold a copy learn whether it is current.

use futures::TryStreamExt;

use super::{ModelPattern, Models, ReadModelError};
use crate::backend::{Position, Start};
use crate::event::NonEmpty;
use crate::state::Watched;

/// What the models that a pattern means have become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Newest {
    /// The generation that readers see.
    pub(super) generation: u64,
    /// The last change in it, or the revision that was asked about when there is none since.
    pub(super) revision: u64,
    /// How many models changed since that revision.
    pub(super) changes: u64,
}

impl<T> Models<T> {
    /// What was stored since `revision`, at the earliest as of this call. Some round trips, and the changes are read.
    pub(super) async fn newest(
        &self,
        pattern: &ModelPattern,
        revision: u64,
    ) -> Result<Newest, ReadModelError> {
        let generation = self.reader.generation(&self.model).await?;
        let keys = NonEmpty::one(pattern.keys(generation)?);
        let mut since = self.reader.bucket.watch(keys, Start::After(Position::new(revision)));
        let mut newest = Newest { generation, revision, changes: 0 };
        while let Some(Watched::Entry(entry)) = since.try_next().await? {
            newest.revision = newest.revision.max(entry.revision);
            newest.changes += 1;
        }
        Ok(newest)
    }
}
