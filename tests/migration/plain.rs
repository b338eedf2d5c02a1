//! Migrations of state that is kept as plain JSON.

use cim_persistence::Context;
use cim_persistence::migration::{
    KeptEdit, KeptState, Migration, MigrationError, MigrationRunner, Migrator, SchemaVersion,
};
use cim_persistence::prelude::*;
use cim_persistence::repository::{LoadOptions, Repository, SaveOptions};
use cim_persistence::store::{NatsRepositoryConfig, Ports};
use ipld_core::ipld::Ipld;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::domain::{Deposited, bank, v};

/// Its owner is written otherwise in plain JSON than in a block.
#[derive(Clone, Serialize, Deserialize)]
struct Owned {
    id: String,
    cents: i64,
    owner: Uuid,
}

impl Aggregate for Owned {
    const TYPE: &'static str = "owned";
    type Id = String;
    type Event = Deposited;
    fn new(id: &String) -> Self {
        Self { id: id.clone(), cents: 0, owner: Uuid::from_u128(7) }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, event: &Deposited) {
        self.cents += event.cents;
    }
}

/// Makes it a thousand cents, which no event tells.
struct Bonus;

impl Migration for Bonus {
    fn name(&self) -> &str {
        "bonus"
    }
    fn from(&self) -> SchemaVersion {
        v(0)
    }
    fn to(&self) -> SchemaVersion {
        v(1)
    }
    async fn up(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        let rich = |kept: &KeptState| match kept.state.clone() {
            Ipld::Map(mut state) => {
                state.insert("cents".to_owned(), Ipld::from(1000));
                Ok(KeptEdit::Put(state.into()))
            }
            _ => Err("no map".into()),
        };
        migrator.state("owned.*", Owned::STATE_VERSION, rich).await
    }
}

/// Whatever the context that migrates would write itself.
#[tokio::test(start_paused = true)]
async fn migrated_state_is_read_as_it_was_written() {
    for (writer, migrating) in [(false, false), (false, true), (true, false), (true, true)] {
        let ports = Ports::in_memory();
        let context = |enable_ipld| {
            let config = NatsRepositoryConfig { enable_ipld, cache_size: 0, ..bank() };
            Context::on(ports.clone(), &config).unwrap()
        };
        let owned = Repository::<Owned>::of(&context(writer)).unwrap();
        let kim = "kim".to_owned();
        let deposits = vec![Deposited { cents: 5 }];
        owned.save(&Owned::new(&kim), deposits, SaveOptions::default()).await.unwrap();
        owned.context().flush().await;
        let mut runner = MigrationRunner::new(&context(migrating), "test");
        runner.add_migration(Bonus).unwrap();
        runner.migrate_to(v(1)).await.unwrap();
        let (loaded, _) = owned.load(&kim, LoadOptions::default()).await.unwrap();
        let found = (loaded.cents, loaded.owner);
        assert_eq!(found, (1000, Uuid::from_u128(7)), "{writer} {migrating}");
    }
}
