//! Where things lie: the subjects of a deployment, and the names of its stream and buckets.
//!
//! What a subject is by itself is in `literal.rs`; what a person may write to name one of these is in `address.rs` and
//! `event_pattern.rs`.

use std::sync::Arc;

use uuid::Uuid;

use super::id::AggregateId;
use super::literal::Subject;
use super::token::{
    AggregateType, ConstraintName, ContextName, InvalidToken, ModelType, check_name,
};

/// The longest prefix of subjects, in bytes: with it every subject fits into a pattern and a server's control line.
pub const MAX_PREFIX_BYTES: usize = 256;

/// What the addresses of read models begin with.
const READ_MODELS: &str = "cim.readmodels.";

/// What the subjects of claims begin with.
const UNIQUE: &str = "cim.unique.";

/// The subjects of one context: how an aggregate's name becomes a subject and a key, and back.
///
/// ```
/// use cim_persistence::subject::{AggregateId, AggregateType, ContextName, SubjectScheme};
///
/// let scheme = SubjectScheme::new(ContextName::new("sales")?, "cim.events", "cim.aggregates")?;
/// let order = AggregateType::new("order")?;
/// let id = AggregateId::new("42")?;
/// assert_eq!(scheme.events_of(&order, &id).as_str(), "cim.events.sales.order.42");
/// assert_eq!(scheme.state_of(&order, &id).as_str(), "cim.aggregates.sales.order.42.state");
/// assert_eq!(scheme.parse_events_of("cim.events.sales.order.42"), Some((order, id)));
/// # Ok::<(), cim_persistence::subject::InvalidToken>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectScheme {
    context: ContextName,
    events: Arc<str>,
    aggregates: Arc<str>,
}

impl SubjectScheme {
    /// The subjects of `context` below the two prefixes, by default `cim.events` and `cim.aggregates`.
    ///
    /// # Errors
    /// [`InvalidToken`] when a prefix is empty, over [`MAX_PREFIX_BYTES`], or one of its tokens is not a name.
    pub fn new(
        context: ContextName,
        event_prefix: &str,
        aggregate_prefix: &str,
    ) -> Result<Self, InvalidToken> {
        check_prefix("event subject prefix", event_prefix)?;
        check_prefix("aggregate subject prefix", aggregate_prefix)?;
        Ok(Self {
            events: format!("{event_prefix}.{context}.").into(),
            aggregates: format!("{aggregate_prefix}.{context}.").into(),
            context,
        })
    }

    /// The context.
    pub fn context(&self) -> &ContextName {
        &self.context
    }

    /// The subject that the events of one aggregate are stored on.
    pub fn events_of(&self, aggregate: &AggregateType, id: &AggregateId) -> Subject {
        let (prefix, aggregate, id) = (&*self.events, aggregate.as_str(), id.as_str());
        Subject::joined(&[prefix, aggregate, ".", id])
    }

    /// The filter for the events of every aggregate of one type.
    pub fn events_of_type(&self, aggregate: &AggregateType) -> String {
        format!("{}{aggregate}.>", self.events)
    }

    /// The filter for every event of the context.
    pub fn all_events(&self) -> String {
        format!("{}>", self.events)
    }

    /// The subject of the claims on one value.
    pub fn claims_on(&self, constraint: &ConstraintName, value: &AggregateId) -> Subject {
        Subject::trusted(format!("{UNIQUE}{}.{constraint}.{}", self.context, value.as_str()))
    }

    /// The filter for the claims on every value of a constraint.
    pub fn claims_of(&self, constraint: &ConstraintName) -> String {
        format!("{UNIQUE}{}.{constraint}.>", self.context)
    }

    /// The subject of messages that do nothing but carry a guard. No constraint has such a name.
    pub(crate) fn asserted(&self) -> Subject {
        Subject::trusted(format!("{UNIQUE}{}.=asserted", self.context))
    }

    /// The subject of the message that admits a commit without any other guard at most once.
    pub(crate) fn anchor(&self, unit: Uuid) -> Subject {
        Subject::trusted(format!("{UNIQUE}{}.=anchor.{}", self.context, unit.simple()))
    }

    /// The address of one aggregate's current state.
    pub fn state_of(&self, aggregate: &AggregateType, id: &AggregateId) -> Subject {
        let (prefix, aggregate, id) = (&*self.aggregates, aggregate.as_str(), id.as_str());
        Subject::joined(&[prefix, aggregate, ".", id, ".state"])
    }

    /// The address of one read model.
    pub fn read_model(&self, model: &ModelType, id: &AggregateId) -> Subject {
        let key = Self::read_model_key(model, id);
        Subject::trusted(format!("{READ_MODELS}{key}"))
    }

    /// The key of one aggregate's current state in its bucket.
    pub fn key_of(aggregate: &AggregateType, id: &AggregateId) -> String {
        [aggregate.as_str(), ".", id.as_str()].concat()
    }

    /// The key of one read model in its bucket.
    pub fn read_model_key(model: &ModelType, id: &AggregateId) -> String {
        format!("{model}.{}", id.as_str())
    }

    /// What the subjects of the context's events begin with, up to and including the dot before the aggregate type.
    pub fn event_prefix(&self) -> &str {
        &self.events
    }

    /// What addresses begin with: those of events, of states, of read models.
    pub(super) fn prefixes(&self) -> [&str; 3] {
        [&self.events, &self.aggregates, READ_MODELS]
    }

    /// Whether the events of this aggregate lie on `subject`. As `events_of` would tell, without building the subject.
    pub(crate) fn is_events_of(
        &self,
        subject: &str,
        aggregate: &AggregateType,
        id: &AggregateId,
    ) -> bool {
        subject
            .strip_prefix(&*self.events)
            .and_then(|rest| rest.strip_prefix(aggregate.as_str()))
            .and_then(|rest| rest.strip_prefix('.'))
            == Some(id.as_str())
    }

    /// Whose events lie on `subject`, if it is one of this context's.
    pub fn parse_events_of(&self, subject: &str) -> Option<(AggregateType, AggregateId)> {
        let (aggregate, id) = subject.strip_prefix(&*self.events)?.split_once('.')?;
        Some((AggregateType::new(aggregate).ok()?, AggregateId::from_escaped(id).ok()?))
    }
}

/// The names of one context's streams and buckets.
///
/// Names only: what they look like is checked where they are used,
/// by [`Topology::new`](crate::backend::Topology::new).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The stream of the events, the outbox and the claims.
    pub event_stream: String,
    /// The bucket of current state.
    pub state_bucket: String,
    /// The bucket of snapshots.
    pub snapshot_bucket: String,
    /// The bucket of read models.
    pub read_model_bucket: String,
    /// The bucket of the records of migrations.
    pub meta_bucket: String,
    /// The stream of the timeouts.
    pub timeout_stream: String,
}

impl Names {
    /// The default names of a context.
    ///
    /// ```
    /// use cim_persistence::subject::{ContextName, Names};
    /// let names = Names::of(&ContextName::new("sales")?);
    /// assert_eq!(names.event_stream, "CIM-EVENTS-sales");
    /// assert_eq!(names.state_bucket, "cim-state-sales");
    /// # Ok::<(), cim_persistence::subject::InvalidToken>(())
    /// ```
    pub fn of(context: &ContextName) -> Self {
        Self {
            event_stream: format!("CIM-EVENTS-{context}"),
            state_bucket: format!("cim-state-{context}"),
            snapshot_bucket: format!("cim-snapshots-{context}"),
            read_model_bucket: format!("cim-readmodels-{context}"),
            meta_bucket: format!("cim-meta-{context}"),
            timeout_stream: format!("CIM-TIMEOUTS-{context}"),
        }
    }
}

fn check_prefix(what: &'static str, prefix: &str) -> Result<(), InvalidToken> {
    if prefix.is_empty() {
        return Err(InvalidToken::Empty { what });
    }
    if prefix.len() > MAX_PREFIX_BYTES {
        return Err(InvalidToken::TooLong { what, actual: prefix.len(), max: MAX_PREFIX_BYTES });
    }
    prefix.split('.').try_for_each(|token| check_name(what, token))
}
