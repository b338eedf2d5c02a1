//! Steps over what is derived from events and kept: current state and snapshots.
//!
//! Both are records of one form. A record that is removed, or that nobody migrated, costs a replay of its aggregate's events
//! and nothing else; so a migration of them saves time, and is never needed for correctness.

use ipld_core::ipld::Ipld;
use serde::{Serialize, Serializer};

use super::migrator::{Edited, Migrator};
use super::models::{refused, unreadable};
use super::records::Tally;
use super::report::Sample;
use super::target::Place;
use super::{MigrationError, Refusal};
use crate::ipld::{self, Block, BlockFormat, Hash};
use crate::state::{Change, Entry, Expected, KeyWrite};
use crate::subject::Pattern;

/// Kept state as a migration sees it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct KeptState {
    /// The kind of aggregate.
    pub aggregate_type: String,
    /// Its id, escaped.
    pub id: String,
    /// The version of the last event in it.
    pub version: u64,
    /// The aggregate's `STATE_VERSION` when it was written.
    pub schema_version: u32,
    /// The aggregate, as serde wrote it.
    pub state: Ipld,
}

/// What becomes of kept state.
#[derive(Debug, Clone, PartialEq)]
pub enum KeptEdit {
    /// It stays as it is.
    Keep,
    /// It becomes this.
    Put(Ipld),
    /// It is removed, and derived again when it is needed.
    Remove,
}

impl Migrator {
    /// Changes the kept state of every aggregate that a pattern of keys means: `account.*`. `schema_version` is the
    /// `STATE_VERSION` of the shape which `change` writes. Nothing happens where no state is kept.
    ///
    /// Memory and round trips as for [`models`](Self::models).
    ///
    /// # Errors
    /// [`MigrationError::Refused`] with what `change` returns; any other [`MigrationError`].
    pub async fn state(
        &mut self,
        pattern: &str,
        schema_version: u32,
        change: impl FnMut(&KeptState) -> Result<KeptEdit, Refusal> + Send,
    ) -> Result<(), MigrationError> {
        let label = format!("state {pattern} to schema version {schema_version}");
        self.kept(Place::State, &label, pattern, schema_version, change).await
    }

    /// Changes every snapshot that a pattern of keys means: `account.>`. Otherwise as [`state`](Self::state).
    ///
    /// # Errors
    /// As there.
    pub async fn snapshots(
        &mut self,
        pattern: &str,
        schema_version: u32,
        change: impl FnMut(&KeptState) -> Result<KeptEdit, Refusal> + Send,
    ) -> Result<(), MigrationError> {
        let label = format!("snapshots {pattern} to schema version {schema_version}");
        self.kept(Place::Snapshots, &label, pattern, schema_version, change).await
    }

    async fn kept(
        &mut self,
        place: Place,
        label: &str,
        pattern: &str,
        schema_version: u32,
        mut change: impl FnMut(&KeptState) -> Result<KeptEdit, Refusal> + Send,
    ) -> Result<(), MigrationError> {
        let pattern = Pattern::parse(pattern)?;
        let Some(at) = self.begin_step(place, label)? else { return Ok(()) };
        if !self.target.has(place) {
            return Ok(());
        }
        let mut walk = self.walk(place, pattern, 0, at).await?;
        while let Some(page) = self.page(&walk).await? {
            let edited: Result<Vec<_>, _> = page
                .into_iter()
                // A pattern of everything meets the fence.
                .filter(|entry| !entry.key.as_str().starts_with('='))
                .map(|entry| self.edit(entry, schema_version, &mut change))
                .collect();
            self.flush(&mut walk, edited?).await?;
        }
        self.end(walk).await
    }

    fn edit(
        &self,
        entry: Entry,
        schema_version: u32,
        change: &mut impl FnMut(&KeptState) -> Result<KeptEdit, Refusal>,
    ) -> Result<Edited, MigrationError> {
        let unreadable = |reason: String| unreadable(&entry.key, &reason);
        let bytes = entry.value.as_deref().unwrap_or_default();
        let mut record: Ipld = ipld::decode_any(bytes).map_err(unreadable)?;
        let kept = kept_state(&record).ok_or_else(|| unreadable("it is no record".to_owned()))?;
        let edit = change(&kept).map_err(|why| refused(&entry.key, why.as_ref()))?;
        let mut tally = Tally { seen: 1, ..Tally::default() };
        let expected = Expected::Revision(entry.revision);
        let (mut after, before) = (None, format!("{:?}", kept.state));
        let change = match edit {
            KeptEdit::Keep => None,
            KeptEdit::Put(state) => {
                tally.written = 1;
                after = Some(format!("{state:?}"));
                if let Ipld::Map(fields) = &mut record {
                    fields.insert("state".to_owned(), state);
                    fields.insert("schema".to_owned(), Ipld::Integer(schema_version.into()));
                }
                let block = match ipld::codec_of_any(bytes) {
                    // No CID of a record is kept, so any hash will do.
                    Some(codec) => Block::encode(BlockFormat::Ipld(codec, Hash::Sha2), &record),
                    None => Block::encode(BlockFormat::PlainJson, &AsPlainJson(&record)),
                };
                Some(Change::Put(block.map_err(unreadable)?.bytes))
            }
            KeptEdit::Remove => {
                tally.removed = 1;
                Some(Change::Delete)
            }
        };
        let sample = change.is_some().then(|| Sample {
            key: entry.key.to_string(),
            moved_to: None,
            before: Some(before),
            after,
        });
        let write = |change| KeyWrite::new(entry.key.clone(), change, expected);
        let writes = change.map(write).into_iter().collect();
        Ok(Edited { key: entry.key, writes, tally, sample })
    }
}

/// A record whose first key is that of a record of plain JSON. A map has its keys sorted, and would be read as DAG-JSON.
struct AsPlainJson<'a>(&'a Ipld);

const FIRST: &str = "format";

impl Serialize for AsPlainJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Ipld::Map(fields) = self.0 else { return self.0.serialize(serializer) };
        let (first, rest): (Vec<_>, Vec<_>) = fields.iter().partition(|(name, _)| *name == FIRST);
        serializer.collect_map(first.into_iter().chain(rest))
    }
}

fn kept_state(record: &Ipld) -> Option<KeptState> {
    let text = |name: &str| match record.get(name) {
        Ok(Some(Ipld::String(text))) => Some(text.clone()),
        _ => None,
    };
    let number = |name: &str| match record.get(name) {
        Ok(Some(Ipld::Integer(number))) => Some(*number),
        _ => None,
    };
    Some(KeptState {
        aggregate_type: text("aggregate")?,
        id: text("id")?,
        version: number("version")?.try_into().ok()?,
        schema_version: number("schema")?.try_into().ok()?,
        state: record.get("state").ok()??.clone(),
    })
}
