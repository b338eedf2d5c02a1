//! What a process manager reads of the log: the events it reacts to, and its own wishes, in the order they were stored.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;

use super::records::wishes_pattern;
use crate::backend::{BackendError, Followed, Position, Start, StoredMessage, TailQuery};
use crate::event::NonEmpty;
use crate::projection::{Selection, mark};
use crate::store::{Context, StoreError, StoredEvent, Verifier};
use crate::subject::Pattern;

/// What came next.
pub(super) struct Next {
    pub(super) position: Position,
    /// What the message is known by when the log is looked at again.
    pub(super) mark: Option<String>,
    pub(super) what: What,
}

pub(super) enum What {
    Event(Box<Result<StoredEvent, StoreError>>),
    Wish(StoredMessage),
    /// An event that is not selected.
    Other,
}

pub(super) struct Feed {
    messages: BoxStream<'static, Result<Followed, BackendError>>,
    selection: Selection,
    wishes: Pattern,
    verifier: Arc<Verifier>,
}

impl Feed {
    pub(super) fn open(
        context: &Context,
        selection: &Selection,
        process: &str,
        after: Position,
    ) -> Self {
        let wishes = wishes_pattern(context.scheme().context(), process);
        let mut patterns = selection.patterns().into_vec();
        patterns.push(wishes.clone());
        let patterns = NonEmpty::from_vec(patterns).expect("one was just added");
        let query = TailQuery { patterns, start: Start::After(after) };
        Self {
            messages: context.log().follow(query),
            selection: selection.clone(),
            wishes,
            verifier: Arc::clone(context.verifier()),
        }
    }

    /// Waits for the next message; `None`, once, when everything stored before the beginning has come. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Next>, BackendError> {
        match self.messages.next().await {
            Some(Ok(Followed::Message(message))) => Ok(Some(self.read(message))),
            Some(Ok(Followed::CaughtUp)) => Ok(None),
            Some(Err(error)) => Err(error),
            None => Err(BackendError::unavailable("following the log ended")),
        }
    }

    fn read(&self, message: StoredMessage) -> Next {
        let (position, mark) = (message.position, mark(&message.headers));
        let what = if self.wishes.matches(message.subject.as_str()) {
            What::Wish(message)
        } else if self.selection.passes(&message) {
            What::Event(Box::new(self.verifier.verify(message)))
        } else {
            What::Other
        };
        Next { position, mark, what }
    }
}
