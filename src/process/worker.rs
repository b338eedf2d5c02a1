//! The work of the active instance: each event, each wish and each timeout, one after the other.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

use super::cursor::Cursor;
use super::error::{Ground, ProcessError};
use super::feed::{Feed, Next, What};
use super::records::{FORMAT, HeldMark, ParkedReaction, Trigger, Wish, WishRecord, mark_subject};
use super::{DueTimeout, ProcessManager, ProcessOptions, Reaction};
use crate::backend::{BackendError, Position, ReadFrom, StoredMessage};
use crate::event::NonEmpty;
use crate::projection::{
    PAUSE, ProjectionError, Rejection, Selection, Then, kept, panic_text, put, read_today,
};
use crate::state::Expected;
use crate::store::{Context, StoreError, StoredEvent};
use crate::subject::{AggregateId, TimeoutAddress};
use crate::timeouts::{Due, Timeout};

/// After how many messages it is written down how far the process is.
const NOTED_EVERY: u32 = 64;

/// Or after how long without any.
const IDLE: Duration = Duration::from_millis(100);

pub(super) struct Worker<P> {
    pub(super) context: Context,
    pub(super) manager: Arc<P>,
    pub(super) selection: Selection,
    pub(super) options: ProcessOptions,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) reached: watch::Sender<Position>,
}

/// What is to be reacted to.
enum Task<'a> {
    Event(&'a Result<StoredEvent, StoreError>),
    Due(&'a Timeout, &'a DueTimeout),
}

/// An instance, with what an event means to it.
type Share<P> = (AggregateId, Vec<<P as ProcessManager>::Event>);

/// Why a reaction came to nothing.
enum Failed {
    /// Because of what is reacted to: the policy decides.
    Refused(Rejection),
    /// Because of something else.
    Error(ProcessError),
}

impl<E: Into<ProcessError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl<P: ProcessManager> Worker<P> {
    /// Works until it is told to stop.
    pub(super) async fn work(&self) -> Result<(), ProcessError> {
        let mut cursor = Cursor::of::<P>(&self.context, self.options.first).await?;
        let mut feed = Feed::open(&self.context, &self.selection, P::NAME, cursor.position());
        let mut due = self.due();
        let mut caught_up = false;
        loop {
            tokio::select! {
                biased;
                () = self.stopped() => return cursor.note(&self.context).await,
                // What happened while nobody was active comes first: it may cancel what came due meanwhile.
                due = due.next(), if caught_up => match due {
                    Some(Ok(due)) => self.take_due(due).await?,
                    // Another stream under the old name holds what is to be done as well as the old one did.
                    Some(Err(error @ BackendError::Truncated { .. })) => {
                        return Err(BackendError::unavailable(error.to_string()).into());
                    }
                    Some(Err(error)) => return Err(error.into()),
                    None => return Err(BackendError::unavailable("timeouts ended").into()),
                },
                next = feed.next() => {
                    let next = next.map_err(|error| {
                        ProjectionError::from(error).following(P::NAME, cursor.position())
                    })?;
                    let Some(next) = next else {
                        caught_up = true;
                        continue;
                    };
                    let taken = self.take(next, &mut cursor).await;
                    if taken.is_err() || cursor.ahead() >= NOTED_EVERY {
                        // What was taken before a failure is not looked at again when somebody starts again.
                        cursor.note(&self.context).await?;
                    }
                    taken?;
                }
                () = sleep(IDLE), if cursor.ahead() > 0 => cursor.note(&self.context).await?,
            }
        }
    }

    fn due(&self) -> BoxStream<'static, Result<Due, BackendError>> {
        match self.context.timeouts() {
            Some(queue) => queue.due(P::NAME),
            None => futures::stream::pending().boxed(),
        }
    }

    async fn take(&self, next: Next, cursor: &mut Cursor) -> Result<(), ProcessError> {
        match next.what {
            What::Event(event) => {
                if self.take_event(next.position, *event, cursor).await?.is_break() {
                    return Ok(());
                }
            }
            What::Wish(message) => self.forward(message).await?,
            What::Other => {}
        }
        cursor.advance(next.position, next.mark);
        self.reached.send_replace(next.position);
        Ok(())
    }

    async fn take_event(
        &self,
        position: Position,
        event: Result<StoredEvent, StoreError>,
        cursor: &mut Cursor,
    ) -> Result<ControlFlow<()>, ProcessError> {
        let reason = match self.patiently(Task::Event(&event)).await? {
            Outcome::Done => {
                cursor.count_event();
                return Ok(ControlFlow::Continue(()));
            }
            Outcome::Stopped => return Ok(ControlFlow::Break(())),
            Outcome::Refused(reason) => reason,
        };
        let poison = |reason: &Rejection| ProcessError::Poison {
            process: P::NAME.to_owned(),
            position: position.get(),
            reason: reason.to_string(),
        };
        if self.options.poison.then == Then::Stop {
            return Err(poison(&reason));
        }
        let event_type = event.as_ref().ok().map(|stored| stored.event_type().to_string());
        self.park(Trigger::Event { position, event_type }, &reason).await?;
        cursor.count_parked();
        // Without an instance nobody else can react to it either.
        let Ok(stored) = &event else { return Ok(ControlFlow::Continue(())) };
        for (instance, _) in self.read(stored).unwrap_or_default() {
            match self.once(&instance, stored, None, ReadFrom::Nearest).await {
                Ok(()) => {}
                Err(Failed::Error(error)) => return Err(error),
                // Without its mark somebody would react to it later.
                Err(Failed::Refused(reason)) => return Err(poison(&reason)),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Tries until it works, is refused as often as the policy allows, or is not to be tried again because the process stops.
    async fn patiently(&self, task: Task<'_>) -> Result<Outcome, ProcessError> {
        let policy = self.options.poison;
        let (mut pause, mut tries, mut from) = (policy.pause, 0, ReadFrom::Nearest);
        loop {
            let reason = match self.attempt(&task, from).await {
                Ok(()) => return Ok(Outcome::Done),
                Err(Failed::Error(error)) => return Err(error),
                Err(Failed::Refused(reason)) => reason,
            };
            if tries == policy.retries {
                return Ok(Outcome::Refused(reason));
            }
            (tries, from) = (tries + 1, ReadFrom::Leader);
            tokio::select! {
                () = self.stopped() => return Ok(Outcome::Stopped),
                () = sleep(pause) => {}
            }
            pause = pause.saturating_mul(2).min(Duration::from_secs(30));
        }
    }

    async fn attempt(&self, task: &Task<'_>, from: ReadFrom) -> Result<(), Failed> {
        match task {
            Task::Event(Ok(stored)) => self.react(stored, from).await,
            Task::Event(Err(error)) => Err(Failed::Refused(error.to_string().into())),
            Task::Due(timeout, due) => self.come(timeout, Some(due), from).await,
        }
    }

    /// Reads an event and finds the instance it belongs to; more of both where upcasters have split it.
    fn read(&self, stored: &StoredEvent) -> Result<Vec<Share<P>>, Rejection> {
        let read = || {
            let mut shares: Vec<Share<P>> = Vec::new();
            for event in read_today::<P::Event>(stored)? {
                let Some(instance) = self.manager.instance(&event, stored)? else { continue };
                match shares.iter_mut().find(|(known, _)| *known == instance) {
                    Some((_, events)) => events.push(event),
                    None => shares.push((instance, vec![event])),
                }
            }
            Ok(shares)
        };
        catch_unwind(AssertUnwindSafe(read)).map_err(panic_text)?
    }

    async fn react(&self, stored: &StoredEvent, from: ReadFrom) -> Result<(), Failed> {
        for (instance, events) in self.read(stored).map_err(Failed::Refused)? {
            self.once(&instance, stored, Some(events), from).await?;
        }
        Ok(())
    }

    /// Reacts to an event unless the instance has done so; without the event it is noted only that it is done with. The parts of
    /// one that was split are reacted to at once.
    async fn once(
        &self,
        instance: &AggregateId,
        stored: &StoredEvent,
        mut events: Option<Vec<P::Event>>,
        mut from: ReadFrom,
    ) -> Result<(), Failed> {
        let reacts = events.is_some();
        loop {
            let events_now = events.take().unwrap_or_default();
            match self.try_event(instance, stored, events_now, from).await {
                Ok(Tried::Settled) => return Ok(()),
                Ok(Tried::Overtaken) => {}
                // What a replica says is no ground for a refusal.
                Err(Failed::Refused(_)) if from == ReadFrom::Nearest => {}
                Err(failed) => return Err(failed),
            }
            from = ReadFrom::Leader;
            if reacts {
                let shares = self.read(stored).map_err(Failed::Refused)?;
                events = shares.into_iter().find(|(of, _)| of == instance).map(|(_, own)| own);
            }
        }
    }

    async fn try_event(
        &self,
        instance: &AggregateId,
        stored: &StoredEvent,
        events: Vec<P::Event>,
        from: ReadFrom,
    ) -> Result<Tried, Failed> {
        let held = self.mark(instance, from).await?;
        if held.mark.handled >= stored.position() {
            self.count("repeated");
            return Ok(Tried::Settled);
        }
        let ids = (stored.correlation_id(), stored.event_id());
        let mut reaction = self.begin(instance, held, ids, from);
        for event in events {
            let reacting = self.manager.react(event, stored, &mut reaction);
            self.fill(reacting).await?;
        }
        reaction.handled(stored.position());
        self.commit(reaction).await
    }

    async fn take_due(&self, due: Due) -> Result<(), ProcessError> {
        let timeout = DueTimeout::new(due.timeout.clone());
        let instance = due.timeout.address.instance();
        let outcome = self.patiently(Task::Due(&due.timeout, &timeout)).await?;
        if let Outcome::Stopped = outcome {
            return Ok(());
        }
        if let Outcome::Refused(reason) = outcome {
            let poison = |reason: &Rejection| ProcessError::PoisonedTimeout {
                process: P::NAME.to_owned(),
                instance: instance.to_string(),
                name: timeout.name().to_owned(),
                reason: reason.to_string(),
            };
            if self.options.poison.then == Then::Stop {
                return Err(poison(&reason));
            }
            let (id, name) = (timeout.id(), timeout.name().to_owned());
            self.park(Trigger::Timeout { id, instance: instance.clone(), name }, &reason).await?;
            match self.come(&due.timeout, None, ReadFrom::Nearest).await {
                Ok(()) => {}
                Err(Failed::Error(error)) => return Err(error),
                // Still waited for, it would come again.
                Err(Failed::Refused(reason)) => return Err(poison(&reason)),
            }
        }
        match self.context.timeouts() {
            Some(queue) => Ok(queue.done(&due).await?),
            None => Ok(()),
        }
    }

    /// Reacts to a timeout if the instance still waits for it; without a reaction it is noted only that it came.
    async fn come(
        &self,
        timeout: &Timeout,
        due: Option<&DueTimeout>,
        mut from: ReadFrom,
    ) -> Result<(), Failed> {
        loop {
            match self.try_timeout(timeout, due, from).await {
                Ok(Tried::Settled) => return Ok(()),
                Ok(Tried::Overtaken) => {}
                // What a replica says is no ground for a refusal.
                Err(Failed::Refused(_)) if from == ReadFrom::Nearest => {}
                Err(failed) => return Err(failed),
            }
            from = ReadFrom::Leader;
        }
    }

    async fn try_timeout(
        &self,
        timeout: &Timeout,
        due: Option<&DueTimeout>,
        from: ReadFrom,
    ) -> Result<Tried, Failed> {
        let (instance, name) = (timeout.address.instance(), timeout.address.name());
        let held = self.mark(instance, from).await?;
        if held.mark.pending.get(name) != Some(&timeout.id) {
            // A replica may not know yet that it is waited for.
            if from == ReadFrom::Nearest {
                return Ok(Tried::Overtaken);
            }
            self.count("void");
            return Ok(Tried::Settled);
        }
        let ids = (timeout.correlation_id, timeout.id);
        let mut reaction = self.begin(instance, held, ids, from);
        reaction.came(name);
        if let Some(due) = due {
            self.fill(self.manager.timeout(due, &mut reaction)).await?;
        }
        self.commit(reaction).await
    }

    async fn mark(&self, instance: &AggregateId, from: ReadFrom) -> Result<HeldMark, ProcessError> {
        let subject = mark_subject(self.context.scheme().context(), P::NAME, instance);
        HeldMark::read(&self.context, &subject, from).await
    }

    fn begin(
        &self,
        instance: &AggregateId,
        held: HeldMark,
        ids: (Uuid, Uuid),
        from: ReadFrom,
    ) -> Reaction {
        let mut reaction = Reaction::begin(&self.context, P::NAME, instance, held, ids);
        if from == ReadFrom::Leader {
            reaction.read_latest();
        }
        reaction
    }

    /// Lets the manager fill a reaction.
    async fn fill(
        &self,
        reacting: impl Future<Output = Result<(), Rejection>>,
    ) -> Result<(), Failed> {
        let reacted = AssertUnwindSafe(reacting).catch_unwind().await.map_err(panic_text);
        match reacted {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed::<P>(error)),
            Err(panic) => Err(Failed::Refused(panic)),
        }
    }

    async fn commit(&self, reaction: Reaction) -> Result<Tried, Failed> {
        match reaction.finish().commit().await {
            Ok(_) => {
                self.count("stored");
                Ok(Tried::Settled)
            }
            Err(error) if error.is_conflict() => {
                self.count("overtaken");
                Ok(Tried::Overtaken)
            }
            Err(error) => Err(failed::<P>(error.into())),
        }
    }

    /// Tells the queue what an instance wished. Done again after a crash, which changes nothing.
    async fn forward(&self, message: StoredMessage) -> Result<(), ProcessError> {
        let Some(queue) = self.context.timeouts() else { return Ok(()) };
        let place = |reason: String| ProcessError::Record {
            place: format!("{} at position {}", message.subject, message.position),
            reason,
        };
        let record = WishRecord::read(&message).map_err(|error| place(error.to_string()))?;
        let address = TimeoutAddress::new(P::NAME, &record.instance, &record.name)?;
        let wished = message.position;
        match record.wish {
            Wish::Schedule { id, at, correlation_id, data } => {
                let data = data.to_string().into();
                queue.schedule(Timeout { address, id, at, wished, correlation_id, data }).await?;
            }
            Wish::Cancel => queue.cancel(&address, wished).await?,
        }
        Ok(())
    }

    async fn park(&self, trigger: Trigger, reason: &Rejection) -> Result<(), ProcessError> {
        let key = trigger.key(P::NAME)?;
        let (reason, parked_at) = (kept(&reason.to_string()), self.context.clock().now());
        tracing::warn!(process = P::NAME, %key, reason, "parked");
        let record = ParkedReaction { format: FORMAT, trigger, reason, parked_at };
        let write = put(key, &record, Expected::Anything);
        self.context.read_models().write(NonEmpty::one(write)).await?;
        self.count("parked");
        Ok(())
    }

    fn count(&self, outcome: &'static str) {
        let labels = [("process", P::NAME), ("outcome", outcome)];
        metrics::counter!("cim_process_reactions_total", &labels).increment(1);
    }

    pub(super) async fn stopped(&self) {
        // It fails only when the handle is gone, which ends the task as well.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }

    pub(super) async fn pause(&self) {
        tokio::select! {
            () = self.stopped() => {}
            () = sleep(PAUSE) => {}
        }
    }
}

/// What a failure of a reaction, or of its commit, leads to.
fn failed<P: ProcessManager>(error: Rejection) -> Failed {
    match Ground::of(error.as_ref()) {
        Ground::Passes => BackendError::unavailable(error.to_string()).into(),
        Ground::Store => {
            Failed::Error(ProcessError::Hindered { process: P::NAME.to_owned(), source: error })
        }
        Ground::Own => Failed::Refused(error),
    }
}

/// What became of all tries.
enum Outcome {
    Done,
    Refused(Rejection),
    /// The process is to stop; nothing took effect.
    Stopped,
}

/// What became of a try.
enum Tried {
    /// It is stored, or there was nothing to store.
    Settled,
    /// Others were first, or a replica may be behind: it is tried again with what the leader says.
    Overtaken,
}
