//! Everything that can happen to a unit, drawn from seeds: it is stored whole or not at all, and known to be.

use std::collections::HashSet;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use cim_persistence::event_log::MemoryLog;
use cim_persistence::store::StoreError;
use cim_persistence::testing::faults::{CallKind, Fault, Faults, Rates};
use cim_persistence::unit_of_work::UnitError;
use futures::future::join_all;

use crate::domain::{Bank, Booked, audit};
use crate::test_server::TestServer;

const SEEDS: u64 = 500;
const TELLERS: u64 = 6;
const STEPS: u64 = 6;

/// Gives up after so many polls: a failpoint at every await, one after the other.
struct GivenUp<F> {
    inner: Pin<Box<F>>,
    polls: u64,
}

impl<F: Future> Future for GivenUp<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        self.inner.as_mut().poll(context).map(Some)
    }
}

fn give_up<F: Future>(inner: F, polls: u64) -> GivenUp<F> {
    GivenUp { inner: Box::pin(inner), polls }
}

/// What became of the transfers, as far as the tellers know.
#[derive(Default)]
struct Known {
    stored: HashSet<u64>,
    refused: HashSet<u64>,
    open: HashSet<u64>,
}

impl Known {
    async fn check(&self, bank: &Bank, seed: u64) {
        let there: HashSet<u64> = audit(bank).await.into_iter().collect();
        assert!(self.stored.is_subset(&there), "seed {seed}: acknowledged and not there");
        assert!(self.refused.is_disjoint(&there), "seed {seed}: refused and there all the same");
        let known = self.stored.len() + self.refused.len() + self.open.len();
        assert_eq!(known as u64, TELLERS * STEPS, "seed {seed}");
    }
}

/// Some tellers who book between three accounts, and give up now and then.
async fn open_for_business(banks: &[Bank], seed: u64, patience: u64) -> Known {
    let tellers = (0..TELLERS).map(async |teller| {
        let mut known = Known::default();
        for step in 0..STEPS {
            let number = step * TELLERS + teller;
            let bank = &banks[(teller % banks.len() as u64) as usize];
            let (from, to) = (number % 3, (number + 1 + teller % 2) % 3);
            let (from, to) = (format!("account-{from}"), format!("account-{to}"));
            let polls = (seed * 31 + number * 17) % patience;
            match give_up(bank.transfer(number, &from, &to), polls).await {
                Some(Ok(_)) => known.stored.insert(number),
                None | Some(Err(UnitError::Store(StoreError::OutcomeUnknown { .. }))) => {
                    known.open.insert(number)
                }
                Some(Err(_)) => known.refused.insert(number),
            };
        }
        known
    });
    join_all(tellers).await.into_iter().fold(Known::default(), |mut all, known| {
        all.stored.extend(known.stored);
        all.refused.extend(known.refused);
        all.open.extend(known.open);
        all
    })
}

#[tokio::test(start_paused = true)]
async fn whatever_is_drawn_no_transfer_is_half_there() {
    let rates = Rates {
        lost_ack: 80,
        lost_write: 80,
        late_write: 80,
        conflict: 20,
        stale_read: 100,
        outage: 40,
    };
    let (mut stored, mut open, mut met) = (0, 0, 0);
    for seed in 0..SEEDS {
        let (log, faults) = (MemoryLog::new(), Faults::random(seed, rates));
        let banks = [Bank::on(&log, &faults), Bank::on(&log, &faults)];
        let known = open_for_business(&banks, seed, 40).await;
        // What was given up may still be on its way.
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        faults.calm();
        faults.deliver_late();
        known.check(&Bank::on(&log, &Faults::new()), seed).await;
        stored += known.stored.len();
        open += known.open.len();
        met += faults.met();
    }
    assert!(stored > 1000 && open > 1000 && met > 1000, "{stored} stored, {open} open, {met} met");
}

/// The first guard alone tells whether a try was stored; another one tells that none ever will be.
#[tokio::test(start_paused = true)]
async fn a_conflict_after_an_unproven_try_is_known_to_be_one() {
    let (log, faults) = (MemoryLog::new(), Faults::new());
    let (bank, other) = (Bank::on(&log, &faults), Bank::on(&log, &Faults::new()));
    let mut unit = bank.begin();
    for (account, amount) in [("a", -1), ("b", 1)] {
        let booked = vec![Booked { transfer: 1, amount }];
        unit.record(&bank.accounts, &account.to_owned(), booked).await.unwrap();
    }
    other.transfer(2, "b", "c").await.unwrap();
    faults.plan_when(|call| call.kind == CallKind::Write, Fault::LostWrite);
    let error = unit.commit().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "account b was at version 0 when the unit read it and is at 1; nothing was stored, begin the unit again"
    );
    assert_eq!((audit(&other).await, faults.planned()), (vec![2], 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn givers_up_leave_no_half_transfer_on_a_server() {
    let (mut stored, mut open) = (0, 0);
    let server = TestServer::start().await;
    for seed in 0..50 {
        let context = server.name(&format!("bank-{seed}"));
        let connect = async || Bank::connect(&[server.url()], &context, 30_000).await;
        let banks = [connect().await, connect().await];
        let known = open_for_business(&banks, seed, 20).await;
        known.check(&banks[0], seed).await;
        stored += known.stored.len();
        open += known.open.len();
    }
    assert!(stored > 100 && open > 100, "{stored} stored, {open} open");
}
