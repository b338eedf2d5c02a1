//! What a service writes: a migration.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{MigrationError, Migrator, SchemaVersion};

/// What the way down brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undo {
    /// Everything that the way up changed.
    Everything,
    /// Everything but what is said here; a dry run shows it.
    Except(&'static str),
    /// There is no way down, for this reason. A rollback over it is refused before anything is written.
    Irreversible(&'static str),
}

/// A change of what is stored, from one version to a later one.
///
/// What it does it does through the [`Migrator`] it is handed, never otherwise: so a dry run writes nothing, an interrupted
/// run goes on where it was, and a runner that was taken over writes nothing any more.
///
/// Each call of the migrator that changes something is a step. A run that was interrupted calls `up` (or `down`) again from
/// its beginning and skips the steps that are done, by their number; so the calls must be the same, in the same order,
/// every time. The functions that are given to them should look at their argument only.
///
/// ```
/// use cim_persistence::migration::{Migration, MigrationError, Migrator, ModelEdit, SchemaVersion, Undo};
/// use serde_json::json;
///
/// struct CentsNotEuros;
///
/// impl Migration for CentsNotEuros {
///     fn name(&self) -> &str { "balances in cents" }
///     fn from(&self) -> SchemaVersion { SchemaVersion::NONE }
///     fn to(&self) -> SchemaVersion { SchemaVersion::new(1, 0, 0) }
///     fn undo(&self) -> Undo { Undo::Everything }
///
///     async fn up(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
///         migrator.models("balance.>", 2, |balance| {
///             let euros = balance.document["euros"].as_i64().ok_or("no euros")?;
///             Ok(ModelEdit::Put(json!({ "cents": euros * 100 })))
///         }).await
///     }
///
///     async fn down(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
///         migrator.models("balance.>", 1, |balance| {
///             let cents = balance.document["cents"].as_i64().ok_or("no cents")?;
///             Ok(ModelEdit::Put(json!({ "euros": cents / 100 })))
///         }).await
///     }
/// }
/// ```
pub trait Migration: Send + Sync + 'static {
    /// Its name, for the history and for messages. Never change it once the migration was run anywhere.
    fn name(&self) -> &str;

    /// The version before it.
    fn from(&self) -> SchemaVersion;

    /// The version after it, a later one.
    fn to(&self) -> SchemaVersion;

    /// What [`down`](Self::down) brings back. Default nothing.
    fn undo(&self) -> Undo {
        Undo::Irreversible("it has no way down")
    }

    /// Changes what is stored from the version before to the version after.
    fn up(
        &self,
        migrator: &mut Migrator,
    ) -> impl Future<Output = Result<(), MigrationError>> + Send;

    /// Changes it back, as far as [`undo`](Self::undo) says.
    fn down(
        &self,
        _migrator: &mut Migrator,
    ) -> impl Future<Output = Result<(), MigrationError>> + Send {
        let name = self.name().to_owned();
        let reason = "it says that it can be undone, and has no way down".to_owned();
        async { Err(MigrationError::Irreversible { name, reason }) }
    }

    /// Looks whether the way up brought about what it should; what it does not refuse is taken as it is. Default nothing. Steps
    /// that change something are refused here.
    fn validate(
        &self,
        _migrator: &mut Migrator,
    ) -> impl Future<Output = Result<(), MigrationError>> + Send {
        async { Ok(()) }
    }
}

/// A migration of any type.
pub(super) trait AnyMigration: Send + Sync {
    fn name(&self) -> &str;
    fn versions(&self) -> (SchemaVersion, SchemaVersion);
    fn undo(&self) -> Undo;
    fn up<'a>(&'a self, migrator: &'a mut Migrator) -> BoxFuture<'a, Result<(), MigrationError>>;
    fn down<'a>(&'a self, migrator: &'a mut Migrator) -> BoxFuture<'a, Result<(), MigrationError>>;
    fn validate<'a>(
        &'a self,
        migrator: &'a mut Migrator,
    ) -> BoxFuture<'a, Result<(), MigrationError>>;
}

impl<M: Migration> AnyMigration for M {
    fn name(&self) -> &str {
        Migration::name(self)
    }

    fn versions(&self) -> (SchemaVersion, SchemaVersion) {
        (self.from(), self.to())
    }

    fn undo(&self) -> Undo {
        Migration::undo(self)
    }

    fn up<'a>(&'a self, migrator: &'a mut Migrator) -> BoxFuture<'a, Result<(), MigrationError>> {
        Migration::up(self, migrator).boxed()
    }

    fn down<'a>(&'a self, migrator: &'a mut Migrator) -> BoxFuture<'a, Result<(), MigrationError>> {
        Migration::down(self, migrator).boxed()
    }

    fn validate<'a>(
        &'a self,
        migrator: &'a mut Migrator,
    ) -> BoxFuture<'a, Result<(), MigrationError>> {
        Migration::validate(self, migrator).boxed()
    }
}
