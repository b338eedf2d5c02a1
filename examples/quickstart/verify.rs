//! Verifying many chains in one pass over the stream.
//!
//! `Repository::verify` does this for one aggregate. Where most of a stream is to be verified, reading it once is faster
//! than looking in it for each aggregate's events.

use std::collections::HashMap;

use cim_persistence::backend::{Position, ReadFrom};
use cim_persistence::ipld::{ChainError, ChainVerifier, ClaimedBlock};
use cim_persistence::repository::Aggregate;
use cim_persistence::store::{Context, Head, StoreError};
use cim_persistence::subject::{AggregateId, AggregateType, InvalidToken};
use futures::{StreamExt, TryStreamExt};

use crate::domain::Aircraft;

/// How many heads are asked for at once.
const AT_ONCE: usize = 64;

/// Why not every chain was found whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error("the events cannot be read: {0}")]
    Store(#[from] StoreError),
    #[error("a tail number cannot be an id: {0}")]
    Id(#[from] InvalidToken),
    #[error("no event of {tailnum} is stored")]
    Missing { tailnum: String },
    #[error("the history of {tailnum} is not whole: {source}")]
    Broken { tailnum: String, source: ChainError },
    #[error("the history of {tailnum} ends at version {found}, its head has version {expected}")]
    CutOff { tailnum: String, found: u64, expected: u64 },
}

/// A chain that is being followed to the head it must reach.
struct Chain {
    head: Head,
    verifier: ChainVerifier,
}

/// Follows the chain of each of these aircraft from its first event to the head it has now, and returns how many there
/// are. Memory grows with the number of aircraft, not with their events.
pub(crate) async fn verify_chains(
    context: &Context,
    tailnums: impl Iterator<Item = &String>,
) -> Result<u64, VerifyError> {
    let aircraft = AggregateType::new(Aircraft::TYPE)?;
    let mut chains: HashMap<AggregateId, Chain> = futures::stream::iter(tailnums)
        .map(async |tailnum| {
            let id = AggregateId::new(tailnum)?;
            let head = context.head(&aircraft, &id, ReadFrom::Leader).await?;
            Ok::<_, VerifyError>((id, Chain { head, verifier: ChainVerifier::new() }))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let mut events = context.stream_after(Position::START);
    while let Some(event) = events.try_next().await? {
        let chain = chains.get_mut(event.aggregate_id());
        if let (Some(chain), Some(cid)) = (chain, event.cid())
            && *event.aggregate_type() == aircraft
        {
            let block = ClaimedBlock { cid: *cid, bytes: event.block().clone() };
            chain.accept(&block).map_err(|source| {
                let tailnum = event.aggregate_id().to_string();
                VerifyError::Broken { tailnum, source }
            })?;
        }
    }
    chains.iter().try_fold(0, |verified, (id, chain)| chain.reached(id).map(|()| verified + 1))
}

impl Chain {
    fn accept(&mut self, block: &ClaimedBlock) -> Result<(), ChainError> {
        self.verifier.push(block)?;
        match &self.head.cid {
            Some(cid) if self.verifier.version() == self.head.version => self.verifier.finish(cid),
            _ => Ok(()),
        }
    }

    fn reached(&self, id: &AggregateId) -> Result<(), VerifyError> {
        let (found, expected) = (self.verifier.version(), self.head.version);
        match expected {
            // Where nothing has to be reached, nothing is whole.
            0 => Err(VerifyError::Missing { tailnum: id.to_string() }),
            _ if found >= expected => Ok(()),
            _ => Err(VerifyError::CutOff { tailnum: id.to_string(), found, expected }),
        }
    }
}
