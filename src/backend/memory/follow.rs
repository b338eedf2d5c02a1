//! Following a stream in memory: what is stored, then what is being stored.

use std::collections::VecDeque;
use std::time::Duration;

use futures::Stream;
use tokio::sync::watch;

use super::model::matches_any;
use super::{CHUNK, MemoryStream};
use crate::backend::{BackendError, Followed, Start, StoredMessage, TailQuery};

/// How long a follower waits before it looks again at a store that is not there, or of which it saw too little.
const PAUSE: Duration = Duration::from_millis(1);

/// What a stream keeps of a subject, as far as a follower can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    Everything,
    /// The last message; one that was replaced before the follower got there is not seen.
    Latest,
}

impl MemoryStream {
    /// What is stored and what is being stored, for ever.
    pub(crate) fn follow(
        &self,
        query: TailQuery,
        keeps: Keeps,
    ) -> impl Stream<Item = Result<Followed, BackendError>> + Send + 'static {
        let following = Following {
            end: self.inner.end.subscribe(),
            stream: self.clone(),
            query,
            keeps,
            place: None,
            fetched: VecDeque::new(),
        };
        futures::stream::unfold(Some(following), |following| async move {
            let mut following = following?;
            match following.next().await {
                Ok(followed) => Some((Ok(followed), Some(following))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

struct Following {
    stream: MemoryStream,
    query: TailQuery,
    keeps: Keeps,
    end: watch::Receiver<u64>,
    place: Option<Place>,
    fetched: VecDeque<StoredMessage>,
}

/// How far a follower is.
struct Place {
    after: u64,
    /// The sequences of the last messages per subject that are still to come first.
    latest: VecDeque<u64>,
    /// The last sequence when following began, until it is reached.
    until: Option<u64>,
}

impl Following {
    async fn next(&mut self) -> Result<Followed, BackendError> {
        loop {
            if let Some(next) = self.hand_out() {
                return Ok(next);
            }
            self.end.borrow_and_update();
            match self.fetch().await {
                Ok(_) if !self.fetched.is_empty() => {}
                Ok(sight) => match self.place.as_mut().and_then(|place| place.until.take()) {
                    Some(_) => return Ok(Followed::CaughtUp),
                    // A replica that is behind gets on by itself, without another write.
                    None if sight == Sight::Stale => tokio::time::sleep(PAUSE).await,
                    // The sender lives in the stream that is held here.
                    None => drop(self.end.changed().await),
                },
                Err(error) if error.is_transient() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
        }
    }

    fn hand_out(&mut self) -> Option<Followed> {
        let position = self.fetched.front()?.position.get();
        let sweeps = self.query.start == Start::Latest && self.keeps == Keeps::Latest;
        let place = self.place.as_mut()?;
        // What was written again meanwhile lies beyond the end, and belongs to what there is.
        if !sweeps && place.latest.is_empty() && place.until.is_some_and(|until| position > until) {
            place.until = None;
            return Some(Followed::CaughtUp);
        }
        self.fetched.pop_front().map(Followed::Message)
    }

    async fn fetch(&mut self) -> Result<Sight, BackendError> {
        let end = self.stream.see_patterns(&self.query.patterns).await?;
        let model = self.stream.inner.model();
        let sight = if end < model.end() { Sight::Stale } else { Sight::Current };
        if let Start::After(position) = self.query.start
            && position.get() > model.end()
        {
            return Err(BackendError::Truncated {
                stream: self.stream.inner.name.as_ref().to_owned(),
                last: model.end(),
                after: position.get(),
            });
        }
        let end = end.min(model.end());
        let place = self.place.get_or_insert_with(|| {
            let (after, latest) = match self.query.start {
                Start::After(position) => (position.get(), VecDeque::new()),
                Start::Since(time) => (model.end_at(time), VecDeque::new()),
                Start::Now => (end, VecDeque::new()),
                Start::Latest => (end, model.lasts_of(&self.query.patterns, end).into()),
            };
            Place { after, latest, until: Some(end) }
        });
        while self.fetched.len() < CHUNK {
            let sequence = match place.latest.pop_front() {
                Some(sequence) => sequence,
                None if place.after < end => {
                    place.after += 1;
                    place.after
                }
                None => break,
            };
            let message = model.at(sequence);
            let wanted = message.filter(|message| {
                reached(self.query.start, message)
                    && matches_any(&self.query.patterns, &message.subject)
                    && (self.keeps == Keeps::Everything || model.is_last(message))
            });
            self.fetched.extend(wanted.cloned());
        }
        Ok(sight)
    }
}

/// Whether a look at the stream saw all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    Current,
    Stale,
}

/// Whether following has begun with this message; a time to begin at may still be to come.
fn reached(start: Start, message: &StoredMessage) -> bool {
    match start {
        Start::Since(time) => message.time >= time,
        _ => true,
    }
}
