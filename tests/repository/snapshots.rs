//! Snapshots: when they are taken, when they are used, and that they are never believed unseen.

use std::num::NonZeroU64;

use cim_persistence::event::DomainEvent;
use cim_persistence::prelude::Aggregate;
use cim_persistence::repository::{LoadOptions, Repository, SaveOptions, SnapshotPolicy};
use cim_persistence::store::ExpectedVersion;
use futures::TryStreamExt;
use ipld_core::ipld::Ipld;
use serde::{Deserialize, Serialize};

use crate::domain::{
    Account, AccountEvent, Lab, account, bare_bank, deposit, deposit_times, deposited,
};

const BUCKET: &str = "cim-snapshots-bank";

async fn keys(lab: &Lab) -> Vec<String> {
    let mut keys: Vec<String> =
        lab.bucket(BUCKET).await.keys().await.unwrap().try_collect().await.unwrap();
    keys.sort();
    keys
}

/// Loads, replaying at most so many events.
fn within(events: usize) -> LoadOptions {
    LoadOptions { max_events: Some(events), ..LoadOptions::default() }
}

#[tokio::test]
async fn snapshot_saves_replaying_what_it_covers() {
    let lab = Lab::start().await;
    let accounts = lab.accounts_with(&bare_bank()).await;
    deposit_times(&accounts, "a", 3).await;
    let options = SaveOptions {
        expected_version: ExpectedVersion::Exact(3),
        create_snapshot: true,
        ..SaveOptions::default()
    };
    accounts.save(&account("a"), vec![deposited(1)], options).await.unwrap();
    assert_eq!(keys(&lab).await, ["account.a.4"]);
    assert_eq!(accounts.load(&"a".into(), within(0)).await.unwrap().0.cents, 4);
    deposit(&accounts, "a", 1).await;
    assert_eq!(accounts.load(&"a".into(), within(1)).await.unwrap().0.cents, 5);
    // An older version is replayed from the nearest snapshot before it.
    accounts.create_snapshot(&"a".into()).await.unwrap();
    let fourth = LoadOptions { version: Some(4), ..within(0) };
    assert_eq!(accounts.load(&"a".into(), fourth).await.unwrap().0.cents, 4);
    let third = LoadOptions { version: Some(3), ..within(2) };
    accounts.load(&"a".into(), third).await.unwrap_err();
}

#[tokio::test]
async fn snapshot_is_named_by_the_cid_of_what_is_stored() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    deposit_times(&accounts, "a", 2).await;
    let cid = accounts.create_snapshot(&"a".into()).await.unwrap();
    assert_eq!(accounts.create_snapshot(&"a".into()).await.unwrap(), cid);
    assert_eq!(lab.accounts().await.create_snapshot(&"a".into()).await.unwrap(), cid);
    let stored = lab.bucket(BUCKET).await.get("account.a.2").await.unwrap().unwrap();
    cim_persistence::ipld::verify_cid(&cid, &stored).unwrap();
}

#[tokio::test]
async fn policies_take_snapshots_when_they_say() {
    let lab = Lab::start().await;
    let never = lab.accounts().await;
    let always = never.clone().with_snapshots(SnapshotPolicy::Always);
    let third = never.clone().with_snapshots(SnapshotPolicy::Every(NonZeroU64::new(3).unwrap()));
    deposit_times(&never, "never", 4).await;
    deposit_times(&always, "always", 2).await;
    deposit_times(&third, "third", 7).await;
    // A commit that passes the multiple counts as well.
    let two = || vec![deposited(1), deposited(1)];
    third.save(&account("pairs"), two(), ExpectedVersion::Any).await.unwrap();
    third.save(&account("pairs"), two(), ExpectedVersion::Any).await.unwrap();
    never.context().flush().await;
    assert_eq!(
        keys(&lab).await,
        [
            "account.always.1",
            "account.always.2",
            "account.pairs.4",
            "account.third.3",
            "account.third.6"
        ]
    );
}

#[tokio::test]
async fn damaged_snapshot_is_passed_over() {
    let lab = Lab::start().await;
    let accounts = lab.accounts_with(&bare_bank()).await;
    deposit_times(&accounts, "a", 3).await;
    let bucket = lab.bucket(BUCKET).await;
    bucket.put("account.a.3", "no block".into()).await.unwrap();
    bucket.put("account.a.many", "no version".into()).await.unwrap();
    assert_eq!(accounts.load(&"a".into(), LoadOptions::default()).await.unwrap().0.cents, 3);
    assert_eq!(accounts.get_at_version(&"a".into(), 3).await.unwrap().0.cents, 3);
    // Asked for a snapshot, it replaces what is none.
    let cid = accounts.create_snapshot(&"a".into()).await.unwrap();
    let stored = bucket.get("account.a.3").await.unwrap().unwrap();
    cim_persistence::ipld::verify_cid(&cid, &stored).unwrap();
}

/// Puts a snapshot with changes beside the true one.
async fn forge(lab: &Lab, from: &str, to: &str, changes: &[(&str, Ipld)]) {
    let bucket = lab.bucket(BUCKET).await;
    let stored = bucket.get(from).await.unwrap().unwrap();
    let Ipld::Map(mut record) = serde_ipld_dagcbor::from_slice(&stored).unwrap() else {
        panic!("a record is a map")
    };
    for (field, value) in changes {
        assert!(record.insert((*field).to_owned(), value.clone()).is_some(), "{field} is a field");
    }
    let forged = serde_ipld_dagcbor::to_vec(&Ipld::Map(record)).unwrap();
    bucket.put(to, forged.into()).await.unwrap();
}

fn state(cents: i64) -> (&'static str, Ipld) {
    let account = Account { id: "a".into(), owner: String::new(), cents };
    ("state", ipld_core::serde::to_ipld(account).unwrap())
}

#[tokio::test]
async fn snapshot_that_disagrees_with_the_events_is_passed_over() {
    let lab = Lab::start().await;
    let accounts = lab.accounts_with(&bare_bank()).await;
    deposit_times(&accounts, "a", 3).await;
    accounts.create_snapshot(&"a".into()).await.unwrap();
    deposit_times(&accounts, "b", 4).await;
    accounts.create_snapshot(&"b".into()).await.unwrap();
    let right = async |accounts: &Repository<Account>, what: &str| {
        let load = async |version| {
            let options = LoadOptions { version, ..LoadOptions::default() };
            let loaded = accounts.load(&"a".into(), options).await;
            loaded.unwrap_or_else(|error| panic!("{what}: {error}")).0.cents
        };
        assert_eq!(load(None).await, 3, "{what}");
        assert_eq!(load(Some(3)).await, 3, "{what}");
        assert_eq!(load(Some(2)).await, 2, "{what}");
    };
    let ahead = [("version", Ipld::from(9)), ("position", Ipld::from(9)), state(99)];
    forge(&lab, "account.a.3", "account.a.9", &ahead).await;
    right(&accounts, "a snapshot of a version that the log does not have").await;
    let beyond = accounts.get_at_version(&"a".into(), 9).await.unwrap_err();
    assert_eq!(beyond.to_string(), "account a has version 3, not yet 9");
    forge(&lab, "account.b.4", "account.a.9", &[]).await;
    right(&accounts, "a snapshot of another aggregate").await;
    lab.bucket(BUCKET).await.purge("account.a.9").await.unwrap();
    let other_history = [("position", Ipld::from(2)), state(99)];
    forge(&lab, "account.a.3", "account.a.3", &other_history).await;
    right(&accounts, "a snapshot that ends at another position").await;
    forge(&lab, "account.a.3", "account.a.3", &[("position", Ipld::from(3))]).await;
    forge(&lab, "account.a.3", "account.a.3", &[("head", Ipld::Null), state(99)]).await;
    right(&accounts, "a snapshot that ends at another event").await;
}

/// Accounts as a later release keeps them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CountingAccount {
    id: String,
    pub(crate) entries: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Entry(AccountEvent);

impl DomainEvent for Entry {
    fn event_type(&self) -> &'static str {
        self.0.event_type()
    }
}

impl Aggregate for CountingAccount {
    const TYPE: &'static str = "account";
    const STATE_VERSION: u32 = 2;
    type Id = String;
    type Event = Entry;
    fn new(id: &String) -> Self {
        Self { id: id.clone(), entries: 0 }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, _: &Entry) {
        self.entries += 1;
    }
}

#[tokio::test]
async fn snapshot_and_state_of_another_shape_are_derived_again_and_replaced() {
    let lab = Lab::start().await;
    let old = lab.accounts().await;
    deposit_times(&old, "a", 3).await;
    old.create_snapshot(&"a".into()).await.unwrap();
    old.context().flush().await;
    let open = async || {
        let context = lab.process(&crate::domain::bank()).await;
        Repository::<CountingAccount>::of(&context).unwrap()
    };
    let new = open().await;
    let (loaded, known) = new.load(&"a".into(), LoadOptions::default()).await.unwrap();
    assert_eq!((loaded.entries, known.version), (3, 3));
    assert_eq!(new.get_at_version(&"a".into(), 3).await.unwrap().0.entries, 3);
    new.context().flush().await;
    let fresh = open().await.load(&"a".into(), within(0)).await.unwrap();
    assert_eq!(fresh.0.entries, 3, "the new shape is kept after the first load");
    let cid = new.create_snapshot(&"a".into()).await.unwrap();
    let stored = lab.bucket(BUCKET).await.get("account.a.3").await.unwrap().unwrap();
    cim_persistence::ipld::verify_cid(&cid, &stored).unwrap();
    // The old release runs on beside the new one.
    assert_eq!(
        lab.accounts().await.load(&"a".into(), LoadOptions::default()).await.unwrap().0.cents,
        3
    );
}
