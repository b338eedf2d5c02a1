//! Filling batches with the commits of many callers, one batch after the other.

use std::collections::VecDeque;
use std::iter::once;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use futures::StreamExt;
use futures::future::join;
use futures::stream::poll_fn;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::cost::{Load, Patience};
use super::group::Group;
use super::{Commit, CommitPolicy, Job};
use crate::backend::{Guard, NewMessage};
use crate::event_log::EventLog;
use crate::subject::Subject;

/// The most payload one batch gathers, so that a batch is bounded in memory as it is in messages.
const MAX_GATHERED_BYTES: usize = 4 * 1024 * 1024;

/// Gathers commits into batches, one batch at a time: two share the server's attention, and each pays for itself with
/// half the commits.
pub(super) struct Gatherer {
    log: Arc<dyn EventLog>,
    load: Arc<Load>,
    policy: CommitPolicy,
    jobs: mpsc::Receiver<Job>,
    waiting: VecDeque<Job>,
}

impl Gatherer {
    pub(super) fn new(
        log: Arc<dyn EventLog>,
        load: Arc<Load>,
        policy: CommitPolicy,
        jobs: mpsc::Receiver<Job>,
    ) -> Self {
        Self { log, load, policy, jobs, waiting: VecDeque::new() }
    }

    pub(super) async fn run(mut self) {
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

    /// Fills a batch with what waits, and with the others that the load lets expect, for each of which it waits a moment at
    /// most.
    ///
    /// The callers of a batch come back together, but one after the other: a batch that is closed with the first of them
    /// pays the whole price of a batch for a few commits, and one that is closed while they keep coming pays for those
    /// that it leaves to the next.
    async fn fill(&mut self, send: mpsc::UnboundedSender<NewMessage>) -> Vec<Job> {
        let (expected, Patience { for_next, for_all }) = self.load.worth_waiting_for();
        let limit = self.log.limits().max_batch_messages;
        let mut batch = Batch::new(limit, expected);
        let last = Instant::now() + for_all;
        loop {
            // No more than a batch holds: further callers wait for a place in the channel.
            while self.waiting.len() < limit
                && let Ok(job) = self.jobs.try_recv()
            {
                self.waiting.push_back(job);
            }
            while !batch.is_full
                && let Some(job) = self.waiting.pop_front()
            {
                batch.add(job, &send);
            }
            if batch.is_full || batch.left.len() >= limit {
                break;
            }
            let first = if batch.known() < expected {
                let until = last.min(Instant::now() + for_next);
                timeout_at(until, self.jobs.recv()).await.ok().flatten()
            } else {
                None
            };
            // Whoever else is ready to run comes first. The messages of those who have a commit, expected or not, then leave
            // together, in fewer writes and fewer reads of the server.
            yield_now().await;
            let Some(job) = first.or_else(|| self.jobs.try_recv().ok()) else { break };
            self.waiting.push_back(job);
        }
        metrics::histogram!("cim_batch_messages").record(batch.messages as f64);
        batch.left.append(&mut self.waiting);
        self.waiting = batch.left;
        batch.jobs
    }
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

/// What the commits of a batch, and those that wait because of them, do to a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Touched {
    Written,
    Guarded,
}

impl Commit {
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
}

#[cfg(test)]
mod tests;
