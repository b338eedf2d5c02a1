//! Everything that can happen to a store, drawn from seeds: nothing is lost, doubled or halved.

use std::collections::HashSet;
use std::sync::Arc;

use cim_persistence::event_log::MemoryLog;
use cim_persistence::repository::{Repository, RepositoryError};
use cim_persistence::state::MemoryKeyValue;
use cim_persistence::store::{Context, ExpectedVersion, Ports, StoreError};
use cim_persistence::testing::faults::{Faults, Rates};
use futures::future::join_all;

use crate::domain::{Log, config, enter, sound};

const SEEDS: u64 = 300;
const WRITERS: u64 = 6;
const STEPS: u64 = 8;

struct Store {
    log: MemoryLog,
    state: MemoryKeyValue,
    snapshots: MemoryKeyValue,
}

impl Store {
    fn new() -> Self {
        Self {
            log: MemoryLog::new(),
            state: MemoryKeyValue::new("state"),
            snapshots: MemoryKeyValue::new("snapshots"),
        }
    }

    /// A process of its own on this store, where these faults meet it.
    fn process(&self, faults: &Faults) -> Repository<Log> {
        let ports = Ports::new(
            Arc::new(self.log.clone().with_faults(faults)),
            Arc::new(self.state.clone().with_faults(faults)),
            Arc::new(self.snapshots.clone().with_faults(faults)),
            Arc::new(MemoryKeyValue::new("readmodels")),
        );
        Repository::of(&Context::on(ports, &config(1, 15)).unwrap()).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_drawn_nothing_is_lost_doubled_or_halved() {
    let rates = Rates {
        lost_ack: 80,
        lost_write: 80,
        late_write: 80,
        conflict: 20,
        stale_read: 150,
        outage: 60,
    };
    let (mut met, mut unknown) = (0, 0);
    for seed in 0..SEEDS {
        let (store, faults) = (Store::new(), Faults::random(seed, rates));
        let processes = [store.process(&faults), store.process(&faults)];
        let writers = (0..WRITERS).map(async |writer| {
            let (mut stored, mut open) = (HashSet::new(), HashSet::new());
            for step in 0..STEPS {
                let number = step * WRITERS + writer;
                let logs = &processes[(writer % 2) as usize];
                let (id, events) = (format!("log-{}", writer % 3), 1 + (number % 3) as usize);
                match enter(logs, &id, number, events, ExpectedVersion::Any).await {
                    Ok(_) => stored.insert(number),
                    Err(RepositoryError::Store(StoreError::OutcomeUnknown { .. })) => {
                        open.insert(number)
                    }
                    Err(_) => false,
                };
            }
            (stored, open)
        });
        let outcomes = join_all(writers).await;
        faults.calm();
        faults.deliver_late();
        let there = sound(&store.process(&Faults::new())).await;
        for (stored, open) in &outcomes {
            assert!(stored.is_subset(&there), "seed {seed}: acknowledged and not there");
            unknown += open.len();
        }
        let known: HashSet<u64> =
            outcomes.iter().flat_map(|(stored, open)| stored.union(open)).copied().collect();
        assert!(there.is_subset(&known), "seed {seed}: refused and there all the same");
        met += faults.met();
    }
    assert!(met > 1000 && unknown > 0, "{met} faults met, {unknown} outcomes unknown");
}
