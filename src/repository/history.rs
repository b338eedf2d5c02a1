//! An aggregate's history as it is stored: whether there is one, its events, and whether they are all there.

use futures::{Stream, StreamExt, TryStreamExt};

use super::load::{CATCH_UP_ATTEMPTS, CATCH_UP_PAUSE, behind};
use super::{Aggregate, Repository, RepositoryError, observe};
use crate::backend::{Position, ReadFrom};
use crate::ipld::ChainVerifier;
use crate::store::{Head, IntegrityError, StoreError, StoredEvent};
use crate::subject::AggregateId;

impl<A: Aggregate + Send + Sync + 'static> Repository<A> {
    /// Whether the aggregate has events and was not deleted. One round trip to the leader.
    ///
    /// # Errors
    /// [`RepositoryError::Store`].
    #[tracing::instrument(level = "debug", skip_all, fields(
        context = %self.context.scheme().context(), aggregate = %self.aggregate, id, outcome))]
    pub async fn exists(&self, id: &A::Id) -> Result<bool, RepositoryError> {
        observe::operation("exists", async {
            let key = self.key_of(id)?;
            let last = self.context.last_event(&self.aggregate, &key, ReadFrom::Leader).await?;
            Ok(last.is_some_and(|event| !event.is_tombstone()))
        })
        .await
    }

    /// The events from version `from` to version `to`, both inclusive, oldest first; also those of a deleted
    /// aggregate. The whole history is read and its chain verified.
    ///
    /// Any replica may answer, and one that is behind lacks the newest events. [`verify`](Self::verify) compares the
    /// end with the leader.
    ///
    /// # Errors
    /// [`RepositoryError::NotFound`] when there never were events, or the replica that answers has none yet;
    /// [`RepositoryError::Store`].
    #[tracing::instrument(level = "debug", skip_all, fields(
        context = %self.context.scheme().context(), aggregate = %self.aggregate, id, outcome))]
    pub async fn get_history(
        &self,
        id: &A::Id,
        from: Option<u64>,
        to: Option<u64>,
    ) -> Result<Vec<StoredEvent>, RepositoryError> {
        observe::operation("get_history", self.history(id, from, to)).await
    }

    async fn history(
        &self,
        id: &A::Id,
        from: Option<u64>,
        to: Option<u64>,
    ) -> Result<Vec<StoredEvent>, RepositoryError> {
        let key = self.key_of(id)?;
        let mut history = self.verified(&key);
        let (from, to) = (from.unwrap_or(1), to.unwrap_or(u64::MAX));
        let (mut any, mut events) = (false, Vec::new());
        while let Some(event) = history.try_next().await? {
            any = true;
            if (from..=to).contains(&event.version()) {
                events.push(event);
            }
        }
        match any {
            true => Ok(events),
            false => Err(self.not_found_id(&key, None)),
        }
    }

    /// Reads the whole history, recomputes every CID, follows every link, and compares the end with the leader's
    /// newest event. Memory is constant.
    ///
    /// A log that has lost the last events of a history holds what is a whole one. That shows beside a head only that was kept
    /// elsewhere: compare it with the one that is returned.
    ///
    /// # Errors
    /// [`RepositoryError::NotFound`] when there never were events; [`RepositoryError::Store`] with
    /// [`StoreError::Integrity`] at the first event that is damaged, missing, replaced or out of place.
    #[tracing::instrument(level = "debug", skip_all, fields(
        context = %self.context.scheme().context(), aggregate = %self.aggregate, id, outcome))]
    pub async fn verify(&self, id: &A::Id) -> Result<Head, RepositoryError> {
        observe::operation("verify", self.verified_to_the_end(id)).await
    }

    async fn verified_to_the_end(&self, id: &A::Id) -> Result<Head, RepositoryError> {
        let key = self.key_of(id)?;
        let last = self.context.last_event(&self.aggregate, &key, ReadFrom::Leader).await?;
        let Some(last) = last else { return Err(self.not_found_id(&key, None)) };
        for _ in 0..CATCH_UP_ATTEMPTS {
            let mut history = self.verified(&key);
            let mut head = Head::default();
            while let Some(event) = history.try_next().await? {
                head = Head::of(&event);
            }
            if head.position >= last.position() {
                return Ok(head);
            }
            tokio::time::sleep(CATCH_UP_PAUSE).await;
        }
        Err(behind().into())
    }

    /// One aggregate's history with its chain checked event by event.
    fn verified(
        &self,
        key: &AggregateId,
    ) -> impl Stream<Item = Result<StoredEvent, StoreError>> + Unpin + use<A> {
        let mut chain = ChainVerifier::new();
        self.context.history(&self.aggregate, key, Position::START).map(move |event| {
            let event = event?;
            match chain.accept(event.envelope(), event.cid().copied()) {
                Ok(()) => Ok(event),
                Err(error) => Err(StoreError::Integrity {
                    subject: format!("{}/{}", event.aggregate_type(), event.aggregate_id()),
                    position: event.position().get(),
                    source: IntegrityError::Chain(error),
                }),
            }
        })
    }
}
