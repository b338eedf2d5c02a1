//! A step that changes the settings of a stream or a bucket.

use super::MigrationError;
use super::migrator::Migrator;
use super::nats::ManagedStream;
use super::records::Tally;
use super::report::Sample;
use super::target::Place;
use crate::backend::StreamSettings;

impl Migrator {
    /// Changes the settings of a stream, as `change` says; what it leaves alone stays as it is, also what this crate does not
    /// know of. Nothing happens when nothing differs. Settings with which the stream could lose something are refused.
    ///
    /// A server changes settings without a condition. The runner makes sure immediately before that nobody has taken over;
    /// a request that a deposed runner had sent already may still arrive, and sets what the same migration sets again.
    ///
    /// # Errors
    /// [`MigrationError::NoStreams`]; [`MigrationError::Stream`]; any other [`MigrationError`].
    pub async fn settings(
        &mut self,
        stream: ManagedStream,
        change: impl FnOnce(&mut StreamSettings) + Send,
    ) -> Result<(), MigrationError> {
        let label = format!("settings of {stream:?}");
        let Some(at) = self.begin_step(Place::Models, &label)? else { return Ok(()) };
        let streams = self.streams.clone().ok_or(MigrationError::NoStreams)?;
        let before = streams.settings(stream).await?;
        let mut after = before.clone();
        change(&mut after);
        streams.check(stream, &after)?;
        let differs = u64::from(before != after);
        let tally = Tally { seen: 1, written: differs, ..Tally::default() };
        let text = |settings: &StreamSettings| serde_json::to_string(settings).ok();
        let sample = || Sample {
            key: before.name.clone(),
            moved_to: None,
            before: text(&before),
            after: text(&after),
        };
        self.report(tally, (differs > 0).then(sample).into_iter().collect());
        if differs > 0 && !self.is_dry_run() {
            // Refused when another runner has taken over.
            while !self
                .target
                .write(Place::Models, Vec::new(), at.clone(), Tally::default())
                .await?
            {}
            streams.change(stream, &before, &after).await?;
        }
        let at = super::records::At { complete: true, ..at };
        while !self.target.write(Place::Models, Vec::new(), at.clone(), tally).await? {}
        Ok(())
    }
}
