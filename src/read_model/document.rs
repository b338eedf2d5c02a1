//! A model on its way into the store and out of it, and the one place that says which keys a change of a model writes.
//!
//! The store uses it for models saved by hand, the runner of projections for all that it keeps.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::index::{self, Index};
use super::layout::{Label, Shelf};
use super::{ReadModel, ReadModelError};
use crate::event::Headers;
use crate::state::{Change, Expected, Key, KeyWrite};
use crate::subject::{AggregateId, Identity, ModelType};

/// A model as it will be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) bytes: Bytes,
    pub(crate) headers: Headers,
    /// The keys of its index entries.
    pub(crate) entries: BTreeSet<Key>,
}

impl Document {
    /// A model of the code.
    pub(crate) fn of_model<T: ReadModel>(
        shelf: &Shelf,
        id: &AggregateId,
        model: &T,
        label: &Label,
        indexes: &[Index],
    ) -> Result<Self, ReadModelError> {
        Self::of_json(shelf, id, model, label, indexes)
    }

    /// Anything that serde writes as JSON.
    pub(crate) fn of_json<T: Serialize>(
        shelf: &Shelf,
        id: &AggregateId,
        json: &T,
        label: &Label,
        indexes: &[Index],
    ) -> Result<Self, ReadModelError> {
        let refused = |error: serde_json::Error| ReadModelError::Encode {
            model_type: shelf.model_type().clone(),
            id: id.to_string(),
            reason: error.to_string(),
        };
        let bytes = serde_json::to_vec(json).map_err(refused)?;
        let entries = match indexes {
            [] => BTreeSet::new(),
            indexes => {
                let document = serde_json::from_slice(&bytes).map_err(refused)?;
                index::entries(indexes, shelf, id, &document)?
            }
        };
        Ok(Self { bytes: bytes.into(), headers: label.headers(), entries })
    }
}

/// The index entries that a stored document has. One that is no JSON, or that no index takes, has none.
pub(crate) fn entries_of_stored(
    shelf: &Shelf,
    id: &AggregateId,
    stored: Option<&[u8]>,
    indexes: &[Index],
) -> BTreeSet<Key> {
    let document: Option<Value> = match (indexes, stored) {
        ([], _) | (_, None) => None,
        (_, Some(bytes)) => serde_json::from_slice(bytes).ok(),
    };
    let of = |document: Value| index::entries(indexes, shelf, id, &document).ok();
    document.and_then(of).unwrap_or_default()
}

/// Which entries of a changed model are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entries {
    /// Those that it did not have before; the others are stored.
    Changed,
    /// All of them: an index is being built, and it is not known whether it has come to this model.
    All,
}

/// What a change of one model writes: the model, guarded, and its index entries. `None` for the new model deletes it.
///
/// `old` are the entries that the stored model has. They belong to the revision that the guard names, or to one that only
/// the caller changes.
pub(crate) fn key_writes(
    model: Key,
    old: &BTreeSet<Key>,
    new: Option<Document>,
    guard: Expected,
    entries: Entries,
) -> Vec<KeyWrite> {
    let (change, headers, new) = match new {
        Some(new) => (Change::Put(new.bytes), new.headers, new.entries),
        None => (Change::Delete, Headers::new(), BTreeSet::new()),
    };
    let mut writes = Vec::with_capacity(1 + old.len() + new.len());
    writes.push(KeyWrite { key: model, change, expected: guard, headers });
    let gone = old.difference(&new).cloned();
    writes.extend(gone.map(|key| KeyWrite::new(key, Change::Delete, Expected::Anything)));
    let written = |key: &&Key| entries == Entries::All || !old.contains(*key);
    writes.extend(new.iter().filter(written).cloned().map(entry));
    writes
}

/// The writing of one index entry. Its key says all.
pub(crate) fn entry(key: Key) -> KeyWrite {
    KeyWrite::new(key, Change::Put(Bytes::from_static(b"null")), Expected::Anything)
}

/// Reads a stored model as a model of the code.
pub(crate) fn decode<T: ReadModel>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// The type of the code's models, as a name.
pub(crate) fn type_of<T: ReadModel>() -> Result<ModelType, ReadModelError> {
    Ok(ModelType::new(T::TYPE)?)
}

/// The id of a model, as it stands in keys.
pub(crate) fn id_of<T: ReadModel>(model: &T) -> Result<AggregateId, ReadModelError> {
    Ok(model.id()?.to_aggregate_id()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_model::IndexSpec;
    use crate::read_model::layout::Generation;
    use serde_json::json;

    fn shelf() -> Shelf {
        Shelf::new(&ModelType::new("board").unwrap(), Generation::FIRST)
    }

    fn document(json: Value) -> Document {
        let indexes = Index::all(&[IndexSpec::on(["carrier"]), IndexSpec::on(["late"])]).unwrap();
        let label = Label { schema_version: 1, position: None, metadata: Default::default() };
        Document::of_json(&shelf(), &AggregateId::new("7").unwrap(), &json, &label, &indexes)
            .unwrap()
    }

    fn told(writes: &[KeyWrite]) -> Vec<String> {
        let one = |write: &KeyWrite| {
            let sign = if write.change == Change::Delete { '-' } else { '+' };
            format!("{sign}{}", write.key)
        };
        writes.iter().map(one).collect()
    }

    #[test]
    fn a_change_writes_what_changes() {
        let key = shelf().model(&AggregateId::new("7").unwrap());
        let old = document(json!({ "carrier": "B6", "late": false }));
        let new = document(json!({ "carrier": "B6", "late": true }));
        let guard = Expected::Revision(4);
        let changed = key_writes(
            key.clone(),
            &old.entries,
            Some(new.clone()),
            guard.clone(),
            Entries::Changed,
        );
        assert_eq!(
            told(&changed),
            ["+board.7", "-=index.board.late.b.0.7", "+=index.board.late.b.1.7"]
        );
        assert_eq!(changed[0].expected, guard);
        assert_eq!(changed[0].headers.get("Cim-Schema-Version"), Some("1"));
        let all = key_writes(key.clone(), &old.entries, Some(new), guard.clone(), Entries::All);
        assert_eq!(told(&all).len(), 4);
        let deleted = key_writes(key, &old.entries, None, guard, Entries::Changed);
        assert_eq!(
            told(&deleted),
            ["-board.7", "-=index.board.carrier.s.4.2.3.6.-.7", "-=index.board.late.b.0.7"]
        );
    }

    #[test]
    fn what_is_no_json_has_no_entries() {
        let indexes = Index::all(&[IndexSpec::on(["carrier"])]).unwrap();
        let id = AggregateId::new("7").unwrap();
        let entries = |stored: Option<&[u8]>| entries_of_stored(&shelf(), &id, stored, &indexes);
        assert_eq!(entries(Some(b"{")).len(), 0);
        assert_eq!(entries(None).len(), 0);
        assert_eq!(entries(Some(b"{}")).len(), 1);
    }
}
