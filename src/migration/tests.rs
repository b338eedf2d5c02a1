//! What is pure in migrations: versions, ways, and the words of errors.

use proptest::prelude::*;

use super::path::{newest, shortest};
use super::*;

fn v(major: u32) -> SchemaVersion {
    SchemaVersion::new(major, 0, 0)
}

#[test]
fn versions_are_ordered_by_number_and_read_as_they_are_written() {
    let texts = ["0.0.0", "0.0.1", "0.2.0", "0.10.0", "1.0.0", "4294967295.0.0"];
    let versions: Vec<SchemaVersion> = texts.iter().map(|text| text.parse().unwrap()).collect();
    assert!(versions.is_sorted());
    assert_eq!(versions.iter().map(ToString::to_string).collect::<Vec<_>>(), texts);
    assert_eq!("3".parse(), Ok(v(3)));
    assert_eq!(serde_json::from_str::<SchemaVersion>("\"1.2\"").unwrap().to_string(), "1.2.0");
    for text in ["", "1.", ".1", "1.2.3.4", "+1", "-1", "1.x", " 1", "4294967296"] {
        let refused = text.parse::<SchemaVersion>().unwrap_err().to_string();
        let wanted =
            "is not a version; write one to three numbers with dots between them, as 1.2.0";
        assert_eq!(refused, format!("{text:?} {wanted}"));
    }
}

/// All ways without a version twice, found by trying everything.
fn every_way(
    edges: &[(SchemaVersion, SchemaVersion)],
    from: SchemaVersion,
    to: SchemaVersion,
    seen: &mut Vec<SchemaVersion>,
) -> Vec<Vec<usize>> {
    if from == to {
        return vec![Vec::new()];
    }
    seen.push(from);
    let mut ways = Vec::new();
    for (place, (_, next)) in edges.iter().enumerate().filter(|(_, edge)| edge.0 == from) {
        if !seen.contains(next) {
            for mut way in every_way(edges, *next, to, seen) {
                way.insert(0, place);
                ways.push(way);
            }
        }
    }
    seen.pop();
    ways
}

proptest! {
    /// Branches, detours and versions that lead nowhere, in both directions.
    #[test]
    fn the_way_found_is_the_shortest_and_of_those_the_first(
        edges in proptest::collection::vec((0_u32..7, 1_u32..7), 0..12),
        from in 0_u32..8,
        to in 0_u32..8,
        down: bool,
    ) {
        let edges: Vec<_> = edges.into_iter().map(|(a, step)| {
            let (a, b) = (v(a), v(a + step));
            if down { (b, a) } else { (a, b) }
        }).collect();
        let ways = every_way(&edges, v(from), v(to), &mut Vec::new());
        let best = ways.into_iter().min_by_key(|way| (way.len(), way.clone()));
        prop_assert_eq!(shortest(&edges, v(from), v(to)), best);
        let reachable = (0..20).rev().map(v).find(|end| {
            *end == v(from) || !every_way(&edges, v(from), *end, &mut Vec::new()).is_empty()
        });
        prop_assert_eq!(Some(newest(&edges, v(from))).filter(|_| !down), reachable.filter(|_| !down));
    }
}

#[test]
fn errors_say_what_happened_and_what_to_do() {
    let (name, key) = ("split".to_owned(), "person.1".to_owned());
    let (from, to, current, target) = (v(2), v(1), v(3), v(2));
    let direction = Direction::Up;
    let cases = [
        (
            MigrationError::Order { name: name.clone(), from, to },
            "migration split leads from 2.0.0 to 1.0.0; it must lead to a later version",
        ),
        (
            MigrationError::Repeated { name: name.clone(), other: "join".into() },
            "migration split has the name or the two versions of join; each needs its own",
        ),
        (
            MigrationError::NoPath { from, to },
            "no migrations lead from 2.0.0 to 1.0.0; add those that are missing",
        ),
        (
            MigrationError::Later { current, target },
            "the data is at version 3.0.0, later than 2.0.0; roll it back if that is meant",
        ),
        (
            MigrationError::NotOnTheWay { current, target },
            "the data at version 3.0.0 did not come by version 2.0.0; nothing was rolled back",
        ),
        (
            MigrationError::Unfinished { name: name.clone(), direction, to: current },
            "migration split was interrupted on its way up to 3.0.0; finish it first, by migrate_to",
        ),
        (
            MigrationError::Unfinished { name: name.clone(), direction: Direction::Down, to },
            "migration split was interrupted on its way down to 1.0.0; finish it first, by rollback_to",
        ),
        (
            MigrationError::Unregistered { name: name.clone() },
            "migration split is needed, and this runner does not have it; add it",
        ),
        (
            MigrationError::Irreversible { name, reason: "the names are gone".into() },
            "migration split cannot be undone: the names are gone",
        ),
        (
            MigrationError::Refused { key: key.clone(), reason: "no name".into() },
            "person.1 cannot be migrated: no name",
        ),
        (
            MigrationError::Invalid { key: key.clone(), reason: "no last name".into() },
            "person.1 is not as the migration should have left it: no last name",
        ),
        (
            MigrationError::Occupied { key: key.clone(), target: "person.2".into() },
            "person.1 cannot be moved to person.2, where there is a model already",
        ),
        (
            MigrationError::Superseded,
            "another runner has taken over the migrations; this one has stopped",
        ),
        (
            MigrationError::Changed { step: 1, before: "a".into(), now: "b".into() },
            "step 1 of the interrupted migration was a, and is b; finish it with the code that began it",
        ),
        (
            MigrationError::ReadOnly { step: "models a.>".into() },
            "a validation must not change anything: models a.>",
        ),
        (
            MigrationError::Unreadable { key, reason: "it is no record".into() },
            "person.1 cannot be read: it is no record",
        ),
        (
            MigrationError::NoStreams,
            "this runner cannot change the settings of streams; make it with with_streams",
        ),
        (
            MigrationError::Copy { reason: "position 7 is missing".into() },
            "the copy cannot be used: position 7 is missing",
        ),
    ];
    for (error, text) in cases {
        assert_eq!(error.to_string(), text);
    }
}
