//! What a table has to be, and what follows from it. That nothing is stored is in `tests/repository/lifecycle.rs`.

use super::*;

#[derive(Debug, Clone, PartialEq)]
enum Parcel {
    Packed,
    Sent { with: String },
    Lost(u32),
    Delivered,
}

crate::lifecycle!(Parcel {
    Packed => [Sent],
    Sent => [Lost, Delivered],
    Lost => [Sent],
    Delivered => [],
});

fn sent() -> Parcel {
    Parcel::Sent { with: "a pigeon".to_owned() }
}

#[test]
fn exactly_the_declared_transitions_are_allowed() {
    let all = [Parcel::Packed, sent(), Parcel::Lost(7), Parcel::Delivered];
    let allowed = [(0, 1), (1, 2), (1, 3), (2, 1)];
    for (one, from) in all.iter().enumerate() {
        for (two, to) in all.iter().enumerate() {
            let checked = from.stage().check(&to.stage());
            assert_eq!(
                checked.is_ok(),
                one == two || allowed.contains(&(one, two)),
                "{from:?} {to:?}"
            );
            let events = from.transition(to, ["event"]);
            assert_eq!(events.is_ok(), checked.is_ok());
            assert_eq!(events.unwrap_or_default().is_empty(), one == two || checked.is_err());
        }
    }
    assert!(Parcel::Delivered.stage().is_terminal() && !sent().stage().is_terminal());
}

#[test]
fn what_is_refused_says_what_would_be_allowed() {
    let refused =
        |from: &Parcel, to: &Parcel| from.transition(to, ["event"]).unwrap_err().to_string();
    assert_eq!(
        refused(&Parcel::Packed, &Parcel::Delivered),
        "Packed may not become Delivered; it may become Sent"
    );
    assert_eq!(
        refused(&sent(), &Parcel::Packed),
        "Sent may not become Packed; it may become Lost or Delivered"
    );
    assert_eq!(
        refused(&Parcel::Delivered, &sent()),
        "Delivered may not become Sent; it is terminal"
    );
}

#[test]
fn a_life_begins_with_its_first_stage_and_is_not_left() {
    let stage = |parcel: Parcel| Some(parcel.stage());
    assert_eq!(check(None, None), Ok(()));
    assert_eq!(check(None, stage(Parcel::Packed)), Ok(()));
    let beginning = InvalidTransition::Beginning { first: "Packed", found: "Sent" };
    assert_eq!(check(None, stage(sent())), Err(beginning));
    for parcel in [Parcel::Packed, Parcel::Delivered] {
        let from = parcel.stage().name();
        assert_eq!(check(stage(parcel), None), Err(InvalidTransition::Left { from }));
    }
}

#[test]
fn stages_of_two_lifecycles_never_follow_each_other() {
    static OTHER: Lifecycle = match Lifecycle::new(&[("Packed", &["Sent"]), ("Sent", &[])]) {
        Ok(lifecycle) => lifecycle,
        Err(_) => panic!("a lifecycle"),
    };
    for name in ["Packed", "Sent"] {
        let checked = Parcel::Packed.stage().check(&Stage::new(&OTHER, name));
        assert!(matches!(checked, Err(InvalidTransition::Forbidden { .. })), "{checked:?}");
    }
    let stranger = Stage::new(Parcel::LIFECYCLE, "Eaten");
    assert!(
        Parcel::Packed.stage().check(&stranger).is_err()
            && stranger.check(&sent().stage()).is_err()
    );
}

#[test]
fn the_diagram_has_every_stage_and_transition_once() {
    let diagram = "stateDiagram-v2\n    state \"Packed\" as s1\n    state \"Sent\" as s2\n    state \"Lost\" as s3\n    \
                   state \"Delivered\" as s4\n    [*] --> s1\n    s1 --> s2\n    s2 --> s3\n    s2 --> s4\n    \
                   s3 --> s2\n    s4 --> [*]\n";
    assert_eq!(Parcel::LIFECYCLE.to_string(), diagram);
}

#[test]
fn each_mistake_in_a_table_is_told() {
    use InvalidLifecycle as Invalid;
    let cases: [(&'static [Row], Invalid); 9] = [
        (&[], Invalid::Empty),
        (&[("A", &["B"]), ("B C", &[])], Invalid::Unknown { from: "A", to: "B" }),
        (&[("", &[])], Invalid::Name { stage: "" }),
        (&[("A\"", &[])], Invalid::Name { stage: "A\"" }),
        (&[("A", &["B"]), ("B", &[]), ("B", &["A"])], Invalid::Twice { stage: "B" }),
        (
            &[("A", &["B", "C", "B"]), ("B", &[]), ("C", &[])],
            Invalid::FollowsTwice { from: "A", to: "B" },
        ),
        (&[("A", &["A"])], Invalid::FollowsItself { stage: "A" }),
        (&[("A", &[]), ("B", &["A"])], Invalid::Unreachable { stage: "B" }),
        (&[("A", &[]), ("B", &["C"]), ("C", &["B"])], Invalid::Unreachable { stage: "B" }),
    ];
    for (rows, error) in cases {
        assert_eq!(Lifecycle::new(rows), Err(error), "{rows:?}");
        assert!(!error.reason().is_empty() && !error.to_string().is_empty());
    }
    // A way may go through rows that come later.
    assert!(Lifecycle::new(&[("A", &["C"]), ("B", &[]), ("C", &["B"])]).is_ok());
    let many: Vec<Row> = (0..=MAX_STAGES).map(|_| ("A", &[] as &[&str])).collect();
    let stages = MAX_STAGES + 1;
    assert_eq!(Lifecycle::new(many.leak()), Err(Invalid::TooMany { stages }));
}
