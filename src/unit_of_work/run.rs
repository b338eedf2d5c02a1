//! A whole unit of work in one call: begun, committed, and begun again when others were first.

use super::{Committed, UnitError, UnitOfWork};
use crate::repository::Freshness;
use crate::store::{CommitInfo, Context};

/// How a unit of work is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitOptions {
    /// How often a commit is tried at most; 10 by default, at least once.
    pub attempts: u32,
    /// What the events and messages say of the unit.
    pub info: CommitInfo,
    /// How new what is loaded has to be at the first attempt; [`Freshness::Current`] by default. What others have changed
    /// since stops the commit in any case, and the next attempt looks at the newest; only a unit that stores nothing is no
    /// newer than this. With [`Freshness::Cached`] an aggregate in the cache costs no round trip.
    pub freshness: Freshness,
}

impl Default for UnitOptions {
    fn default() -> Self {
        Self { attempts: 10, info: CommitInfo::default(), freshness: Freshness::Current }
    }
}

impl UnitOfWork {
    /// Begins a unit, lets `work` fill it, and commits it; when others were first, everything begins again with what they
    /// stored, at most ten times in all.
    ///
    /// `work` gets the unit and gives it back with its reply. It may be called several times and should do nothing but
    /// fill the unit. When it fails nothing is stored. A replica may have been behind in what `work` saw, so it is called once
    /// more with what the streams' leaders say, and that error is returned.
    ///
    /// ```
    /// # use cim_persistence::prelude::*;
    /// # use cim_persistence::{Context, Repository};
    /// # use cim_persistence::unit_of_work::{UnitError, UnitOfWork};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Serialize, Deserialize)]
    /// # struct Account { number: String, balance: i64 }
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Booked(i64);
    /// # impl DomainEvent for Booked { fn event_type(&self) -> &'static str { "booked" } }
    /// # impl Aggregate for Account {
    /// #     const TYPE: &'static str = "account";
    /// #     type Id = String;
    /// #     type Event = Booked;
    /// #     fn new(number: &String) -> Self { Account { number: number.clone(), balance: 0 } }
    /// #     fn id(&self) -> &String { &self.number }
    /// #     fn apply(&mut self, booked: &Booked) { self.balance += booked.0 }
    /// # }
    /// # async fn example(context: &Context, accounts: &Repository<Account>, from: &String, to: &String) -> Result<(), UnitError> {
    /// let (left, _) = UnitOfWork::run(context, async |mut unit| {
    ///     let left = unit.record(accounts, from, vec![Booked(-10)]).await?.balance;
    ///     unit.record(accounts, to, vec![Booked(10)]).await?;
    ///     Ok::<_, UnitError>((unit, left))
    /// })
    /// .await?;
    /// println!("{left} left");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `work` returned; [`UnitError`] as from [`commit`](Self::commit), when the attempts are used up too.
    pub async fn run<T, E, F>(
        context: &Context,
        work: impl FnMut(UnitOfWork) -> F,
    ) -> Result<(T, Committed), E>
    where
        F: Future<Output = Result<(UnitOfWork, T), E>>,
        E: From<UnitError>,
    {
        Self::run_with(context, UnitOptions::default(), work).await
    }

    /// As [`run`](Self::run), with options.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_with<T, E, F>(
        context: &Context,
        options: UnitOptions,
        mut work: impl FnMut(UnitOfWork) -> F,
    ) -> Result<(T, Committed), E>
    where
        F: Future<Output = Result<(UnitOfWork, T), E>>,
        E: From<UnitError>,
    {
        let mut attempt = 1;
        let mut freshness = options.freshness;
        loop {
            let mut unit = Self::begin(context);
            unit.freshness = freshness;
            unit.describe(options.info.clone());
            let (unit, reply) = match work(unit).await {
                Ok(done) => done,
                // What the cache or a replica says is no ground for a no.
                Err(_) if freshness != Freshness::Latest => {
                    freshness = Freshness::Latest;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match unit.commit().await {
                Ok(committed) => return Ok((reply, committed)),
                Err(error) if error.is_conflict() && attempt < options.attempts => {
                    tracing::debug!(%error, attempt, "a unit of work begins again");
                    freshness = Freshness::Latest;
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
