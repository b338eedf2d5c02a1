//! What is asked of the boards.

use std::error::Error;
use std::fmt;

use cim_persistence::query::{QueryHint, QueryOptimizer};
use cim_persistence::read_model::ReadModelStore;
use cim_persistence::specification::Specification;
use cim_persistence::store::Context;
use futures::TryStreamExt;
use serde::Serialize;

use crate::boards::{Board, Punctuality};

/// The boards of one airport and one carrier that are more than an hour late, the latest first.
const LATE: &str =
    "subject:board.JFK.*.* AND carrier = 'B6' AND delay > 60 ORDER BY -delay, flight LIMIT 5";

/// How many carriers are shown.
const SHOWN: usize = 5;

/// The answers: how many boards there are, tables of some, and how one query was answered.
#[derive(Debug, Serialize)]
pub(crate) struct Queried {
    pub(crate) boards: usize,
    boards_jfk: usize,
    boards_jfk_b6: usize,
    explain: String,
    #[serde(skip)]
    late: Vec<Board>,
    #[serde(skip)]
    carriers: Vec<Punctuality>,
}

impl Queried {
    pub(crate) async fn ask(context: &Context) -> Result<Self, Box<dyn Error>> {
        let store = ReadModelStore::new(context);
        let boards = store.of::<Board>();
        let everything = Specification::everything();
        let jfk = store.query::<Board>(Some("board.JFK.*.*")).await?;
        let mut carriers: Vec<Punctuality> = store
            .query::<Punctuality>(None)
            .await?
            .map_ok(|stored| stored.model)
            .try_collect()
            .await?;
        carriers.sort_by(|a, b| b.late_share().total_cmp(&a.late_share()));

        let optimizer = QueryOptimizer::new(context).knows::<Board>();
        let plan = optimizer.create_plan(LATE, QueryHint::default()).await?;
        let (found, performance) = optimizer.execute_plan(&plan).await?;
        let late: Result<_, _> =
            found.into_iter().map(|found| serde_json::from_value(found.document)).collect();
        Ok(Self {
            boards: boards.count(None, &everything).await?,
            boards_jfk: jfk.try_fold(0, |n, _| std::future::ready(Ok(n + 1))).await?,
            boards_jfk_b6: boards.count(Some("board.JFK.B6.*"), &everything).await?,
            explain: plan.explain(Some(&performance)),
            late: late?,
            carriers,
        })
    }
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
        writeln!(f, "How the late ones were found:")?;
        self.explain.lines().try_for_each(|line| writeln!(f, "  {line}"))
    }
}
