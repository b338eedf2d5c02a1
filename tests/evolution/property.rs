//! Whatever way a type has gone, any stored version of it reads as the newest, and stays stored as it was.

use std::sync::Arc;

use cim_persistence::event::NonEmpty;
use cim_persistence::evolution::{Evolution, Reshape, Upcast};
use cim_persistence::ipld::{Codec, Hash};
use cim_persistence::store::{CommitInfo, ExpectedVersion, NewEvent, Ports};
use cim_persistence::subject::{AggregateId, AggregateType, EventType};
use cim_persistence::{Context, NatsRepositoryConfig};
use ipld_core::ipld::Ipld;
use proptest::prelude::*;

/// What happened to a type from one version to the next.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// A field is added that says which change it was.
    Add,
    /// A field gets another name.
    Rename,
    /// The value is put into a map.
    Wrap,
    /// The type gets another name.
    NewName,
    /// A second event follows, which never changes.
    Split,
    /// Events with an odd number are dropped, the others stay.
    DropOdd,
}

/// A value as these tests know it: its number, and what was done to it.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    name: String,
    version: u32,
    value: Ipld,
}

/// Names that live as long as the program, of which there are few.
const NAMES: [&str; 9] = ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8"];
const SIDES: [&str; 8] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"];

/// The shapes of the type from the first to the newest.
fn shapes(changes: &[Change]) -> Vec<(&'static str, u32)> {
    let mut shapes = vec![(NAMES[0], 1)];
    for change in changes {
        let (name, version) = shapes[shapes.len() - 1];
        let renamed = NAMES.iter().position(|n| *n == name).unwrap() + 1;
        shapes.push(match change {
            Change::NewName => (NAMES[renamed], 1),
            _ => (name, version + 1),
        });
    }
    shapes
}

fn number(value: &Ipld) -> i128 {
    match value {
        Ipld::Map(fields) => match (fields.get("n"), fields.get("in")) {
            (Some(Ipld::Integer(n)), _) => *n,
            (_, Some(inner)) => number(inner),
            _ => panic!("{value:?}"),
        },
        _ => panic!("{value:?}"),
    }
}

fn changed(change: Change, place: usize, mut value: Ipld) -> Ipld {
    match change {
        Change::Add => value.put(&format!("added{place}"), place as i128).unwrap(),
        Change::Rename => {
            let fields = value.fields().unwrap();
            let last = fields.keys().rfind(|key| *key != "n" && *key != "in").cloned();
            if let Some(last) = last {
                value.rename(&last, &format!("renamed{place}")).unwrap();
            }
        }
        Change::Wrap => return Ipld::Map([("in".to_owned(), value)].into()),
        Change::NewName | Change::Split | Change::DropOdd => {}
    }
    value
}

fn evolution(changes: &[Change]) -> Evolution {
    let shapes = shapes(changes);
    let (name, version) = shapes[changes.len()];
    let mut builder = Evolution::builder().event(name, version);
    for (place, change) in changes.iter().copied().enumerate() {
        let (from, to, side) = (shapes[place], shapes[place + 1], SIDES[place]);
        let step = move |value| Ok(changed(change, place, value));
        builder = match change {
            Change::NewName => builder.upcast(Upcast::renamed(from, to, step)),
            Change::Split => {
                builder.event(side, 1).upcast(Upcast::split(from, [to, (side, 1)], move |value| {
                    Ok(vec![(to, value.clone()), ((side, 1), value)])
                }))
            }
            Change::DropOdd => builder.upcast(Upcast::split(from, [to], move |value| {
                Ok(if number(&value) % 2 == 0 { vec![(to, value)] } else { vec![] })
            })),
            _ => builder.upcast(Upcast::event(from.0, from.1, step)),
        };
    }
    builder.build().unwrap()
}

/// What a value of a stage is at the end, found out without any upcaster.
fn expected(changes: &[Change], stage: usize, mut value: Ipld) -> Vec<Model> {
    let shapes = shapes(changes);
    // The sides of what was split later come before those of what was split earlier.
    let mut sides = Vec::new();
    for (place, change) in changes.iter().copied().enumerate().skip(stage) {
        match change {
            Change::DropOdd if number(&value) % 2 != 0 => {
                sides.reverse();
                return sides;
            }
            Change::Split => {
                let (name, value) = (SIDES[place].to_owned(), value.clone());
                sides.push(Model { name, version: 1, value });
            }
            _ => value = changed(change, place, value),
        }
    }
    let (name, version) = shapes[changes.len()];
    let mut all = vec![Model { name: name.to_owned(), version, value }];
    all.extend(sides.into_iter().rev());
    all
}

fn change() -> impl Strategy<Value = Change> {
    use Change::{Add, DropOdd, NewName, Rename, Split, Wrap};
    prop::sample::select(vec![Add, Add, Rename, Wrap, NewName, Split, DropOdd])
}

fn config(format: u8) -> NatsRepositoryConfig {
    let (codec, hash) = match format {
        0 => (Codec::DagCbor, Hash::Sha2),
        1 => (Codec::DagJson, Hash::Blake3),
        _ => (Codec::DagCbor, Hash::Blake3),
    };
    let enable_ipld = format != 3;
    NatsRepositoryConfig { codec, hash, enable_ipld, ..NatsRepositoryConfig::for_context("types") }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_stored_version_reads_as_the_newest(
        changes in prop::collection::vec(change(), 0..8),
        stored in prop::collection::vec((0.0..1.0_f64, any::<i64>(), ".{0,8}"), 1..6),
        format in 0..4_u8,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(&changes, &stored, &config(format)));
    }
}

async fn check(changes: &[Change], stored: &[(f64, i64, String)], config: &NatsRepositoryConfig) {
    let ports = Ports::in_memory();
    let plain = Context::on(ports.clone(), config).unwrap();
    let evolution = Arc::new(evolution(changes));
    let evolving = Context::on(ports, config).unwrap().with_evolution(Arc::clone(&evolution));
    let mut wanted = Vec::new();
    let (kind, id) = (AggregateType::new("a").unwrap(), AggregateId::new("1").unwrap());
    for (share, n, text) in stored {
        let stage = (share * (changes.len() + 1) as f64) as usize;
        let fields = [("n", Ipld::Integer(i128::from(*n))), ("text", Ipld::String(text.clone()))];
        let mut data = Ipld::Map(fields.map(|(field, value)| (field.to_owned(), value)).into());
        for (place, change) in changes.iter().copied().enumerate().take(stage) {
            data = changed(change, place, data);
        }
        let (name, schema_version) = shapes(changes)[stage];
        let event_type = EventType::new(name).unwrap();
        let event = NewEvent { event_type, schema_version, data: data.clone() };
        let events = NonEmpty::one(event.clone());
        let info = CommitInfo::default();
        plain.append(&kind, &id, ExpectedVersion::Any, &events, &info).await.unwrap();
        wanted.push((event, expected(changes, stage, data)));
    }
    let before = plain.get_events(&kind, &id, 0).await.unwrap();
    let today = evolving.get_events(&kind, &id, 0).await.unwrap();
    for ((before, today), (event, wanted)) in before.iter().zip(&today).zip(wanted) {
        let parts = today.evolved().unwrap();
        let parts = parts.iter().map(|part| Model {
            name: part.event_type().to_string(),
            version: part.schema_version(),
            value: part.data().unwrap(),
        });
        assert_eq!(parts.collect::<Vec<_>>(), wanted);
        assert_eq!((before.block(), before.cid()), (today.block(), today.cid()));
        assert_eq!(today.stored_data::<Ipld>().unwrap(), event.data);
        assert_eq!(
            (today.event_type(), today.schema_version()),
            (&event.event_type, event.schema_version)
        );
    }
}
