//! Finding by pattern.

use cim_persistence::read_model::{ReadModel, ReadModelError};
use futures::{StreamExt, TryStreamExt};

use crate::domain::{Board, Place, board, places};

async fn found(place: &Place, pattern: Option<&str>) -> Vec<String> {
    let boards = place.store().query::<Board>(pattern).await.unwrap();
    let mut ids: Vec<_> =
        boards.map_ok(|stored| stored.metadata.id.as_str().to_owned()).try_collect().await.unwrap();
    ids.sort();
    ids
}

async fn fill(place: &Place, origins: &[&str], carriers: &[&str], flights: u32) {
    let store = place.store();
    let mut boards = Vec::new();
    for origin in origins {
        for carrier in carriers {
            boards.extend((0..flights).map(|flight| board(origin, carrier, flight)));
        }
    }
    futures::stream::iter(boards)
        .for_each_concurrent(64, async |board| {
            store.save(&board).await.unwrap();
        })
        .await;
}

#[tokio::test]
async fn a_pattern_finds_what_it_means_and_nothing_else() {
    for place in places().await {
        fill(&place, &["JFK", "LGA"], &["B6", "AA"], 3).await;
        place.store().delete::<Board>(&board("JFK", "B6", 1).id().unwrap()).await.unwrap();
        assert_eq!(found(&place, Some("board.JFK.B6.*")).await, ["JFK.B6.0", "JFK.B6.2"]);
        assert_eq!(found(&place, Some("board.JFK.>")).await.len(), 5);
        assert_eq!(found(&place, Some("cim.readmodels.board.*.AA.*")).await.len(), 6);
        assert_eq!(found(&place, Some("board.*")).await.len(), 0);
        assert_eq!(found(&place, None).await.len(), 11, "{}", place.name);
    }
}

#[tokio::test]
async fn more_than_one_answer_holds_is_streamed_whole() {
    for place in places().await {
        fill(&place, &["JFK"], &["B6", "AA", "UA"], 700).await;
        let ids = found(&place, Some("board.JFK.>")).await;
        assert_eq!(ids.len(), 2100, "{}", place.name);
        assert_eq!(found(&place, Some("board.JFK.UA.*")).await.len(), 700);
        let page = place.store().list::<Board>(3, 2098).await.unwrap();
        assert_eq!((page.total, page.offset, page.limit), (2100, 2098, Some(3)));
        let last: Vec<_> = page.items.iter().map(|s| s.metadata.id.as_str()).collect();
        assert_eq!(last, ["JFK.UA.98", "JFK.UA.99"]);
    }
}

#[tokio::test]
async fn patterns_that_mean_something_else_are_refused() {
    for place in places().await {
        let store = place.store();
        for (pattern, text) in [
            (
                "carrier.B6",
                r#"pattern "carrier.B6" does not name models of type board; begin it with board."#,
            ),
            (
                "board",
                r#"pattern "board" does not name models of type board; begin it with board."#,
            ),
            (">", r#"pattern ">" does not name models of type board; begin it with board."#),
        ] {
            match store.query::<Board>(Some(pattern)).await {
                Err(error @ ReadModelError::OutsideStore { .. }) => {
                    assert_eq!(error.to_string(), text)
                }
                other => panic!("{pattern}: {:?}", other.err()),
            }
        }
        for pattern in ["", "board..x", "board.>.x", "board.a b"] {
            let refused = store.query::<Board>(Some(pattern)).await.err();
            assert!(
                matches!(refused, Some(ReadModelError::InvalidPattern(_))),
                "{pattern}: {refused:?}"
            );
        }
    }
}
