//! Read models: saved, loaded, found.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Runtime;
use crate::query::QueryError;
use crate::read_model::{
    self, ExpectedRevision, IndexLookup, IndexSpec, ReadModel, ReadModelError, SaveModel, Stored,
};
use crate::specification::{Page, ReadModelList, SearchOptions, Specification};
use crate::subject::AggregateId;

/// The read models of a context, all types; see [`read_model::ReadModelStore`]. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct ReadModelStore {
    inner: read_model::ReadModelStore,
    runtime: Runtime,
}

impl ReadModelStore {
    pub(super) fn new(inner: read_model::ReadModelStore, runtime: Runtime) -> Self {
        Self { inner, runtime }
    }

    /// The async side of it.
    pub fn as_async(&self) -> &read_model::ReadModelStore {
        &self.inner
    }

    /// The models of one type.
    pub fn of<M: ReadModel>(&self) -> Models<M> {
        Models { inner: self.inner.of(), runtime: self.runtime.clone() }
    }

    /// The models of one type as JSON documents.
    ///
    /// # Errors
    /// As [`read_model::ReadModelStore::untyped`].
    pub fn untyped(&self, model_type: &str) -> Result<Models<Value>, ReadModelError> {
        Ok(Models { inner: self.inner.untyped(model_type)?, runtime: self.runtime.clone() })
    }

    /// As [`read_model::ReadModelStore::save`].
    ///
    /// # Errors
    /// As there.
    pub fn save<M: ReadModel>(&self, model: &M) -> Result<u64, ReadModelError> {
        self.runtime.wait(self.inner.save(model))
    }

    /// As [`read_model::ReadModelStore::load`].
    ///
    /// # Errors
    /// As there.
    pub fn load<M: ReadModel>(
        &self,
        id: &AggregateId,
    ) -> Result<Option<Stored<M>>, ReadModelError> {
        self.runtime.wait(self.inner.load(id))
    }

    /// As [`read_model::ReadModelStore::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete<M: ReadModel>(&self, id: &AggregateId) -> Result<(), ReadModelError> {
        self.runtime.wait(self.inner.delete::<M>(id))
    }
}

/// The models of one type; see [`read_model::Models`]. Cloning is cheap.
#[derive(Debug)]
pub struct Models<T> {
    inner: read_model::Models<T>,
    runtime: Runtime,
}

impl<T> Clone for Models<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), runtime: self.runtime.clone() }
    }
}

impl<T> Models<T> {
    /// The async side of it.
    pub fn as_async(&self) -> &read_model::Models<T> {
        &self.inner
    }

    /// As [`read_model::Models::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete(
        &self,
        id: &AggregateId,
        expected: ExpectedRevision,
    ) -> Result<(), ReadModelError> {
        self.runtime.wait(self.inner.delete(id, expected))
    }
}

impl<M: ReadModel> Models<M> {
    /// As [`read_model::Models::save`].
    ///
    /// # Errors
    /// As there.
    pub fn save(&self, model: &M, how: SaveModel) -> Result<u64, ReadModelError> {
        self.runtime.wait(self.inner.save(model, how))
    }
}

impl<T: DeserializeOwned + Send + 'static> Models<T> {
    /// As [`read_model::Models::load`].
    ///
    /// # Errors
    /// As there.
    pub fn load(&self, id: &AggregateId) -> Result<Option<Stored<T>>, ReadModelError> {
        self.runtime.wait(self.inner.load(id))
    }

    /// As [`read_model::Models::load_many`].
    ///
    /// # Errors
    /// As there.
    pub fn load_many(&self, ids: &[AggregateId]) -> Result<Vec<Option<Stored<T>>>, ReadModelError> {
        self.runtime.wait(self.inner.load_many(ids))
    }

    /// As [`read_model::Models::load_where`].
    ///
    /// # Errors
    /// As there.
    pub fn load_where(
        &self,
        spec: &IndexSpec,
        lookup: &IndexLookup,
    ) -> Result<Vec<Stored<T>>, ReadModelError> {
        self.runtime.wait(self.inner.load_where(spec, lookup))
    }

    /// As [`read_model::Models::query`].
    ///
    /// # Errors
    /// As there.
    pub fn query(
        &self,
        pattern: Option<&str>,
    ) -> Result<
        impl Iterator<Item = Result<Stored<T>, ReadModelError>> + Send + use<T>,
        ReadModelError,
    > {
        let stream = self.runtime.wait(self.inner.query(pattern))?;
        Ok(self.runtime.iterate(stream))
    }

    /// As [`read_model::Models::list`].
    ///
    /// # Errors
    /// As there.
    pub fn list(
        &self,
        limit: usize,
        offset: usize,
    ) -> Result<ReadModelList<Stored<T>>, ReadModelError> {
        self.runtime.wait(self.inner.list(limit, offset))
    }

    /// As [`read_model::Models::search`].
    ///
    /// # Errors
    /// As there.
    pub fn search(
        &self,
        pattern: Option<&str>,
        specification: &Specification,
        options: &SearchOptions,
    ) -> Result<Page<Stored<T>>, QueryError> {
        self.runtime.wait(self.inner.search(pattern, specification, options))
    }

    /// As [`read_model::Models::first`].
    ///
    /// # Errors
    /// As there.
    pub fn first(
        &self,
        pattern: Option<&str>,
        specification: &Specification,
        options: &SearchOptions,
    ) -> Result<Option<Stored<T>>, QueryError> {
        self.runtime.wait(self.inner.first(pattern, specification, options))
    }

    /// As [`read_model::Models::count`].
    ///
    /// # Errors
    /// As there.
    pub fn count(
        &self,
        pattern: Option<&str>,
        specification: &Specification,
    ) -> Result<usize, QueryError> {
        self.runtime.wait(self.inner.count(pattern, specification))
    }
}
