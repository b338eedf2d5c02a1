//! Storing a group of commits in one batch, and finding out for each of them what became of it.
//!
//! What proves something ("Committing" in `ARCHITECTURE.md`): an acknowledgement with a position; a refusal by a guard,
//! unless the same commit may have been stored by an earlier try; the log itself, read through its leader. Nothing else
//! does.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::{Commit, CommitError, CommitPolicy, Job, Stored};
use crate::backend::{BackendError, Position, ReadFrom};
use crate::event::{NonEmpty, names};
use crate::event_log::EventLog;
use crate::subject::Subject;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How many guards the leader is asked about at a time.
const LOOKS_AT_ONCE: usize = 16;

/// Commits that are tried in one batch, oldest first.
pub(super) struct Group {
    jobs: Vec<Job>,
    /// Whether an earlier try may have been stored, or may still be.
    unproven: bool,
    begun: Instant,
    pause: Duration,
    /// Why the last try of it came to nothing.
    why: Option<BackendError>,
}

/// What a try made of a group.
enum Next {
    Done,
    Groups(Vec<Group>),
}

impl Group {
    /// Commits whose first try began then.
    pub(super) fn new(jobs: Vec<Job>, begun: Instant) -> Self {
        Self { jobs, unproven: false, begun, pause: FIRST_PAUSE, why: None }
    }

    /// Makes of the outcome of the first try what becomes of each commit, trying again as often as it takes, and says
    /// whether the first try stored them all.
    pub(super) async fn conclude(
        self,
        sent: Result<Position, BackendError>,
        log: &Arc<dyn EventLog>,
        policy: CommitPolicy,
    ) -> bool {
        let Next::Groups(mut groups) = self.judge(sent, log.as_ref(), policy).await else {
            return true;
        };
        while let Some(group) = groups.pop() {
            if group.unproven && group.jobs.len() == 1 {
                // It is waited for by one caller; the next batch is by others.
                tokio::spawn(group.settle(Arc::clone(log), policy));
            } else if let Next::Groups(more) = group.try_again(log.as_ref(), policy).await {
                groups.extend(more);
            }
        }
        false
    }

    /// Tries a group of one commit until it is known what became of it, or patience is over.
    async fn settle(self, log: Arc<dyn EventLog>, policy: CommitPolicy) {
        let mut group = Some(self);
        while let Some(again) = group {
            group = match again.try_again(log.as_ref(), policy).await {
                Next::Groups(mut groups) => groups.pop(),
                Next::Done => None,
            };
        }
    }

    async fn try_again(mut self, log: &dyn EventLog, policy: CommitPolicy) -> Next {
        if self.is_over(policy) && self.unproven {
            let none = || BackendError::unknown("its batch got none, and there was no time for it");
            let why = self.why.take().unwrap_or_else(none);
            return self.give_up(why);
        }
        let sent = send(log, self.jobs.iter().map(|job| &job.commit)).await;
        self.judge(sent, log, policy).await
    }

    fn is_over(&self, policy: CommitPolicy) -> bool {
        self.begun.elapsed() >= policy.patience
    }

    async fn judge(
        self,
        sent: Result<Position, BackendError>,
        log: &dyn EventLog,
        policy: CommitPolicy,
    ) -> Next {
        match sent {
            Ok(last) => self.stored(last),
            Err(BackendError::Conflict { detail }) => self.refused(log, policy, detail).await,
            Err(error @ (BackendError::Unknown { .. } | BackendError::Duplicate { .. })) => {
                self.look(log, policy, error).await
            }
            // After a try without proof, and after an answer that makes no sense, no refusal proves anything.
            Err(error) if self.unproven || matches!(error, BackendError::Corrupt { .. }) => {
                self.look(log, policy, error).await
            }
            Err(error @ BackendError::Unavailable { .. }) => self.later(policy, error).await,
            Err(error) => self.broken(error),
        }
    }

    /// The whole group was stored, its last message at `last`.
    fn stored(self, last: Position) -> Next {
        tokio::spawn(answer_stored(self.jobs, last));
        Next::Done
    }

    /// A guard of the group did not hold.
    async fn refused(self, log: &dyn EventLog, policy: CommitPolicy, detail: String) -> Next {
        if self.unproven {
            // The guard may have been broken by an earlier try of this very group.
            return self.look(log, policy, BackendError::Conflict { detail }).await;
        }
        let only = self.jobs.len() == 1;
        let broken = match broken_guards(log, &self.jobs).await {
            Ok(broken) => broken,
            Err(_) if only => return self.later(policy, BackendError::Conflict { detail }).await,
            Err(_) => return self.halve(),
        };
        if broken.iter().all(Option::is_none) {
            // A replicated stream also refuses because of a write that it has answered, or will give up, a moment later.
            return match only {
                true => self.later(policy, BackendError::Conflict { detail }).await,
                false => self.halve(),
            };
        }
        self.without(broken)
    }

    /// Answers the commits whose guards are broken, and goes on with the others.
    fn without(mut self, broken: Vec<Option<(Subject, Position)>>) -> Next {
        let mut rest = Vec::new();
        for (job, broken) in self.jobs.drain(..).zip(broken) {
            match broken {
                Some((subject, expected)) => {
                    job.answer(Err(CommitError::Conflict { subject, expected }));
                }
                None => rest.push(job),
            }
        }
        again(Group { jobs: rest, ..self })
    }

    fn conflict_of_the_only(self) -> Next {
        for job in self.jobs {
            let (subject, expected) = job.commit.anchor();
            let (subject, expected) = (subject.clone(), expected);
            job.answer(Err(CommitError::Conflict { subject, expected }));
        }
        Next::Done
    }

    /// No answer proved anything: reads what follows the first commit's guard. A batch is stored whole, so one
    /// commit tells for all.
    ///
    /// The other guards are read before it: broken ones with the first one's place still free were broken by others, and
    /// then no try of the group was stored or ever will be.
    async fn look(mut self, log: &dyn EventLog, policy: CommitPolicy, why: BackendError) -> Next {
        let unproven_before = std::mem::replace(&mut self.unproven, true);
        metrics::counter!("cim_commits_resolved_total").increment(1);
        let broken = match &why {
            BackendError::Conflict { .. } => broken_guards(log, &self.jobs).await.ok(),
            _ => None,
        };
        match find(log, &self.jobs[0].commit).await {
            Ok(Found::Ours(first)) => {
                let messages: usize = self.jobs.iter().map(|job| job.commit.messages().len()).sum();
                self.stored(Position::new(first.get() + messages as u64 - 1))
            }
            Ok(Found::Another) => {
                // This guard is broken for good, so no try of the group was stored or ever will be.
                let (begun, rest) = (self.begun, self.jobs.split_off(1));
                let alone = Group { jobs: self.jobs, unproven: false, ..self };
                let _ = alone.conflict_of_the_only();
                again(Group::new(rest, begun))
            }
            Ok(Found::Nothing) if broken.iter().flatten().any(Option::is_some) => {
                self.unproven = false;
                self.without(broken.unwrap_or_default())
            }
            Ok(Found::Nothing) => match why {
                // The server knows a message id of the group, but not from the group's own subjects: it refused this try, and
                // there was none before it. After an earlier one the id may be that try's, seen a moment before its message is.
                BackendError::Duplicate { .. } if !unproven_before => {
                    self.unproven = false;
                    self.broken(why)
                }
                why if is_final(&why) => self.in_vain(why),
                // Again, although the leader answers: it may be because of one of the commits, which the others need not
                // share. A message that the server does not take from this user is one that it may never speak of.
                BackendError::Unknown { .. } if unproven_before && self.jobs.len() > 1 => {
                    self.why = Some(why);
                    self.halve()
                }
                why => self.later(policy, why).await,
            },
            Err(error) => self.later(policy, error).await,
        }
    }

    /// The backend refused for good what may have been stored by an earlier try, and is not there yet. As
    /// [`broken`](Self::broken), but not known.
    fn in_vain(self, error: BackendError) -> Next {
        match self.jobs.len() {
            1 => self.give_up(error),
            _ => self.halve(),
        }
    }

    /// Waits and tries the identical group again, until patience is over.
    async fn later(mut self, policy: CommitPolicy, why: BackendError) -> Next {
        if self.is_over(policy) {
            return self.give_up(why);
        }
        metrics::counter!("cim_commits_repeated_total").increment(1);
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.why = Some(why);
        again(self)
    }

    /// Answers what is known, which is not that anything is stored.
    fn give_up(self, why: BackendError) -> Next {
        if matches!(why, BackendError::Conflict { .. }) && !self.unproven {
            return self.conflict_of_the_only();
        }
        let (unproven, waited) = (self.unproven, self.begun.elapsed());
        let mut why = Some(why);
        for job in self.jobs {
            let source =
                why.take().unwrap_or_else(|| BackendError::unknown("as for the whole batch"));
            job.answer(Err(match unproven {
                true => CommitError::Unknown { waited, source },
                false => CommitError::Refused(source),
            }));
        }
        Next::Done
    }

    /// The backend refused for good. Where there are several commits, the one at fault is found by halving.
    fn broken(mut self, error: BackendError) -> Next {
        if self.jobs.len() > 1 {
            return self.halve();
        }
        if let Some(job) = self.jobs.pop() {
            job.answer(Err(CommitError::Refused(error)));
        }
        Next::Done
    }

    fn halve(mut self) -> Next {
        let second = self.jobs.split_off(self.jobs.len() / 2);
        let second = Group { jobs: second, ..Group::like(&self) };
        Next::Groups(vec![second, self])
    }

    fn like(other: &Self) -> Self {
        let Self { unproven, begun, pause, .. } = *other;
        Self { jobs: Vec::new(), unproven, begun, pause, why: None }
    }
}

/// Whether the same write would be refused again.
fn is_final(error: &BackendError) -> bool {
    matches!(
        error,
        BackendError::Denied { .. }
            | BackendError::Invalid { .. }
            | BackendError::TooLarge { .. }
            | BackendError::TooMany { .. }
            | BackendError::Unsupported { .. }
    )
}

/// So many callers of a batch have their answers before the first of them go on: a quarter of all, but not so few that what
/// they commit next makes many small writes, nor so many that the server waits for them.
fn answered_at_once(commits: usize) -> usize {
    (commits / 4).clamp(32, 64)
}

/// Tells the commits of a batch where they are stored, the last at `last`.
///
/// Not all at once: what the first callers commit next is to leave, and the server to work on it, while the others still
/// wait for their turn to go on.
async fn answer_stored(jobs: Vec<Job>, last: Position) {
    let messages: usize = jobs.iter().map(|job| job.commit.messages().len()).sum();
    let at_once = answered_at_once(jobs.len());
    let mut first = last.get() + 1 - messages as u64;
    for (job, number) in jobs.into_iter().zip(1..) {
        let end = first + job.commit.messages().len() as u64;
        job.answer(Ok(Stored { first: Position::new(first), last: Position::new(end - 1) }));
        first = end;
        if number % at_once == 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn again(group: Group) -> Next {
    match group.jobs.is_empty() {
        true => Next::Done,
        false => Next::Groups(vec![group]),
    }
}

/// Stores one commit by a message of its own, in the caller's task. Its time began then.
pub(super) async fn store_alone(
    log: &Arc<dyn EventLog>,
    policy: CommitPolicy,
    commit: Commit,
    begun: Instant,
) -> Result<Stored, CommitError> {
    let sent = match commit.messages() {
        // As `send` does, without the list that most commits would need for nothing.
        [only] => log.publish(only.clone()),
        _ => send(log.as_ref(), [&commit]),
    }
    .await;
    if let Ok(last) = sent {
        let first = Position::new(last.get() + 1 - commit.len() as u64);
        return Ok(Stored { first, last });
    }
    // Boxed, because it is rare and would make the future of every commit large.
    Box::pin(async {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let jobs = vec![Job { commit, reply }];
        Group::new(jobs, begun).conclude(sent, log, policy).await;
        answer.await.map_or(Err(CommitError::Closed), |(result, _)| result)
    })
    .await
}

fn send<'l>(
    log: &'l dyn EventLog,
    commits: impl IntoIterator<Item: Borrow<Commit>>,
) -> BoxFuture<'l, Result<Position, BackendError>> {
    let mut messages = Vec::new();
    for commit in commits {
        messages.extend_from_slice(commit.borrow().messages());
    }
    let messages = NonEmpty::from_vec(messages).expect("a group has a job, a job has a message");
    match messages.len().get() {
        1 => log.publish(messages.into_vec().swap_remove(0)),
        _ => log.publish_batch(messages),
    }
}

/// For each job the guard that is certainly broken, by one read of all subjects.
async fn broken_guards(
    log: &dyn EventLog,
    jobs: &[Job],
) -> Result<Vec<Option<(Subject, Position)>>, BackendError> {
    let subjects: Vec<Subject> =
        jobs.iter().flat_map(|job| job.commit.guarded()).cloned().collect();
    let mut seen = HashMap::new();
    for chunk in subjects.chunks(1000) {
        for message in log.lasts(chunk).await? {
            seen.insert(message.subject, message.position);
        }
    }
    let is_only = jobs.len() == 1;
    let looks: Vec<_> =
        jobs.iter().map(|job| broken_guard(log, &job.commit, &seen, is_only)).collect();
    stream::iter(looks).buffered(LOOKS_AT_ONCE).try_collect().await
}

/// A position only grows: one beyond the guard breaks it for good. The leader is asked where a replica is seen to be behind,
/// and about the only commit of a batch, which must have been refused because of a guard of its own.
async fn broken_guard(
    log: &dyn EventLog,
    commit: &Commit,
    seen: &HashMap<Subject, Position>,
    is_only: bool,
) -> Result<Option<(Subject, Position)>, BackendError> {
    let seen = |subject| seen.get(subject).copied().unwrap_or(Position::START);
    if let Some((subject, expected)) = commit.guards().find(|(s, expected)| seen(s) > *expected) {
        return Ok(Some((subject.clone(), expected)));
    }
    let doubtful = commit.guards().filter(|(s, expected)| is_only || seen(s) < *expected);
    let looks: Vec<_> =
        doubtful.map(|(subject, expected)| told_by_leader(log, subject, expected)).collect();
    let told: Vec<_> = stream::iter(looks).buffered(LOOKS_AT_ONCE).try_collect().await?;
    Ok(told.into_iter().flatten().next())
}

/// The guard, if the leader says that it is broken.
async fn told_by_leader(
    log: &dyn EventLog,
    subject: &Subject,
    expected: Position,
) -> Result<Option<(Subject, Position)>, BackendError> {
    let last = log.last(subject, ReadFrom::Leader).await?;
    let last = last.map_or(Position::START, |message| message.position);
    Ok((last != expected).then(|| (subject.clone(), expected)))
}

enum Found {
    /// The commit is stored, its first message at this position.
    Ours(Position),
    /// Another message took the place: the commit is not stored and never will be.
    Another,
    /// The place is free: the commit is not stored yet.
    Nothing,
}

async fn find(log: &dyn EventLog, commit: &Commit) -> Result<Found, BackendError> {
    let (subject, expected) = commit.anchor();
    let ours = &commit.messages()[0];
    Ok(match log.first_after(subject, expected).await? {
        None => Found::Nothing,
        Some(found)
            if found.payload == ours.payload
                && found.headers.get(names::MSG_ID) == ours.headers.get(names::MSG_ID) =>
        {
            Found::Ours(found.position)
        }
        Some(_) => Found::Another,
    })
}

impl Job {
    fn answer(self, result: Result<Stored, CommitError>) {
        // Nobody listens when the caller's future was dropped; the outcome stands all the same.
        let _ = self.reply.send((result, self.commit));
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;
    use crate::backend::{Guard, NewMessage};
    use crate::event::Headers;

    #[tokio::test]
    async fn the_first_callers_go_on_while_others_wait_for_their_answers() {
        const COMMITS: usize = 200;
        let (jobs, mut answers): (Vec<_>, Vec<_>) = (0..COMMITS)
            .map(|number| {
                let message = NewMessage {
                    subject: Subject::trusted(format!("order.{number}")),
                    headers: Headers::new(),
                    payload: "payload".into(),
                    guard: Guard::Last(Position::START),
                };
                let (reply, answer) = tokio::sync::oneshot::channel();
                (Job { commit: Commit::new(NonEmpty::one(message)).unwrap(), reply }, answer)
            })
            .unzip();
        let last = Position::new(COMMITS as u64);
        let mut answering = std::pin::pin!(answer_stored(jobs, last));
        assert!(poll!(&mut answering).is_pending());
        let mut rest = answers.split_off(answered_at_once(COMMITS));
        for (answer, position) in answers.into_iter().zip(1..) {
            let stored = answer.await.unwrap().0.unwrap();
            assert_eq!((stored.first.get(), stored.last.get()), (position, position));
        }
        assert!(rest.iter_mut().all(|answer| answer.try_recv().is_err()));
        answering.await;
        assert_eq!(rest.pop().unwrap().await.unwrap().0.unwrap().last, last);
    }
}
