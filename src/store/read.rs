//! Reading the events of a context: by aggregate, by type, from a position. What a read gives out was verified.

use std::sync::Arc;

use futures::stream::{BoxStream, Stream, StreamExt, TryStreamExt};

use super::ahead::ahead;
use super::event_store::EventFilter;
use super::{Context, StoreError, StoredEvent};
use crate::backend::{BackendError, Followed, Position, Start, StoredMessage, TailQuery};
use crate::event::{NonEmpty, names};
use crate::event_log::LogQuery;
use crate::subject::{AggregateId, AggregateType, Pattern};

impl Context {
    /// The events of one aggregate after a version, oldest first.
    ///
    /// Any replica may answer, and one that is behind lacks the newest events. [`head`](Self::head) with
    /// [`ReadFrom::Leader`](crate::backend::ReadFrom::Leader) tells how many there are.
    ///
    /// # Errors
    /// [`StoreError::Backend`]; [`StoreError::Integrity`] at the first event that cannot be trusted.
    pub async fn get_events(
        &self,
        aggregate: &AggregateType,
        id: &AggregateId,
        after_version: u64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.history(aggregate, id, Position::START)
            .try_filter(|event| std::future::ready(event.version() > after_version))
            .try_collect()
            .await
    }

    /// At most `limit` events of the context after a position, in order.
    ///
    /// # Errors
    /// As [`get_events`](Self::get_events).
    pub async fn get_events_after(
        &self,
        position: Position,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.stream_after(position).take(limit).try_collect().await
    }

    /// Every event of the context after a position, in order: those that are stored when it is first polled, perhaps a
    /// few that are stored meanwhile, and then it ends.
    ///
    /// Memory is constant whatever the length. Each event is verified; the stream ends at the first one that is not
    /// what it claims to be. A server that is not there for a while is waited for. Dropping the stream ends the read and
    /// leaves nothing on the server.
    pub fn stream_after(
        &self,
        position: Position,
    ) -> BoxStream<'static, Result<StoredEvent, StoreError>> {
        let all = Pattern::parse(&self.scheme().all_events()).expect("a scheme makes patterns");
        let query = TailQuery { patterns: NonEmpty::one(all), start: Start::After(position) };
        let verifier = Arc::clone(self.verifier());
        let events = self
            .log()
            .follow(query)
            .map_err(StoreError::from)
            .map_ok(Followed::into_message)
            .try_take_while(|message| std::future::ready(Ok(message.is_some())))
            .try_filter_map(move |message| {
                let verify = |message| verifier.verify(message);
                std::future::ready(message.map(verify).transpose())
            });
        ahead(events)
    }

    /// The events that pass any of the filters, each once, ordered by position. All are held in memory.
    ///
    /// Each filter is read by itself, one after the other. Any replica may answer, and one that is behind lacks the
    /// newest events; so the result is not of one moment.
    ///
    /// # Errors
    /// As [`get_events`](Self::get_events).
    pub async fn load_events(
        &self,
        filters: &[EventFilter],
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let mut found = std::collections::BTreeMap::new();
        for filter in filters {
            let mut events = self.filtered(filter);
            while let Some(event) = events.try_next().await? {
                found.insert(event.position(), event);
            }
        }
        Ok(found.into_values().collect())
    }

    fn filtered(
        &self,
        filter: &EventFilter,
    ) -> BoxStream<'static, Result<StoredEvent, StoreError>> {
        let subjects = filter.stream().map(|_| filter.subjects(self.scheme()));
        let query = LogQuery { filter: subjects, after: filter.after };
        let event_type = filter.event_type.clone();
        let verifier = Arc::clone(self.verifier());
        // The header decides before anything is decoded; verifying compares the header with the block.
        self.messages(query)
            .try_filter(move |message| {
                let header = message.headers.get(names::EVENT_TYPE);
                let passes =
                    event_type.as_ref().is_none_or(|wanted| header == Some(wanted.as_str()));
                std::future::ready(passes)
            })
            .map_err(StoreError::from)
            .and_then(move |message| std::future::ready(verifier.verify(message)))
            .boxed()
    }

    /// One aggregate's events after a position.
    pub(crate) fn history(
        &self,
        aggregate: &AggregateType,
        id: &AggregateId,
        after: Position,
    ) -> BoxStream<'static, Result<StoredEvent, StoreError>> {
        let subject = self.scheme().events_of(aggregate, id);
        self.read(LogQuery { filter: Some(subject.to_string()), after })
    }

    fn read(&self, query: LogQuery) -> BoxStream<'static, Result<StoredEvent, StoreError>> {
        let verifier = Arc::clone(self.verifier());
        self.messages(query).map(move |message| verifier.verify(message?)).boxed()
    }

    /// The messages that are events. A query of everything is asked without a filter, because a server that has to
    /// match each subject takes twice as long, and what else lies in the stream is left out here.
    fn messages(
        &self,
        query: LogQuery,
    ) -> impl Stream<Item = Result<StoredMessage, BackendError>> + Send + 'static {
        let scheme = self.scheme().clone();
        self.log().read(query).try_filter(move |message| {
            std::future::ready(message.subject.as_str().starts_with(scheme.event_prefix()))
        })
    }
}
