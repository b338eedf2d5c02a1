//! Timeouts: whose one is, and the subjects that it is scheduled and comes due on.

use std::sync::Arc;

use super::Subject;
use super::id::AggregateId;
use super::pattern::Pattern;
use super::token::{ContextName, InvalidToken, check_name};

/// Which timeout: the process manager, its instance, and the name that the manager gave it. There is one at a time.
///
/// - the manager and the name are names: `A-Z a-z 0-9 _ -`, at most 64 bytes;
/// - the instance is an id like that of an aggregate.
///
/// ```
/// use cim_persistence::subject::{AggregateId, TimeoutAddress};
/// let order = AggregateId::new("42")?;
/// assert!(TimeoutAddress::new("shipping", &order, "reminder").is_ok());
/// assert!(TimeoutAddress::new("shipping", &order, "second reminder").is_err());
/// # Ok::<(), cim_persistence::subject::InvalidToken>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimeoutAddress {
    process: Arc<str>,
    instance: AggregateId,
    name: Arc<str>,
}

impl TimeoutAddress {
    /// The timeout of this name.
    ///
    /// # Errors
    /// [`InvalidToken`] when the manager's name or the timeout's is none.
    pub fn new(process: &str, instance: &AggregateId, name: &str) -> Result<Self, InvalidToken> {
        check_name("process name", process)?;
        check_name("timeout name", name)?;
        Ok(Self { process: process.into(), instance: instance.clone(), name: name.into() })
    }

    /// The process manager's name.
    pub fn process(&self) -> &str {
        &self.process
    }

    /// The instance of the process.
    pub fn instance(&self) -> &AggregateId {
        &self.instance
    }

    /// The name that the process manager gave it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The subjects of a context's timeouts: `cim.timeouts.<context>.at.…` and `cim.timeouts.<context>.due.…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeoutSubjects {
    scheduled: Arc<str>,
    due: Arc<str>,
}

impl TimeoutSubjects {
    /// Those of one context.
    pub fn of(context: &ContextName) -> Self {
        Self {
            scheduled: format!("cim.timeouts.{context}.at.").into(),
            due: format!("cim.timeouts.{context}.due.").into(),
        }
    }

    /// The filters for all of them.
    pub fn all(&self) -> [String; 2] {
        [format!("{}>", self.scheduled), format!("{}>", self.due)]
    }

    /// Where a timeout waits.
    pub fn scheduled(&self, address: &TimeoutAddress) -> Subject {
        place(&self.scheduled, address)
    }

    /// Where a timeout lies when it is due.
    pub fn due(&self, address: &TimeoutAddress) -> Subject {
        place(&self.due, address)
    }

    /// All timeouts of a process manager that are due.
    ///
    /// # Errors
    /// [`InvalidToken`] when the name is none.
    pub fn all_due(&self, process: &str) -> Result<Pattern, InvalidToken> {
        check_name("process name", process)?;
        let text = format!("{}{process}.>", self.due);
        Ok(Pattern::parse(&text).expect("names with dots between them and > at the end"))
    }

    /// Which timeout lies on a subject, if it is one where they come due.
    pub fn parse_due(&self, subject: &str) -> Option<TimeoutAddress> {
        parse(subject.strip_prefix(&*self.due)?)
    }

    /// Which timeout lies on a subject, if it is one where they wait.
    pub fn parse_scheduled(&self, subject: &str) -> Option<TimeoutAddress> {
        parse(subject.strip_prefix(&*self.scheduled)?)
    }
}

fn place(prefix: &str, address: &TimeoutAddress) -> Subject {
    let TimeoutAddress { process, instance, name } = address;
    Subject::joined(&[prefix, process, ".", instance.as_str(), ".", name])
}

fn parse(rest: &str) -> Option<TimeoutAddress> {
    let (process, rest) = rest.split_once('.')?;
    let (instance, name) = rest.rsplit_once('.')?;
    TimeoutAddress::new(process, &AggregateId::from_escaped(instance).ok()?, name).ok()
}
