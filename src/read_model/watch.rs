//! Watching models: what they are, and then what becomes of them.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use serde::de::DeserializeOwned;

use super::resolve::Reader;
use super::{ModelPattern, Models, ReadModelError, Stored, layout};
use crate::backend::{BackendError, Start};
use crate::event::NonEmpty;
use crate::state::{Entry, Key, Watched};
use crate::subject::{AggregateId, Pattern};

/// What a watcher sees.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ModelChange<T> {
    /// A model was saved, or is as it was when the watch began.
    Saved(Stored<T>),
    /// A model was deleted.
    Deleted {
        /// Its id.
        id: AggregateId,
        /// The revision of the deletion.
        revision: u64,
    },
    /// A rebuild was finished: everything seen before is void, and all models come anew.
    Reset,
    /// Everything that was there when the watch began, or began anew, has been handed out.
    CaughtUp,
}

impl<T: DeserializeOwned + Send + 'static> Models<T> {
    /// The models that a pattern means, then every change to them, for ever.
    ///
    /// A model that changes several times while nobody polls may come with its last change only; no model's last change is
    /// missed, through lost connections and restarts of a server as well. A model that does not decode comes as an error
    /// and the watch goes on; any other error ends it. While the models are built for the first time it waits. Dropped, it
    /// leaves nothing on the server.
    ///
    /// # Errors
    /// [`ReadModelError::OutsideStore`] when the pattern means another type.
    pub fn watch(
        &self,
        pattern: &ModelPattern,
    ) -> Result<BoxStream<'static, Result<ModelChange<T>, ReadModelError>>, ReadModelError> {
        let watching = self.watching(pattern)?;
        Ok(futures::stream::unfold(Some(watching), |watching| async move {
            let mut watching = watching?;
            match watching.next().await {
                Ok(change) => Some((Ok(change), Some(watching))),
                Err(
                    error @ (ReadModelError::Shape { .. } | ReadModelError::OtherSchema { .. }),
                ) => Some((Err(error), Some(watching))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed())
    }

    /// The same, for those who want to know the generation.
    pub(super) fn watching(&self, pattern: &ModelPattern) -> Result<Watching<T>, ReadModelError> {
        if pattern.model_type() != self.model_type() {
            return Err(ReadModelError::OutsideStore {
                pattern: pattern.to_string(),
                model_type: self.model_type().to_owned(),
            });
        }
        Ok(Watching {
            models: self.clone(),
            pattern: pattern.clone(),
            pointer: layout::pointer_key(self.model_type())?,
            generation: None,
            changes: None,
            begun: false,
        })
    }
}

/// How long is waited for a bucket that is not there.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Watching<T> {
    models: Models<T>,
    pattern: ModelPattern,
    pointer: Key,
    generation: Option<u64>,
    changes: Option<BoxStream<'static, Result<Watched, BackendError>>>,
    begun: bool,
}

impl<T: DeserializeOwned> Watching<T> {
    /// The next change; an error other than [`ReadModelError::Shape`] and [`ReadModelError::OtherSchema`] is the last. Given up, it
    /// loses nothing.
    pub(super) async fn next(&mut self) -> Result<ModelChange<T>, ReadModelError> {
        loop {
            let Some(changes) = &mut self.changes else {
                match self.open().await {
                    Err(ReadModelError::Backend(error)) if error.is_transient() => {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                    opened => opened?,
                }
                if std::mem::replace(&mut self.begun, true) {
                    return Ok(ModelChange::Reset);
                }
                continue;
            };
            match changes.next().await {
                Some(Ok(Watched::Entry(entry))) if entry.key == self.pointer => {
                    if visible(&self.models.reader, &self.models.model, entry)? != self.generation {
                        self.changes = None;
                    }
                }
                // A watcher that is behind may see the end of a generation before it sees the next one.
                Some(Ok(Watched::Entry(entry))) if layout::is_cleared(&entry) => {}
                Some(Ok(Watched::Entry(entry))) => return self.change(&entry),
                Some(Ok(Watched::CaughtUp)) if self.generation.is_some() => {
                    return Ok(ModelChange::CaughtUp);
                }
                Some(Ok(Watched::CaughtUp)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(BackendError::unavailable("the watch ended").into()),
            }
        }
    }

    /// The generation that is watched; none while the first one is being built.
    pub(super) fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// Watches the pointer, and the models of the generation that it names, from what they are now.
    async fn open(&mut self) -> Result<(), ReadModelError> {
        self.generation = match self.models.reader.generation(&self.models.model).await {
            Ok(generation) => Some(generation),
            Err(ReadModelError::NotBuilt { .. }) => None,
            Err(error) => return Err(error),
        };
        let mut patterns = NonEmpty::one(Pattern::parse(self.pointer.as_str())?);
        if let Some(generation) = self.generation {
            patterns.push(self.pattern.keys(generation)?);
        }
        self.changes = Some(self.models.reader.bucket.watch(patterns, Start::Latest));
        Ok(())
    }

    fn change(&self, entry: &Entry) -> Result<ModelChange<T>, ReadModelError> {
        Ok(match self.models.decode(entry)? {
            Some(stored) => ModelChange::Saved(stored),
            None => ModelChange::Deleted {
                id: layout::metadata(&self.models.model, entry)?.id,
                revision: entry.revision,
            },
        })
    }
}

fn visible(reader: &Reader, model: &str, entry: Entry) -> Result<Option<u64>, ReadModelError> {
    match reader.resolve(model, entry.value.is_some().then_some(entry)) {
        Ok(generation) => Ok(Some(generation)),
        Err(ReadModelError::NotBuilt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
