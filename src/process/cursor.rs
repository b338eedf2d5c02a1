//! How far a process is, as it is written down. What it says may be behind: the marks decide what took effect.

use uuid::Uuid;

use super::ProcessManager;
use super::error::ProcessError;
use super::records::{FORMAT, cursor_key};
use crate::backend::{BackendError, Position};
use crate::event::NonEmpty;
use crate::projection::{Checkpoint, FirstStart, check_log, put, read};
use crate::state::{Expected, Key};
use crate::store::Context;

pub(super) struct Cursor {
    record: Checkpoint,
    key: Key,
    revision: u64,
    /// How many messages were taken since it was written.
    ahead: u32,
}

impl Cursor {
    /// Where the process is, or begins.
    pub(super) async fn of<P: ProcessManager>(
        context: &Context,
        first: FirstStart,
    ) -> Result<Self, ProcessError> {
        let key = cursor_key(P::NAME)?;
        let bucket = context.read_models().as_ref();
        let (revision, record) = read::<Checkpoint>(bucket, &key).await?;
        if let Some(record) = record {
            check_log(context, P::NAME, &record).await?;
            return Ok(Self { record, key, revision, ahead: 0 });
        }
        let status = context.status().await?;
        let position = match first {
            FirstStart::Beginning => Position::START,
            FirstStart::Now => status.last,
        };
        let record = Checkpoint {
            format: FORMAT,
            version: 1,
            position,
            mark: None,
            log_created: status.created,
            events: 0,
            parked: 0,
            rebuild: 0,
            writer: Uuid::new_v4(),
        };
        // From now on a restart goes on here.
        let mut cursor = Self { record, key, revision, ahead: 1 };
        cursor.note(context).await?;
        Ok(cursor)
    }

    pub(super) fn position(&self) -> Position {
        self.record.position
    }

    pub(super) fn ahead(&self) -> u32 {
        self.ahead
    }

    pub(super) fn advance(&mut self, position: Position, mark: Option<String>) {
        (self.record.position, self.record.mark) = (position, mark);
        self.ahead += 1;
    }

    pub(super) fn count_event(&mut self) {
        self.record.events += 1;
    }

    pub(super) fn count_parked(&mut self) {
        self.record.parked += 1;
    }

    /// Writes it down, if there is something new.
    pub(super) async fn note(&mut self, context: &Context) -> Result<(), ProcessError> {
        if self.ahead == 0 {
            return Ok(());
        }
        let bucket = context.read_models().as_ref();
        self.record.writer = Uuid::new_v4();
        let expected = Expected::Revision(self.revision);
        let write = put(self.key.clone(), &self.record, expected);
        self.revision = match bucket.write(NonEmpty::one(write)).await {
            Ok(revisions) => revisions[0],
            Err(error @ (BackendError::Conflict { .. } | BackendError::Unknown { .. })) => {
                let (revision, found) = read::<Checkpoint>(bucket, &self.key).await?;
                if found.is_none_or(|found| found.writer != self.record.writer) {
                    // Another instance is at work; what it wrote is where to begin again.
                    return Err(error.into());
                }
                revision
            }
            Err(error) => return Err(error.into()),
        };
        self.ahead = 0;
        Ok(())
    }
}
