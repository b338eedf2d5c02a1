//! The task that keeps a live view current, and the check that it is.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::contents::{Contents, Kept, Step, Undecodable};
use super::{LiveState, Shared};
use crate::read_model::{ModelChange, ReadModelError, Stored};
use crate::subject::AggregateId;

/// How often it is checked that nothing is missing, and how long such a check may take.
const CHECK_EVERY: Duration = Duration::from_secs(2);
const CHECK_TAKES: Duration = Duration::from_secs(2);

/// How long is waited after a watch that failed for good, before another one is tried.
const AGAIN: Duration = Duration::from_secs(1);

/// How many changes that are at hand are applied at once: readers wait for them.
const AT_ONCE: usize = 256;

type Ready = oneshot::Sender<Result<(), ReadModelError>>;

/// Keeps a view current for ever; ends at once when the models cannot be read the first time.
pub(super) async fn keep<T: DeserializeOwned>(shared: Arc<Shared<T>>, ready: Ready) {
    let mut ready = Some(ready);
    let checks = shared.check_for_ever();
    let follows = async {
        loop {
            let error = shared.follow(&mut ready).await;
            if let Some(ready) = ready.take() {
                // Nobody waits any more when the start was given up.
                let _given_up = ready.send(Err(error));
                return;
            }
            tracing::warn!(pattern = %shared.pattern, %error, "a live view begins again");
            shared.unreachable(error.to_string());
            sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = follows => {}
        () = checks => {}
    }
}

impl<T: DeserializeOwned> Shared<T> {
    /// Applies changes until the watch ends, and returns why it did.
    async fn follow(&self, ready: &mut Option<Ready>) -> ReadModelError {
        let mut watching = match self.models.documents().watching(&self.pattern) {
            Ok(watching) => watching,
            Err(error) => return error,
        };
        let began = Instant::now();
        // New models are collected apart until all are there, so that nobody sees some of them only.
        let mut apart = Some(Contents::new(&self.fields));
        loop {
            let mut next = Some(watching.next().await);
            let mut steps = Vec::new();
            while let Some(change) = next.take() {
                match change {
                    Ok(ModelChange::Saved(stored)) => steps.push(self.read(stored)),
                    Ok(ModelChange::Deleted { id, revision }) => {
                        steps.push(Step::Remove { id, revision });
                    }
                    Ok(ModelChange::Reset) => {
                        self.apply(&mut apart, std::mem::take(&mut steps));
                        apart = Some(Contents::new(&self.fields));
                        self.progress.send_modify(|progress| progress.state = LiveState::Resetting);
                    }
                    Ok(ModelChange::CaughtUp) => {
                        self.apply(&mut apart, std::mem::take(&mut steps));
                        if let Some(contents) = apart.take() {
                            self.show(contents, watching.generation());
                        }
                        if let Some(ready) = ready.take() {
                            self.progress.send_modify(|progress| progress.verified = began);
                            let _given_up = ready.send(Ok(()));
                        }
                    }
                    Err(ReadModelError::Shape { key, revision, reason }) => match id_of(&key) {
                        Ok(id) => steps.push(Step::Spoil(Undecodable { id, revision, reason })),
                        Err(error) => return error,
                    },
                    Err(error) => return error,
                }
                if steps.len() < AT_ONCE {
                    next = watching.next().now_or_never();
                }
            }
            self.apply(&mut apart, steps);
        }
    }

    fn read(&self, stored: Stored<Value>) -> Step<T> {
        let Stored { model: document, metadata } = stored;
        match self.models.model_of(&document, &metadata) {
            Ok(model) => Step::Put(Kept {
                stored: Arc::new(Stored { model, metadata }),
                document: Arc::new(document),
            }),
            Err(error) => {
                let (id, revision) = (metadata.id, metadata.revision);
                Step::Spoil(Undecodable { id, revision, reason: reason_of(error) })
            }
        }
    }

    fn apply(&self, apart: &mut Option<Contents<T>>, steps: Vec<Step<T>>) {
        if let Some(contents) = apart {
            return steps.into_iter().for_each(|step| contents.apply(step));
        }
        if steps.is_empty() {
            return;
        }
        let revision = {
            let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
            steps.into_iter().for_each(|step| contents.apply(step));
            contents.revision
        };
        self.progress.send_modify(|progress| progress.revision = progress.revision.max(revision));
    }

    fn show(&self, mut shown: Contents<T>, generation: Option<u64>) {
        shown.generation = generation;
        // What was seen before the reset is in the new models as well.
        shown.revision = shown.revision.max(self.progress.borrow().revision);
        let revision = shown.revision;
        let before = {
            let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *contents, shown)
        };
        // Takes its time; readers need not wait for it.
        drop(before);
        self.progress.send_modify(|progress| {
            progress.revision = progress.revision.max(revision);
            progress.generation = generation;
            progress.state = LiveState::Current;
        });
    }

    async fn check_for_ever(&self) {
        loop {
            sleep(CHECK_EVERY).await;
            match timeout(CHECK_TAKES, self.verify()).await {
                // While models are built for the first time nothing can be missing.
                Ok(Ok(()) | Err(ReadModelError::NotBuilt { .. })) => {}
                // What is missing may be a rebuild that is still being read, which is not the server's fault.
                Err(_) if self.progress.borrow().state == LiveState::Resetting => {}
                Err(_) => self.unreachable("a check took too long".to_owned()),
                Ok(Err(error)) => self.unreachable(error.to_string()),
            }
        }
    }

    /// Waits until the view holds all that was stored before now.
    pub(super) async fn verify(&self) -> Result<(), ReadModelError> {
        let began = Instant::now();
        let mut progress = self.progress.subscribe();
        loop {
            let (seen, generation) = {
                let progress = progress.borrow_and_update();
                (progress.revision, progress.generation)
            };
            let newest = self.models.newest(&self.pattern, seen).await?;
            let has = |generation| generation == Some(newest.generation);
            if !has(generation) {
                // The sender lives as long as this does. What is waited for holds the lock, so it is let go at once.
                drop(progress.wait_for(|progress| has(progress.generation)).await);
                continue;
            }
            drop(progress.wait_for(|progress| progress.revision >= newest.revision).await);
            self.progress.send_modify(|progress| {
                progress.verified = progress.verified.max(began);
                if matches!(progress.state, LiveState::Unreachable { .. }) {
                    progress.state = LiveState::Current;
                }
            });
            return Ok(());
        }
    }

    fn unreachable(&self, reason: String) {
        self.progress.send_modify(|progress| progress.state = LiveState::Unreachable { reason });
    }
}

/// Why a model does not decode; which one it is, is said beside it.
fn reason_of(error: ReadModelError) -> String {
    match error {
        ReadModelError::Shape { reason, .. } => reason,
        ReadModelError::OtherSchema { stored, expected, .. } => {
            format!("it has schema version {stored}, the code has {expected}")
        }
        other => other.to_string(),
    }
}

/// The id in a model's key: what follows the first token.
fn id_of(key: &str) -> Result<AggregateId, ReadModelError> {
    Ok(AggregateId::from_escaped(key.split_once('.').map_or("", |(_, id)| id))?)
}
