//! What is asked of the boards.

use std::error::Error;
use std::fmt;

use cim_persistence::read_model::{ReadModelStore, Stored};
use cim_persistence::specification::{SearchOptions, Selection, document_of, field};
use cim_persistence::store::Context;
use futures::TryStreamExt;
use serde::Serialize;

use crate::boards::{Board, Punctuality};

/// How many rows of a table are shown.
const SHOWN: usize = 5;

/// The answers: how many boards there are, and tables of some.
#[derive(Debug, Serialize)]
pub(crate) struct Queried {
    pub(crate) boards: usize,
    boards_jfk: usize,
    boards_jfk_b6: usize,
    #[serde(skip)]
    late: Vec<Board>,
    #[serde(skip)]
    carriers: Vec<Punctuality>,
}

impl Queried {
    pub(crate) async fn ask(context: &Context) -> Result<Self, Box<dyn Error>> {
        let store = ReadModelStore::new(context);
        let jfk: Vec<Stored<Board>> =
            store.query::<Board>(Some("board.JFK.*.*")).await?.try_collect().await?;
        // The boards of one carrier that are more than an hour late, the latest first.
        let late = field("carrier").eq("B6").and(field("delay").gt(60));
        let options = SearchOptions::default().order_by("-delay")?.limit(SHOWN);
        let mut selection = Selection::new(late.compile()?, &options, "board.JFK.*.*")?;
        for stored in &jfk {
            let id = stored.metadata.id.as_str();
            selection.push(id, document_of(&stored.model)?, stored.model.clone());
        }
        let mut carriers: Vec<Punctuality> = store
            .query::<Punctuality>(None)
            .await?
            .map_ok(|stored| stored.model)
            .try_collect()
            .await?;
        carriers.sort_by(|a, b| b.late_share().total_cmp(&a.late_share()));
        Ok(Self {
            boards: count(&store, None).await?,
            boards_jfk: jfk.len(),
            boards_jfk_b6: count(&store, Some("board.JFK.B6.*")).await?,
            late: selection.finish().items.into_iter().map(|found| found.about).collect(),
            carriers,
        })
    }
}

async fn count(store: &ReadModelStore, pattern: Option<&str>) -> Result<usize, Box<dyn Error>> {
    let boards = store.query::<Board>(pattern).await?;
    Ok(boards.try_fold(0, |count, _| std::future::ready(Ok(count + 1))).await?)
}

impl fmt::Display for Queried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { boards, boards_jfk, boards_jfk_b6, .. } = self;
        writeln!(f, "{boards} boards, {boards_jfk} of JFK, {boards_jfk_b6} of them of B6.")?;
        writeln!(f, "Of those, the last flights that left more than an hour late:")?;
        for board in &self.late {
            let Board { carrier, flight, last_departure, flights, .. } = board;
            let delay = board.delay.unwrap_or_default();
            writeln!(
                f,
                "  {carrier} {flight:<4} {last_departure}  {delay:>4} min, one of {flights}"
            )?;
        }
        writeln!(f, "The carriers with the most flights that left more than a quarter late:")?;
        for carrier in self.carriers.iter().take(SHOWN) {
            let Punctuality { carrier: name, departed, cancelled, .. } = carrier;
            let share = carrier.late_share();
            writeln!(f, "  {name} {share:>3.0} % of {departed}, {cancelled} cancelled")?;
        }
        Ok(())
    }
}
