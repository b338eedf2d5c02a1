//! Topics: what a message is about, and so the subject it lies on until it is published.

use std::fmt;
use std::sync::Arc;

use crate::event::NonEmpty;
use crate::subject::{ContextName, Pattern, Subject};

/// The longest topic, in bytes.
pub const MAX_TOPIC_BYTES: usize = 256;

/// What the outbox subjects of every context begin with.
const PREFIX: &str = "cim.outbox.";

/// What a topic of this crate's own begins with.
const RESERVED: char = '=';

/// The topic of a message: one or more tokens of `A-Z a-z 0-9 _ -`, joined with dots.
///
/// Cloning is cheap.
///
/// ```
/// use cim_persistence::outbox::Topic;
/// assert!(Topic::new("orders.placed").is_ok());
/// assert!(Topic::new("orders..placed").is_err());
/// assert!(Topic::new("orders.*").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// A text cannot be a topic. Nothing was sent; write it otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a topic: tokens of A-Z a-z 0-9 _ - joined with single dots, at most {MAX_TOPIC_BYTES} bytes"
)]
pub struct InvalidTopic {
    /// The text, its first [`MAX_TOPIC_BYTES`] characters.
    pub text: String,
}

impl Topic {
    /// Checks `text` and makes it a topic.
    ///
    /// # Errors
    /// [`InvalidTopic`] when it is not one.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidTopic> {
        let text = text.as_ref();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let is_name = |token: &str| !token.is_empty() && token.chars().all(plain);
        match text.len() <= MAX_TOPIC_BYTES && text.split('.').all(is_name) {
            true => Ok(Self(text.into())),
            false => Err(InvalidTopic { text: text.chars().take(MAX_TOPIC_BYTES).collect() }),
        }
    }

    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this topic is `other`, or one below it: `orders.placed` is below `orders`.
    pub fn is_within(&self, other: &Self) -> bool {
        let rest = self.0.strip_prefix(&*other.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// The topic of a message, by where it lies; `None` outside the context's outbox. What others wrote there may be no
    /// name.
    pub(super) fn of_subject(context: &ContextName, subject: &str) -> Option<Self> {
        let rest = subject.strip_prefix(PREFIX)?.strip_prefix(context.as_str())?;
        rest.strip_prefix('.').map(|topic| Self(topic.into()))
    }

    /// Whether it is one of this crate's own, which no service can name and no relay of a service publishes.
    pub(super) fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED)
    }

    /// The subject that the messages of this topic lie on.
    pub(crate) fn subject(&self, context: &ContextName) -> Subject {
        Subject::trusted(subject_text(context, &self.0))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The subject of a topic, whoever named it.
pub(super) fn subject_text(context: &ContextName, topic: &str) -> String {
    format!("{PREFIX}{context}.{topic}")
}

/// Which topics a relay publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// All of them.
    All,
    /// These, and those below them.
    Within(NonEmpty<Topic>),
}

impl Topics {
    pub(super) fn contain(&self, topic: &Topic) -> bool {
        match self {
            Self::All => !topic.is_reserved(),
            Self::Within(roots) => roots.iter().any(|root| topic.is_within(root)),
        }
    }

    /// The subjects they lie on.
    pub(super) fn patterns(&self, context: &ContextName) -> NonEmpty<Pattern> {
        let parse = |text: &str| {
            Pattern::parse(text).expect("subjects of topics are patterns, and so with > at the end")
        };
        let roots = match self {
            Self::All => return NonEmpty::one(parse(&format!("{PREFIX}{context}.>"))),
            Self::Within(roots) => roots,
        };
        let both = |root: &Topic| {
            let subject = root.subject(context);
            [parse(subject.as_str()), parse(&format!("{subject}.>"))]
        };
        NonEmpty::from_vec(roots.iter().flat_map(both).collect()).expect("made from a NonEmpty")
    }
}
