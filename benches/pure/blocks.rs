//! Event blocks: written, hashed, and verified as a chain.

use std::hint::black_box;

use cim_persistence::clock::Timestamp;
use cim_persistence::event::{Envelope, Metadata};
use cim_persistence::ipld::{BlockFormat, ChainVerifier, ClaimedBlock, encode_event};
use cim_persistence::subject::{AggregateId, AggregateType, ContextName, EventType};
use serde::Serialize;
use uuid::Uuid;

use crate::report::Row;
use crate::{Size, rate, timed};

/// An event whose data has about 200 bytes.
#[derive(Serialize)]
struct Booked {
    cents: i64,
    note: &'static str,
}

const NOTE: &str = "a payload of about two hundred bytes, as events of a business usually have: some ids, an amount, a \
                    reason, a few words that somebody typed, and these here up to that length ............";

pub fn rows(size: Size) -> Vec<Row> {
    // What one round makes stays in memory.
    let steps = size.steps / 10;
    let per_second = |took: std::time::Duration| steps as f64 / took.as_secs_f64();
    let mut chain = Vec::new();
    let encoded = size.rounds(|| {
        chain = Vec::with_capacity(steps);
        per_second(timed(|| write(&mut chain, steps)))
    });
    let verified = size.rounds(|| per_second(timed(|| verify(&chain))));
    vec![
        rate("event blocks encoded and hashed", "blocks/s", 500_000.0, &encoded),
        rate("events of a chain verified", "events/s", 700_000.0, &verified),
    ]
}

fn write(chain: &mut Vec<ClaimedBlock>, steps: usize) {
    let first = envelope();
    let mut previous = None;
    for version in 1..=steps as u64 {
        let envelope = Envelope { version, previous, ..first.clone() };
        let encoded = encode_event(BlockFormat::default(), black_box(envelope)).expect("a block");
        let cid = encoded.block.cid.expect("the default format has CIDs");
        previous = Some(cid);
        chain.push(ClaimedBlock { cid, bytes: encoded.block.bytes });
    }
}

fn verify(chain: &[ClaimedBlock]) {
    let mut verifier = ChainVerifier::new();
    for block in chain {
        black_box(verifier.push(black_box(block)).expect("the next block"));
    }
    assert_eq!(verifier.version(), chain.len() as u64);
}

fn envelope() -> Envelope<&'static Booked> {
    let id = Uuid::now_v7();
    Envelope {
        format: Envelope::FORMAT,
        context: ContextName::new("sales").expect("a name"),
        aggregate: AggregateType::new("account").expect("a name"),
        id: AggregateId::new("42").expect("an id"),
        version: 1,
        event_type: EventType::new("booked").expect("a name"),
        schema_version: 1,
        event_id: id,
        occurred_at: Timestamp::now(),
        correlation_id: id,
        causation_id: None,
        metadata: Metadata::new([("user", "kim")]).expect("metadata"),
        previous: None,
        data: &Booked { cents: 7, note: NOTE },
    }
}
