//! Where everything of the read side lies in the bucket of read models, and how its records are written.
//!
//! The only place that composes these keys and takes them apart. A token that begins with `=` is neither a model type nor
//! the first token of an escaped id, so reserved keys begin with it.

use std::fmt;
use std::num::NonZeroU64;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ReadModelError;
use crate::backend::{BackendError, Position};
use crate::event::{Headers, Metadata, NonEmpty, SchemaVersion};
use crate::state::{Change, Entry, Expected, Key, KeyWrite};
use crate::subject::{AggregateId, InvalidPattern, ModelType, Pattern, ProjectionName};

/// The headers beside a model.
pub(crate) const SCHEMA_VERSION: &str = crate::event::names::SCHEMA_VERSION;
pub(crate) const POSITION: &str = "Cim-Position";
pub(crate) const METADATA: &str = "Cim-Metadata";
/// Beside a deletion that says nothing of the model: a generation that nobody reads any more is cleared away.
pub(crate) const CLEARED: &str = "Cim-Cleared";

/// The form of the records in this file.
pub(crate) const FORMAT: u32 = 1;

/// Which build of a type's models: 1 for the first one and for models saved by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Generation(NonZeroU64);

impl Generation {
    pub(crate) const FIRST: Self = Self(NonZeroU64::MIN);

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The models of one type in one generation: what their keys and those of their index entries begin with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Shelf {
    model_type: ModelType,
    generation: Generation,
    /// `<type>` or `<type>=<generation>`.
    token: String,
}

impl Shelf {
    pub(crate) fn new(model_type: &ModelType, generation: Generation) -> Self {
        let token = match generation {
            Generation::FIRST => model_type.to_string(),
            _ => format!("{model_type}={generation}"),
        };
        Self { model_type: model_type.clone(), generation, token }
    }

    pub(crate) fn model_type(&self) -> &ModelType {
        &self.model_type
    }

    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// `<type>[=<g>].<id>`
    pub(crate) fn model(&self, id: &AggregateId) -> Key {
        composed(format!("{}.{}", self.token, id.as_str()))
    }

    /// Whose model a key of this shelf is.
    pub(crate) fn id_of(&self, key: &Key) -> Option<AggregateId> {
        let id = key.as_str().strip_prefix(&self.token)?.strip_prefix('.')?;
        AggregateId::from_escaped(id).ok()
    }

    /// The models whose ids match a pattern; `>` for all.
    pub(crate) fn models(&self, ids: &str) -> Result<Pattern, InvalidPattern> {
        Pattern::parse(&format!("{}.{ids}", self.token))
    }

    /// `=index.<type>[=<g>].<index>.<encoded values>.<id>`
    pub(crate) fn entry(&self, index: &str, values: &str, id: &AggregateId) -> Key {
        composed(format!("{}.{values}.{}", self.index(index), id.as_str()))
    }

    /// What follows the index's name in the key of one of its entries.
    pub(crate) fn in_entry<'k>(&self, index: &str, key: &'k Key) -> Option<&'k str> {
        key.as_str().strip_prefix(&self.index(index))?.strip_prefix('.')
    }

    /// The entries of an index whose values begin so; nothing for all of them.
    pub(crate) fn entries(&self, index: &str, values: &str) -> Pattern {
        let dot = if values.is_empty() { "" } else { "." };
        let text = format!("{}{dot}{values}.>", self.index(index));
        Pattern::parse(&text)
            .expect("names and values are bounded, so that this is no longer than a pattern")
    }

    /// `=index-state.<type>[=<g>].<index>`
    pub(crate) fn index_state(&self, index: &str) -> Key {
        composed(format!("=index-state.{}.{index}", self.token))
    }

    /// The states of all indexes.
    pub(crate) fn index_states(&self) -> Pattern {
        literal(&format!("=index-state.{}.*", self.token))
    }

    /// All keys of the generation: models, index entries, states of indexes.
    pub(crate) fn everything(&self) -> NonEmpty<Pattern> {
        let of = |text: String| literal(&text);
        [
            of(format!("{}.>", self.token)),
            of(format!("=index.{}.>", self.token)),
            self.index_states(),
        ]
        .into()
    }

    fn index(&self, index: &str) -> String {
        format!("=index.{}.{index}", self.token)
    }
}

/// `=model.<type>`: who keeps the models of a type.
pub(crate) fn pointer(model_type: &ModelType) -> Key {
    composed(format!("=model.{model_type}"))
}

/// `=projection.<name>`: a projection's status.
pub(crate) fn status(projection: &ProjectionName) -> Key {
    composed(format!("=projection.{projection}"))
}

/// `=checkpoint.<name>.<generation>`: how far a projection is.
pub(crate) fn checkpoint(projection: &ProjectionName, generation: Generation) -> Key {
    composed(format!("=checkpoint.{projection}.{generation}"))
}

/// `=lease.<name>`: which instance of a projection is active.
pub(crate) fn lease(projection: &ProjectionName) -> Key {
    composed(format!("=lease.{projection}"))
}

/// `=parked.<name>.<position>`: an event that a projection could not digest.
pub(crate) fn parked(projection: &ProjectionName, position: Position) -> Key {
    composed(format!("=parked.{projection}.{position}"))
}

/// All that a projection has parked.
pub(crate) fn all_parked(projection: &ProjectionName) -> Pattern {
    literal(&format!("=parked.{projection}.*"))
}

/// The pattern that one key matches.
pub(crate) fn exactly(key: &Key) -> Pattern {
    literal(key.as_str())
}

/// The removal of a key of a generation that nobody reads any more. Watchers do not take it for the end of a model.
pub(crate) fn cleared(key: Key) -> KeyWrite {
    let mut write = KeyWrite::new(key, Change::Delete, Expected::Anything);
    write.headers.push(CLEARED, "1");
    write
}

/// Who keeps the models of a type. Absent for models that are saved by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pointer {
    pub(crate) format: u32,
    pub(crate) projection: ProjectionName,
    /// The generation that readers see; `None` while the first one is being built.
    pub(crate) generation: Option<Generation>,
    pub(crate) schema_version: SchemaVersion,
    /// The generation that is being built beside it.
    pub(crate) building: Option<Generation>,
}

/// What stands beside a model in its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) schema_version: SchemaVersion,
    /// The last event that was applied; `None` when it was saved by hand.
    pub(crate) position: Option<Position>,
    pub(crate) metadata: Metadata,
}

impl Label {
    pub(crate) fn headers(&self) -> Headers {
        let mut headers = Headers::with_capacity(3);
        headers.push(SCHEMA_VERSION, self.schema_version.to_string());
        if let Some(position) = self.position {
            headers.push(POSITION, position.to_string());
        }
        if !self.metadata.is_empty() {
            headers.push(METADATA, ascii_json(&self.metadata));
        }
        headers
    }

    /// Reads the headers back. A model that another program has put there without any is of version 1.
    pub(crate) fn read(headers: &Headers) -> Result<Self, String> {
        let number = |name: &str| match headers.get(name) {
            Some(text) => {
                text.parse().map(Some).map_err(|_| format!("header {name} is {text:?}, no number"))
            }
            None => Ok(None),
        };
        let schema_version = match number(SCHEMA_VERSION)? {
            Some(version) => SchemaVersion::try_from(version)
                .map_err(|_| format!("header {SCHEMA_VERSION} is over 32 bits"))?,
            None => 1,
        };
        let metadata = match headers.get(METADATA) {
            Some(text) => {
                serde_json::from_str(text).map_err(|e| format!("header {METADATA}: {e}"))?
            }
            None => Metadata::default(),
        };
        Ok(Self { schema_version, position: number(POSITION)?.map(Position::new), metadata })
    }
}

/// A record as it is stored.
pub(crate) fn write_record<T: Serialize>(record: &T) -> Change {
    let bytes = serde_json::to_vec(record).expect("records have text keys and no failing parts");
    Change::Put(bytes.into())
}

/// Reads a record of this file; `None` when it is deleted.
pub(crate) fn read_record<T: DeserializeOwned>(entry: &Entry) -> Result<Option<T>, ReadModelError> {
    let Some(value) = &entry.value else { return Ok(None) };
    serde_json::from_slice(value).map(Some).map_err(|error| {
        let detail = format!("{} at revision {}: {error}", entry.key, entry.revision);
        BackendError::Corrupt { detail }.into()
    })
}

/// JSON that may stand in a header: one line of ASCII.
fn ascii_json(metadata: &Metadata) -> String {
    let text = serde_json::to_string(metadata).expect("a map of texts is JSON");
    let mut ascii = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_ascii() && c != '\u{7f}' {
            true => ascii.push(c),
            false => {
                let units = &mut [0; 2];
                ascii.extend(c.encode_utf16(units).iter().map(|unit| format!("\\u{unit:04x}")));
            }
        }
    }
    ascii
}

fn composed(text: String) -> Key {
    Key::new(text).expect("names, numbers, escaped ids and encoded values are tokens of a key")
}

fn literal(text: &str) -> Pattern {
    Pattern::parse(text)
        .expect("a key of names and numbers is short and has no wildcard in a token")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> ModelType {
        ModelType::new("board").unwrap()
    }

    #[test]
    fn keys_are_what_the_architecture_says() {
        let second = Generation::FIRST.next();
        let (one, two) = (Shelf::new(&board(), Generation::FIRST), Shelf::new(&board(), second));
        let id = AggregateId::from_tokens(["JFK", "B 6"]).unwrap();
        let name = ProjectionName::new("boards").unwrap();
        assert_eq!(one.model(&id).as_str(), "board.JFK.B=206");
        assert_eq!(two.model(&id).as_str(), "board=2.JFK.B=206");
        assert_eq!(one.entry("carrier", "a", &id).as_str(), "=index.board.carrier.a.JFK.B=206");
        assert_eq!(two.entry("carrier", "a", &id).as_str(), "=index.board=2.carrier.a.JFK.B=206");
        assert_eq!(two.entries("carrier", "").as_str(), "=index.board=2.carrier.>");
        assert_eq!(one.entries("carrier", "b.1").as_str(), "=index.board.carrier.b.1.>");
        assert_eq!(one.index_state("carrier").as_str(), "=index-state.board.carrier");
        assert_eq!(pointer(&board()).as_str(), "=model.board");
        assert_eq!(status(&name).as_str(), "=projection.boards");
        assert_eq!(checkpoint(&name, second).as_str(), "=checkpoint.boards.2");
        assert_eq!(lease(&name).as_str(), "=lease.boards");
        assert_eq!(parked(&name, Position::new(7)).as_str(), "=parked.boards.7");
        let all: Vec<_> = two.everything().iter().map(|p| p.as_str().to_owned()).collect();
        assert_eq!(all, ["board=2.>", "=index.board=2.>", "=index-state.board=2.*"]);
    }

    #[test]
    fn a_key_belongs_to_its_own_shelf_only() {
        let one = Shelf::new(&board(), Generation::FIRST);
        let two = Shelf::new(&board(), Generation::FIRST.next());
        let id = AggregateId::from_tokens(["JFK", "42"]).unwrap();
        assert_eq!(one.id_of(&one.model(&id)), Some(id.clone()));
        assert_eq!(two.id_of(&two.model(&id)), Some(id.clone()));
        assert_eq!(one.id_of(&two.model(&id)), None);
        assert_eq!(two.id_of(&one.model(&id)), None);
        assert_eq!(one.id_of(&Key::new("boards.JFK.42").unwrap()), None);
    }

    #[test]
    fn a_label_comes_back_from_its_headers() {
        let metadata = Metadata::new([("who", "Zoë 🛫"), ("line", "a\nb\u{7f}")]).unwrap();
        let label = Label { schema_version: 3, position: Some(Position::new(9)), metadata };
        let headers = label.headers();
        assert!(headers.iter().all(|(_, value)| value.chars().all(|c| (' '..='~').contains(&c))));
        assert_eq!(Label::read(&headers), Ok(label));
        let bare = Label { schema_version: 1, position: None, metadata: Metadata::default() };
        assert_eq!(Label::read(&Headers::new()), Ok(bare));
    }

    #[test]
    fn a_pointer_is_plain_json() {
        let text = r#"{"format":1,"projection":"boards","generation":null,"schema_version":2,"building":1}"#;
        let pointer = Pointer {
            format: FORMAT,
            projection: ProjectionName::new("boards").unwrap(),
            generation: None,
            schema_version: 2,
            building: Some(Generation::FIRST),
        };
        assert_eq!(write_record(&pointer), Change::Put(text.into()));
        assert_eq!(serde_json::from_str::<Pointer>(text).unwrap(), pointer);
    }
}
