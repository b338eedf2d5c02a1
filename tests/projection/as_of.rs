//! State folded when it is asked for, and models as they were.

use cim_persistence::backend::{Bound, Position};
use cim_persistence::projection::{
    Fold, ModelsAsOf, load_projection, load_projection_as_of, load_projection_with_snapshot,
};
use cim_persistence::store::{EventFilter, StoredEvent};
use cim_persistence::subject::AggregateId;
use serde::{Deserialize, Serialize};

use crate::domain::{Balance, Balances, Moved, Store, Total, accounts, many_moves};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Sum {
    account: String,
    cents: i64,
    /// How many events this process has folded; a snapshot brings it along.
    folded: u64,
}

impl Fold for Sum {
    type Event = Moved;
    fn filters(&self) -> Vec<EventFilter> {
        let id = AggregateId::new(&self.account).unwrap();
        vec![EventFilter::for_aggregate(accounts(), id)]
    }
    fn apply(&mut self, event: Moved, _: &StoredEvent) {
        self.cents += event.cents;
        self.folded += 1;
    }
}

fn sum(account: &str) -> Sum {
    Sum { account: account.to_owned(), ..Sum::default() }
}

#[tokio::test(start_paused = true)]
async fn a_fold_reads_what_it_is_about_up_to_where_it_is_asked() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 70).await;
    // Every seventh event moves from this account.
    let all = load_projection(&context, sum("a3")).await.unwrap();
    let cents: i64 = (0..70).filter(|n| n % 7 == 3).sum();
    assert_eq!((all.state.cents, all.state.folded), (cents, 10));
    let bound = Bound::Position(Position::new(18));
    let early = load_projection_as_of(&context, sum("a3"), bound).await.unwrap();
    assert_eq!((early.state.cents, early.position), (3 + 10 + 17, Position::new(18)));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_shortens_the_fold_and_is_not_believed_of_another_log() {
    let store = Store::new();
    let context = store.healthy();
    let load = async |context, version| {
        let initial = sum("a3");
        let folded = load_projection_with_snapshot(context, "sum of a3", version, 5, initial);
        folded.await.unwrap().state
    };
    many_moves(&context, 70).await;
    let first = load(&context, 1).await;
    let keys = context.read_models().keys(">").await.unwrap();
    assert_eq!(keys, [], "a snapshot is no read model");
    many_moves(&context, 7).await;
    // What a snapshot held is not folded again, but counted in it.
    assert_eq!(
        load(&context, 1).await,
        Sum { cents: first.cents + 3, folded: 11, ..first.clone() }
    );
    assert_eq!(load(&context, 2).await.folded, 11);
}

#[tokio::test(start_paused = true)]
async fn models_as_of_a_position_are_what_they_were_then() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 100).await;
    for position in [0, 1, 37, 100] {
        let bound = Bound::Position(Position::new(position));
        let models = ModelsAsOf::load(&context, &Balances::<1>, bound).await.unwrap();
        assert_eq!(models.position, Position::new(position));
        let total = models.get::<Total>(&AggregateId::new("all").unwrap());
        assert_eq!(total.map_or(0, |total| total.moves), position);
        let balances = models.matching::<Balance>("balance.*").unwrap();
        let moves: usize = balances.iter().map(|(_, balance)| balance.moves.len()).sum();
        assert_eq!(moves as u64, 2 * position);
        assert!(balances.iter().all(|(id, balance)| id.as_str() == balance.account));
    }
    let newest = ModelsAsOf::load(&context, &Balances::<1>, Bound::Newest).await.unwrap();
    assert_eq!(newest.position, Position::new(100));
    assert!(newest.matching::<Balance>("total.*").is_err());
}
