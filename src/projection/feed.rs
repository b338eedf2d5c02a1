//! The events of a projection, in runs: what is there now, up to a bound.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::task::{unconstrained, yield_now};

use super::Rejection;
use super::error::ProjectionError;
use super::records::{FORMAT, Parked, kept};
use crate::backend::{BackendError, Followed, Position, Start, StoredMessage, TailQuery};
use crate::clock::Timestamp;
use crate::event::{Headers, NonEmpty, names};
use crate::store::{Context, EventFilter, StoreError, StoredEvent, Verifier};
use crate::subject::{EventType, Pattern, SubjectScheme};

/// Which events a projection reads, as the server can tell and as positions and headers tell: those that pass any of the
/// filters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selection {
    filters: Vec<Filter>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Filter {
    pattern: Pattern,
    event_type: Option<EventType>,
    /// Left out where it leaves nothing out, as records have it that were written before it was.
    #[serde(default, skip_serializing_if = "is_start")]
    after: Position,
}

fn is_start(position: &Position) -> bool {
    *position == Position::START
}

impl Selection {
    pub(crate) fn new(
        filters: &[EventFilter],
        scheme: &SubjectScheme,
    ) -> Result<Self, ProjectionError> {
        let filters: Result<Vec<_>, _> = filters
            .iter()
            .map(|filter| {
                Ok(Filter {
                    pattern: Pattern::parse(&filter.subjects(scheme))?,
                    event_type: filter.event_type().cloned(),
                    after: *filter.position(),
                })
            })
            .collect();
        let filters = filters.map_err(|error: crate::subject::InvalidPattern| {
            ProjectionError::Definition { reason: error.to_string() }
        })?;
        match filters.is_empty() {
            true => Err(ProjectionError::Definition { reason: "it reads no events".to_owned() }),
            false => Ok(Self { filters }),
        }
    }

    pub(crate) fn patterns(&self) -> NonEmpty<Pattern> {
        let patterns = self.filters.iter().map(|filter| filter.pattern.clone()).collect();
        // Only a record that nobody here wrote is empty.
        NonEmpty::from_vec(patterns).unwrap_or_else(|| NonEmpty::one(Pattern::everything()))
    }

    /// Whether a message passes, by its position, its subject and its headers alone.
    pub(crate) fn passes(&self, message: &StoredMessage) -> bool {
        let header = message.headers.get(names::EVENT_TYPE);
        self.filters.iter().any(|Filter { pattern, event_type, after }| {
            message.position > *after
                && event_type.as_ref().is_none_or(|wanted| header == Some(wanted.as_str()))
                && pattern.matches(message.subject.as_str())
        })
    }
}

/// Messages as they come from the log, handed out in runs.
pub(super) struct Feed {
    messages: BoxStream<'static, Result<Followed, BackendError>>,
    selection: Selection,
    verifier: Arc<Verifier>,
    caught_up: bool,
    /// What [`ready`](Self::ready) has waited for.
    first: Option<Result<Followed, BackendError>>,
}

/// What came next.
pub(super) struct Run {
    pub(super) events: Vec<Delivered>,
    /// Up to where the log was read; at least the position of the last event.
    pub(super) position: Position,
    /// What the message there is known by; see [`mark`].
    pub(super) mark: Option<String>,
    /// Whether everything stored when following began is in this run or before it.
    pub(super) caught_up: bool,
    /// Whether it ended because it was long enough.
    pub(super) more: bool,
}

/// An event that passes, verified, or why it cannot be trusted.
pub(super) struct Delivered {
    pub(super) position: Position,
    pub(super) event: Result<StoredEvent, StoreError>,
}

impl Delivered {
    /// What the event is known by when the log is looked at again: its CID, or its id where there is none.
    pub(super) fn mark(&self) -> Option<String> {
        self.event.as_ref().ok().map(mark_of)
    }

    /// The record of an event that could not be used.
    pub(super) fn parked(&self, generation: u64, reason: &Rejection, now: Timestamp) -> Parked {
        let stored = self.event.as_ref().ok();
        Parked {
            format: FORMAT,
            position: self.position,
            generation,
            event_type: stored.map(|event| event.event_type().to_string()),
            reason: kept(&reason.to_string()),
            parked_at: now,
        }
    }
}

/// As [`mark`], of an event.
pub(super) fn mark_of(stored: &StoredEvent) -> String {
    stored.cid().map_or_else(|| stored.event_id().to_string(), ToString::to_string)
}

impl Feed {
    pub(super) fn open(context: &Context, selection: &Selection, after: Position) -> Self {
        let query = TailQuery { patterns: selection.patterns(), start: Start::After(after) };
        Self {
            messages: context.log().follow(query).fuse().boxed(),
            selection: selection.clone(),
            verifier: Arc::clone(context.verifier()),
            caught_up: false,
            first: None,
        }
    }

    /// Waits until there is something to take. Cancel safe.
    pub(super) async fn ready(&mut self) {
        if self.first.is_none() {
            self.first = self.messages.next().await;
        }
    }

    /// Whether another message is there already.
    pub(super) fn has_more(&mut self) -> bool {
        if self.first.is_none() {
            self.first = self.at_hand().flatten();
        }
        matches!(self.first, Some(Ok(Followed::Message(_))))
    }

    /// What is there already, if anything is. The runtime does not count it: after a hundred messages or so it would have
    /// them look as if there were none.
    fn at_hand(&mut self) -> Option<Option<Result<Followed, BackendError>>> {
        unconstrained(self.messages.next()).now_or_never()
    }

    /// Waits for the next message and takes with it what is there already, at most `most` events.
    ///
    /// Cancel safe: it waits only while it has taken nothing.
    pub(super) async fn next(&mut self, most: usize) -> Result<Run, ProjectionError> {
        let mut run = Run {
            events: Vec::new(),
            position: Position::START,
            mark: None,
            caught_up: self.caught_up,
            more: false,
        };
        let (mut last, mut taken) = (None, 0);
        // One run after the other, it would leave the thread to nobody.
        yield_now().await;
        self.ready().await;
        let mut next = self.first.take();
        loop {
            match next {
                Some(Ok(Followed::Message(message))) => {
                    last = Some(message.headers.clone());
                    self.take(message, &mut run);
                }
                Some(Ok(Followed::CaughtUp)) => {
                    self.caught_up = true;
                    run.caught_up = true;
                    break;
                }
                Some(Err(error)) if run.position > Position::START => {
                    // What came before the error is used first; the next call meets it again.
                    self.messages = futures::stream::iter([Err(error)]).boxed();
                    break;
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Err(BackendError::unavailable("following the log ended").into()),
            }
            taken += 1;
            if run.events.len() >= most || taken == MOST_MESSAGES {
                run.more = true;
                break;
            }
            match self.at_hand() {
                Some(more) => next = more,
                None => break,
            }
        }
        run.mark = last.as_ref().and_then(mark);
        Ok(run)
    }

    fn take(&self, message: StoredMessage, run: &mut Run) {
        let position = message.position;
        run.position = position;
        if self.selection.passes(&message) {
            let event = self.verifier.verify(message);
            run.events.push(Delivered { position, event });
        }
    }
}

/// What a message is known by when the log is looked at again: its CID, or its id where there is none.
pub(crate) fn mark(headers: &Headers) -> Option<String> {
    let known_by = [names::CID, names::EVENT_ID, names::MSG_ID];
    known_by.into_iter().find_map(|name| headers.get(name)).map(str::to_owned)
}

/// How many messages a run takes, also if none of them passes.
const MOST_MESSAGES: usize = 2_000;

/// How long a runner waits before it begins again after a failure that may pass.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::sync::mpsc;

    use super::{Feed, Selection};
    use crate::backend::{Followed, Position, StoredMessage};
    use crate::clock::Timestamp;
    use crate::event::Headers;
    use crate::store::{Context, EventFilter, NatsRepositoryConfig, Ports};
    use crate::subject::Subject;

    /// More than tokio lets a task take from its channels at a time.
    const MANY: u64 = 1_500;

    #[tokio::test]
    async fn a_run_takes_all_that_is_there() {
        let config = NatsRepositoryConfig::for_context("bank");
        let context = Context::on(Ports::in_memory(), &config).unwrap();
        let selection = Selection::new(&[EventFilter::all()], context.scheme()).unwrap();
        let mut feed = Feed::open(&context, &selection, Position::START);
        let (sender, mut receiver) = mpsc::unbounded_channel();
        feed.messages = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).boxed();
        for position in (1..=MANY).map(Position::new) {
            let message = StoredMessage {
                subject: Subject::trusted("cim.events.bank.account.a"),
                position,
                time: Timestamp::default(),
                headers: Headers::new(),
                payload: Default::default(),
            };
            sender.send(Ok(Followed::Message(message))).unwrap();
        }
        let run = feed.next(1_000).await.unwrap();
        assert_eq!((run.events.len(), run.more, feed.has_more()), (1_000, true, true));
        let run = feed.next(1_000).await.unwrap();
        assert_eq!((run.events.len(), run.more, feed.has_more()), (500, false, false));
        assert_eq!(run.position, Position::new(MANY));
    }
}
