//! The past of an aggregate: its state at a version or a time, and the events that lead there.

use std::sync::Arc;

use futures::TryStreamExt;

use super::load::{CATCH_UP_ATTEMPTS, CATCH_UP_PAUSE, Rules, behind};
use super::loaded::Loaded;
use super::{Aggregate, Freshness, LoadOptions, Repository, RepositoryError};
use crate::backend::Position;
use crate::clock::Timestamp;
use crate::store::StoredEvent;
use crate::subject::AggregateId;

/// Up to where the past is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until {
    pub(super) version: u64,
    pub(super) time: Option<Timestamp>,
}

/// What a replica tells of the past.
pub(super) struct Past<A> {
    pub(super) loaded: Loaded<A>,
    /// Whether it holds no more events of the aggregate, so that more may be stored than it told.
    pub(super) is_all: bool,
}

impl<A: Aggregate + Send + Sync + 'static> Repository<A> {
    /// The past with the events that lead there if they are wanted, from a replica that has gone as far as the leader where
    /// that matters: where the newest is wanted, or what is wanted is not there.
    pub(super) async fn past_as_fresh(
        &self,
        id: &A::Id,
        key: &AggregateId,
        options: &LoadOptions,
        rules: Rules,
    ) -> Result<(Arc<Loaded<A>>, Vec<StoredEvent>), RepositoryError> {
        let until = Until { version: options.version.unwrap_or(u64::MAX), time: options.as_of };
        let mut goal = match rules.freshness {
            Freshness::Latest => Some(self.newest_position(key).await?),
            Freshness::Current | Freshness::Cached(_) => None,
        };
        for _ in 0..CATCH_UP_ATTEMPTS {
            let mut events = Vec::new();
            let keep = options.include_events.then_some(&mut events);
            let Past { loaded, is_all } = self.past(id, key, until, rules, keep).await?;
            let is_short = loaded.head.version == 0 || options.version.is_some();
            if goal.is_none() && is_all && is_short {
                goal = Some(self.newest_position(key).await?);
            }
            if !is_all || goal.is_none_or(|goal| loaded.head.position >= goal) {
                self.check_version(key, &loaded, until)?;
                return Ok((Arc::new(loaded), events));
            }
            tokio::time::sleep(CATCH_UP_PAUSE).await;
        }
        Err(behind().into())
    }

    /// Refuses what has fewer versions than were asked for, unless a time may have come first or there is nothing at all.
    fn check_version(
        &self,
        key: &AggregateId,
        loaded: &Loaded<A>,
        until: Until,
    ) -> Result<(), RepositoryError> {
        let (requested, actual) = (until.version, loaded.head.version);
        if requested == u64::MAX || until.time.is_some() || !(1..requested).contains(&actual) {
            return Ok(());
        }
        Err(RepositoryError::NoSuchVersion {
            aggregate_type: self.aggregate.to_string(),
            id: key.to_string(),
            requested,
            actual,
        })
    }

    /// The past as the replica has it that answers.
    pub(super) async fn past(
        &self,
        id: &A::Id,
        key: &AggregateId,
        until: Until,
        rules: Rules,
        mut keep: Option<&mut Vec<StoredEvent>>,
    ) -> Result<Past<A>, RepositoryError> {
        let mut begin = None;
        if rules.use_snapshot
            && until.time.is_none()
            && keep.is_none()
            && let Some(snapshot) = self.snapshot_before(key, until.version).await
        {
            begin = self.continued(key, snapshot).await?;
        }
        let (mut loaded, mut history) = begin.unwrap_or_else(|| {
            (Loaded::empty(id), self.context.history(&self.aggregate, key, Position::START))
        });
        let from = loaded.head.version;
        while loaded.head.version < until.version {
            let Some(event) = history.try_next().await? else {
                return Ok(Past { loaded, is_all: true });
            };
            if until.time.is_some_and(|time| event.occurred_at() > time) {
                break;
            }
            self.check_limit(key, (loaded.head.version - from).saturating_add(1), rules)?;
            loaded.replay(&event)?;
            if let Some(events) = &mut keep {
                events.push(event);
            }
        }
        Ok(Past { loaded, is_all: false })
    }
}
