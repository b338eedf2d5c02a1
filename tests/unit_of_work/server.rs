//! Units on real servers: guards that the servers keep, and servers that are killed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cim_persistence::server::{Node, PrivateCluster};
use cim_persistence::store::StoreError;
use cim_persistence::unit_of_work::UnitError;
use futures::future::join_all;
use tokio::time::timeout;

use crate::domain::{Bank, Booked, LimitSet, audit, message};
use crate::test_server::TestServer;

/// Every way in which a batch can rest on what was only read.
async fn rests_on_what_it_read(bank: &Bank) {
    for messages in 0..3 {
        for stale in [false, true] {
            let mut unit = bank.begin();
            let day = format!("day-{messages}-{stale}");
            let account = format!("account-{messages}-{stale}");
            let most = unit.load(&bank.limits, &day).await.unwrap().most;
            unit.claim("iban", &account, &bank.accounts, &account).await.unwrap();
            let booked = vec![Booked { transfer: 0, amount: most }; 2];
            unit.record(&bank.accounts, &account, booked).await.unwrap();
            for number in 0..messages {
                unit.send(message(number));
            }
            if stale {
                let mut other = bank.begin();
                other.record(&bank.limits, &day, vec![LimitSet(5)]).await.unwrap();
                other.commit().await.unwrap();
            }
            let stored = bank.context.status().await.unwrap().messages;
            match unit.commit().await {
                Ok(committed) => {
                    assert!(!stale);
                    assert_eq!(committed.messages as u64, 3 + messages.max(1));
                }
                Err(error) => {
                    assert!(stale && error.is_conflict(), "{error}");
                    assert_eq!(bank.context.status().await.unwrap().messages, stored);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_keeps_every_guard() {
    let server = TestServer::start().await;
    let bank = Bank::connect(&[server.url()], &server.name("guards"), 30_000).await;
    rests_on_what_it_read(&bank).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_keep_every_guard_while_leaders_die() {
    let mut cluster = PrivateCluster::start().await.unwrap();
    let urls = cluster.urls().clone();
    let urls = urls.each_ref().map(String::as_str);
    rests_on_what_it_read(&Bank::connect(&urls, "guards", 30_000).await).await;
    let bank = Bank::connect(&urls, "bank", 30_000).await;
    let other = Bank::connect(&urls, "bank", 30_000).await;
    let (stop, stored) = (AtomicBool::new(false), AtomicU64::new(0));
    let banks = [&bank, &other];
    let tellers = open(&banks, &stop, &stored);
    let killing = async {
        for node in [Node::One, Node::Two] {
            progress(&stored, 40).await;
            cluster.kill(node);
            progress(&stored, 20).await;
            cluster.restart(node).await.unwrap();
        }
        stop.store(true, Ordering::SeqCst);
    };
    futures::join!(tellers, killing);
    assert_eq!(audit(&bank).await.len() as u64, stored.into_inner());
}

/// Sixteen tellers who make one transfer after the other, however often they have to ask, until told to stop.
async fn open(banks: &[&Bank], stop: &AtomicBool, stored: &AtomicU64) {
    let tellers = (0..16).map(async |teller| {
        let bank = banks[(teller % banks.len() as u64) as usize];
        for step in 0.. {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            let number = 1_000_000 * teller + step;
            let (from, to) = (number % 7, (number + 1 + teller % 6) % 7);
            let (from, to) = (format!("from-{from}-{teller}"), format!("to-{to}"));
            loop {
                match bank.transfer(number, &from, &to).await {
                    Ok(_) => break,
                    Err(UnitError::Store(StoreError::OutcomeUnknown { .. })) => {
                        panic!("it is to be found out within the patience")
                    }
                    // Nothing is stored, so the same may be tried again.
                    Err(_) => tokio::task::yield_now().await,
                }
            }
            stored.fetch_add(1, Ordering::SeqCst);
        }
    });
    join_all(tellers).await;
}

/// Waits until so many more transfers are stored.
async fn progress(stored: &AtomicU64, more: u64) {
    let goal = stored.load(Ordering::SeqCst) + more;
    let reached = async {
        while stored.load(Ordering::SeqCst) < goal {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(120), reached).await.expect("tellers get on again");
}
