//! Projections: run in the background, waited for, stopped.

use std::time::Duration;

use super::Runtime;
use crate::backend::Position;
use crate::projection::{self, Parked, ProjectionError, ProjectionReport};

/// A projection that runs on the runtime; see [`projection::RunningProjection`]. Dropping it ends it at once.
#[derive(Debug)]
pub struct RunningProjection {
    inner: projection::RunningProjection,
    runtime: Runtime,
}

impl RunningProjection {
    pub(super) fn new(inner: projection::RunningProjection, runtime: Runtime) -> Self {
        Self { inner, runtime }
    }

    /// The projection's name.
    pub fn name(&self) -> &'static str {
        self.inner.name()
    }

    /// Whether it runs, active or standing by. Does not wait.
    pub fn is_running(&self) -> bool {
        self.inner.is_running()
    }

    /// What this instance last said of itself; `None` while it stands by. Does not wait.
    pub fn report(&self) -> Option<ProjectionReport> {
        self.inner.report()
    }

    /// As [`projection::RunningProjection::caught_up`].
    ///
    /// # Errors
    /// As there.
    pub fn caught_up(&mut self, patience: Duration) -> Result<(), ProjectionError> {
        self.runtime.wait(self.inner.caught_up(patience))
    }

    /// As [`projection::RunningProjection::stop`].
    ///
    /// # Errors
    /// As there.
    pub fn stop(self) -> Result<(), ProjectionError> {
        self.runtime.wait(self.inner.stop())
    }
}

/// The projections of a context; see [`projection::Projections`]. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Projections {
    inner: projection::Projections,
    runtime: Runtime,
}

impl Projections {
    pub(super) fn new(inner: projection::Projections, runtime: Runtime) -> Self {
        Self { inner, runtime }
    }

    /// As [`projection::Projections::report`].
    ///
    /// # Errors
    /// As there.
    pub fn report(&self, name: &str) -> Result<ProjectionReport, ProjectionError> {
        self.runtime.wait(self.inner.report(name))
    }

    /// As [`projection::Projections::list`].
    ///
    /// # Errors
    /// As there.
    pub fn list(&self) -> Result<Vec<String>, ProjectionError> {
        self.runtime.wait(self.inner.list())
    }

    /// As [`projection::Projections::wait_for`].
    ///
    /// # Errors
    /// As there.
    pub fn wait_for(
        &self,
        name: &str,
        position: Position,
        patience: Duration,
    ) -> Result<(), ProjectionError> {
        self.runtime.wait(self.inner.wait_for(name, position, patience))
    }

    /// As [`projection::Projections::pause`].
    ///
    /// # Errors
    /// As there.
    pub fn pause(&self, name: &str) -> Result<(), ProjectionError> {
        self.runtime.wait(self.inner.pause(name))
    }

    /// As [`projection::Projections::resume`].
    ///
    /// # Errors
    /// As there.
    pub fn resume(&self, name: &str) -> Result<(), ProjectionError> {
        self.runtime.wait(self.inner.resume(name))
    }

    /// As [`projection::Projections::rebuild`].
    ///
    /// # Errors
    /// As there.
    pub fn rebuild(&self, name: &str) -> Result<(), ProjectionError> {
        self.runtime.wait(self.inner.rebuild(name))
    }

    /// As [`projection::Projections::parked`].
    ///
    /// # Errors
    /// As there.
    pub fn parked(&self, name: &str) -> Result<Vec<Parked>, ProjectionError> {
        self.runtime.wait(self.inner.parked(name))
    }

    /// As [`projection::Projections::forget_parked`].
    ///
    /// # Errors
    /// As there.
    pub fn forget_parked(&self, name: &str, position: Position) -> Result<(), ProjectionError> {
        self.runtime.wait(self.inner.forget_parked(name, position))
    }
}
