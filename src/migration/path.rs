//! The way from one version to another. Pure.

use std::collections::{BTreeMap, VecDeque};

use super::SchemaVersion;

/// Which way a migration is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the later version.
    Up,
    /// Back to the earlier version.
    Down,
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// One migration on a way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStep {
    /// The migration's name.
    pub name: String,
    /// Which way it is gone.
    pub direction: Direction,
    /// The version before it.
    pub from: SchemaVersion,
    /// The version after it.
    pub to: SchemaVersion,
}

/// The shortest way over edges from one version to another, as places in the list of edges; `None` when there is none. Of
/// several that are equally short the one whose edges come earlier in the list, compared step by step from the start.
pub(super) fn shortest(
    edges: &[(SchemaVersion, SchemaVersion)],
    from: SchemaVersion,
    to: SchemaVersion,
) -> Option<Vec<usize>> {
    let mut reached: BTreeMap<SchemaVersion, Option<usize>> = BTreeMap::from([(from, None)]);
    let mut waiting = VecDeque::from([from]);
    while let Some(version) = waiting.pop_front() {
        if version == to {
            break;
        }
        for (place, (_, next)) in edges.iter().enumerate().filter(|(_, edge)| edge.0 == version) {
            if let std::collections::btree_map::Entry::Vacant(entry) = reached.entry(*next) {
                entry.insert(Some(place));
                waiting.push_back(*next);
            }
        }
    }
    let mut way = Vec::new();
    let mut step = *reached.get(&to)?;
    while let Some(place) = step {
        way.push(place);
        step = reached.get(&edges[place].0).copied().flatten();
    }
    way.reverse();
    Some(way)
}

/// The latest version that can be reached.
pub(super) fn newest(
    edges: &[(SchemaVersion, SchemaVersion)],
    from: SchemaVersion,
) -> SchemaVersion {
    let ends = edges.iter().map(|(_, to)| *to).filter(|to| shortest(edges, from, *to).is_some());
    ends.chain([from]).max().unwrap_or(from)
}
