//! What is recorded, and what the samples show: the differences that matter, and what to do about each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Recorded;
use super::form::Form;
use crate::event::SchemaVersion;

/// Whether an upcaster leads on from a version of an event type.
pub(super) type Upcasts<'a> = Box<dyn Fn(&str, SchemaVersion) -> bool + 'a>;

/// What a service says of its events today.
pub(super) struct Known<'a> {
    /// The event types of which there must be a sample.
    pub(super) declared: BTreeSet<&'static str>,
    pub(super) forms: Recorded,
    pub(super) upcasts: Upcasts<'a>,
}

/// Why the lock does not let a change pass.
pub(super) enum Problem {
    /// A recorded version is stored in another form now.
    Changed { event: String, version: SchemaVersion, lines: Vec<String> },
    /// Nothing reads a version.
    Unread { event: String, version: SchemaVersion },
    /// The newest version is older than one that is recorded.
    Down { event: String, version: SchemaVersion, newest: SchemaVersion },
    /// A version number is left out.
    Gap { event: String, version: SchemaVersion, newest: SchemaVersion },
    /// A version is 0.
    Zero { event: String },
    /// There is no sample of an event type.
    NoSample { event: String },
    /// Two types have the same event type.
    TwoTypes { event: String, first: &'static str, second: &'static str },
    /// A sample cannot be serialised.
    Unstorable { event: String, version: SchemaVersion, error: String },
    /// A version is not recorded.
    New { event: String, version: SchemaVersion },
}

/// What is wrong, and which versions are to be recorded.
pub(super) fn compare(
    recorded: &Recorded,
    known: &Known<'_>,
) -> (Vec<Problem>, Vec<(String, SchemaVersion)>) {
    let (mut problems, mut new) = (Vec::new(), Vec::new());
    for event in known.declared.iter().filter(|event| !known.forms.contains_key(**event)) {
        problems.push(Problem::NoSample { event: (*event).to_owned() });
    }
    let none = BTreeMap::new();
    let names: BTreeSet<&String> = recorded.keys().chain(known.forms.keys()).collect();
    // Of an event type without a sample nothing more is known than that.
    for event in names.into_iter().filter(|event| {
        known.forms.contains_key(*event) || !known.declared.contains(event.as_str())
    }) {
        let before = recorded.get(event).unwrap_or(&none);
        let now = known.forms.get(event).unwrap_or(&none);
        compare_event(&Versions { event, before, now }, known, &mut problems, &mut new);
    }
    (problems, new)
}

/// The versions of one event type.
struct Versions<'a> {
    event: &'a str,
    before: &'a BTreeMap<SchemaVersion, Form>,
    now: &'a BTreeMap<SchemaVersion, Form>,
}

fn compare_event(
    versions: &Versions<'_>,
    known: &Known<'_>,
    problems: &mut Vec<Problem>,
    new: &mut Vec<(String, SchemaVersion)>,
) {
    let Versions { before, now, .. } = versions;
    let event = || versions.event.to_owned();
    for (version, form) in before.iter() {
        match now.get(version) {
            Some(same) if same == form => {}
            Some(other) => {
                let lines = differences(form, other);
                problems.push(Problem::Changed { event: event(), version: *version, lines });
            }
            None => {}
        }
    }
    let newest = before.last_key_value().map(|(version, _)| *version);
    let written = now.last_key_value().map(|(version, _)| *version);
    match (newest, written) {
        (_, Some(0)) => return problems.push(Problem::Zero { event: event() }),
        (Some(newest), Some(version)) if version < newest => {
            return problems.push(Problem::Down { event: event(), version, newest });
        }
        _ => {}
    }
    let mut expected = newest.map(|newest| newest.saturating_add(1));
    for version in now.keys().filter(|version| !before.contains_key(version)) {
        match expected {
            Some(expected) if *version != expected => {
                let newest = expected - 1;
                return problems.push(Problem::Gap { event: event(), version: *version, newest });
            }
            _ => new.push((event(), *version)),
        }
        expected = Some(version.saturating_add(1));
    }
    // Versions before the first recorded one were stored before there was a lock.
    let last = written.or(newest).unwrap_or_default();
    let read = |version: &SchemaVersion| {
        now.contains_key(version) || (known.upcasts)(versions.event, *version)
    };
    let unread = (1..=last).find(|version| !read(version));
    problems.extend(unread.map(|version| Problem::Unread { event: event(), version }));
}

fn differences(before: &Form, now: &Form) -> Vec<String> {
    let paths: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let differ = paths.into_iter().filter(|path| before.get(*path) != now.get(*path));
    let lines = differ.flat_map(|path| {
        let line = |sign, form: &Form| form.get(path).map(|kind| format!("{sign} {path}: {kind}"));
        [line('-', before), line('+', now)]
    });
    lines.flatten().collect()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { event, version, lines } => {
                let next = version.saturating_add(1);
                writeln!(f, "{event} version {version} is recorded and looks different now:")?;
                lines.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
                write!(
                    f,
                    "  Stored events stay as they are. Undo the change, or give the event version {next} and write an \
                     upcaster from version {version}.\n  If only the samples changed: they have to show what is recorded."
                )
            }
            Self::Unread { event, version } => write!(
                f,
                "{event} version {version} may be stored, and nothing reads it:\n  \
                 Write an upcaster from version {version}; one that drops the event, if it means nothing any more."
            ),
            Self::Down { event, version, newest } => write!(
                f,
                "{event} has version {version} now, and version {newest} is recorded:\n  \
                 Versions only grow. Go back to version {newest}, or on to version {}.",
                newest.saturating_add(1)
            ),
            Self::Gap { event, version, newest } => write!(
                f,
                "{event} has version {version} now, and version {newest} is the newest before it:\n  \
                 Versions grow by one. Make it version {}.",
                newest.saturating_add(1)
            ),
            Self::Zero { event } => {
                write!(f, "{event} has version 0:\n  Versions begin at 1. Make it version 1.")
            }
            Self::NoSample { event } => write!(
                f,
                "{event} has no sample:\n  Give one to `SchemaLock::events`, with a value in every field."
            ),
            Self::TwoTypes { event, first, second } => write!(
                f,
                "{event} is an event of {first} and of {second}:\n  \
                 Names tell events apart in a lock. Keep a file for each of the two types."
            ),
            Self::Unstorable { event, version, error } => write!(
                f,
                "{event} version {version} has a sample that cannot be stored: {error}\n  \
                 Give another one, or change how it is serialised."
            ),
            Self::New { event, version } => write!(
                f,
                "{event} version {version} is not recorded yet:\n  \
                 Record it by `UPDATE_SCHEMA=1 cargo test`, and commit the file together with the change."
            ),
        }
    }
}
