//! Commits: what must be stored together, by whom it is sent, and what became of it.
//!
//! A commit of one message may travel alone, or in a batch with the commits of other callers; [`cost`] measures which
//! is faster at the load of the moment. A commit of several messages always travels in a batch. What a refusal means
//! for each commit of a batch, and how an unknown outcome is resolved, is in [`group`].

mod cost;
mod group;

use std::collections::VecDeque;
use std::iter::once;
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt};
use futures::StreamExt;
use futures::future::join;
use futures::stream::poll_fn;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

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

    /// What it does to which subjects.
    fn touches(&self) -> impl Iterator<Item = (&Subject, Touched)> {
        self.messages().iter().flat_map(|message| {
            let own = match message.guard {
                Guard::Last(_) => Touched::Guarded,
                Guard::Free | Guard::LastOf(..) => Touched::Written,
            };
            let other = match &message.guard {
                Guard::LastOf(subject, _) => Some((subject, Touched::Guarded)),
                Guard::Free | Guard::Last(_) => None,
            };
            once((&message.subject, own)).chain(other)
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

/// Gathers commits into batches, one batch at a time: two share the server's attention, and each pays for itself with
/// half the commits.
struct Gatherer {
    log: Arc<dyn EventLog>,
    load: Arc<Load>,
    policy: CommitPolicy,
    jobs: mpsc::Receiver<Job>,
    waiting: VecDeque<Job>,
}

impl Gatherer {
    async fn run(mut self) {
        while self.wait().await {
            let log = Arc::clone(&self.log);
            let (begun, mixed) = (Instant::now(), self.load.is_mixed());
            let (send, mut messages) = mpsc::unbounded_channel();
            let messages = poll_fn(move |cx| messages.poll_recv(cx));
            // The server takes the first commits while the others are still on their way here.
            let filling = async { (self.fill(send).await, Instant::now()) };
            let (sent, (jobs, full)) = join(log.publish_stream(messages.boxed()), filling).await;
            let commits = jobs.len();
            if Group::new(jobs, begun).conclude(sent, &log, self.policy).await && !mixed {
                let now = Instant::now();
                self.load.stored_together(commits, now - begun, now - full, now.into_std());
            }
        }
    }

    /// Waits for a commit. False when all callers are gone.
    async fn wait(&mut self) -> bool {
        if self.waiting.is_empty() {
            self.waiting.extend(self.jobs.recv().await);
        }
        !self.waiting.is_empty()
    }

    /// Fills a batch with what waits, and with the others that the load lets expect, for which it waits a moment at most.
    ///
    /// The callers of a batch come back together, but one after the other: a batch that is closed with the first of them
    /// pays the whole price of a batch for a few commits.
    async fn fill(&mut self, send: mpsc::UnboundedSender<NewMessage>) -> Vec<Job> {
        let (expected, patience) = self.load.worth_waiting_for();
        let mut batch = Batch::new(self.log.limits().max_batch_messages, expected);
        let until = Instant::now() + patience;
        loop {
            while let Ok(job) = self.jobs.try_recv() {
                self.waiting.push_back(job);
            }
            while !batch.is_full
                && let Some(job) = self.waiting.pop_front()
            {
                batch.add(job, &send);
            }
            if batch.is_full {
                break;
            }
            let next = if batch.known() < expected {
                timeout_at(until, self.jobs.recv()).await.ok().flatten()
            } else {
                // Nobody else is known, but whoever is ready to run may have one.
                yield_now().await;
                self.jobs.try_recv().ok()
            };
            let Some(job) = next else { break };
            self.waiting.push_back(job);
        }
        metrics::histogram!("cim_batch_messages").record(batch.messages as f64);
        batch.left.append(&mut self.waiting);
        self.waiting = batch.left;
        batch.jobs
    }
}

/// What the commits of a batch, and those that wait because of them, do to a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Touched {
    Written,
    Guarded,
}

/// A batch that is being filled.
struct Batch {
    /// The commits in it.
    jobs: Vec<Job>,
    /// Those that came too late for it or lie in the way of one in it; they stay in order.
    left: VecDeque<Job>,
    touched: HashMap<Subject, Touched>,
    messages: usize,
    bytes: usize,
    limit: usize,
    is_full: bool,
}

impl Batch {
    /// An empty batch of at most so many messages, with room for as many commits as are expected.
    fn new(limit: usize, expected: usize) -> Self {
        let room = expected.min(limit);
        Self {
            jobs: Vec::with_capacity(room),
            left: VecDeque::new(),
            touched: HashMap::with_capacity(room),
            messages: 0,
            bytes: 0,
            limit,
            is_full: false,
        }
    }

    fn known(&self) -> usize {
        self.jobs.len() + self.left.len()
    }

    /// Sends a commit with the batch, if it fits and none guards what another touches.
    fn add(&mut self, job: Job, send: &mpsc::UnboundedSender<NewMessage>) {
        let (count, size) = (job.commit.len(), job.commit.bytes());
        // Of two commits on one guarded subject the later one waits, and whatever follows on its subjects waits with it.
        let apart = job.commit.touches().all(|(subject, touch)| {
            self.touched.get(subject).is_none_or(|before| (*before).max(touch) == Touched::Written)
        });
        for (subject, touch) in job.commit.touches() {
            let before = self.touched.entry(subject.clone()).or_insert(touch);
            *before = touch.max(*before);
        }
        let fits = self.messages + count <= self.limit && self.bytes + size <= MAX_GATHERED_BYTES;
        self.is_full |= !fits;
        if !(self.jobs.is_empty() || (apart && !self.is_full)) {
            self.left.push_back(job);
            return;
        }
        for message in job.commit.messages() {
            // It fails when sending has failed, and that outcome tells of every commit of the batch.
            let _ = send.send(message.clone());
        }
        self.messages += count;
        self.bytes += size;
        self.jobs.push(job);
    }
}
