//! What a save says when it is not known whether its events are stored.

use std::sync::Arc;

use cim_persistence::repository::{Repository, SaveOptions};
use cim_persistence::store::{Context, NatsRepositoryConfig, Ports};
use cim_persistence::testing::faults::{Fault, Faults};

use crate::branches::Memory;
use crate::domain::{Account, account, bank, deposited, opened};

#[tokio::test(start_paused = true)]
async fn a_save_that_nobody_answers_says_that_it_may_be_stored() {
    let (memory, faults) = (Memory::new(), Faults::new());
    let log = Arc::new(memory.log.clone().with_faults(&faults));
    let config = NatsRepositoryConfig { patience_ms: 1, ..bank() };
    let context = Context::on(Ports { log, ..Ports::in_memory() }, &config).unwrap();
    let accounts = Repository::<Account>::of(&context).unwrap();
    (0..9).for_each(|_| faults.plan(Fault::LostWrite));
    let saved = accounts.save(&account("a"), vec![opened("Ada")], SaveOptions::default()).await;
    let error = saved.unwrap_err();
    assert_eq!(
        error.to_string(),
        "after 10ms it is unknown whether the commit is stored; load the aggregate to see"
    );
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(
        cause,
        "no answer, it is unknown whether anything was stored: injected: the write was lost; read what is stored, or repeat \
         the same write"
    );
}

#[test]
fn a_save_after_the_end_of_the_runtime_of_its_context_says_what_to_do() {
    let first = tokio::runtime::Runtime::new().unwrap();
    let context = first.block_on(async { Context::on(Ports::in_memory(), &bank()).unwrap() });
    drop(first);
    let accounts = Repository::<Account>::of(&context).unwrap();
    let second = tokio::runtime::Runtime::new().unwrap();
    // Several events go by way of a task of the context's.
    let events = vec![opened("Ada"), deposited(1)];
    let saved = second.block_on(accounts.save(&account("a"), events, SaveOptions::default()));
    assert_eq!(
        saved.unwrap_err().to_string(),
        "the runtime that the context was opened on has ended, it is unknown whether the commit is stored; open the \
         context on a runtime that lives on"
    );
}
