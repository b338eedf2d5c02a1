//! A whole unit of work in one call: begun, committed, and begun again when others were first.

use super::{Committed, UnitError, UnitOfWork};
use crate::repository::Freshness;
use crate::store::{CommitInfo, Context};

/// How a unit of work is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitOptions {
    /// How often the work is begun at most; 10 by default, at least once.
    pub attempts: u32,
    /// What the events and messages say of the unit.
    pub info: CommitInfo,
}

impl Default for UnitOptions {
    fn default() -> Self {
        Self { attempts: 10, info: CommitInfo::default() }
    }
}

impl UnitOfWork {
    /// Begins a unit, lets `work` fill it, and commits it; when others were first, everything begins again with what they
    /// stored, at most ten times in all.
    ///
    /// `work` may be called several times and should do nothing but fill the unit. When it fails the unit is rolled back
    /// and its error returned.
    ///
    /// # Errors
    /// What `work` returned; [`UnitError`] as from [`commit`](Self::commit), when the attempts are used up too.
    pub async fn run<T, E>(
        context: &Context,
        work: impl AsyncFnMut(&mut UnitOfWork) -> Result<T, E>,
    ) -> Result<(T, Committed), E>
    where
        E: From<UnitError>,
    {
        Self::run_with(context, UnitOptions::default(), work).await
    }

    /// As [`run`](Self::run), with options.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_with<T, E>(
        context: &Context,
        options: UnitOptions,
        mut work: impl AsyncFnMut(&mut UnitOfWork) -> Result<T, E>,
    ) -> Result<(T, Committed), E>
    where
        E: From<UnitError>,
    {
        let mut attempt = 1;
        let mut freshness = Freshness::Current;
        loop {
            let mut unit = Self::begin(context);
            unit.freshness = freshness;
            unit.describe(options.info.clone());
            let reply = match work(&mut unit).await {
                Ok(reply) => reply,
                Err(error) => {
                    unit.rollback().await;
                    return Err(error);
                }
            };
            match unit.commit().await {
                Ok(committed) => return Ok((reply, committed)),
                Err(error) if error.is_conflict() && attempt < options.attempts => {
                    tracing::debug!(%error, attempt, "a unit of work begins again");
                    freshness = Freshness::Latest;
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
