//! Temporary.
#![allow(missing_docs)]
use crate::state::{Change, Expected, Key, KeyWrite};
use crate::subject::AggregateId;
#[derive(Debug, Clone, PartialEq)]
pub struct IndexSpec;
impl IndexSpec {
    pub fn on<const N: usize>(_: [&str; N]) -> Self {
        Self
    }
}
#[derive(Debug, Clone)]
pub struct IndexQuery;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct InvalidIndex;
pub(crate) fn entries(
    _: &str,
    _: u64,
    _: &[IndexSpec],
    _: &AggregateId,
    _: &serde_json::Value,
) -> Vec<Key> {
    Vec::new()
}
pub(crate) fn remove(k: Key) -> KeyWrite {
    KeyWrite::new(k, Change::Delete, Expected::Anything)
}
pub(crate) fn insert(k: Key) -> KeyWrite {
    KeyWrite::new(k, Change::Put("null".into()), Expected::Anything)
}
pub(crate) fn difference<'a>(
    old: &'a [Key],
    new: &'a [Key],
) -> impl Iterator<Item = KeyWrite> + 'a {
    let gone = old.iter().filter(|key| !new.contains(key)).cloned().map(remove);
    let added = new.iter().filter(|key| !old.contains(key)).cloned().map(insert);
    gone.chain(added)
}
