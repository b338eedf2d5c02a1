//! Where somebody stands in a lifecycle, and what is refused as the next stage.
//!
//! Which stages there are is in `table.rs`.

use std::fmt;

use super::Lifecycle;

/// What is refused of a life. Nothing was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTransition {
    /// This stage may not follow that one. Decide otherwise, or add the transition to the lifecycle.
    #[error("{from} may not become {to}; {}", options(.allowed))]
    Forbidden {
        /// The stage there was.
        from: &'static str,
        /// The stage there would be.
        to: &'static str,
        /// What it may become; nothing when it is terminal.
        allowed: &'static [&'static str],
    },
    /// A life does not begin with its first stage. Make the aggregate begin there, or put that row first.
    #[error("a life begins as {first}, not as {found}")]
    Beginning {
        /// The first stage.
        first: &'static str,
        /// The stage there would be.
        found: &'static str,
    },
    /// What had a stage has none any more. Keep one: a life ends in a terminal stage.
    #[error("what is {from} would have no stage any more; a life ends in a terminal stage")]
    Left {
        /// The stage there was.
        from: &'static str,
    },
}

fn options(allowed: &[&str]) -> String {
    match allowed {
        [] => "it is terminal".to_owned(),
        allowed => format!("it may become {}", allowed.join(" or ")),
    }
}

/// One stage of one lifecycle: where somebody stands.
///
/// A name that the table does not have leads nowhere: nothing may follow it, and it may follow nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    name: &'static str,
    lifecycle: &'static Lifecycle,
}

impl Stage {
    /// The stage of that name. [`lifecycle!`](crate::lifecycle!) does this for the variants of an enum.
    pub const fn new(lifecycle: &'static Lifecycle, name: &'static str) -> Self {
        Self { name, lifecycle }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its lifecycle.
    pub fn lifecycle(&self) -> &'static Lifecycle {
        self.lifecycle
    }

    /// Whether nothing may follow it.
    pub fn is_terminal(&self) -> bool {
        self.lifecycle.followers(self.name).is_empty()
    }

    /// Whether somebody who stands here may stand there next: in the same stage, or in one that may follow it.
    ///
    /// # Errors
    /// [`InvalidTransition::Forbidden`]; stages of two lifecycles never follow each other.
    pub fn check(&self, next: &Stage) -> Result<(), InvalidTransition> {
        let allowed = self.lifecycle.followers(self.name);
        let follows = || self.lifecycle == next.lifecycle && allowed.contains(&next.name);
        if self == next || follows() {
            return Ok(());
        }
        Err(InvalidTransition::Forbidden { from: self.name, to: next.name, allowed })
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Whether the one may come after the other, where `None` is whoever has no stage: not yet, or never.
///
/// # Errors
/// [`InvalidTransition`].
pub(crate) fn check(before: Option<Stage>, after: Option<Stage>) -> Result<(), InvalidTransition> {
    match (before, after) {
        (None, None) => Ok(()),
        (Some(before), Some(after)) => before.check(&after),
        (Some(before), None) => Err(InvalidTransition::Left { from: before.name }),
        (None, Some(after)) if after.name == after.lifecycle.first() => Ok(()),
        (None, Some(after)) => {
            let first = after.lifecycle.first();
            Err(InvalidTransition::Beginning { first, found: after.name })
        }
    }
}

/// A type whose values stand in a stage of a lifecycle, usually an enum. Implemented by [`lifecycle!`](crate::lifecycle!).
pub trait Staged {
    /// The lifecycle.
    const LIFECYCLE: &'static Lifecycle;

    /// Where this value stands.
    fn stage(&self) -> Stage;

    /// The events of a decision that leads to another stage: none when that is the stage already, else those given.
    ///
    /// # Errors
    /// [`InvalidTransition`] when the lifecycle forbids it.
    fn transition<E>(
        &self,
        to: &Self,
        events: impl Into<Vec<E>>,
    ) -> Result<Vec<E>, InvalidTransition> {
        let (from, to) = (self.stage(), to.stage());
        from.check(&to)?;
        Ok(if from == to { Vec::new() } else { events.into() })
    }
}
