//! The schema lock lets pass what older events survive, says what to do about everything else, and writes when it is told.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use cim_persistence::DomainEvent;
use cim_persistence::event::SchemaVersion;
use cim_persistence::testing::SchemaLock;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A lock file of its own for each test.
struct File {
    _folder: TempDir,
    path: PathBuf,
}

impl File {
    fn missing() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schema.lock.json");
        Self { _folder: folder, path }
    }

    fn of(events: &Value) -> Self {
        Self::text(&json!({ "format": 1, "events": events }).to_string())
    }

    fn text(text: &str) -> Self {
        let file = Self::missing();
        std::fs::write(&file.path, text).unwrap();
        file
    }

    /// What the check says, under the file's plain name; nothing when it lets the samples pass.
    fn says(&self, lock: SchemaLock<'_>) -> String {
        let before = std::fs::read_to_string(&self.path).ok();
        let checked = catch_unwind(AssertUnwindSafe(|| lock.check(&self.path)));
        assert_eq!(std::fs::read_to_string(&self.path).ok(), before, "the file was written");
        match checked {
            Ok(()) => String::new(),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().unwrap();
                text.replace(self.path.to_str().unwrap(), "schema.lock.json")
            }
        }
    }

    #[track_caller]
    fn refuses(&self, lock: SchemaLock<'_>, problems: &[&str]) {
        let problems = problems.join("\n\n");
        let wanted = format!("schema.lock.json does not fit the events:\n\n{problems}");
        assert_eq!(self.says(lock), wanted);
    }
}

#[derive(Serialize, Deserialize, DomainEvent)]
enum OrderEvent {
    #[event(version = 2)]
    OrderPlaced {
        customer: String,
        note: Option<String>,
    },
    Cancelled,
}

fn orders<'a>() -> SchemaLock<'a> {
    let placed = |note| OrderEvent::OrderPlaced { customer: "kim".to_owned(), note };
    SchemaLock::new()
        .events([placed(None), placed(Some("ring twice".to_owned())), OrderEvent::Cancelled])
        .upcasts(|event, version| (event, version) == ("order_placed", 1))
}

fn recorded_orders() -> Value {
    json!({
        "cancelled": { "1": { ".": "'Cancelled'" } },
        "order_placed": {
            "1": { ".OrderPlaced.customer": "text" },
            "2": { ".OrderPlaced.customer": "text", ".OrderPlaced.note": "text or null" },
        },
    })
}

/// A recorded file with one change.
fn orders_but(change: impl FnOnce(&mut Value)) -> File {
    let mut recorded = recorded_orders();
    change(&mut recorded);
    File::of(&recorded)
}

#[test]
fn what_fits_passes() {
    assert_eq!(File::of(&recorded_orders()).says(orders()), "");
}

#[test]
fn a_recorded_version_that_looks_different_is_shown_line_by_line() {
    let file = orders_but(|recorded| {
        recorded["order_placed"]["2"] = json!({
            ".OrderPlaced.customer": "u64",
            ".OrderPlaced.item": "text",
        });
        recorded["cancelled"]["1"] = json!({ ".": "'Canceled'" });
    });
    file.refuses(
        orders(),
        &[
            "cancelled version 1 is recorded and looks different now:\n    \
             - .: 'Canceled'\n    \
             + .: 'Cancelled'\n  \
             Stored events stay as they are. Undo the change, or give the event version 2 and write an upcaster \
             from version 1.\n  \
             If only the samples changed: they have to show what is recorded.",
            "order_placed version 2 is recorded and looks different now:\n    \
             - .OrderPlaced.customer: u64\n    \
             + .OrderPlaced.customer: text\n    \
             - .OrderPlaced.item: text\n    \
             + .OrderPlaced.note: text or null\n  \
             Stored events stay as they are. Undo the change, or give the event version 3 and write an upcaster \
             from version 2.\n  \
             If only the samples changed: they have to show what is recorded.",
        ],
    );
}

/// An option that is no option any more, or samples that do not show it: stored nulls would not be read.
#[test]
fn samples_have_to_show_all_that_is_recorded() {
    let placed = OrderEvent::OrderPlaced { customer: "kim".to_owned(), note: Some(String::new()) };
    let lock = SchemaLock::new().events([placed, OrderEvent::Cancelled]).upcasts(|_, _| true);
    let said = File::of(&recorded_orders()).says(lock);
    let lines = "    - .OrderPlaced.note: text or null\n    + .OrderPlaced.note: text\n";
    assert!(said.contains(lines), "{said}");
}

#[test]
fn an_old_version_without_an_upcaster_is_refused() {
    let unread = "order_placed version 1 may be stored, and nothing reads it:\n  \
                  Write an upcaster from version 1; one that drops the event, if it means nothing any more.";
    File::of(&recorded_orders()).refuses(orders().upcasts(|_, _| false), &[unread]);
    // Also where it was stored before there was a lock.
    let file = orders_but(|recorded| {
        recorded["order_placed"].as_object_mut().unwrap().remove("1");
    });
    file.refuses(orders().upcasts(|_, _| false), &[unread]);
    assert_eq!(file.says(orders()), "");
}

#[test]
fn an_event_type_that_is_gone_needs_an_upcaster_from_each_of_its_versions() {
    let file = orders_but(|recorded| {
        recorded["sent"] = json!({ "1": { ".": "'Sent'" }, "2": { ".": "'Gone'" } });
    });
    let reads = |versions: &'static [SchemaVersion]| {
        move |event: &str, version: SchemaVersion| event != "sent" || versions.contains(&version)
    };
    let unread = "sent version 2 may be stored, and nothing reads it:\n  \
                  Write an upcaster from version 2; one that drops the event, if it means nothing any more.";
    file.refuses(orders().upcasts(reads(&[1])), &[unread]);
    assert_eq!(file.says(orders().upcasts(reads(&[1, 2]))), "");
}

#[test]
fn a_version_neither_goes_down_nor_leaves_a_number_out() {
    let file = orders_but(|recorded| {
        recorded["order_placed"]["3"] = json!({ ".": "null" });
    });
    let down = "order_placed has version 2 now, and version 3 is recorded:\n  \
                Versions only grow. Go back to version 3, or on to version 4.";
    file.refuses(orders(), &[down]);

    let file = File::of(&json!({ "ahead": { "1": { ".": "null" } }, "zero": {} }));
    let lock = SchemaLock::new().events([ByHand("ahead", 3), ByHand("zero", 0)]);
    let gap = "ahead has version 3 now, and version 1 is the newest before it:\n  \
               Versions grow by one. Make it version 2.";
    let zero = "zero has version 0:\n  Versions begin at 1. Make it version 1.";
    file.refuses(lock.upcasts(|_, _| true), &[gap, zero]);
}

#[test]
fn every_event_type_needs_a_sample() {
    let lock = SchemaLock::new().events([OrderEvent::Cancelled]).upcasts(|_, _| true);
    let wanted = "order_placed has no sample:\n  \
                  Give one to `SchemaLock::events`, with a value in every field.";
    File::of(&recorded_orders()).refuses(lock, &[wanted]);
    assert_eq!(File::of(&json!({})).says(SchemaLock::new()), "");
}

#[test]
fn two_types_with_one_event_type_are_refused() {
    let lock = orders().events([ByHand("cancelled", 1)]);
    let wanted = "cancelled is an event of derive::lock::OrderEvent and of derive::lock::ByHand:\n  \
                  Names tell events apart in a lock. Keep a file for each of the two types.";
    File::of(&recorded_orders()).refuses(lock, &[wanted]);
}

#[test]
fn a_sample_that_cannot_be_stored_is_refused() {
    let lock = SchemaLock::new().events([Refusing]);
    let wanted = "refusing version 1 has a sample that cannot be stored: not today\n  \
                  Give another one, or change how it is serialised.";
    let file = File::of(&json!({ "refusing": { "1": {} } }));
    file.refuses(lock, &[wanted]);
}

#[test]
fn a_file_that_is_no_lock_is_said_to_be_none() {
    for (text, why) in [
        ("{", "EOF while parsing an object at line 1 column 1"),
        (r#"{"format": 2, "events": {}}"#, "it has format 2, and this version knows 1"),
        (
            r#"{"format": 1, "events": {"a": {"one": {}}}}"#,
            "invalid value: expected key to be a number in quotes at line 1 column 32",
        ),
        (
            r#"{"format": 1, "events": {}, "more": 1}"#,
            "unknown field `more`, expected `format` or `events` at line 1 column 34",
        ),
    ] {
        let wanted =
            format!("schema.lock.json cannot be read: {why}\n  Restore it from version control.");
        assert_eq!(File::text(text).says(orders()), wanted);
    }
    let folder = tempfile::tempdir().unwrap();
    let said = catch_unwind(AssertUnwindSafe(|| orders().check(folder.path()))).unwrap_err();
    assert!(said.downcast_ref::<String>().unwrap().contains("cannot be read: "));
}

#[test]
fn nothing_is_recorded_unless_it_is_told_to() {
    let file = File::missing();
    let new = |event, version| {
        format!(
            "{event} version {version} is not recorded yet:\n  \
             Record it by `UPDATE_SCHEMA=1 cargo test`, and commit the file together with the change."
        )
    };
    let wanted = [new("cancelled", 1), new("order_placed", 2)];
    file.refuses(orders(), &[&wanted[0], &wanted[1]]);
    for told in [None, Some(""), Some("0"), Some("true")] {
        assert!(!in_a_process(&file.path, told), "{told:?}");
        assert!(!file.path.exists(), "{told:?}");
    }
    assert!(in_a_process(&file.path, Some("1")));
    let written = std::fs::read_to_string(&file.path).unwrap();
    let wanted = r#"{
  "format": 1,
  "events": {
    "cancelled": {
      "1": {
        ".": "'Cancelled'"
      }
    },
    "order_placed": {
      "2": {
        ".OrderPlaced.customer": "text",
        ".OrderPlaced.note": "text or null"
      }
    }
  }
}
"#;
    assert_eq!(written, wanted);
    assert_eq!(file.says(orders()), "");
}

#[test]
fn what_is_recorded_is_never_changed_nor_removed() {
    // A new version comes to the old one, and to an event type that is gone.
    let file = orders_but(|recorded| {
        recorded["order_placed"].as_object_mut().unwrap().remove("2");
        recorded["order_placed"]["1"] = json!({ ".whatever": "it was" });
    });
    assert!(in_a_process(&file.path, Some("1")));
    let written: Value =
        serde_json::from_str(&std::fs::read_to_string(&file.path).unwrap()).unwrap();
    let mut wanted = recorded_orders();
    wanted["order_placed"]["1"] = json!({ ".whatever": "it was" });
    assert_eq!(written["events"], wanted);

    // With something wrong nothing is written, not even what is new.
    let file = orders_but(|recorded| {
        recorded["order_placed"].as_object_mut().unwrap().remove("2");
        recorded["cancelled"]["1"] = json!({ ".": "null" });
    });
    let before = std::fs::read_to_string(&file.path).unwrap();
    assert!(!in_a_process(&file.path, Some("1")));
    assert_eq!(std::fs::read_to_string(&file.path).unwrap(), before);
}

const FILE: &str = "CIM_TEST_SCHEMA_LOCK";

/// Whether the check of the orders passes in a process with an environment of its own.
fn in_a_process(file: &Path, told: Option<&str>) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "lock::orders_in_a_process"])
        .env(FILE, file)
        .env_remove("UPDATE_SCHEMA");
    child.envs(told.map(|told| ("UPDATE_SCHEMA", told)));
    child.output().unwrap().status.success()
}

/// What `in_a_process` calls; passes when it is called by itself.
#[test]
fn orders_in_a_process() {
    if let Some(file) = std::env::var_os(FILE) {
        orders().check(file);
    }
}

#[derive(Serialize, Deserialize, DomainEvent)]
struct Everything<'a> {
    numbers: (u8, i64, f32),
    hash: [u8; 4],
    none_of_it: [u8; 0],
    letter: char,
    flag: bool,
    nothing: (),
    amounts: BTreeMap<String, Option<u64>>,
    empty: HashMap<String, u8>,
    list: Vec<Part>,
    id: uuid::Uuid,
    #[serde(rename = "total price")]
    price: Newtype,
    #[serde(flatten)]
    flat: Flat,
    link: Option<cid::Cid>,
    by_name: std::borrow::Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
enum Part {
    Unit,
    One(u8),
    Two(u8, String),
    Named { of: Vec<Part> },
    Bare {},
}

#[derive(Serialize, Deserialize)]
struct Newtype(i32);

#[derive(Serialize, Deserialize)]
struct Flat {
    depth: u32,
}

fn everything<'a>() -> Everything<'a> {
    let named = Part::Named { of: Vec::new() };
    Everything {
        numbers: (1, 2, 3.0),
        hash: [0; 4],
        none_of_it: [],
        letter: 'a',
        flag: true,
        nothing: (),
        amounts: BTreeMap::from([("a".to_owned(), Some(1)), ("b".to_owned(), None)]),
        empty: HashMap::new(),
        list: vec![Part::Unit, Part::One(1), Part::Two(2, String::new()), named, Part::Bare {}],
        id: uuid::Uuid::nil(),
        price: Newtype(7),
        flat: Flat { depth: 1 },
        link: Some(cid::Cid::default()),
        by_name: "x".into(),
    }
}

#[test]
fn a_form_names_every_field_and_what_is_stored_in_it() {
    let form = json!({
        ".numbers": "list of 3",
        ".numbers[0]": "u8",
        ".numbers[1]": "i64",
        ".numbers[2]": "f32",
        ".hash": "list of 4",
        ".hash[]": "u8",
        ".none_of_it": "list of 0",
        ".letter": "text",
        ".flag": "bool",
        ".nothing": "null",
        ".amounts": "map",
        ".amounts{}": "u64 or null",
        ".empty": "map",
        ".list": "list",
        ".list[]": "'Unit'",
        ".list[].One": "u8",
        ".list[].Two": "list of 2",
        ".list[].Two[0]": "u8",
        ".list[].Two[1]": "text",
        ".list[].Named.of": "list",
        ".list[].Bare": "struct without fields",
        ".id": "bytes",
        ".\"total price\"": "i32",
        ".depth": "u32",
        ".link": "link",
        ".by_name": "text",
    });
    let file = File::of(&json!({ "everything": { "1": form } }));
    assert_eq!(file.says(SchemaLock::new().events([everything()])), "");
}

#[derive(Serialize, Deserialize, DomainEvent)]
struct Sparse {
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u16>,
    always: Option<bool>,
}

#[test]
fn what_may_be_missing_stands_last() {
    let samples =
        [Sparse { left_out: None, always: None }, Sparse { left_out: Some(1), always: Some(true) }];
    let form = json!({ ".left_out": "u16 or absent", ".always": "bool or null" });
    let file = File::of(&json!({ "sparse": { "1": form } }));
    assert_eq!(file.says(SchemaLock::new().events(samples)), "");
}

/// An event whose name and version a test chooses.
struct ByHand(&'static str, SchemaVersion);

impl Serialize for ByHand {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for ByHand {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        <()>::deserialize(from).map(|()| Self("by_hand", 1))
    }
}

impl DomainEvent for ByHand {
    fn event_type(&self) -> &'static str {
        self.0
    }

    fn schema_version(&self) -> SchemaVersion {
        self.1
    }
}

#[derive(Deserialize, DomainEvent)]
struct Refusing;

impl Serialize for Refusing {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not today"))
    }
}
