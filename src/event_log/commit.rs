//! Commits: what must be stored together, by whom it is sent, and what became of it.
//!
//! A commit of one message may travel alone, or in a batch with the commits of other callers; [`cost`] measures which
//! is faster at the load of the moment. A commit of several messages always travels in a batch. What a refusal means
//! for each commit of a batch, and how an unknown outcome is resolved, is in [`group`]; how batches are filled, in
//! [`gather`].

mod cost;
mod gather;
mod group;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::EventLog;
use crate::backend::{BackendError, Guard, NewMessage, Position};
use crate::event::NonEmpty;
use crate::subject::Subject;

use cost::{Lane, Load};
use gather::Gatherer;

/// Messages that are stored together or not at all.
///
/// The first message is guarded by the last position of its own subject. So the same commit is admitted at most once,
/// and sending it again is safe.
#[derive(Debug, Clone)]
pub struct Commit {
    messages: NonEmpty<NewMessage>,
    /// The guard of the first message.
    expected: Position,
}

impl Commit {
    /// A commit of these messages, or the messages back when the first one is not guarded.
    pub fn new(messages: NonEmpty<NewMessage>) -> Result<Self, NonEmpty<NewMessage>> {
        match messages.first().guard {
            Guard::Last(expected) => Ok(Self { messages, expected }),
            Guard::Free | Guard::LastOf(..) => Err(messages),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len().get()
    }

    fn bytes(&self) -> usize {
        self.messages().iter().map(|message| message.payload.len()).sum()
    }

    fn messages(&self) -> &[NewMessage] {
        self.messages.as_slice()
    }

    /// The subjects it rests on.
    fn guarded(&self) -> impl Iterator<Item = &Subject> + Clone {
        self.guards().map(|(subject, _)| subject)
    }

    fn guards(&self) -> impl Iterator<Item = (&Subject, Position)> + Clone {
        self.messages().iter().filter_map(|message| match &message.guard {
            Guard::Free => None,
            Guard::Last(position) => Some((&message.subject, *position)),
            Guard::LastOf(subject, position) => Some((subject, *position)),
        })
    }

    /// The guard that admits the commit at most once.
    fn anchor(&self) -> (&Subject, Position) {
        (&self.messages.first().subject, self.expected)
    }
}

/// Where a commit was stored: its messages lie at consecutive positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The position of the first message.
    pub first: Position,
    /// The position of the last message.
    pub last: Position,
}

/// Why a commit was not stored, or why it is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// A guard did not hold; nothing was stored. Load again and decide again.
    #[error("the last position on {subject} is not {expected}; nothing was stored")]
    Conflict {
        /// The subject whose guard did not hold, or the commit's first one where the server named none.
        subject: Subject,
        /// The position that was expected.
        expected: Position,
    },
    /// The backend refused; nothing was stored and nothing will be.
    #[error(transparent)]
    Refused(BackendError),
    /// No answer proved anything until the time for it was over. Read the aggregate to see what is stored.
    #[error(
        "no answer proved within {waited:?} whether the commit is stored; read the aggregate to see"
    )]
    Unknown {
        /// How long it was tried.
        waited: Duration,
        /// The last failure.
        #[source]
        source: BackendError,
    },
    /// The runtime that the committer ran on has ended.
    #[error(
        "the committer has ended, because its runtime has; it is unknown whether the commit is stored"
    )]
    Closed,
}

/// How commits are tried.
#[derive(Debug, Clone, Copy)]
pub struct CommitPolicy {
    /// How long an unknown outcome is looked into and the commit repeated before it is reported as unknown.
    pub patience: Duration,
}

impl Default for CommitPolicy {
    fn default() -> Self {
        Self { patience: Duration::from_secs(30) }
    }
}

/// Stores commits, those of many callers in few round trips. Cloning is cheap.
///
/// Dropping the future of [`commit`](Self::commit) gives up the answer, not the commit: it is stored whole or not at
/// all.
#[derive(Debug, Clone)]
pub struct Committer {
    log: Arc<dyn EventLog>,
    load: Arc<Load>,
    policy: CommitPolicy,
    queue: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    commit: Commit,
    reply: oneshot::Sender<Answer>,
}

/// The caller gets its commit back, so that many tasks free what one would have to free before it goes on.
type Answer = (Result<Stored, CommitError>, Commit);

/// How many commits may wait for a batch before callers wait to hand theirs in.
const QUEUE: usize = 16 * 1024;

impl Committer {
    /// Starts a committer on the current tokio runtime. It ends with its last clone.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(log: Arc<dyn EventLog>, policy: CommitPolicy) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let load = Arc::new(Load::default());
        let gatherer = Gatherer::new(Arc::clone(&log), Arc::clone(&load), policy, jobs);
        tokio::spawn(gatherer.run());
        Self { log, load, policy, queue }
    }

    /// Stores a commit. One round trip when nobody contradicts.
    ///
    /// # Errors
    /// [`CommitError`], as its variants say.
    pub async fn commit(&self, commit: Commit) -> Result<Stored, CommitError> {
        let begun = Instant::now();
        let ticket = self.load.arrive(commit.messages().len(), begun.into_std());
        // What cannot lie in a batch with others is sent by itself, and gets its own error.
        let admitted = || commit.messages().iter().all(|message| self.log.admits(message));
        let result = if ticket.lane() == Lane::Alone || !admitted() {
            metrics::counter!("cim_commits_sent_total", "lane" => "alone").increment(1);
            group::store_alone(&self.log, self.policy, commit, begun).await
        } else {
            metrics::counter!("cim_commits_sent_total", "lane" => "batch").increment(1);
            let (reply, answer) = oneshot::channel();
            self.hand_in(Job { commit, reply }).await?;
            answer.await.map_or(Err(CommitError::Closed), |(result, _)| result)
        };
        let now = Instant::now();
        let took = now - begun;
        if result.is_ok() && ticket.lane() == Lane::Alone {
            ticket.stored_alone(took, now.into_std());
        }
        count(&result);
        metrics::histogram!("cim_commit_seconds").record(took.as_secs_f64());
        result
    }

    async fn hand_in(&self, job: Job) -> Result<(), CommitError> {
        match self.queue.try_send(job) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(CommitError::Closed),
            // Boxed, because it is rare and would make the future of every commit large.
            Err(TrySendError::Full(job)) => {
                Box::pin(self.queue.send(job)).await.map_err(|_| CommitError::Closed)
            }
        }
    }
}

/// With each label written out, since one that is not known before costs an allocation even where nobody counts.
fn count(result: &Result<Stored, CommitError>) {
    let counter = match result {
        Ok(_) => metrics::counter!("cim_commits_total", "outcome" => "stored"),
        Err(CommitError::Conflict { .. }) => {
            metrics::counter!("cim_commits_total", "outcome" => "conflict")
        }
        Err(CommitError::Refused(_)) => {
            metrics::counter!("cim_commits_total", "outcome" => "refused")
        }
        Err(CommitError::Unknown { .. } | CommitError::Closed) => {
            metrics::counter!("cim_commits_total", "outcome" => "unknown")
        }
    };
    counter.increment(1);
}
