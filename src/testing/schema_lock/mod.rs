//! A test that fails when released events change: [`SchemaLock`].
//!
//! `form` says what a value looks like when it is stored, `compare` what is wrong with that. Here is what a user calls, and
//! the file. Absent: how old events are read, which is for upcasters.

mod compare;
mod form;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::event::{DomainEvent, SchemaVersion};
use compare::{Known, Problem, Upcasts, compare};
use form::{Draft, Form};

/// Which forms are recorded in the file, by event type and version.
type Recorded = BTreeMap<String, BTreeMap<SchemaVersion, Form>>;

/// A test helper that keeps in a file how every released version of an event is stored, and fails when that changes.
///
/// The file belongs into the repository of the service. Whoever renames a field of an event that is stored somewhere
/// already finds out from a test, and not from a service that cannot read its events:
///
/// ```no_run
/// use cim_persistence::DomainEvent;
/// use cim_persistence::testing::SchemaLock;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, DomainEvent)]
/// enum OrderEvent {
///     OrderPlaced { customer: String, note: Option<String> },
///     Cancelled,
/// }
///
/// // #[test]
/// fn released_events_stay_as_they_are() {
///     let placed = |note| OrderEvent::OrderPlaced { customer: "kim".to_owned(), note };
///     SchemaLock::new()
///         .events([placed(Some("ring twice".to_owned())), placed(None), OrderEvent::Cancelled])
///         .check("schema.lock.json");
/// }
/// ```
///
/// There is a sample of each event, and several where one does not show everything: every variant of an enum inside, options
/// with and without a value, lists and maps that hold something. What is recorded of them is this, for `order_placed`:
///
/// ```json
/// { "1": { ".OrderPlaced.customer": "text", ".OrderPlaced.note": "text or null" } }
/// ```
///
/// - A path goes through fields by `.name`, through elements of a list by `[]`, through values of a map by `{}`.
/// - Kinds are those of DAG-CBOR, numbers with their Rust type; `'Cancelled'` is exactly that text; `absent` is a field that
///   serde leaves out at times.
/// - The tag of `#[serde(tag = "…")]` is a text like any other here: that it is renamed is not noticed.
///
/// The check fails when
/// - a recorded version looks different now: it takes a new version number and an upcaster;
/// - nothing reads a recorded version: the type does not have it any more and no upcaster begins at it;
/// - a version goes down, or leaves a number out;
/// - a version is not recorded yet. `UPDATE_SCHEMA=1 cargo test` records it, if nothing else is wrong; it never changes
///   and never removes what is recorded. A version that was never released may be taken out of the file by hand.
///
/// A service that begins with the lock late begins with the versions it has; those before need their upcasters.
#[derive(Default)]
#[must_use = "nothing is compared before `check`"]
pub struct SchemaLock<'a> {
    drafts: BTreeMap<String, BTreeMap<SchemaVersion, Draft>>,
    declared: BTreeSet<&'static str>,
    types: BTreeMap<String, &'static str>,
    upcasts: Option<Upcasts<'a>>,
    problems: Vec<Problem>,
}

impl<'a> SchemaLock<'a> {
    /// A lock without samples.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds samples of the events of one type. Every event type that it [has](DomainEvent::shapes) needs at least one.
    pub fn events<E: DomainEvent>(mut self, samples: impl IntoIterator<Item = E>) -> Self {
        self.declared.extend(E::shapes().iter().map(|shape| shape.name));
        for sample in samples {
            self.add(&sample);
        }
        self
    }

    /// Says which older versions are read all the same: those from which an upcaster leads on.
    ///
    /// It is asked with event types and versions that are recorded, or older than the first one that is.
    pub fn upcasts(mut self, from: impl Fn(&str, SchemaVersion) -> bool + 'a) -> Self {
        self.upcasts = Some(Box::new(from));
        self
    }

    /// Compares the samples with the file. A relative path begins where tests run, in the folder of the package.
    ///
    /// # Panics
    /// When they do not fit, with every difference and what to do about it.
    #[track_caller]
    pub fn check(self, file: impl AsRef<Path>) {
        let told = std::env::var("UPDATE_SCHEMA").is_ok_and(|value| value == "1");
        if let Err(text) = self.run(file.as_ref(), told) {
            panic!("{text}");
        }
    }

    fn add<E: DomainEvent>(&mut self, sample: &E) {
        let (event, version) = (sample.event_type(), sample.schema_version());
        let own = std::any::type_name::<E>();
        let first = *self.types.entry(event.to_owned()).or_insert(own);
        if first != own {
            let problem = Problem::TwoTypes { event: event.to_owned(), first, second: own };
            self.problems.push(problem);
            return;
        }
        let drafts = self.drafts.entry(event.to_owned()).or_default();
        if let Err(error) = drafts.entry(version).or_default().add(sample) {
            let event = event.to_owned();
            self.problems.push(Problem::Unstorable { event, version, error: error.to_string() });
        }
    }

    /// # Errors
    /// The text of the failure.
    fn run(self, file: &Path, told_to_record: bool) -> Result<(), String> {
        let mut recorded = read(file)?;
        let forms = self.drafts.into_iter().map(|(event, versions)| {
            (
                event,
                versions.into_iter().map(|(version, draft)| (version, draft.finish())).collect(),
            )
        });
        let upcasts = self.upcasts.unwrap_or_else(|| Box::new(|_, _| false));
        let known = Known { declared: self.declared, forms: forms.collect(), upcasts };
        let mut problems = self.problems;
        let (wrong, new) = compare(&recorded, &known);
        problems.extend(wrong);
        if told_to_record && problems.is_empty() {
            if new.is_empty() {
                return Ok(());
            }
            for (event, version) in new {
                let form = known.forms[&event][&version].clone();
                recorded.entry(event).or_default().insert(version, form);
            }
            return write(file, recorded);
        }
        problems.extend(new.into_iter().map(|(event, version)| Problem::New { event, version }));
        if problems.is_empty() {
            return Ok(());
        }
        let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
        Err(format!("{} does not fit the events:\n\n{}", file.display(), told.join("\n\n")))
    }
}

/// What stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    events: Recorded,
}

const FORMAT: u32 = 1;

fn read(file: &Path) -> Result<Recorded, String> {
    let unreadable = |why: String| {
        let file = file.display();
        format!("{file} cannot be read: {why}\n  Restore it from version control.")
    };
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Recorded::new()),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    match serde_json::from_str(&text) {
        Ok(File { format: FORMAT, events }) => Ok(events),
        Ok(File { format, .. }) => {
            Err(unreadable(format!("it has format {format}, and this version knows {FORMAT}")))
        }
        Err(error) => Err(unreadable(error.to_string())),
    }
}

fn write(file: &Path, events: Recorded) -> Result<(), String> {
    let text = serde_json::to_string_pretty(&File { format: FORMAT, events })
        .expect("texts and maps with keys of text or numbers are always JSON");
    fs::write(file, text + "\n")
        .map_err(|error| format!("{} cannot be written: {error}", file.display()))
}
