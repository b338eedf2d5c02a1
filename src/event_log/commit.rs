//! Commits: what must be stored together, by whom it is sent, and what became of it.
//!
//! A commit of one message may travel alone, or in a batch with the commits of other callers; [`cost`] measures which
//! is faster at the load of the moment. A commit of several messages always travels in a batch. What a refusal means
//! for each commit of a batch, and how an unknown outcome is resolved, is in [`group`].

mod cost;
mod group;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use super::EventLog;
use crate::backend::{BackendError, Guard, NewMessage, Position};
use crate::event::NonEmpty;
use crate::subject::Subject;

use cost::{Lane, Load};
use group::Group;

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

    /// The subjects it writes to.
    fn written(&self) -> impl Iterator<Item = &Subject> + Clone {
        self.messages().iter().map(|message| &message.subject)
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
    since: Instant,
    reply: oneshot::Sender<Result<Stored, CommitError>>,
}

/// How many commits may wait for a batch before callers wait to hand theirs in.
const QUEUE: usize = 16 * 1024;

/// The most payload one batch gathers, so that a batch is bounded in memory as it is in messages.
const MAX_GATHERED_BYTES: usize = 4 * 1024 * 1024;

impl Committer {
    /// Starts a committer on the current tokio runtime. It ends with its last clone.
    pub fn start(log: Arc<dyn EventLog>, policy: CommitPolicy) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let load = Arc::new(Load::default());
        let gatherer = Gatherer {
            log: Arc::clone(&log),
            load: Arc::clone(&load),
            policy,
            jobs,
            waiting: VecDeque::new(),
        };
        tokio::spawn(gatherer.run());
        Self { log, load, policy, queue }
    }

    /// Stores a commit. One round trip when nobody contradicts.
    ///
    /// # Errors
    /// [`CommitError`], as its variants say.
    pub async fn commit(&self, commit: Commit) -> Result<Stored, CommitError> {
        let since = Instant::now();
        let ticket = self.load.arrive(commit.messages().len(), since);
        let result = if ticket.lane() == Lane::Alone {
            metrics::counter!("cim_commits_sent_total", "lane" => "alone").increment(1);
            let result = group::store_alone(&self.log, self.policy, commit).await;
            if result.is_ok() {
                ticket.stored_alone(since.elapsed());
            }
            result
        } else {
            metrics::counter!("cim_commits_sent_total", "lane" => "batch").increment(1);
            let (reply, answer) = oneshot::channel();
            let job = Job { commit, since, reply };
            self.queue.send(job).await.map_err(|_| CommitError::Closed)?;
            answer.await.unwrap_or(Err(CommitError::Closed))
        };
        measure(&result, since.elapsed());
        result
    }
}

fn measure(result: &Result<Stored, CommitError>, took: Duration) {
    let outcome = match result {
        Ok(_) => "stored",
        Err(CommitError::Conflict { .. }) => "conflict",
        Err(CommitError::Refused(_)) => "refused",
        Err(CommitError::Unknown { .. } | CommitError::Closed) => "unknown",
    };
    metrics::counter!("cim_commits_total", "outcome" => outcome).increment(1);
    metrics::histogram!("cim_commit_seconds").record(took.as_secs_f64());
}

/// Gathers what waits while the last batch is under way.
struct Gatherer {
    log: Arc<dyn EventLog>,
    load: Arc<Load>,
    policy: CommitPolicy,
    jobs: mpsc::Receiver<Job>,
    waiting: VecDeque<Job>,
}

impl Gatherer {
    async fn run(mut self) {
        // One batch at a time: two share the server's attention, and each pays for itself with half the commits.
        while self.gather().await {
            let jobs = self.next_batch();
            store_batch(&self.log, &self.load, self.policy, jobs).await;
        }
    }

    /// Waits for the first commit, and then for the others that the load lets expect, a moment at most. False when all
    /// callers are gone.
    ///
    /// The callers of a batch come back together, but one after the other: a batch that leaves with the first of them
    /// pays the whole price of a batch for a few commits.
    async fn gather(&mut self) -> bool {
        if self.waiting.is_empty() {
            match self.jobs.recv().await {
                Some(job) => self.waiting.push_back(job),
                None => return false,
            }
        }
        self.take_all();
        let (expected, patience) = self.load.worth_waiting_for();
        let until = tokio::time::Instant::now() + patience;
        while self.waiting.len() < expected {
            match timeout_at(until, self.jobs.recv()).await {
                Ok(Some(job)) => self.waiting.push_back(job),
                Ok(None) | Err(_) => break,
            }
            self.take_all();
        }
        true
    }

    fn take_all(&mut self) {
        while let Ok(job) = self.jobs.try_recv() {
            self.waiting.push_back(job);
        }
    }

    /// Takes the longest run of waiting commits that fit into one batch, none of which guards what another touches.
    fn next_batch(&mut self) -> Vec<Job> {
        let limit = self.log.limits().max_batch_messages;
        let (mut batch, mut left) = (Vec::new(), VecDeque::new());
        let (mut guarded, mut written) = (HashSet::new(), HashSet::new());
        let (mut messages, mut bytes) = (0, 0);
        while let Some(job) = self.waiting.pop_front() {
            let count = job.commit.messages().len();
            let size: usize = job.commit.messages().iter().map(|m| m.payload.len()).sum();
            let fits = messages + count <= limit && bytes + size <= MAX_GATHERED_BYTES;
            // Of two commits on one guarded subject the later one waits, and whatever follows on its subjects waits with it.
            let (guards, writes) = (job.commit.guarded(), job.commit.written());
            let apart = !guards.clone().any(|s| guarded.contains(s) || written.contains(s))
                && !writes.clone().any(|subject| guarded.contains(subject));
            guarded.extend(guards.cloned());
            written.extend(writes.cloned());
            if batch.is_empty() || (fits && apart) {
                messages += count;
                bytes += size;
                batch.push(job);
            } else {
                left.push_back(job);
                if messages >= limit {
                    break;
                }
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        batch
    }
}

async fn store_batch(log: &Arc<dyn EventLog>, load: &Load, policy: CommitPolicy, jobs: Vec<Job>) {
    let commits = jobs.len();
    let messages: usize = jobs.iter().map(|job| job.commit.messages().len()).sum();
    metrics::histogram!("cim_batch_messages").record(messages as f64);
    let begun = Instant::now();
    let stored = Group::new(jobs).store(log, policy).await;
    if stored {
        load.stored_together(commits, begun.elapsed());
    }
}
