//! Hooks: what a service wants done around a commit or a rollback.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::{Committed, HookError, HookFailure, UnitOfWork};
use crate::panics::text_of;
use crate::subject::{AggregateId, AggregateType};

/// What a unit holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The aggregates that are changed, with the number of their events, in the order they were loaded.
    pub aggregates: Vec<(AggregateType, AggregateId, usize)>,
    /// How many messages there are for others.
    pub messages: usize,
}

type Hook<T> = Box<dyn FnOnce(T) -> BoxFuture<'static, Result<(), HookError>> + Send>;

/// How long each hook may take unless it is set.
const LIMIT: Duration = Duration::from_secs(10);

/// The hooks of one unit.
pub(super) struct Hooks {
    before_commit: Vec<(String, Hook<Summary>)>,
    after_commit: Vec<(String, Hook<Committed>)>,
    before_rollback: Vec<(String, Hook<Summary>)>,
    after_rollback: Vec<(String, Hook<Summary>)>,
    limit: Duration,
}

impl UnitOfWork {
    /// Runs a hook when the unit is committed, before anything is sent. Hooks run one after the other, in the order they
    /// were given; the first that fails, panics or takes longer than the [limit](Self::limit_hooks) stops the commit, and
    /// the unit is rolled back.
    pub fn before_commit<F>(
        &mut self,
        name: impl Into<String>,
        hook: impl FnOnce(Summary) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), HookError>> + Send + 'static,
    {
        self.hooks.before_commit.push((name.into(), Box::new(|summary| hook(summary).boxed())));
    }

    /// Runs a hook when the unit is stored. A failure is reported in [`Committed::failed_hooks`] and keeps no other hook
    /// from running. It runs at most once; a process that ends in between never runs it: use the outbox for what must not
    /// be lost.
    pub fn after_commit<F>(
        &mut self,
        name: impl Into<String>,
        hook: impl FnOnce(Committed) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), HookError>> + Send + 'static,
    {
        self.hooks.after_commit.push((name.into(), Box::new(|done| hook(done).boxed())));
    }

    /// Runs a hook when the unit is rolled back: by [`rollback`](Self::rollback), by a commit that failed, or because it
    /// was dropped. Not when it is unknown whether it was stored. A failure keeps no other hook from running.
    pub fn before_rollback<F>(
        &mut self,
        name: impl Into<String>,
        hook: impl FnOnce(Summary) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), HookError>> + Send + 'static,
    {
        self.hooks.before_rollback.push((name.into(), Box::new(|summary| hook(summary).boxed())));
    }

    /// As [`before_rollback`](Self::before_rollback), after what was gathered is gone.
    pub fn after_rollback<F>(
        &mut self,
        name: impl Into<String>,
        hook: impl FnOnce(Summary) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), HookError>> + Send + 'static,
    {
        self.hooks.after_rollback.push((name.into(), Box::new(|summary| hook(summary).boxed())));
    }

    /// How long each hook may take; ten seconds by default.
    pub fn limit_hooks(&mut self, limit: Duration) {
        self.hooks.limit = limit;
    }
}

impl Hooks {
    pub(super) fn new() -> Self {
        Self {
            before_commit: Vec::new(),
            after_commit: Vec::new(),
            before_rollback: Vec::new(),
            after_rollback: Vec::new(),
            limit: LIMIT,
        }
    }

    /// Until the first that fails.
    pub(super) async fn before_commit(&mut self, summary: &Summary) -> Result<(), HookFailure> {
        for hook in std::mem::take(&mut self.before_commit) {
            run(hook, summary.clone(), self.limit).await?;
        }
        Ok(())
    }

    /// All of them; nobody is left to roll back.
    pub(super) async fn after_commit(&mut self, committed: &Committed) -> Vec<HookFailure> {
        self.let_go();
        let hooks = std::mem::take(&mut self.after_commit);
        run_all(hooks, committed, self.limit).await
    }

    pub(super) async fn before_rollback(&mut self, summary: &Summary) -> Vec<HookFailure> {
        run_all(std::mem::take(&mut self.before_rollback), summary, self.limit).await
    }

    pub(super) async fn after_rollback(&mut self, summary: &Summary) -> Vec<HookFailure> {
        run_all(std::mem::take(&mut self.after_rollback), summary, self.limit).await
    }

    /// Neither committed nor rolled back, as far as anybody knows.
    pub(super) fn let_go(&mut self) {
        self.before_rollback.clear();
        self.after_rollback.clear();
    }

    fn hang_on_rollback(&self) -> bool {
        !self.before_rollback.is_empty() || !self.after_rollback.is_empty()
    }
}

impl Drop for UnitOfWork {
    fn drop(&mut self) {
        if !self.hooks.hang_on_rollback() {
            return;
        }
        let (summary, mut hooks) =
            (self.summary(), std::mem::replace(&mut self.hooks, Hooks::new()));
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                hooks.before_rollback(&summary).await;
                hooks.after_rollback(&summary).await;
            })),
            Err(_) => tracing::warn!("a unit was dropped outside a runtime, its hooks do not run"),
        }
    }
}

async fn run_all<T: Clone>(
    hooks: Vec<(String, Hook<T>)>,
    about: &T,
    limit: Duration,
) -> Vec<HookFailure> {
    let mut failures = Vec::new();
    for hook in hooks {
        if let Err(failure) = run(hook, about.clone(), limit).await {
            tracing::warn!(%failure, "a hook of a unit of work did not do its work");
            failures.push(failure);
        }
    }
    failures
}

async fn run<T>(
    (hook, f): (String, Hook<T>),
    about: T,
    limit: Duration,
) -> Result<(), HookFailure> {
    // The call that makes the future may panic as well.
    let running = AssertUnwindSafe(async { f(about).await }).catch_unwind();
    match timeout(limit, running).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(source))) => Err(HookFailure::Failed { hook, source }),
        Ok(Err(panic)) => Err(HookFailure::Panicked { hook, message: text_of(&*panic) }),
        Err(_) => Err(HookFailure::TimedOut { hook, limit }),
    }
}
