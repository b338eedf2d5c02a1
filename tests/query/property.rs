//! Random models, random queries: whatever way is taken, the result is that of selecting among all models.

use cim_persistence::query::{IndexStrategy, Query, QueryHint, QueryOptimizer};
use cim_persistence::read_model::{ModelPattern, ReadModelStore};
use cim_persistence::specification::{
    OrderBy, SearchOptions, Specification, document_of, field, select,
};
use proptest::prelude::*;

use crate::domain::{Board, board, in_memory};

fn boards() -> impl Strategy<Value = Vec<Board>> {
    let one = ("[A-C]", "[a-b]", 0..3_u32, -3..3_i64)
        .prop_map(|(origin, carrier, flight, delay)| board(&origin, &carrier, flight, delay));
    prop::collection::vec(one, 0..20)
}

fn specification() -> impl Strategy<Value = Specification> {
    let leaf = prop_oneof![
        (-3..3_i64).prop_map(|n| field("delay").gt(n)),
        (-3..3_i64).prop_map(|n| field("delay").eq(n)),
        (-3..1_i64, 0..3_i64).prop_map(|(low, high)| field("delay").between(low, high)),
        "[a-c]".prop_map(|text| field("carrier").eq(text)),
        prop::collection::vec("[A-C]", 0..3).prop_map(|texts| field("origin").is_in(texts)),
        Just(field("status").is_null()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Specification::all),
            prop::collection::vec(inner.clone(), 0..3).prop_map(Specification::any),
            inner.prop_map(Specification::not),
        ]
    })
}

fn options() -> impl Strategy<Value = SearchOptions> {
    let order = prop::sample::subsequence(vec!["delay", "carrier", "flight"], 0..3);
    (order, any::<bool>(), prop::option::of(0..5_usize), 0..4_usize, any::<bool>()).prop_map(
        |(order, down, limit, offset, distinct)| {
            let by = |field| match down {
                true => OrderBy::descending(field),
                false => OrderBy::ascending(field),
            };
            let order_by = order.into_iter().map(by).collect();
            SearchOptions { order_by, limit, offset, distinct, ..SearchOptions::default() }
        },
    )
}

fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("board.>".to_owned()),
        "board\\.[A-C]\\.(\\*|[a-b])\\.\\*",
        "board\\.\\*\\.[a-b]\\.[0-2]",
        "board\\.[A-C]\\.[a-b]\\.[0-2]",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn every_way_gives_what_selecting_among_all_gives(
        boards in boards(),
        specification in specification(),
        options in options(),
        pattern in pattern(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let context = in_memory();
            let store = ReadModelStore::new(&context);
            let mut last = std::collections::BTreeMap::new();
            for board in &boards {
                store.save(board).await.unwrap();
                let id = cim_persistence::read_model::ReadModel::id(board).unwrap();
                last.insert(id.to_string(), document_of(board).unwrap());
            }
            let meant = ModelPattern::of_any_type(&pattern).unwrap();
            let scope = meant.to_string();
            let documents = last.into_iter().filter(|(id, _)| meant.matches(id));
            let compiled = specification.clone().compile().unwrap();
            let wanted = select(documents, compiled, &options, &scope).unwrap();
            let found = store.of::<Board>().search(Some(&pattern), &specification, &options).await.unwrap();
            prop_assert_eq!(found.total, wanted.total);
            prop_assert_eq!(&found.next, &wanted.next);
            let ids: Vec<_> = found.items.iter().map(|one| one.metadata.id.as_str()).collect();
            prop_assert_eq!(ids, wanted.items.iter().map(|one| one.id.as_str()).collect::<Vec<_>>());
            let literal = meant.is_literal().then_some(IndexStrategy::KeyValue);
            let others = [None, Some(IndexStrategy::SubjectPattern), Some(IndexStrategy::FullScan)];
            let optimizer = QueryOptimizer::new(&context).knows::<Board>();
            for strategy in others.into_iter().chain(literal.map(Some)) {
                let query = Query::models(meant.clone()).filter(specification.clone()).options(options.clone());
                let hint = QueryHint { strategy, ..QueryHint::default() };
                let plan = optimizer.plan(query, hint).await.unwrap();
                let (page, measured) = optimizer.execute_page(&plan).await.unwrap();
                let found: Vec<_> = page.items.iter().map(|one| &one.document).collect();
                let documents: Vec<_> = wanted.items.iter().map(|one| &one.document).collect();
                prop_assert_eq!(found, documents, "{:?}", strategy);
                prop_assert_eq!((&page.next, page.total), (&wanted.next, wanted.total));
                prop_assert_eq!(measured.matched, wanted.total as u64);
            }
            Ok(())
        })?;
    }
}
