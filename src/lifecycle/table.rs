//! The table of stages, and why one cannot be.
//!
//! Where somebody stands in it is in `stage.rs`.

use std::fmt;

/// The most stages a lifecycle may have.
pub const MAX_STAGES: usize = 128;

/// A stage by its name, and the names of those that may follow it. None may follow a terminal stage.
pub type Row = (&'static str, &'static [&'static str]);

/// Which stages there are and which may follow which.
///
/// - the first row is the stage in which every life begins;
/// - a stage without followers is terminal;
/// - every stage stands in one row and can be reached from the first one;
/// - no stage names a follower twice, or itself: to stay is always allowed and is no transition.
///
/// Written down by [`lifecycle!`](crate::lifecycle!) for an enum, and then checked by the compiler. Prints as a diagram
/// for documents, in the language of Mermaid.
///
/// ```
/// use cim_persistence::lifecycle::{InvalidLifecycle, Lifecycle};
///
/// let door = Lifecycle::new(&[("Open", &["Shut"]), ("Shut", &["Open", "Walled"]), ("Walled", &[])])?;
/// assert_eq!(door.first(), "Open");
/// assert_eq!(
///     door.to_string(),
///     "stateDiagram-v2\n    state \"Open\" as s1\n    state \"Shut\" as s2\n    state \"Walled\" as s3\n    \
///      [*] --> s1\n    s1 --> s2\n    s2 --> s1\n    s2 --> s3\n    s3 --> [*]\n"
/// );
/// let error = Lifecycle::new(&[("Open", &[]), ("Shut", &["Open"])]);
/// assert_eq!(error, Err(InvalidLifecycle::Unreachable { stage: "Shut" }));
/// # Ok::<(), InvalidLifecycle>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifecycle(&'static [Row]);

impl Lifecycle {
    /// Checks a table and makes it a lifecycle. Works in constants.
    ///
    /// # Errors
    /// [`InvalidLifecycle`], the first reason in the order of the rows.
    pub const fn new(rows: &'static [Row]) -> Result<Self, InvalidLifecycle> {
        if rows.is_empty() {
            return Err(InvalidLifecycle::Empty);
        }
        if rows.len() > MAX_STAGES {
            return Err(InvalidLifecycle::TooMany { stages: rows.len() });
        }
        let mut at = 0;
        while at < rows.len() {
            if let Err(error) = check_row(rows, at) {
                return Err(error);
            }
            at += 1;
        }
        match unreachable(rows) {
            Some(stage) => Err(InvalidLifecycle::Unreachable { stage }),
            None => Ok(Self(rows)),
        }
    }

    /// The stage in which every life begins.
    pub const fn first(&self) -> &'static str {
        self.0[0].0
    }

    /// The stages, each with those that may follow it.
    pub const fn rows(&self) -> &'static [Row] {
        self.0
    }

    /// What may follow a stage; nothing for a terminal one, and for one that is not in the table.
    pub fn followers(&self, stage: &str) -> &'static [&'static str] {
        self.0.iter().find(|(name, _)| *name == stage).map_or(&[], |(_, followers)| followers)
    }
}

impl fmt::Display for Lifecycle {
    /// The diagram as Mermaid reads it (`stateDiagram-v2`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Stages go by numbers, since their names may be words of that language.
        let number =
            |stage: &str| self.0.iter().position(|(name, _)| *name == stage).unwrap_or(0) + 1;
        writeln!(f, "stateDiagram-v2")?;
        for (stage, _) in self.0 {
            writeln!(f, "    state \"{stage}\" as s{}", number(stage))?;
        }
        writeln!(f, "    [*] --> s1")?;
        for (stage, followers) in self.0 {
            for follower in *followers {
                writeln!(f, "    s{} --> s{}", number(stage), number(follower))?;
            }
            if followers.is_empty() {
                writeln!(f, "    s{} --> [*]", number(stage))?;
            }
        }
        Ok(())
    }
}

/// Why a table is no lifecycle. Correct the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLifecycle {
    /// There is no stage. Give the first one.
    #[error("the lifecycle has no stage; give at least the first one")]
    Empty,
    /// There are more than [`MAX_STAGES`]. A life of so many stages is a state that is better kept as data.
    #[error("the lifecycle has {stages} stages, more than the {MAX_STAGES} that are allowed")]
    TooMany {
        /// How many there are.
        stages: usize,
    },
    /// A name is empty or holds something else than `A-Z a-z 0-9 _`. Rename the stage.
    #[error(
        "a stage is called {stage:?}; a name has letters, digits and _ of ASCII only, at least one"
    )]
    Name {
        /// The name.
        stage: &'static str,
    },
    /// A stage has two rows: one of them might contradict the other. Join them.
    #[error("stage {stage} has two rows; join them")]
    Twice {
        /// The stage.
        stage: &'static str,
    },
    /// A follower has no row. Give it one, without followers if it is terminal.
    #[error("{to}, which may follow {from}, has no row; give it one, empty if it is terminal")]
    Unknown {
        /// The stage that is followed.
        from: &'static str,
        /// The follower.
        to: &'static str,
    },
    /// A follower is named twice. Remove one.
    #[error("{to} follows {from} twice; remove one")]
    FollowsTwice {
        /// The stage that is followed.
        from: &'static str,
        /// The follower.
        to: &'static str,
    },
    /// A stage follows itself. Remove it: to stay is always allowed.
    #[error("{stage} follows itself; remove it, since to stay is always allowed")]
    FollowsItself {
        /// The stage.
        stage: &'static str,
    },
    /// No way leads from the first stage to this one. Add one, or remove the stage.
    #[error("no way leads from the first stage to {stage}; add one, or remove the stage")]
    Unreachable {
        /// The stage.
        stage: &'static str,
    },
}

impl InvalidLifecycle {
    /// The reason without names, for where nothing can be put together: in constants.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "a lifecycle has no stage",
            Self::TooMany { .. } => "a lifecycle has more stages than are allowed",
            Self::Name { .. } => "a stage's name holds something else than A-Z a-z 0-9 _",
            Self::Twice { .. } => "a stage has two rows; join them",
            Self::Unknown { .. } => "a follower has no row; give it one, empty if it is terminal",
            Self::FollowsTwice { .. } => "a stage has the same follower twice; remove one",
            Self::FollowsItself { .. } => {
                "a stage follows itself; remove it, to stay is always allowed"
            }
            Self::Unreachable { .. } => "no way leads from the first stage to one of the others",
        }
    }
}

const fn check_row(rows: &[Row], at: usize) -> Result<(), InvalidLifecycle> {
    let (stage, followers) = rows[at];
    if !is_name(stage) {
        return Err(InvalidLifecycle::Name { stage });
    }
    if matches!(row_of(rows, stage), Some(first) if first < at) {
        return Err(InvalidLifecycle::Twice { stage });
    }
    let mut next = 0;
    while next < followers.len() {
        let to = followers[next];
        if same(to, stage) {
            return Err(InvalidLifecycle::FollowsItself { stage });
        }
        if row_of(rows, to).is_none() {
            return Err(InvalidLifecycle::Unknown { from: stage, to });
        }
        let mut before = 0;
        while before < next {
            if same(followers[before], to) {
                return Err(InvalidLifecycle::FollowsTwice { from: stage, to });
            }
            before += 1;
        }
        next += 1;
    }
    Ok(())
}

/// The first stage to which no way leads. Every follower has a row.
const fn unreachable(rows: &[Row]) -> Option<&'static str> {
    let mut reached = [false; MAX_STAGES];
    reached[0] = true;
    let mut grew = true;
    while grew {
        grew = false;
        let mut at = 0;
        while at < rows.len() {
            let mut next = 0;
            while reached[at] && next < rows[at].1.len() {
                if let Some(to) = row_of(rows, rows[at].1[next])
                    && !reached[to]
                {
                    reached[to] = true;
                    grew = true;
                }
                next += 1;
            }
            at += 1;
        }
    }
    let mut at = 0;
    while at < rows.len() {
        if !reached[at] {
            return Some(rows[at].0);
        }
        at += 1;
    }
    None
}

const fn row_of(rows: &[Row], stage: &str) -> Option<usize> {
    let mut at = 0;
    while at < rows.len() {
        if same(rows[at].0, stage) {
            return Some(at);
        }
        at += 1;
    }
    None
}

const fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_alphanumeric() && bytes[at] != b'_' {
            return false;
        }
        at += 1;
    }
    !bytes.is_empty()
}

/// Equality of texts, which constants cannot ask for otherwise.
const fn same(one: &str, two: &str) -> bool {
    let (one, two) = (one.as_bytes(), two.as_bytes());
    if one.len() != two.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != two[at] {
            return false;
        }
        at += 1;
    }
    true
}
