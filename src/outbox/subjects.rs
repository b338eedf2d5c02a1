//! Where the messages of a topic go on NATS. Pure.

use super::Topic;

/// Where the messages of each topic go: a prefix for all, and others for some.
///
/// ```
/// use cim_persistence::outbox::{Subjects, Topic};
///
/// let subjects = Subjects::under("shop")?.map(Topic::new("orders.paid")?, "billing.in")?;
/// assert_eq!(subjects.of(&Topic::new("orders.placed")?), "shop.orders.placed");
/// assert_eq!(subjects.of(&Topic::new("orders.paid.card")?), "billing.in.card");
/// assert_eq!(subjects.of(&Topic::new("orders.paid")?), "billing.in");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subjects {
    prefix: String,
    /// The longest topics first.
    mapped: Vec<(Topic, String)>,
}

/// A text cannot begin a subject that messages are published on. Choose another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} cannot begin the subjects of published messages: tokens without wildcards and white space, joined with \
     single dots, not of the server ($) and not of this crate's own streams"
)]
pub struct InvalidPrefix {
    /// The text.
    pub text: String,
}

impl Subjects {
    /// The messages of a topic go to this prefix, a dot and the topic.
    ///
    /// # Errors
    /// [`InvalidPrefix`] for what cannot begin a subject, or would lead back into a context's own stream.
    pub fn under(prefix: impl Into<String>) -> Result<Self, InvalidPrefix> {
        Ok(Self { prefix: checked(prefix.into())?, mapped: Vec::new() })
    }

    /// The same, but messages of this topic go to this subject, and those of topics below it to subjects below. Of several
    /// that fit, the longest topic counts.
    ///
    /// # Errors
    /// [`InvalidPrefix`] as [`under`](Self::under).
    pub fn map(mut self, topic: Topic, subject: impl Into<String>) -> Result<Self, InvalidPrefix> {
        self.mapped.retain(|(other, _)| *other != topic);
        self.mapped.push((topic, checked(subject.into())?));
        self.mapped.sort_by_key(|(topic, _)| std::cmp::Reverse(topic.as_str().len()));
        Ok(self)
    }

    /// Where the messages of a topic go.
    pub fn of(&self, topic: &Topic) -> String {
        match self.mapped.iter().find(|(root, _)| topic.is_within(root)) {
            Some((root, subject)) => format!("{subject}{}", &topic.as_str()[root.as_str().len()..]),
            None => format!("{}.{topic}", self.prefix),
        }
    }
}

fn checked(text: String) -> Result<String, InvalidPrefix> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '*' | '>' | '.');
    let literal = text.split('.').all(|token| !token.is_empty() && token.chars().all(plain));
    let own = ["cim.events", "cim.outbox", "cim.unique", "cim.timeouts"];
    let within = |root: &str| {
        text.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    match literal && !text.starts_with('$') && text != "cim" && !own.into_iter().any(within) {
        true => Ok(text),
        false => Err(InvalidPrefix { text }),
    }
}
