//! Publishing the messages of many callers with few system calls.
//!
//! A request of the client's wakes the connection's task for each message, and tokio runs next what was woken last: each
//! message would be a write of its own, and on the server a read of its own. So messages wait here until a few are
//! together or nobody else is ready to run, and leave through one task. Their answers come by one subscription. Where
//! a client holds fewer answers than come at once, those it drops are missed like any that are lost on the way. One task
//! looks for all callers whether they have waited too long: a timer for each would be set and removed with every message,
//! among those of others, whose memory has long left the processor's cache. Only callers on another runtime have their own.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_nats::client::{PublishError, PublishErrorKind};
use async_nats::{Client, HeaderMap, Message, StatusCode, Subscriber, ToSubject};
use bytes::Bytes;
use foldhash::HashMap;
use futures::{FutureExt, StreamExt, poll};
use tokio::runtime::{self, Handle};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep_until, timeout};

use super::{BackendError, Wire};
use crate::subject::Subject;

/// So many messages leave without waiting for more: a quarter of those under way, so that the server has work while the
/// other callers run, but not fewer than make the system calls a small part of what each costs, nor more than it takes to
/// make them next to nothing.
fn enough(waiting: usize) -> usize {
    (waiting / 4).clamp(8, 32)
}

/// The most answers that are looked up at once.
const MOST_ANSWERS: usize = 64;

/// More messages than usually wait to leave.
const MANY: usize = 1024;

/// Sends messages to streams on one connection, and gives their answers to those who wait. Three tasks do that until it is
/// dropped.
#[derive(Debug)]
pub(crate) struct Publisher {
    desk: Arc<Desk>,
    tasks: [JoinHandle<()>; 3],
    /// Where the tasks run.
    home: runtime::Id,
}

/// What callers and the tasks share.
#[derive(Debug)]
struct Desk {
    /// What the subjects of all answers begin with.
    inbox: String,
    state: Mutex<State>,
    /// Something waits to leave, or enough of it.
    woken: Notify,
    /// The alarm is set to an earlier time.
    set: Notify,
    /// A caller on another runtime waited in vain, so perhaps nobody drives the tasks.
    rests: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The callers that wait for an answer, by the number at the end of its subject.
    waiting: HashMap<u64, Waiting>,
    /// When it is looked next who has waited too long: no later than the first of them has.
    alarm: Option<Instant>,
    /// What the client does not have yet.
    leaving: VecDeque<Outgoing>,
    last_number: u64,
    /// Callers have gone whose messages may not have left.
    gone: bool,
    /// The runtime of the tasks has ended, or the publisher was dropped.
    closed: bool,
}

#[derive(Debug)]
struct Waiting {
    caller: oneshot::Sender<Answer>,
    /// `None` lies further away than a clock can tell.
    deadline: Option<Instant>,
}

/// What the stream said to a message.
type Answer = Result<Bytes, Unanswered>;

/// Why no stream said anything.
#[derive(Debug)]
enum Unanswered {
    /// No stream takes the message.
    NoStream,
    /// It did not leave.
    NotSent(PublishError),
    /// The caller has waited as long as it wanted to.
    Late,
}

#[derive(Debug)]
struct Outgoing {
    number: u64,
    subject: Subject,
    headers: HeaderMap,
    payload: Bytes,
}

impl State {
    /// Forgets the messages of callers that have gone, once they are the most of many: while there is no connection nothing
    /// leaves, and callers come and go.
    fn forget_left(&mut self) {
        if self.leaving.len() > MANY && self.leaving.len() > 2 * self.waiting.len() {
            self.leaving.retain(|message| self.waiting.contains_key(&message.number));
        }
    }
}

impl Publisher {
    /// Starts the tasks on the current runtime.
    pub(super) async fn start(client: &Client) -> Result<Self, BackendError> {
        let inbox = format!("{}.", client.new_inbox());
        let answers = client.subscribe(format!("{inbox}*")).await.map_err(|error| {
            BackendError::unavailable(format!("subscribing to acknowledgements: {error}"))
        })?;
        let desk = Arc::new(Desk::new(inbox));
        let tasks = [
            tokio::spawn(send_all(Arc::clone(&desk), client.clone())),
            tokio::spawn(receive_all(Arc::clone(&desk), answers)),
            tokio::spawn(watch_all(Open(Arc::clone(&desk)))),
        ];
        Ok(Self { desk, tasks, home: Handle::current().id() })
    }

    /// Whether all tasks still run: they end with the runtime they were started on, and with the client. While nobody
    /// drives that runtime they rest, which is learned from an answer that stays out.
    pub(super) fn is_running(&self) -> bool {
        !self.desk.rests.load(Ordering::Relaxed) && !self.tasks.iter().any(JoinHandle::is_finished)
    }

    /// Sends one message, whose answer is waited for at most so long. Whether a message leaves that is dropped here is not
    /// known.
    pub(crate) fn publish(
        &self,
        subject: Subject,
        headers: HeaderMap,
        payload: Bytes,
        patience: Duration,
    ) -> Sent {
        let (caller, answer) = oneshot::channel();
        let waiting = Waiting { caller, deadline: Instant::now().checked_add(patience) };
        let number = self.desk.enter(subject, headers, payload, waiting);
        let is_watched = Handle::try_current().is_ok_and(|here| here.id() == self.home);
        Sent {
            desk: Arc::clone(&self.desk),
            number,
            answer,
            patience,
            is_watched,
            is_served: false,
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A message whose answer a caller waits for, until it is dropped.
pub(crate) struct Sent {
    desk: Arc<Desk>,
    number: u64,
    answer: oneshot::Receiver<Answer>,
    patience: Duration,
    /// Whether the tasks run as long as the caller does.
    is_watched: bool,
    is_served: bool,
}

impl Sent {
    /// The payload of what a stream answered to the message on `subject`.
    pub(super) async fn answer(mut self, subject: &str) -> Result<Bytes, BackendError> {
        let answer = match self.is_watched {
            true => (&mut self.answer).await,
            // Nobody may be driving the runtime of the tasks. Boxed, because it is rare and would make the future large.
            false => {
                Box::pin(timeout(self.patience, &mut self.answer)).await.unwrap_or_else(|_| {
                    self.desk.rests.store(true, Ordering::Relaxed);
                    Ok(Err(Unanswered::Late))
                })
            }
        };
        self.is_served = !matches!(answer, Ok(Err(Unanswered::Late)));
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Unanswered::NoStream)) => {
                Err(BackendError::unavailable(format!("no stream takes messages on {subject}")))
            }
            Ok(Err(Unanswered::NotSent(error))) => Err(not_sent(subject, &error)),
            Ok(Err(Unanswered::Late)) => {
                let waited = self.patience;
                Err(BackendError::unknown(format!(
                    "no answer to a message on {subject} in {waited:?}"
                )))
            }
            Err(_) => Err(BackendError::unknown(format!(
                "the runtime that published a message on {subject} has ended"
            ))),
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if !self.is_served {
            let mut state = self.desk.state();
            state.gone |= state.waiting.remove(&self.number).is_some();
        }
    }
}

fn not_sent(subject: &str, error: &PublishError) -> BackendError {
    let detail = format!("sending a message on {subject}: {error}");
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::InvalidSubject => {
            BackendError::Invalid { detail }
        }
        PublishErrorKind::Send => BackendError::unknown(detail),
    }
}

impl Desk {
    fn new(inbox: String) -> Self {
        let (woken, set) = (Notify::new(), Notify::new());
        Self { inbox, state: Mutex::default(), woken, set, rests: AtomicBool::new(false) }
    }

    /// Puts a message where it is sent from, and gives out the caller's number.
    fn enter(&self, subject: Subject, headers: HeaderMap, payload: Bytes, waiting: Waiting) -> u64 {
        let mut state = self.state();
        state.last_number += 1;
        let number = state.last_number;
        if state.closed {
            return number;
        }
        state.forget_left();
        let is_first = is_before(waiting.deadline, state.alarm);
        if is_first {
            state.alarm = waiting.deadline;
        }
        state.waiting.insert(number, waiting);
        state.leaving.push_back(Outgoing { number, subject, headers, payload });
        let leaving = state.leaving.len();
        let is_enough = leaving >= enough(state.waiting.len());
        drop(state);
        if is_first {
            self.set.notify_one();
        }
        if leaving == 1 || is_enough {
            self.woken.notify_one();
        }
        number
    }

    /// Whether others are under way that may have more to send in a moment.
    fn may_wait(&self) -> bool {
        let state = self.state();
        let (leaving, waiting) = (state.leaving.len(), state.waiting.len());
        leaving < waiting && leaving < enough(waiting)
    }

    /// Puts what is to leave now into an empty list, whose room is used next. Callers that have gone do not want their
    /// messages sent any more.
    fn take(&self, leaving: &mut VecDeque<Outgoing>) {
        let mut state = self.state();
        std::mem::swap(leaving, &mut state.leaving);
        leaving.retain(|message| state.waiting.contains_key(&message.number));
    }

    /// Takes out what is not wanted any more of what was to leave.
    fn keep_wanted(&self, leaving: &mut VecDeque<Outgoing>) {
        let mut state = self.state();
        if std::mem::take(&mut state.gone) {
            leaving.retain(|message| state.waiting.contains_key(&message.number));
        }
    }

    fn fail(&self, number: u64, error: PublishError) {
        if let Some(Waiting { caller, .. }) = self.state().waiting.remove(&number) {
            // Nobody listens when the caller's future was dropped.
            let _ = caller.send(Err(Unanswered::NotSent(error)));
        }
    }

    /// Tells those who have waited too long, and sets the alarm for the next one.
    fn give_up(&self, now: Instant) {
        let mut state = self.state();
        let is_late = |_: &u64, waiting: &mut Waiting| waiting.deadline.is_some_and(|d| d <= now);
        let before = state.waiting.len();
        for (_, late) in state.waiting.extract_if(is_late) {
            let _ = late.caller.send(Err(Unanswered::Late));
        }
        state.gone |= state.waiting.len() < before;
        state.alarm = state.waiting.values().filter_map(|waiting| waiting.deadline).min();
    }

    fn answer_all(&self, answers: impl Iterator<Item = Message>) {
        let mut state = self.state();
        for answer in answers {
            let number = answer.subject.strip_prefix(&self.inbox).and_then(|n| n.parse().ok());
            if let Some(waiting) = number.and_then(|number: u64| state.waiting.remove(&number)) {
                let _ = waiting.caller.send(match answer.status {
                    Some(StatusCode::NO_RESPONDERS) => Err(Unanswered::NoStream),
                    _ => Ok(answer.payload),
                });
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A desk as long as its tasks run. Those who still wait at the end learn that nobody will answer them.
struct Open(Arc<Desk>);

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closed = true;
        state.leaving.clear();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        // Whoever is woken by it may want the lock.
        drop(waiting);
    }
}

/// Whether the first moment comes before the second; `None` never comes.
fn is_before(one: Option<Instant>, other: Option<Instant>) -> bool {
    one.is_some_and(|one| other.is_none_or(|other| one < other))
}

/// What an answer's subject begins with, and the number at its end.
struct Numbered<'d>(&'d str, u64);

impl ToSubject for Numbered<'_> {
    fn to_subject(&self) -> async_nats::Subject {
        [self.0, itoa::Buffer::new().format(self.1)].concat().into()
    }
}

async fn send_all(desk: Arc<Desk>, client: Client) {
    let mut leaving = VecDeque::new();
    loop {
        desk.woken.notified().await;
        if desk.may_wait() {
            // The second one comes when whoever is ready has run, or many of them.
            tokio::select! {
                biased;
                () = desk.woken.notified() => {}
                () = yield_now() => {}
            }
        }
        desk.take(&mut leaving);
        while let Some(Outgoing { number, subject, headers, payload }) = leaving.pop_front() {
            let (subject, reply) = (Wire(subject.as_str()), Numbered(&desk.inbox, number));
            let mut sending =
                pin!(client.publish_with_reply_and_headers(subject, reply, headers, payload));
            let sent = match poll!(&mut sending) {
                Poll::Ready(sent) => sent,
                // The client holds no more, as while there is no connection. Callers may give up meanwhile.
                Poll::Pending => {
                    let sent = sending.await;
                    desk.keep_wanted(&mut leaving);
                    sent
                }
            };
            if let Err(error) = sent {
                desk.fail(number, error);
            }
        }
    }
}

async fn receive_all(desk: Arc<Desk>, mut answers: Subscriber) {
    let mut together = Vec::with_capacity(MOST_ANSWERS);
    while let Some(first) = answers.next().await {
        together.push(first);
        while together.len() < MOST_ANSWERS
            && let Some(Some(next)) = answers.next().now_or_never()
        {
            together.push(next);
        }
        desk.answer_all(together.drain(..));
    }
}

async fn watch_all(desk: Open) {
    let Open(desk) = &desk;
    loop {
        let alarm = desk.state().alarm;
        match alarm {
            None => desk.set.notified().await,
            Some(alarm) => tokio::select! {
                () = sleep_until(alarm) => desk.give_up(Instant::now()),
                () = desk.set.notified() => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(desk: &Desk) -> (u64, oneshot::Receiver<Answer>) {
        let (caller, answer) = oneshot::channel();
        let waiting = Waiting { caller, deadline: None };
        let (subject, headers) = (Subject::trusted("a.b"), HeaderMap::new());
        (desk.enter(subject, headers, Bytes::new(), waiting), answer)
    }

    #[test]
    fn callers_that_go_while_nothing_leaves_leave_little_behind() {
        let desk = Arc::new(Desk::new("inbox.".to_owned()));
        let (patient, _answer) = enter(&desk);
        for _ in 0..10 * MANY {
            let (number, answer) = enter(&desk);
            let (desk, patience) = (Arc::clone(&desk), Duration::MAX);
            drop(Sent { desk, number, answer, patience, is_watched: true, is_served: false });
        }
        let state = desk.state();
        assert!(state.leaving.len() <= MANY + 1, "{} are left", state.leaving.len());
        assert_eq!(state.leaving.front().map(|message| message.number), Some(patient));
    }

    #[test]
    fn what_was_taken_to_be_sent_is_forgotten_with_its_caller() {
        let desk = Arc::new(Desk::new("inbox.".to_owned()));
        let (number, answer) = enter(&desk);
        let (patient, _answer) = enter(&desk);
        let mut leaving = VecDeque::new();
        desk.take(&mut leaving);
        let patience = Duration::MAX;
        drop(Sent {
            desk: Arc::clone(&desk),
            number,
            answer,
            patience,
            is_watched: true,
            is_served: false,
        });
        desk.keep_wanted(&mut leaving);
        assert_eq!(leaving.iter().map(|message| message.number).collect::<Vec<_>>(), [patient]);
    }
}
