//! Unique values: who owns a value that only one aggregate of a context may have.
//!
//! A value's subject holds the history of its claims; the last message says whose it is. A claim is guarded by the
//! position of the message that was read, so of two claimants one comes too late, whoever they are and wherever they
//! run.

use std::fmt;

use futures::StreamExt;
use serde::{Deserialize, Serialize};

use super::{UnitError, UnitOfWork};
use crate::backend::{
    BackendError, Bound, Guard, Matching, NewMessage, Position, ReadFrom, StoredMessage,
};
use crate::clock::IdSource;
use crate::event::{Headers, NonEmpty, names};
use crate::event_log::LogQuery;
use crate::repository::{Aggregate, Repository, RepositoryError};
use crate::store::Context;
use crate::subject::{
    AggregateId, AggregateType, ConstraintName, Identity, Pattern, Subject, SubjectScheme,
};

/// Whom a unique value belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The type of the aggregate.
    #[serde(rename = "owner_type")]
    pub aggregate_type: AggregateType,
    /// Its id.
    #[serde(rename = "owner_id")]
    pub id: AggregateId,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.aggregate_type, self.id)
    }
}

/// What a message on the subject of a value says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    format: u32,
    #[serde(flatten)]
    claim: Claim,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Claim {
    Claimed(Owner),
    Released,
}

const FORMAT: u32 = 1;

/// The claims that a unit has read, and what it makes of them.
#[derive(Debug, Default)]
pub(super) struct Claims(Vec<Slot>);

/// One value: whose it is, and whose it is to be.
#[derive(Debug, Clone)]
struct Slot {
    constraint: ConstraintName,
    value: AggregateId,
    subject: Subject,
    seen: Option<Owner>,
    at: Position,
    wanted: Option<Owner>,
}

impl UnitOfWork {
    /// Claims a value for an aggregate: the commit fails unless the value is free, or the aggregate's already.
    ///
    /// Values are compared byte by byte: bring them into one form (case, spaces) first. One round trip.
    ///
    /// # Errors
    /// [`UnitError::UniqueViolation`] when it belongs to another; [`UnitError::Store`] with
    /// [`InvalidToken`](crate::subject::InvalidToken) when the constraint is not a name, or the value is empty, over 128
    /// bytes or holds control characters.
    pub async fn claim<A: Aggregate + Send + Sync + 'static>(
        &mut self,
        constraint: &str,
        value: &str,
        repository: &Repository<A>,
        id: &A::Id,
    ) -> Result<(), UnitError> {
        let claimant = owner(repository, id)?;
        let slot = self.claims.slot(&self.context, constraint, value).await?;
        slot.claim(claimant)
    }

    /// Gives back a value that belongs to an aggregate. One round trip.
    ///
    /// # Errors
    /// [`UnitError::NotOwned`] when it does not; else as [`claim`](Self::claim).
    pub async fn release<A: Aggregate + Send + Sync + 'static>(
        &mut self,
        constraint: &str,
        value: &str,
        repository: &Repository<A>,
        id: &A::Id,
    ) -> Result<(), UnitError> {
        let claimant = owner(repository, id)?;
        let slot = self.claims.slot(&self.context, constraint, value).await?;
        slot.release(claimant)
    }

    /// Gives back one value of an aggregate and claims another for it: a changed address. Two round trips; nothing changes
    /// in the unit when it fails.
    ///
    /// # Errors
    /// As [`release`](Self::release) and [`claim`](Self::claim).
    pub async fn move_claim<A: Aggregate + Send + Sync + 'static>(
        &mut self,
        constraint: &str,
        from: &str,
        to: &str,
        repository: &Repository<A>,
        id: &A::Id,
    ) -> Result<(), UnitError> {
        let claimant = owner(repository, id)?;
        let before = self.claims.slot(&self.context, constraint, from).await?.clone();
        let mut after = before.clone();
        after.release(claimant.clone())?;
        if from != to {
            self.claims.slot(&self.context, constraint, to).await?.claim(claimant)?;
            *self.claims.slot(&self.context, constraint, from).await? = after;
        }
        Ok(())
    }
}

fn owner<A: Aggregate + Send + Sync + 'static>(
    repository: &Repository<A>,
    id: &A::Id,
) -> Result<Owner, UnitError> {
    let id = id.to_aggregate_id().map_err(RepositoryError::from)?;
    Ok(Owner { aggregate_type: repository.aggregate_type().clone(), id })
}

impl Claims {
    /// The slot of a value, read through the leader if it is new here.
    async fn slot(
        &mut self,
        context: &Context,
        constraint: &str,
        value: &str,
    ) -> Result<&mut Slot, UnitError> {
        let (constraint, value) = (ConstraintName::new(constraint)?, AggregateId::new(value)?);
        let subject = context.scheme().claims_on(&constraint, &value);
        let known = self.0.iter().position(|slot| slot.subject == subject);
        let index = match known {
            Some(index) => index,
            None => {
                let (seen, at) = read(context, &subject).await?;
                let wanted = seen.clone();
                self.0.push(Slot { constraint, value, subject, seen, at, wanted });
                self.0.len() - 1
            }
        };
        Ok(&mut self.0[index])
    }

    /// The messages of the claims that change, guarded, and the subjects that must stay as they were read.
    pub(super) fn encode(&self, ids: &dyn IdSource) -> (Vec<NewMessage>, Vec<(Subject, Position)>) {
        let (mut messages, mut asserted) = (Vec::new(), Vec::new());
        for slot in &self.0 {
            if slot.seen == slot.wanted {
                asserted.push((slot.subject.clone(), slot.at));
                continue;
            }
            let claim = slot.wanted.clone().map_or(Claim::Released, Claim::Claimed);
            let record = Record { format: FORMAT, claim };
            let payload = serde_json::to_vec(&record).expect("a record of names and ids is JSON");
            let mut headers = Headers::with_capacity(1);
            headers.push(names::MSG_ID, ids.next_id().to_string());
            let (subject, guard) = (slot.subject.clone(), Guard::Last(slot.at));
            messages.push(NewMessage { subject, headers, payload: payload.into(), guard });
        }
        (messages, asserted)
    }

    /// What a conflict on a subject means, if it is one of these.
    pub(super) async fn explain(&self, context: &Context, subject: &Subject) -> Option<UnitError> {
        let slot = self.0.iter().find(|slot| slot.subject == *subject)?;
        Some(match read(context, subject).await {
            Ok((Some(owner), _)) if Some(&owner) != slot.wanted.as_ref() => slot.violation(owner),
            Ok(_) => UnitError::Overtaken { subject: subject.to_string() },
            Err(error) => error,
        })
    }
}

impl Slot {
    fn claim(&mut self, claimant: Owner) -> Result<(), UnitError> {
        match &self.wanted {
            Some(owner) if *owner != claimant => Err(self.violation(owner.clone())),
            _ => {
                self.wanted = Some(claimant);
                Ok(())
            }
        }
    }

    fn release(&mut self, claimant: Owner) -> Result<(), UnitError> {
        if self.wanted.as_ref() != Some(&claimant) {
            return Err(UnitError::NotOwned {
                constraint: self.constraint.to_string(),
                value: self.value.to_string(),
                claimant: Box::new(claimant),
                owner: self.wanted.clone().map(Box::new),
            });
        }
        self.wanted = None;
        Ok(())
    }

    fn violation(&self, owner: Owner) -> UnitError {
        UnitError::UniqueViolation {
            constraint: self.constraint.to_string(),
            value: self.value.to_string(),
            owner,
        }
    }
}

/// Whose a value is, and where that is written, through the leader.
async fn read(
    context: &Context,
    subject: &Subject,
) -> Result<(Option<Owner>, Position), UnitError> {
    match context.log().last(subject, ReadFrom::Leader).await? {
        Some(message) => Ok((owner_in(&message)?, message.position)),
        None => Ok((None, Position::START)),
    }
}

fn owner_in(message: &StoredMessage) -> Result<Option<Owner>, UnitError> {
    let unreadable = |reason: String| UnitError::Claim {
        subject: message.subject.to_string(),
        position: message.position.get(),
        reason,
    };
    let record: Record =
        serde_json::from_slice(&message.payload).map_err(|error| unreadable(error.to_string()))?;
    match record {
        Record { format: FORMAT, claim: Claim::Claimed(owner) } => Ok(Some(owner)),
        Record { format: FORMAT, claim: Claim::Released } => Ok(None),
        Record { format, .. } => Err(unreadable(format!("its format is {format}, not {FORMAT}"))),
    }
}

/// The unique values of a context, looked up.
#[derive(Debug, Clone)]
pub struct UniqueValues {
    context: Context,
}

impl UniqueValues {
    /// The unique values of a context. No round trip.
    pub fn of(context: &Context) -> Self {
        Self { context: context.clone() }
    }

    /// Whom a value belongs to, as the leader sees it. One round trip.
    ///
    /// # Errors
    /// [`UnitError::Store`] for a constraint or value that is none, and when the stream cannot be read;
    /// [`UnitError::Claim`] for a foreign message.
    pub async fn owner(&self, constraint: &str, value: &str) -> Result<Option<Owner>, UnitError> {
        let (constraint, value) = (ConstraintName::new(constraint)?, AggregateId::new(value)?);
        let subject = self.context.scheme().claims_on(&constraint, &value);
        Ok(read(&self.context, &subject).await?.0)
    }

    /// All values of a constraint with their owners, in the order of their last change. One round trip up to 1024 values;
    /// beyond, the history of the constraint is read.
    ///
    /// # Errors
    /// As [`owner`](Self::owner).
    pub async fn all(&self, constraint: &str) -> Result<Vec<(String, Owner)>, UnitError> {
        let constraint = ConstraintName::new(constraint)?;
        let filter = self.context.scheme().claims_of(&constraint);
        let pattern = Pattern::parse(&filter).expect("a filter made of names is a pattern");
        let log = self.context.log();
        let last = match log.matching(&NonEmpty::one(pattern), Bound::Newest).await? {
            Matching::All(messages) => messages,
            Matching::TooMany => last_of_each(&self.context, filter).await?,
        };
        let mut found = Vec::with_capacity(last.len());
        for message in &last {
            if let Some(owner) = owner_in(message)? {
                found.push((value_of(self.context.scheme(), &constraint, message)?, owner));
            }
        }
        Ok(found)
    }
}

async fn last_of_each(
    context: &Context,
    filter: String,
) -> Result<Vec<StoredMessage>, BackendError> {
    let query = LogQuery { filter: Some(filter), after: Position::START };
    let mut last = std::collections::HashMap::new();
    let mut messages = context.log().read(query);
    while let Some(message) = messages.next().await {
        let message = message?;
        last.insert(message.subject.clone(), message);
    }
    let mut last: Vec<_> = last.into_values().collect();
    last.sort_by_key(|message| message.position);
    Ok(last)
}

fn value_of(
    scheme: &SubjectScheme,
    constraint: &ConstraintName,
    message: &StoredMessage,
) -> Result<String, UnitError> {
    let filter = scheme.claims_of(constraint);
    let escaped = message.subject.as_str().strip_prefix(filter.trim_end_matches('>'));
    let value = escaped.and_then(|escaped| AggregateId::from_escaped(escaped).ok());
    value.map(|value| value.to_string()).ok_or_else(|| UnitError::Claim {
        subject: message.subject.to_string(),
        position: message.position.get(),
        reason: "its subject names no value".to_owned(),
    })
}
