//! Aggregates searched: by pattern, tags and specification, never older than their events unless that is asked for.

use std::num::NonZeroUsize;

use cim_persistence::backend::{Bound, ReadFrom};
use cim_persistence::event::{NonEmpty, Tag};
use cim_persistence::repository::{
    Freshness, LoadOptions, QueryFreshness, QueryOptions, Repository, RepositoryError, SaveOptions,
};
use cim_persistence::specification::{SearchOptions, Specification, SpecificationError, field};
use cim_persistence::state::{Change, Expected, Key, KeyValue, KeyWrite};
use cim_persistence::store::{ExpectedVersion, StoreError};
use cim_persistence::subject::{AggregateType, InvalidPattern, InvalidToken};
use cim_persistence::testing::faults::{CallKind, Fault, Faults};
use futures::TryStreamExt;

use crate::branches::{
    Branches, Memory, Path, Place, branch, ids, many, open_many, pay_in, seen, tagged,
};
use crate::domain::{Account, bank, bare_bank, deposited};

fn of(pattern: &str) -> QueryOptions {
    QueryOptions { subject_pattern: Some(pattern.to_owned()), ..QueryOptions::default() }
}

fn kept(options: QueryOptions) -> QueryOptions {
    QueryOptions { freshness: QueryFreshness::Kept, ..options }
}

async fn found(branches: &Branches, options: &QueryOptions) -> Vec<String> {
    let found = branches.query(options).await.unwrap();
    ids(&found).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn pattern_tags_order_and_part_of_it() {
    for place in Place::all().await {
        let branches = place.branches().await;
        for (id, cents, tags) in [
            ("eu.berlin.1", 10, &["old"][..]),
            ("eu.berlin.2", 30, &["old", "busy"]),
            ("eu.paris.1", 20, &["busy"]),
            ("us.a b", 5, &[]),
            ("eu.state", 7, &["old"]),
            ("eu.rome.1", 1, &["old"]),
        ] {
            tagged(&branches, id, cents, tags).await;
        }
        branches.delete(&Path("eu.rome.1".into()), SaveOptions::default()).await.unwrap();
        branches.context().flush().await;
        let fresh = place.branches().await;
        for branches in [&branches, &fresh] {
            for freshness in [QueryFreshness::Checked, QueryFreshness::Kept] {
                let with = |options: QueryOptions| QueryOptions { freshness, ..options };
                for (pattern, wanted) in [
                    ("branch.eu.berlin.*", &["eu.berlin.1", "eu.berlin.2"][..]),
                    ("cim.events.bank.branch.eu.*.1", &["eu.berlin.1", "eu.paris.1"]),
                    ("cim.aggregates.bank.branch.*.*.state", &["eu.state", "us.a b"]),
                    ("cim.aggregates.bank.branch.eu.berlin.1.state", &["eu.berlin.1"]),
                    ("cim.aggregates.bank.branch.us.a=20b.>", &["us.a b"]),
                    ("branch.us.a=20b", &["us.a b"]),
                    ("branch.eu.rome.>", &[]),
                    ("*.us.>", &["us.a b"]),
                ] {
                    let options = with(of(&place.text(pattern)));
                    assert_eq!(found(branches, &options).await, wanted, "{pattern}");
                }
                let tags = |tags: &[&str]| QueryOptions {
                    tags: tags.iter().map(|tag| Tag::new(*tag).unwrap()).collect(),
                    ..with(of("branch.eu.>"))
                };
                let old = ["eu.berlin.1", "eu.berlin.2", "eu.state"];
                assert_eq!(found(branches, &tags(&["old"])).await, old);
                assert_eq!(found(branches, &tags(&["old", "busy"])).await, ["eu.berlin.2"]);
                let sorted = QueryOptions {
                    sort_by: vec!["-cents".parse().unwrap()],
                    specification: field("cents").gt(5),
                    aggregate_type: Some(AggregateType::new("branch").unwrap()),
                    ..with(QueryOptions::default())
                };
                let all = ["eu.berlin.2", "eu.paris.1", "eu.berlin.1", "eu.state"];
                assert_eq!(found(branches, &sorted).await, all);
                let part = |offset, limit| QueryOptions { offset, limit, ..sorted.clone() };
                assert_eq!(found(branches, &part(1, Some(2))).await, all[1..3]);
                assert_eq!(found(branches, &part(3, None)).await, all[3..]);
                assert_eq!(found(branches, &part(9, Some(1))).await, [""; 0]);
            }
        }
        let known = &fresh.query(&of("branch.eu.berlin.2")).await.unwrap()[0].1;
        let loaded = fresh.get(&Path("eu.berlin.2".into())).await.unwrap().1;
        assert_eq!(
            (known.version, known.position, known.head_cid, known.state_cid, &known.tags),
            (loaded.version, loaded.position, loaded.head_cid, loaded.state_cid, &loaded.tags)
        );
    }
}

#[tokio::test]
async fn what_is_found_is_as_new_as_the_events_unless_kept_state_is_asked_for() {
    for place in Place::all().await {
        let keeper = place.branches().await;
        for id in ["changed.once", "changed.often", "deleted", "same"] {
            pay_in(&keeper, id, 1).await;
        }
        keeper.context().flush().await;
        // Does not write states, as a process that dies before it does.
        let writer = place.process(&bare_bank()).await;
        pay_in(&writer, "changed.once", 1).await;
        for _ in 0..20 {
            pay_in(&writer, "changed.often", 1).await;
        }
        pay_in(&writer, "made", 1).await;
        writer.delete(&Path("deleted".into()), SaveOptions::default()).await.unwrap();
        let newest = [("changed.once", (2, 2)), ("changed.often", (21, 21)), ("made", (1, 1))];
        let newest = newest.into_iter().chain([("same", (1, 1))]);
        let newest = newest.map(|(id, row)| (id.to_owned(), row)).collect();
        let all = QueryOptions::default();
        let reader = place.branches().await;
        let old = reader.query(&kept(all.clone())).await.unwrap();
        assert_eq!(ids(&old), ["changed.often", "changed.once", "deleted", "same"]);
        assert!(old.iter().all(|(branch, known)| (branch.cents, known.version) == (1, 1)));
        for branches in [&reader, &keeper, &writer] {
            assert_eq!(seen(&branches.query(&all).await.unwrap()), newest);
        }
        // Without kept states there is nothing else to go by than the events.
        assert_eq!(seen(&writer.query(&kept(all)).await.unwrap()), newest);
    }
}

#[tokio::test]
async fn a_replica_that_is_behind_hides_nothing_that_is_kept() {
    let memory = Memory::new();
    let writer = memory.branches();
    pay_in(&writer, "a", 1).await;
    pay_in(&writer, "a", 1).await;
    pay_in(&writer, "b", 1).await;
    writer.context().flush().await;
    let faults = Faults::new();
    let reader = Memory { log: memory.log.clone().with_faults(&faults), ..memory }.branches();
    for writes in 1..=3 {
        faults.plan_when(|call| call.kind == CallKind::NearestRead, Fault::StaleRead(writes));
        let found = reader.query(&QueryOptions::default()).await.unwrap();
        assert_eq!(faults.planned(), 0);
        let newest = [("a".to_owned(), (2, 2)), ("b".to_owned(), (1, 1))];
        assert_eq!(seen(&found), newest.into(), "behind by {writes}");
    }
    faults.plan(Fault::Outage);
    let error = reader.query(&QueryOptions::default()).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Store(StoreError::Backend(_))), "{error:?}");
}

#[tokio::test]
async fn states_that_cannot_be_read_are_derived_again() {
    let memory = Memory::new();
    let writer = memory.branches();
    for id in ["a", "b", "c"] {
        pay_in(&writer, id, 1).await;
    }
    writer.context().flush().await;
    let key = |name: &str| Key::new(format!("branch.{name}")).unwrap();
    let of_b = memory.state.get(&key("b"), ReadFrom::Leader).await.unwrap().value.unwrap();
    for (name, value) in [("a", of_b), ("c", "{}".into()), ("=zz", "{}".into())] {
        let change = KeyWrite::new(key(name), Change::Put(value), Expected::Anything);
        memory.state.write(NonEmpty::one(change)).await.unwrap();
    }
    let one = |id: &str| (id.to_owned(), (1, 1));
    let faults = Faults::new();
    let state = memory.state.clone().with_faults(&faults);
    let reader = Memory { state, ..memory }.branches();
    for options in [QueryOptions::default(), kept(QueryOptions::default())] {
        let found = reader.query(&options).await.unwrap();
        assert_eq!(seen(&found), [one("a"), one("b"), one("c")].into());
    }
    // Kept states are not needed for an answer that is compared with the events.
    faults.begin_outage();
    assert_eq!(reader.list_all().await.unwrap().len(), 3);
    let error = reader.query(&kept(QueryOptions::default())).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Store(StoreError::Backend(_))), "{error:?}");
}

#[tokio::test]
async fn more_than_one_answer_holds() {
    const COUNT: usize = 1100;
    for place in Place::all().await {
        let writer = place.branches().await;
        open_many(&writer, COUNT).await;
        let unkept = place.process(&bare_bank()).await;
        pay_in(&unkept, &many(7), 1000).await;
        pay_in(&unkept, "made", 1).await;
        unkept.delete(&Path(many(8)), SaveOptions::default()).await.unwrap();
        let reader = place.branches().await;
        let found = reader.list_all().await.unwrap();
        let ids = ids(&found);
        assert_eq!(ids.len(), COUNT, "one was deleted, one made");
        assert!(ids.is_sorted() && ids[0] == "made" && !ids.contains(&&*many(8)));
        let rows = seen(&found);
        assert_eq!(rows[&many(7)], (1007, 2));
        assert!((9..COUNT).all(|number| rows[&many(number)] == (number as i64, 1)));
        let above = field("cents").ge(1000);
        assert_eq!(reader.count(&above).await.unwrap(), 101);
        let old = reader.query(&kept(of("branch.many.>"))).await.unwrap();
        assert_eq!((old.len(), seen(&old)[&many(7)]), (COUNT, (7, 1)));
    }
}

#[tokio::test]
async fn pages_batches_first_and_count_agree() {
    let branches = Memory::new().branches();
    for number in 0..50 {
        let id = format!("{}.{number:02}", if number % 3 == 0 { "eu" } else { "us" });
        tagged(&branches, &id, number % 7, &[["even", "odd"][number as usize % 2]]).await;
    }
    pay_in(&branches, "eu.00", 100).await;
    let wanted = field("cents").ge(3).and(field("_.tags").contains("odd"));
    let all: Vec<_> = branches.list_all().await.unwrap();
    let mut naive: Vec<_> = all
        .iter()
        .filter(|(branch, known)| {
            branch.cents >= 3 && known.tags.contains(&Tag::new("odd").unwrap())
        })
        .collect();
    naive.sort_by_key(|(branch, _)| (-branch.cents, branch.id.0.clone()));
    assert_eq!(naive.len(), 14);
    let order = || SearchOptions::default().order_by("-cents").unwrap();
    let mut options = order().limit(4);
    let mut paged = Vec::new();
    loop {
        let page = branches.search(&wanted, &options).await.unwrap();
        assert_eq!(page.total, naive.len());
        paged.extend(page.items);
        let Some(next) = page.next else { break };
        options = order().limit(4).cursor(next);
    }
    assert!(ids(&paged).into_iter().eq(naive.iter().map(|(branch, _)| branch.id.0.as_str())));
    assert_eq!(branches.count(&wanted).await.unwrap(), naive.len());
    let first = branches.first(&wanted, &order()).await.unwrap().unwrap();
    assert_eq!(first.0.id, naive[0].0.id);
    assert!(branches.first(&field("cents").gt(1000), &order()).await.unwrap().is_none());
    let batches = branches.search_stream(&wanted, NonZeroUsize::new(5).unwrap()).await.unwrap();
    let batches: Vec<_> = batches.try_collect().await.unwrap();
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5, 4]);
    assert_eq!(seen(batches.iter().flatten()), seen(naive.iter().copied()));
    for (specification, count) in [
        (field("_.id").starts_with("eu."), 17),
        (field("_.version").eq(2), 1),
        (field("_.last_modified").gt(0), 50),
        (field("_.last_modified").lt(0), 0),
        (Specification::everything(), 50),
    ] {
        assert_eq!(branches.count(&specification).await.unwrap(), count, "{specification:?}");
    }
    let kinds = SearchOptions::default().distinct().fields(["cents"]);
    let kinds = branches.search(&Specification::everything(), &kinds).await.unwrap();
    assert_eq!((kinds.items.len(), kinds.total), (8, 8));
    assert!(
        kinds.items.iter().all(|(branch, known)| branch.id.0 == known.aggregate_id.to_string())
    );
}

#[tokio::test]
async fn a_task_of_its_own_can_ask() {
    let branches = Memory::new().branches();
    pay_in(&branches, "a", 1).await;
    let asking = tokio::spawn(async move {
        let listed = branches.list_all().await.unwrap();
        let loaded = branches.load_matching(None, Bound::Newest).await.unwrap();
        (seen(&listed), seen(&loaded))
    });
    let (listed, loaded) = asking.await.unwrap();
    assert_eq!((listed.len(), &listed), (1, &loaded));
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_before_anything_is_read() {
    let faults = Faults::new();
    let memory = Memory::new();
    let branches = Memory { log: memory.log.clone().with_faults(&faults), ..memory }.branches();
    faults.begin_outage();
    let refused = async |options: QueryOptions| branches.query(&options).await.unwrap_err();
    let error = refused(of("cim.events.shop.branch.*")).await;
    assert!(matches!(&error, RepositoryError::Pattern(InvalidPattern::OtherAggregates { .. })));
    let error = refused(of("account.*")).await;
    assert_eq!(
        error.to_string(),
        "pattern \"account.*\" means none of these aggregates; begin it with one of \
         cim.events.bank.branch., cim.aggregates.bank.branch., branch."
    );
    let error = refused(of("branch.a*")).await;
    assert!(matches!(error, RepositoryError::Pattern(InvalidPattern::MixedWildcard { .. })));
    let asked = Some(AggregateType::new("account").unwrap());
    let error = refused(QueryOptions { aggregate_type: asked, ..QueryOptions::default() }).await;
    assert_eq!(
        error.to_string(),
        "this repository holds branch, not account; ask the repository of account"
    );
    let sort_by = vec!["-balance".parse().unwrap()];
    let error = refused(QueryOptions { sort_by, ..QueryOptions::default() }).await;
    assert_eq!(error.to_string(), "there is no field \"balance\"; known are id, owner, cents, _");
    let error = branches.count(&field("cent").eq(1)).await.unwrap_err();
    assert!(matches!(
        error,
        RepositoryError::Specification(SpecificationError::UnknownField { .. })
    ));
    let batch = NonZeroUsize::MIN;
    assert!(branches.search_stream(&field("owner").regex("("), batch).await.is_err());
    faults.end_outage();
    for id in ["a", "b"] {
        pay_in(&branches, id, 1).await;
    }
    let one = SearchOptions::default().limit(1);
    let page = branches.search(&Specification::everything(), &one).await.unwrap();
    let foreign = one.cursor(page.next.unwrap());
    let error = branches.search(&field("cents").eq(1), &foreign).await.unwrap_err();
    assert!(matches!(
        error,
        RepositoryError::Specification(SpecificationError::CursorOfAnotherQuery)
    ));
}

#[tokio::test]
async fn an_id_that_is_not_of_the_type_is_an_error_and_no_gap() {
    let memory = Memory::new();
    let branches = memory.branches();
    pay_in(&branches, "a", 1).await;
    pay_in(&branches, "a.b", 1).await;
    // Accounts have ids of one token.
    let accounts = Repository::<Account>::named(branches.context(), "branch").unwrap();
    let error = accounts.query(&QueryOptions::default()).await.unwrap_err();
    assert!(
        matches!(
            &error,
            RepositoryError::Store(StoreError::InvalidToken(InvalidToken::WrongType { .. }))
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn adding_makes_or_changes_and_notices_others() {
    let memory = Memory::new();
    let (ours, theirs) = (memory.branches(), memory.process(&bank()));
    let made = ours.add(&branch("a"), vec![deposited(1)], None).await.unwrap();
    assert_eq!(made.version, 1);
    let error = theirs.add(&branch("a"), vec![deposited(1)], None).await.unwrap_err();
    assert!(matches!(error, RepositoryError::VersionConflict { expected: 0, actual: 1 }));
    let (loaded, known) = theirs.get(&Path("a".into())).await.unwrap();
    theirs.add(&loaded, vec![deposited(2)], Some(&known)).await.unwrap();
    let error = ours.add(&branch("a"), vec![deposited(4)], Some(&made)).await.unwrap_err();
    assert!(matches!(error, RepositoryError::VersionConflict { expected: 1, actual: 2 }));
    assert_eq!(ours.get(&Path("a".into())).await.unwrap().0.cents, 3);
    let latest = LoadOptions { freshness: Freshness::Latest, ..LoadOptions::default() };
    assert_eq!(ours.load(&Path("a".into()), latest).await.unwrap().1.version, 2);
    let error = ours.get(&Path("b".into())).await.unwrap_err();
    assert!(matches!(error, RepositoryError::NotFound { deleted: None, .. }));
    let known = ours.save(&branch("b"), vec![deposited(1)], ExpectedVersion::NoStream).await;
    assert_eq!(known.unwrap().version, 1);
}
