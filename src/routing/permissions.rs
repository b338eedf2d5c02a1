//! What may be routed: rules that allow and rules that deny, by operation and pattern.

use super::trie::Trie;
use crate::subject::Pattern;

/// What somebody wants of a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// To hand over a message on a subject.
    Publish,
    /// To add a route from a pattern.
    Subscribe,
}

/// Which operations are permitted on which subjects. What is denied is denied, whatever else allows it.
///
/// A subject, or a pattern, is permitted if no `deny` rule overlaps it and one `allow` rule covers it; where no rule
/// speaks of it, [`closed`](Self::closed) denies, which is the default, and [`open`](Self::open) permits. So a route
/// whose pattern would match anything that is denied cannot be added, even if it would match other things as well.
///
/// ```
/// use cim_persistence::routing::{Operation, Permissions};
/// use cim_persistence::subject::{InvalidPattern, Pattern};
///
/// let permissions = Permissions::closed()
///     .allow(Operation::Publish, Pattern::parse("orders.>")?)
///     .deny(Operation::Publish, Pattern::parse("orders.*.secret")?);
/// let may = |text: &str| Ok::<_, InvalidPattern>(permissions.permits(Operation::Publish, &Pattern::parse(text)?));
/// assert!(may("orders.42.placed")?);
/// assert!(!may("orders.42.secret")?, "denied");
/// assert!(!may("orders.>")?, "a part of it is denied");
/// assert!(!may("invoices.1")?, "nobody allowed it");
/// # Ok::<(), InvalidPattern>(())
/// ```
#[derive(Debug, Default)]
pub struct Permissions {
    publish: Rules,
    subscribe: Rules,
    open: bool,
}

#[derive(Debug, Default)]
struct Rules {
    allow: Patterns,
    deny: Patterns,
}

/// Patterns as a list, to be compared with patterns, and as a trie, to be compared with subjects.
#[derive(Debug, Default)]
struct Patterns {
    list: Vec<Pattern>,
    trie: Trie<()>,
}

impl Permissions {
    /// What no rule allows is denied. The default.
    pub fn closed() -> Self {
        Self::default()
    }

    /// What no rule denies is permitted.
    pub fn open() -> Self {
        Self { open: true, ..Self::default() }
    }

    /// Allows an operation on the subjects of a pattern, unless they are denied too.
    pub fn allow(mut self, operation: Operation, pattern: Pattern) -> Self {
        self.rules_mut(operation).allow.push(pattern);
        self
    }

    /// Denies an operation on the subjects of a pattern.
    pub fn deny(mut self, operation: Operation, pattern: Pattern) -> Self {
        self.rules_mut(operation).deny.push(pattern);
        self
    }

    /// Whether an operation is permitted on everything that a pattern matches. A subject is a pattern without wildcards.
    pub fn permits(&self, operation: Operation, pattern: &Pattern) -> bool {
        let rules = self.rules(operation);
        let denied = rules.deny.list.iter().any(|rule| rule.overlaps(pattern));
        !denied && (self.open || rules.allow.list.iter().any(|rule| rule.covers(pattern)))
    }

    /// As [`permits`](Self::permits), of a literal subject; the number of rules does not matter.
    pub(super) fn permits_subject(&self, operation: Operation, subject: &str) -> bool {
        let rules = self.rules(operation);
        !rules.deny.matches(subject) && (self.open || rules.allow.matches(subject))
    }

    fn rules(&self, operation: Operation) -> &Rules {
        match operation {
            Operation::Publish => &self.publish,
            Operation::Subscribe => &self.subscribe,
        }
    }

    fn rules_mut(&mut self, operation: Operation) -> &mut Rules {
        match operation {
            Operation::Publish => &mut self.publish,
            Operation::Subscribe => &mut self.subscribe,
        }
    }
}

impl Patterns {
    fn push(&mut self, pattern: Pattern) {
        self.trie.insert(&pattern, ());
        self.list.push(pattern);
    }

    fn matches(&self, subject: &str) -> bool {
        let mut any = false;
        self.trie.find(subject, |()| any = true);
        any
    }
}
