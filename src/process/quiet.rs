//! When a process has nothing left to do, as far as timeouts in memory and their clock tell: for the test kit.

use std::time::Duration;

use super::error::ProcessError;
use super::records::wishes_pattern;
use super::{ProcessManager, RunningProcess};
use crate::backend::{Bound, Matching, Position};
use crate::event::NonEmpty;
use crate::projection::Selection;
use crate::store::Context;
use crate::subject::Pattern;
use crate::timeouts::MemoryTimeouts;

/// How long is waited before it is looked again whether a timeout was reacted to.
const PAUSE: Duration = Duration::from_millis(1);

/// Waits until a process has reacted to all events that it reads, also to those that it caused, has passed on what it
/// wishes of timeouts, and has reacted to those that are due.
pub(crate) async fn until_quiet<P: ProcessManager>(
    running: &mut RunningProcess,
    context: &Context,
    queue: &MemoryTimeouts,
) -> Result<(), ProcessError> {
    let mut patterns = Selection::new(&P::filters(), context.scheme())?.patterns();
    patterns.push(wishes_pattern(context.scheme().context(), P::NAME));
    loop {
        let last = newest(context, &patterns).await?;
        running.handled(last).await?;
        if queue.has_due(P::NAME).await? {
            // A process that has ended reacts to nothing.
            if !running.is_running() {
                return running.handled(Position::new(u64::MAX)).await;
            }
            tokio::time::sleep(PAUSE).await;
        } else if newest(context, &patterns).await? == last {
            return Ok(());
        }
    }
}

async fn newest(context: &Context, patterns: &NonEmpty<Pattern>) -> Result<Position, ProcessError> {
    match context.log().matching(patterns, Bound::Newest).await? {
        Matching::All(lasts) => Ok(lasts.last().map_or(Position::START, |last| last.position)),
        Matching::TooMany => Ok(context.status().await?.last),
    }
}
