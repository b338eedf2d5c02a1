//! Current state and the cache: derived, never wrong, never needed.

use cim_persistence::repository::{LoadOptions, Repository};
use cim_persistence::store::{Context, NatsRepositoryConfig, Ports};
use ipld_core::ipld::Ipld;

use crate::domain::{Account, Lab, Withdraw, account, bank, deposit, deposit_times, opened};

const BUCKET: &str = "cim-state-bank";

async fn cents(accounts: &Repository<Account>, id: &str) -> i64 {
    accounts.load(&id.to_owned(), LoadOptions::default()).await.unwrap().0.cents
}

/// A field of the state record that is kept of an account.
async fn kept(lab: &Lab, id: &str, field: &str) -> Ipld {
    let stored = lab.bucket(BUCKET).await.get(format!("account.{id}")).await.unwrap().unwrap();
    let Ipld::Map(record) = serde_ipld_dagcbor::from_slice(&stored).unwrap() else {
        panic!("a record is a map")
    };
    record[field].clone()
}

#[tokio::test]
async fn change_by_another_process_is_seen() {
    let lab = Lab::start().await;
    let (ours, theirs) = (lab.accounts().await, lab.accounts().await);
    for round in 1..=10 {
        deposit(&ours, "a", 1).await;
        assert_eq!(cents(&theirs, "a").await, 2 * round - 1);
        deposit(&theirs, "a", 1).await;
        assert_eq!(cents(&ours, "a").await, 2 * round);
    }
    // More than one event behind, and at once in a decision.
    deposit_times(&theirs, "a", 40).await;
    assert_eq!(cents(&ours, "a").await, 60);
    deposit_times(&theirs, "a", 3).await;
    assert_eq!(ours.execute_command(&"a".into(), &Withdraw(63)).await.unwrap().attempts, 1);
    assert_eq!(cents(&theirs, "a").await, 0);
}

#[tokio::test]
async fn cache_of_any_size_is_right() {
    let lab = Lab::start().await;
    let writer = lab.accounts().await;
    for cache_size in [0, 1, 2] {
        let config = NatsRepositoryConfig { cache_size, ..bank() };
        let accounts = lab.accounts_with(&config).await;
        for id in ["a", "b", "c"] {
            let before = deposit(&accounts, id, 1).await.version;
            deposit(&writer, id, 1).await;
            let (loaded, known) =
                accounts.load(&id.to_owned(), LoadOptions::default()).await.unwrap();
            assert_eq!(known.version, before + 1, "cache of {cache_size}");
            assert_eq!(loaded.cents as u64, known.version);
        }
    }
}

#[tokio::test]
async fn cache_holds_no_more_than_its_size() {
    const SIZE: usize = 100;
    let config = NatsRepositoryConfig { cache_size: SIZE, ..bank() };
    let context = Context::on(Ports::in_memory(), &config).unwrap();
    let accounts = Repository::<Account>::of(&context).unwrap();
    for id in 0..3 * SIZE {
        deposit(&accounts, &id.to_string(), 1).await;
    }
    let shown = format!("{accounts:?}");
    let cached = shown.split("cached: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    assert!((SIZE / 2..=SIZE).contains(&cached.parse().unwrap()), "{shown}");
    for id in 0..3 * SIZE {
        assert_eq!(cents(&accounts, &id.to_string()).await, 1);
    }
}

#[tokio::test]
async fn state_is_kept_behind_the_commit_under_the_aggregates_key() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    accounts
        .save(&account("x.y z"), vec![opened("Ada")], cim_persistence::store::ExpectedVersion::Any)
        .await
        .unwrap();
    deposit_times(&accounts, "a", 3).await;
    accounts.context().flush().await;
    assert_eq!(kept(&lab, "a", "version").await, Ipld::from(3));
    assert_eq!(kept(&lab, "x=2Ey=20z", "version").await, Ipld::from(1));
    let none = LoadOptions { max_events: Some(0), ..LoadOptions::default() };
    let fresh = lab.accounts().await.load(&"a".into(), none).await.unwrap();
    assert_eq!(fresh.0.cents, 3, "no event is replayed where state is kept");
}

#[tokio::test]
async fn state_never_goes_backwards_when_processes_race() {
    const ROUNDS: usize = 100;
    let lab = Lab::start().await;
    let (ours, theirs) = (lab.accounts().await, lab.accounts().await);
    let work = async |accounts: &Repository<Account>| {
        for round in 0..ROUNDS {
            deposit(accounts, "a", 1).await;
            if round % 10 == 0 {
                accounts.context().flush().await;
            }
        }
        accounts.context().flush().await;
    };
    let watch = async {
        let mut last = 0;
        let bucket = lab.bucket(BUCKET).await;
        while last < 2 * ROUNDS as i128 {
            let Some(stored) = bucket.get("account.a").await.unwrap() else { continue };
            let Ipld::Map(record) = serde_ipld_dagcbor::from_slice(&stored).unwrap() else {
                panic!("a record is a map")
            };
            let Ipld::Integer(version) = record["version"] else { panic!("a version is a number") };
            assert!(version >= last, "version {version} replaced {last}");
            last = version;
        }
    };
    tokio::time::timeout(
        std::time::Duration::from_secs(60),
        futures::future::join3(work(&ours), work(&theirs), watch),
    )
    .await
    .expect("the state of the last version is kept in the end");
}

#[tokio::test]
async fn state_that_is_no_record_of_this_aggregate_is_ignored() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    deposit_times(&accounts, "a", 3).await;
    deposit_times(&accounts, "b", 7).await;
    accounts.context().flush().await;
    let bucket = lab.bucket(BUCKET).await;
    let of_b = bucket.get("account.b").await.unwrap().unwrap();
    let of_a = bucket.get("account.a").await.unwrap().unwrap();
    for (what, value) in [
        ("another aggregate's", of_b),
        ("cut off", of_a.slice(..of_a.len() - 1)),
        ("empty", "".into()),
        ("text", "{\"version\":3}".into()),
    ] {
        bucket.put("account.a", value).await.unwrap();
        let fresh = lab.accounts().await;
        assert_eq!(cents(&fresh, "a").await, 3, "{what}");
        fresh.context().flush().await;
        assert_eq!(kept(&lab, "a", "id").await, Ipld::from("a"), "{what} record is replaced");
    }
    bucket.delete("account.a").await.unwrap();
    assert_eq!(cents(&lab.accounts().await, "a").await, 3, "deleted");
}

#[tokio::test]
async fn state_that_disagrees_with_the_events_is_ignored() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    deposit_times(&accounts, "a", 3).await;
    accounts.context().flush().await;
    let bucket = lab.bucket(BUCKET).await;
    let of_a = bucket.get("account.a").await.unwrap().unwrap();
    let Ipld::Map(record) = serde_ipld_dagcbor::from_slice(&of_a).unwrap() else {
        panic!("a record is a map")
    };
    let wrong = Account { id: "a".into(), owner: String::new(), cents: 99 };
    let wrong = ipld_core::serde::to_ipld(wrong).unwrap();
    for (what, changes) in [
        ("ahead of the log", vec![("version", Ipld::from(8)), ("position", Ipld::from(8))]),
        ("behind, of another history", {
            vec![("version", Ipld::from(2)), ("position", Ipld::from(2))]
        }),
        ("at another position", vec![("position", Ipld::from(2))]),
        ("of another event", vec![("head", Ipld::Null)]),
        ("of another context", vec![("context", Ipld::from("shop"))]),
    ] {
        let mut forged = record.clone();
        forged.insert("state".to_owned(), wrong.clone());
        for (field, value) in changes {
            assert!(forged.insert(field.to_owned(), value).is_some());
        }
        let forged = serde_ipld_dagcbor::to_vec(&Ipld::Map(forged)).unwrap();
        bucket.put("account.a", forged.into()).await.unwrap();
        let fresh = lab.accounts().await;
        assert_eq!(cents(&fresh, "a").await, 3, "{what}");
        assert_eq!(fresh.execute_command(&"a".into(), &Withdraw(0)).await.unwrap().version, 3);
    }
}

#[tokio::test]
async fn dropping_the_last_handle_writes_the_state_that_waits() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    deposit_times(&accounts, "a", 3).await;
    drop(accounts);
    let bucket = lab.bucket(BUCKET).await;
    let written = async {
        while bucket.get("account.a").await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), written).await.unwrap();
    assert_eq!(kept(&lab, "a", "version").await, Ipld::from(3));
}
