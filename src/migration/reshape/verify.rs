//! Comparing a copy with what it was made of, message by message.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};

use super::rewrite::Heads;
use super::{Copied, EventCopy, Transform};
use crate::backend::Position;
use crate::event_log::LogQuery;
use crate::migration::MigrationError;
use crate::migration::held::patiently;

impl EventCopy {
    /// Reads both streams from the start and compares every message of the copy with what `transform` makes of its origin: bytes,
    /// headers, order and number, and so every link and version. Every event of both is verified.
    ///
    /// Memory grows with the number of aggregates, by about 200 bytes each. Meant for when nothing is copied any more.
    ///
    /// # Errors
    /// [`MigrationError::Copy`] with the first difference; [`MigrationError::Store`] at an event that cannot be trusted;
    /// [`MigrationError::Refused`]; [`MigrationError::Backend`].
    pub async fn verify(&self, transform: impl Transform) -> Result<Copied, MigrationError> {
        let end = patiently(self.patience, || self.from.log().status()).await?.last;
        let all = LogQuery { filter: None, after: Position::START };
        let mut copy = self.to.read(all.clone());
        let mut originals = self.from.log().read(all).boxed();
        let (mut heads, mut aggregates) = (Heads::new(), HashSet::new());
        let mut copied = Copied::default();
        while let Some(original) = originals.try_next().await? {
            let at = original.position;
            if at > end {
                break;
            }
            copied.read += 1;
            copied.up_to = at;
            let wanted = self.rewrite(original, &transform, &mut heads)?;
            copied.dropped += u64::from(wanted.is_empty());
            for wanted in wanted {
                let differs = |what: &str| MigrationError::Copy {
                    reason: format!("{what} of what position {at} became"),
                };
                let found =
                    copy.try_next().await?.ok_or_else(|| differs("it ends before the end"))?;
                if found.subject != wanted.subject {
                    return Err(differs("the subject is not that"));
                }
                if found.payload != wanted.payload {
                    return Err(differs("the payload is not that"));
                }
                let has = |(name, value): (&str, &str)| found.headers.get(name) == Some(value);
                if !wanted.headers.iter().all(has) {
                    return Err(differs("the headers are not those"));
                }
                if found.subject.as_str().starts_with(self.from.scheme().event_prefix()) {
                    self.verified(found)?;
                    aggregates.insert(wanted.subject);
                }
                copied.written += 1;
            }
        }
        if copied.up_to < end {
            let reason = format!("the original was read up to {} of {end} only", copied.up_to);
            return Err(MigrationError::Copy { reason });
        }
        if let Some(more) = copy.try_next().await? {
            let reason = format!("position {} of it has no origin", more.position);
            return Err(MigrationError::Copy { reason });
        }
        copied.aggregates = aggregates.len() as u64;
        Ok(copied)
    }
}
