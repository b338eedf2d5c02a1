//! Code written the way the rows of the feature list say.

use std::num::NonZeroU64;

use cim_persistence::event::Metadata;
use cim_persistence::repository::{
    LoadOptions, NatsRepository, RepositoryError, SaveOptions, SnapshotPolicy,
};
use cim_persistence::store::{Context, ExpectedVersion, NatsRepositoryConfig};

use crate::domain::{Account, Lab, account, deposited, opened};

type Anyhow = Result<(), Box<dyn std::error::Error>>;

#[tokio::test]
async fn c1_to_c7_compile_and_work_as_they_are_written() -> Anyhow {
    let lab = Lab::start().await;
    let client = async_nats::connect(lab.server.url()).await?;
    let config = lab.config(&NatsRepositoryConfig::default());
    let repository =
        NatsRepository::<Account>::new(client.clone(), config.clone(), "MyAggregate".to_string())
            .await?;
    let aggregate = account("a");
    let options = SaveOptions {
        expected_version: ExpectedVersion::NoStream,
        create_snapshot: true,
        metadata: Metadata::new([("user", "kim")])?,
        tags: vec!["vip".try_into()?],
        ..SaveOptions::default()
    };
    let saved = repository.save(&aggregate, vec![opened("Ada"), deposited(3)], options).await?;
    assert_eq!((saved.aggregate_type.as_str(), saved.version), ("MyAggregate", 2));
    let id = "a".to_string();
    let options = LoadOptions {
        version: Some(1),
        as_of: None,
        include_events: true,
        use_snapshot: true,
        max_events: Some(100),
        ..LoadOptions::default()
    };
    let (first, known) = repository.load(&id, options).await?;
    assert_eq!((first.owner.as_str(), known.events.len()), ("Ada", 1));
    assert!(repository.exists(&id).await?);
    assert_eq!(repository.get_history(&id, Some(1), Some(2)).await?.len(), 2);
    assert_eq!(repository.get_at_version(&id, 2).await?.0.cents, 3);
    repository.create_snapshot(&id).await?;
    // Opened a second time, everything is there and is used as it is.
    let again = NatsRepository::<Account>::new(client, config, "MyAggregate".to_string()).await?;
    match again.save(&aggregate, vec![deposited(1)], SaveOptions::default()).await {
        Err(RepositoryError::VersionConflict { expected: 0, actual: 2 }) => {}
        other => panic!("{other:?}"),
    }
    again.delete(&id, SaveOptions::default()).await?;
    assert!(matches!(
        again.load(&id, LoadOptions::default()).await,
        Err(RepositoryError::NotFound { .. })
    ));
    Ok(())
}

#[tokio::test]
async fn the_shorter_way_of_connecting_gives_the_same() -> Anyhow {
    let lab = Lab::start().await;
    let shop = Context::connect(lab.server.url(), &lab.server.name("shop")).await?;
    let accounts = NatsRepository::<Account>::of(&shop)?
        .with_snapshots(SnapshotPolicy::Every(NonZeroU64::new(2).expect("2 is not 0")));
    accounts.save(&account("a"), vec![opened("Ada")], SaveOptions::default()).await?;
    let client = async_nats::connect(lab.server.url()).await?;
    let same = NatsRepository::<Account>::new(
        client,
        NatsRepositoryConfig::for_context(lab.server.name("shop")),
        "account".to_string(),
    )
    .await?;
    assert_eq!(same.load(&"a".into(), LoadOptions::default()).await?.0.owner, "Ada");
    Ok(())
}
