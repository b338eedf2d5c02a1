//! A history that is damaged, reordered, replaced, cut off or forked is found, each with its own error.

use cid::Cid;
use cim_persistence::event::Envelope;
use cim_persistence::ipld::{
    AddError, BlockError, Chain, ChainError, ChainHead, ChainVerifier, ClaimedBlock, Codec, Hash,
    IpldSerializer,
};
use cim_persistence::subject::AggregateId;
use proptest::prelude::*;

use crate::common::{first, formats};

const IPLD: IpldSerializer = IpldSerializer::new(Codec::DagCbor, Hash::Sha2);

fn history(ipld: IpldSerializer, length: u64) -> Chain {
    let mut chain = Chain::new();
    for number in 0..length {
        ipld.add_to_chain(&mut chain, first(&number)).unwrap();
    }
    chain
}

fn verify(blocks: Vec<ClaimedBlock>, head: Cid) -> Result<Option<ChainHead>, ChainError> {
    IPLD.verify_chain(&Chain::claimed(blocks, head))
}

/// A valid block of this version that is not the one of the history.
fn other(version: u64, previous: Option<Cid>) -> ClaimedBlock {
    let (bytes, cid) = IPLD.serialize(&Envelope { version, previous, ..first("another") }).unwrap();
    ClaimedBlock { cid, bytes }
}

#[test]
fn a_history_is_whole_in_every_format() {
    for (codec, hash) in formats() {
        let ipld = IpldSerializer::new(codec, hash);
        let chain = history(ipld, 5);
        let head = ChainHead { version: 5, cid: *chain.head().unwrap() };
        // Who verifies need not know what it was written with.
        assert_eq!(IPLD.verify_chain(&chain), Ok(Some(head)));
    }
    assert_eq!(IPLD.verify_chain(&Chain::new()), Ok(None));
}

#[test]
fn an_event_of_another_aggregate_is_refused() {
    let mut chain = history(IPLD, 2);
    let before = chain.clone();
    let stray = Envelope { id: AggregateId::new("43").unwrap(), ..first(&1) };
    let foreign = ChainError::Foreign {
        version: 3,
        expected: "sales/order/42".to_owned(),
        found: "sales/order/43".to_owned(),
    };
    match IPLD.add_to_chain(&mut chain, stray) {
        Err(AddError::Chain(error)) => assert_eq!(error, foreign),
        other => panic!("{other:?}"),
    }
    assert_eq!(chain, before);
}

#[test]
fn nothing_is_added_to_a_chain_that_does_not_end_with_its_head() {
    let whole = history(IPLD, 3);
    let head = *whole.head().unwrap();
    let mut cut = Chain::claimed(whole.blocks()[..2].to_vec(), head);
    match IPLD.add_to_chain(&mut cut, first(&1)) {
        Err(AddError::Chain(error)) => {
            assert_eq!(error, ChainError::CutOff { version: 2, head: Box::new(head) });
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_history_is_found_among_blocks_in_any_order() {
    let whole = history(IPLD, 4);
    let head = *whole.head().unwrap();
    let mut blocks = whole.blocks().to_vec();
    blocks.reverse();
    blocks.push(other(3, Some(whole.blocks()[1].cid)));
    assert_eq!(IPLD.get_chain(&blocks, &head), Ok(whole.clone()));

    let gone = blocks.remove(2).cid;
    let missing = ChainError::Missing { version: 2, cid: Box::new(gone) };
    assert_eq!(missing.to_string(), format!("version 2, block {gone}, is missing"));
    assert_eq!(IPLD.get_chain(&blocks, &head), Err(missing));
    let missing = ChainError::Missing { version: 0, cid: Box::new(head) };
    assert_eq!(IPLD.get_chain(&[], &head), Err(missing));
}

#[test]
fn a_history_that_does_not_begin_with_version_1_is_not_whole() {
    let stray = other(7, None);
    let error = IPLD.get_chain(std::slice::from_ref(&stray), &stray.cid);
    assert_eq!(error, Err(ChainError::Version { expected: 1, found: 7 }));
}

#[test]
fn a_verifier_can_go_on_from_a_verified_event() {
    let chain = history(IPLD, 4);
    let mut whole = ChainVerifier::new();
    whole.push(&chain.blocks()[0]).unwrap();
    let second = whole.push(&chain.blocks()[1]).unwrap();

    let mut rest = ChainVerifier::after(&second, Some(chain.blocks()[1].cid));
    let fork = other(2, Some(chain.blocks()[0].cid));
    assert!(matches!(rest.push(&fork), Err(ChainError::Fork { version: 2, .. })));
    rest.push(&chain.blocks()[2]).unwrap();
    rest.push(&chain.blocks()[3]).unwrap();
    assert_eq!((rest.version(), rest.head()), (4, chain.head()));
}

#[test]
fn without_cids_versions_are_all_there_is() {
    let mut verifier = ChainVerifier::new();
    for version in 1..=3 {
        verifier.accept(&Envelope { version, ..first(()) }, None).unwrap();
    }
    let again = verifier.accept(&Envelope { version: 3, ..first(()) }, None);
    assert_eq!(again, Err(ChainError::Version { expected: 4, found: 3 }));
}

/// No service gets so far, and whoever may write to a stream can say that one did.
#[test]
fn nothing_follows_the_greatest_version() {
    let last = other(u64::MAX, None);
    let refused = ChainError::Version { expected: u64::MAX, found: 1 };
    let envelope = Envelope { version: u64::MAX, ..first(()) };
    let mut verifier = ChainVerifier::after(&envelope, Some(last.cid));
    assert_eq!(verifier.push(&other(1, Some(last.cid))), Err(refused));
    let again = ChainError::Version { expected: u64::MAX, found: u64::MAX };
    assert_eq!(verifier.push(&other(u64::MAX, Some(last.cid))), Err(again.clone()));
    let head = last.cid;
    match IPLD.add_to_chain(&mut Chain::claimed(vec![last], head), first(&1)) {
        Err(AddError::Chain(error)) => assert_eq!(error, again),
        other => panic!("{other:?}"),
    }
}

#[test]
fn errors_say_what_was_found() {
    let chain = history(IPLD, 2);
    let [one, two] = [chain.blocks()[0].cid, chain.blocks()[1].cid];
    let link = ChainError::Link { version: 3, expected: Some(Box::new(two)), found: None };
    assert_eq!(
        link.to_string(),
        format!(
            "version 3 links to nothing, not to {two}; the history was reordered, replaced or forked"
        )
    );
    let fork = ChainError::Fork { version: 1, kept: Box::new(one), other: Box::new(two) };
    assert_eq!(
        fork.to_string(),
        format!("version 1 is there twice, as {one} and as {two}; the history was forked")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_block_is_found(length in 1_u64..12, at in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let chain = history(IPLD, length);
        let head = *chain.head().unwrap();
        let mut blocks = chain.into_blocks();
        let at = at.index(blocks.len());
        let mut bytes = blocks[at].bytes.to_vec();
        let byte = byte.index(bytes.len());
        bytes[byte] ^= 1 << bit;
        let actual = Box::new(IPLD.cid_of(&bytes));
        blocks[at].bytes = bytes.into();
        let source = BlockError::CidMismatch { claimed: Box::new(blocks[at].cid), actual };
        prop_assert_eq!(verify(blocks, head), Err(ChainError::Block { version: at as u64 + 1, source }));
    }

    #[test]
    fn reordered_blocks_are_found(length in 2_u64..12, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let chain = history(IPLD, length);
        let head = *chain.head().unwrap();
        let mut blocks = chain.into_blocks();
        let (a, b) = (a.index(blocks.len()), b.index(blocks.len()));
        prop_assume!(a != b);
        blocks.swap(a, b);
        let (low, high) = (a.min(b) as u64 + 1, a.max(b) as u64 + 1);
        prop_assert_eq!(verify(blocks, head), Err(ChainError::Version { expected: low, found: high }));
    }

    #[test]
    fn a_missing_or_doubled_block_is_found(length in 2_u64..12, at in any::<prop::sample::Index>()) {
        let chain = history(IPLD, length);
        let head = *chain.head().unwrap();
        let at = at.index(chain.len() - 1);
        let version = at as u64 + 1;

        let mut blocks = chain.blocks().to_vec();
        blocks.remove(at);
        prop_assert_eq!(verify(blocks, head), Err(ChainError::Version { expected: version, found: version + 1 }));

        let mut blocks = chain.blocks().to_vec();
        blocks.insert(at, blocks[at].clone());
        prop_assert_eq!(verify(blocks, head), Err(ChainError::Version { expected: version + 1, found: version }));
    }

    #[test]
    fn a_replaced_block_is_found(length in 1_u64..12, at in any::<prop::sample::Index>()) {
        let chain = history(IPLD, length);
        let head = *chain.head().unwrap();
        let mut blocks = chain.into_blocks();
        let at = at.index(blocks.len());
        let replaced = blocks[at].cid;
        let previous = at.checked_sub(1).map(|before| blocks[before].cid);
        blocks[at] = other(at as u64 + 1, previous);
        let expected = if at + 1 == blocks.len() {
            ChainError::CutOff { version: length, head: Box::new(head) }
        } else {
            ChainError::Link {
                version: at as u64 + 2,
                expected: Some(Box::new(blocks[at].cid)),
                found: Some(Box::new(replaced)),
            }
        };
        prop_assert_eq!(verify(blocks, head), Err(expected));
    }

    #[test]
    fn a_cut_off_history_is_found(length in 2_u64..12, left in any::<prop::sample::Index>()) {
        let chain = history(IPLD, length);
        let head = *chain.head().unwrap();
        let left = left.index(chain.len());
        let end = chain.blocks()[..left].to_vec();
        let cut_off = ChainError::CutOff { version: left as u64, head: Box::new(head) };
        prop_assert_eq!(verify(end, head), Err(cut_off));
    }

    #[test]
    fn a_fork_is_found(length in 1_u64..12, at in any::<prop::sample::Index>()) {
        let chain = history(IPLD, length);
        let head = *chain.head().unwrap();
        let mut blocks = chain.into_blocks();
        let at = at.index(blocks.len());
        let previous = at.checked_sub(1).map(|before| blocks[before].cid);
        let fork = other(at as u64 + 1, previous);
        let (kept, second) = (Box::new(blocks[at].cid), Box::new(fork.cid));
        blocks.insert(at + 1, fork);
        let version = at as u64 + 1;
        prop_assert_eq!(verify(blocks, head), Err(ChainError::Fork { version, kept, other: second }));
    }
}
