//! Searching aggregates: by pattern and tags, or by what a specification says of their states.
//!
//! Where the states come from is in `scan.rs`.

use std::future::ready;
use std::num::NonZeroUsize;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::loaded::Loaded;
use super::scan::Member;
use super::{Aggregate, AggregateMetadata, LoadOptions, Repository, RepositoryError, SaveOptions};
use crate::event::Tag;
use crate::specification::{
    Compiled, OrderBy, Page, SearchOptions, Selection, Specification, document_of, field, fields_of,
};
use crate::store::ExpectedVersion;
use crate::subject::{AggregatePattern, AggregateType};

/// The field of a document that says what is known of the aggregate beside its state.
const ABOUT: &str = "_";

/// Whether what is found is compared with the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueryFreshness {
    /// The last event of every aggregate is read too, and what its kept state lacks is replayed. What was found is as
    /// [`Freshness::Current`](super::Freshness::Current) says: as the replica has it that answers. An aggregate may be
    /// missing of which that replica has no event yet.
    #[default]
    Checked,
    /// As the states are kept. They are written behind the commits, so one may be old, and an aggregate whose state was
    /// not written yet is missing. Half the reading. In a context that keeps no state the same as `Checked`.
    Kept,
}

/// Which aggregates are wanted, and in which order.
///
/// ```
/// use cim_persistence::event::Tag;
/// use cim_persistence::repository::QueryOptions;
/// use cim_persistence::specification::{OrderBy, field};
///
/// let rich_in_berlin = QueryOptions {
///     subject_pattern: Some("cim.events.bank.account.berlin.*".to_owned()),
///     tags: vec![Tag::new("private")?],
///     specification: field("cents").gt(1_000_000),
///     sort_by: vec![OrderBy::descending("cents"), OrderBy::ascending("_.id")],
///     limit: Some(10),
///     ..QueryOptions::default()
/// };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct QueryOptions {
    /// Which aggregates, as [`AggregatePattern`] reads it: by the subject of the events, the address of the state or its
    /// key. All of the repository's type when `None`. The server filters by it.
    pub subject_pattern: Option<String>,
    /// The repository's own type, for a caller that gets it from elsewhere; another one is an error.
    pub aggregate_type: Option<AggregateType>,
    /// Tags that an aggregate must have, all of them.
    pub tags: Vec<Tag>,
    /// What must be true of the state, as for [`search`](Repository::search). By default anything.
    pub specification: Specification,
    /// How many aggregates at most; all, when `None`.
    pub limit: Option<usize>,
    /// How many are left out at the beginning.
    pub offset: usize,
    /// What to order by, the most important first: fields of the state, or `_.version` and the like. In the end by id.
    pub sort_by: Vec<OrderBy>,
    /// Whether what is found is compared with the events.
    pub freshness: QueryFreshness,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self {
            subject_pattern: None,
            aggregate_type: None,
            tags: Vec::new(),
            specification: Specification::everything(),
            limit: None,
            offset: 0,
            sort_by: Vec::new(),
            freshness: QueryFreshness::default(),
        }
    }
}

impl<A> Repository<A>
where
    A: Aggregate + Send + Sync + 'static,
    A::Id: Send + Sync,
{
    /// The aggregates that exist, and that a pattern, tags and a specification mean.
    ///
    /// Up to about a thousand take one round trip, in which the server finds the kept states and the last events by the
    /// pattern; then one or more for each aggregate whose state lags behind. More are read by a consumer that ends with the
    /// call, five hundred states at a time. What each says is right; all together they are not of one moment, for which see
    /// [`load_matching`](Self::load_matching).
    ///
    /// # Errors
    /// [`RepositoryError::Pattern`], [`RepositoryError::OtherType`] and [`RepositoryError::Specification`] for what is asked;
    /// [`RepositoryError::Store`] when the store fails, an event cannot be trusted or an id is not of the aggregate's type.
    ///
    /// ```
    /// # use cim_persistence::prelude::*;
    /// # use cim_persistence::repository::{Aggregate, Repository, RepositoryError, QueryOptions};
    /// # async fn example<A>(accounts: Repository<A>) -> Result<(), Box<dyn std::error::Error>>
    /// # where A: Aggregate + Send + Sync + 'static, A::Id: Send + Sync {
    /// let options = QueryOptions {
    ///     subject_pattern: Some("account.berlin.*".to_owned()),
    ///     sort_by: vec!["-_.last_modified".parse()?],
    ///     limit: Some(20),
    ///     ..QueryOptions::default()
    /// };
    /// for (_account, known) in accounts.query(&options).await? {
    ///     println!("{} has version {}", known.aggregate_id, known.version);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn query(
        &self,
        options: &QueryOptions,
    ) -> Result<Vec<(A, AggregateMetadata)>, RepositoryError> {
        if let Some(asked) =
            options.aggregate_type.as_ref().filter(|asked| **asked != self.aggregate)
        {
            return Err(RepositoryError::OtherType {
                asked: asked.to_string(),
                aggregate_type: self.aggregate.to_string(),
            });
        }
        let pattern = self.pattern(options.subject_pattern.as_deref())?;
        let tagged = options.tags.iter().map(|tag| field("_.tags").contains(tag.as_str()));
        let specification = Specification::all(tagged).and(options.specification.clone());
        let search = SearchOptions {
            order_by: options.sort_by.clone(),
            limit: options.limit,
            offset: options.offset,
            ..SearchOptions::default()
        };
        Ok(self.select(&pattern, options.freshness, specification, &search).await?.items)
    }

    /// A page of the aggregates that are as specified.
    ///
    /// What is asked is the aggregate's state as JSON, as serde writes it, with a field `_` beside its own: `_.id` (the id
    /// as its owner wrote it), `_.version`, `_.tags`, `_.last_modified` (microseconds since 1970). A field of the state that
    /// is called so is hidden, and a state that is no JSON object has `_` alone. Aggregates are always given whole: the fields
    /// in the options say only what `distinct` compares.
    ///
    /// All aggregates of the type are read, as [`query`](Self::query) does, and compared with their events. A cursor
    /// goes on with the same question.
    ///
    /// With a limit, memory holds at most about twice as many of the aggregates found as the page and what is before it
    /// have. It also holds what is being read: up to about a thousand aggregates the last events and the kept states of
    /// all; of more than that a few thousand at most, and the ids of all.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    ///
    /// ```
    /// # use cim_persistence::repository::{Aggregate, Repository};
    /// use cim_persistence::specification::{SearchOptions, field};
    /// # async fn example<A>(accounts: Repository<A>) -> Result<(), Box<dyn std::error::Error>>
    /// # where A: Aggregate + Send + Sync + 'static, A::Id: Send + Sync {
    /// let overdrawn = field("cents").lt(0).and(field("_.version").gt(1));
    /// let options = SearchOptions::default().order_by("cents")?.limit(10);
    /// let page = accounts.search(&overdrawn, &options).await?;
    /// println!("the first {} of {}", page.items.len(), page.total);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn search(
        &self,
        specification: &Specification,
        options: &SearchOptions,
    ) -> Result<Page<(A, AggregateMetadata)>, RepositoryError> {
        let (all, freshness) = (self.pattern(None)?, QueryFreshness::Checked);
        self.select(&all, freshness, specification.clone(), options).await
    }

    /// The aggregates that are as specified, in no order and in batches of so many, the last of which may hold less.
    ///
    /// The first batch may come before the last aggregate is brought up to its events. Memory holds one batch, and what
    /// is being read, as for [`search`](Self::search). An error ends the stream.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn search_stream(
        &self,
        specification: &Specification,
        batch: NonZeroUsize,
    ) -> Result<
        BoxStream<'static, Result<Vec<(A, AggregateMetadata)>, RepositoryError>>,
        RepositoryError,
    > {
        let specification = checked::<A>(specification.clone(), &SearchOptions::default())?;
        let members = self.members(&self.pattern(None)?, QueryFreshness::Checked).await?;
        let repository = self.clone();
        let found = members.try_filter_map(move |(key, loaded)| {
            let given = match document(&(key.clone(), Arc::clone(&loaded))) {
                Ok(document) if specification.matches(&document) => {
                    repository.given((key, loaded)).map(Some)
                }
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            };
            ready(given)
        });
        Ok(found.try_chunks(batch.get()).map_err(|error| error.1).boxed())
    }

    /// The first of the aggregates that are as specified, in the order of the options.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn first(
        &self,
        specification: &Specification,
        options: &SearchOptions,
    ) -> Result<Option<(A, AggregateMetadata)>, RepositoryError> {
        let mut page = self.search(specification, &options.clone().limit(1)).await?;
        Ok(page.items.pop())
    }

    /// How many aggregates are as specified.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn count(&self, specification: &Specification) -> Result<usize, RepositoryError> {
        Ok(self.search(specification, &SearchOptions::default().limit(0)).await?.total)
    }

    /// All aggregates of the type, by id. All are held in memory; see [`search_stream`](Self::search_stream).
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn list_all(&self) -> Result<Vec<(A, AggregateMetadata)>, RepositoryError> {
        let all = SearchOptions::default();
        Ok(self.search(&Specification::everything(), &all).await?.items)
    }

    /// The newest state: [`load`](Self::load) without options.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn get(&self, id: &A::Id) -> Result<(A, AggregateMetadata), RepositoryError> {
        self.load(id, LoadOptions::default()).await
    }

    /// Stores events of a new aggregate, or of one that was loaded and that nobody may have changed since:
    /// [`save`](Self::save) with that expectation.
    ///
    /// # Errors
    /// [`RepositoryError::VersionConflict`] when the aggregate exists although nothing was loaded, or was changed since; else
    /// as [`save`](Self::save).
    ///
    /// ```
    /// # use cim_persistence::repository::{Aggregate, Repository, RepositoryError};
    /// # async fn example<A>(orders: Repository<A>, id: A::Id, made: Vec<A::Event>, paid: Vec<A::Event>) -> Result<(), RepositoryError>
    /// # where A: Aggregate + Send + Sync + 'static, A::Id: Send + Sync {
    /// let known = orders.add(&A::new(&id), made, None).await?;
    /// let (order, _) = orders.get(&id).await?;
    /// orders.add(&order, paid, Some(&known)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn add(
        &self,
        aggregate: &A,
        events: Vec<A::Event>,
        loaded: Option<&AggregateMetadata>,
    ) -> Result<AggregateMetadata, RepositoryError> {
        let options = match loaded {
            Some(known) => SaveOptions::after(known),
            None => ExpectedVersion::NoStream.into(),
        };
        self.save(aggregate, events, options).await
    }

    async fn select(
        &self,
        pattern: &AggregatePattern,
        freshness: QueryFreshness,
        specification: Specification,
        options: &SearchOptions,
    ) -> Result<Page<(A, AggregateMetadata)>, RepositoryError> {
        let specification = checked::<A>(specification, options)?;
        let mut selection = Selection::new(specification, options, &pattern.to_string())?;
        let mut members = self.members(pattern, freshness).await?;
        while let Some(member) = members.try_next().await? {
            let document = document(&member)?;
            selection.push(member.0.clone().as_str(), document, member);
        }
        let Page { items, next, total } = selection.finish();
        let items: Result<Vec<_>, _> =
            items.into_iter().map(|found| self.given(found.about)).collect();
        Ok(Page { items: items?, next, total })
    }

    /// What a caller gets of an aggregate.
    pub(super) fn given(
        &self,
        (key, loaded): Member<A>,
    ) -> Result<(A, AggregateMetadata), RepositoryError> {
        let known = self.describe(&key, &loaded);
        Ok((Arc::unwrap_or_clone(loaded).state, known))
    }
}

/// A specification that asks about fields that there are.
fn checked<A: Aggregate>(
    specification: Specification,
    options: &SearchOptions,
) -> Result<Compiled, RepositoryError> {
    let compiled = specification.compile()?;
    if let Some(fields) = fields_of::<A>() {
        let known: Vec<&str> = fields.iter().copied().chain([ABOUT]).collect();
        compiled.check_fields(&known)?;
        options.check_fields(&known)?;
    }
    Ok(compiled)
}

/// What is asked of an aggregate.
fn document<A: Aggregate>((key, loaded): &Member<A>) -> Result<Value, RepositoryError> {
    let Loaded { head, tags, modified, .. } = &**loaded;
    let about = json!({
        "id": key.to_string(),
        "version": head.version,
        "tags": tags,
        "last_modified": modified,
    });
    Ok(match document_of(&loaded.state)? {
        Value::Object(mut fields) => {
            fields.insert(ABOUT.to_owned(), about);
            Value::Object(fields)
        }
        _ => json!({ ABOUT: about }),
    })
}
