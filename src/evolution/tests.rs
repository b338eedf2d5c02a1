//! What is refused when upcasters are gathered, what they make of values, and how carried types look.

use std::collections::BTreeMap;

use ipld_core::ipld;
use ipld_core::ipld::Ipld;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::event::{DomainEvent, Shape};
use crate::ipld::{Block, BlockFormat, Codec, Hash, IpldSerializer};

fn same(name: &'static str, from: u32) -> Upcast {
    Upcast::event(name, from, Ok)
}

fn refused(builder: EvolutionBuilder) -> EvolutionError {
    builder.build().expect_err("it has a mistake")
}

#[derive(Serialize, Deserialize)]
struct Silent;

impl DomainEvent for Silent {
    fn event_type(&self) -> &'static str {
        "silent"
    }
}

#[derive(Serialize, Deserialize)]
struct Told;

impl DomainEvent for Told {
    fn event_type(&self) -> &'static str {
        "told"
    }
    fn shapes() -> &'static [Shape] {
        &[Shape { name: "told", version: 2 }]
    }
}

#[test]
fn each_mistake_has_an_error_of_its_own() {
    use EvolutionError as E;
    let new = Evolution::builder;
    let (kind, name) = (Kind::Event, "a");
    let shape = |name, version| Shape { name, version };
    let cases = [
        (
            new().event("a", 3).upcast(same("a", 1)),
            E::NoPath { kind, name, from: 2, newest: Some(3) },
        ),
        (new().event("a", 2), E::NoPath { kind, name, from: 1, newest: Some(2) }),
        (new().upcast(same("a", 1)), E::NoPath { kind, name, from: 2, newest: None }),
        (new().upcast(Upcast::dropped(("a", 2))), E::NoPath { kind, name, from: 1, newest: None }),
        (
            new().upcast(Upcast::renamed(("a", 1), ("b", 1), Ok)),
            E::NoPath { kind, name: "b", from: 1, newest: None },
        ),
        (
            new().event("a", 2).upcast(same("a", 1)).upcast(Upcast::dropped(("a", 1))),
            E::Repeated { kind, name, version: 1 },
        ),
        (new().event("a", 1).upcast(same("a", 1)), E::Beyond { kind, name, version: 2, newest: 1 }),
        (
            new().event("a", 1).upcast(Upcast::dropped(("a", 1))),
            E::FromNewest { kind, name, version: 1 },
        ),
        (new().event("a", 1).event("a", 2), E::Declared { kind, name, first: 1, second: 2 }),
        (new().event("a", 0), E::VersionZero { kind, name }),
        (new().event("a", 1).upcast(same("a", 0)), E::VersionZero { kind, name }),
        (new().event("cim-tombstone", 1), E::Reserved { name: "cim-tombstone" }),
        (
            new().upcast(Upcast::renamed(("a", 1), ("a", 1), Ok)),
            E::Loop { kind, circle: vec![shape("a", 1)] },
        ),
        (
            new()
                .event("c", 1)
                .upcast(Upcast::renamed(("a", 1), ("b", 1), Ok))
                .upcast(Upcast::split(("b", 1), [("c", 1), ("b", 2)], |_| {
                    Ok(Vec::<(Shape, Ipld)>::new())
                }))
                .upcast(Upcast::renamed(("b", 2), ("a", 1), Ok)),
            E::Loop { kind, circle: vec![shape("a", 1), shape("b", 1), shape("b", 2)] },
        ),
        (new().state("a", 2), E::NoPath { kind: Kind::State, name, from: 1, newest: Some(2) }),
        (new().model("a", 2), E::NoPath { kind: Kind::Model, name, from: 1, newest: Some(2) }),
        (new().events::<Told>(), E::NoPath { kind, name: "told", from: 1, newest: Some(2) }),
        (new().events::<Silent>(), E::NoShapes { type_name: std::any::type_name::<Silent>() }),
        (new().event("a", u32::MAX), E::NoPath { kind, name, from: 1, newest: Some(u32::MAX) }),
    ];
    for (builder, wanted) in cases {
        let text = format!("{builder:?}");
        assert_eq!(refused(builder), wanted, "{text}");
    }
    assert!(matches!(refused(new().event("a b", 1)), E::Name(_)));
    assert!(matches!(refused(new().state("a.b", 1)), E::Name(_)));
}

#[test]
fn errors_say_what_to_do() {
    let circle = vec![Shape { name: "a", version: 1 }, Shape { name: "b", version: 2 }];
    let texts = [
        EvolutionError::NoPath { kind: Kind::State, name: "order", from: 2, newest: Some(3) },
        EvolutionError::NoPath { kind: Kind::Event, name: "a", from: 1, newest: None },
        EvolutionError::Loop { kind: Kind::Event, circle },
    ]
    .map(|error| error.to_string());
    assert_eq!(
        texts[0],
        "state of order version 2 has no path to version 3; add an upcaster from it"
    );
    assert_eq!(
        texts[1],
        "event a version 1 has no path to a declared shape; add an upcaster from it"
    );
    assert_eq!(
        texts[2],
        "upcasters lead in a circle: event a version 1 to event b version 2 to the first"
    );
}

/// `moved` of today is `moved` and `sized`; `pinged` is nothing.
fn evolution() -> Evolution {
    Evolution::builder()
        .event("moved", 2)
        .event("sized", 2)
        .upcast(Upcast::renamed(("shifted", 1), ("reshaped", 1), |mut value| {
            value.rename("Shifted", "Reshaped")?;
            Ok(value)
        }))
        .upcast(Upcast::split(("reshaped", 1), [("moved", 1), ("sized", 1)], |mut value| {
            let reshaped = value.within("Reshaped")?;
            let (to, size) = (reshaped.remove("to")?, reshaped.remove("size")?);
            let mut made = vec![(("moved", 1), ipld!({ "Moved": to }))];
            if size != Ipld::Null {
                made.push((("sized", 1), ipld!({ "Sized": size })));
            }
            Ok(made)
        }))
        .upcast(same("moved", 1))
        .upcast(Upcast::event("sized", 1, |mut value| match value.remove("Sized")? {
            Ipld::Integer(size) => Ok(ipld!({ "Sized": { "width": size } })),
            _ => Err("a size is a number".into()),
        }))
        .upcast(Upcast::dropped(("pinged", 1)))
        .state("box", 3)
        .upcast(Upcast::state("box", 1, |_| Ok(Ipld::Integer(2))))
        .upcast(Upcast::state("box", 2, |_| Ok(Ipld::Integer(3))))
        .build()
        .unwrap()
}

fn evolved(name: &'static str, version: u32, value: Ipld) -> Evolved {
    Evolved { name: name.into(), version, value }
}

#[test]
fn events_are_renamed_split_and_dropped_in_order() {
    let evolution = evolution();
    let today = |name, value| evolution.evolve(Kind::Event, name, 1, value);
    let wanted = [
        evolved("moved", 2, ipld!({ "Moved": 3 })),
        evolved("sized", 2, ipld!({ "Sized": { "width": 4 } })),
    ];
    assert_eq!(today("shifted", ipld!({ "Shifted": { "to": 3, "size": 4 } })).unwrap(), wanted);
    assert_eq!(today("reshaped", ipld!({ "Reshaped": { "to": 3, "size": 4 } })).unwrap(), wanted);
    assert_eq!(
        today("reshaped", ipld!({ "Reshaped": { "to": 3, "size": null } })).unwrap(),
        wanted[..1]
    );
    assert_eq!(today("pinged", Ipld::Null).unwrap(), []);
    // What is not known, or another kind, is left alone.
    assert_eq!(today("other", Ipld::Null).unwrap(), [evolved("other", 1, Ipld::Null)]);
    assert!(!evolution.changes(Kind::State, "shifted", 1));
    assert!(!evolution.changes(Kind::Event, "moved", 2));
    assert!(evolution.changes(Kind::Event, "moved", 1));
}

#[test]
fn values_that_cannot_be_upcast_say_why() {
    let evolution = evolution();
    let fails = |name, version, value| {
        evolution.evolve(Kind::Event, name, version, value).expect_err("it is wrong").to_string()
    };
    assert_eq!(
        fails("sized", 1, ipld!({ "Sized": "big" })),
        "the upcaster of event sized version 1 refuses the value: a size is a number"
    );
    assert_eq!(
        fails("shifted", 1, ipld!({ "Moved": 1 })),
        "the upcaster of event shifted version 1 refuses the value: there is no field \"Shifted\" among [\"Moved\"]"
    );
    assert_eq!(
        fails("moved", 3, Ipld::Null),
        "event moved has version 3, and this code knows versions up to 2; bring it up to date"
    );
    let liar = Evolution::builder()
        .event("a", 2)
        .upcast(Upcast::split(("a", 1), [("a", 2)], |value| Ok(vec![(("b", 7), value)])))
        .build()
        .unwrap();
    let error = liar.evolve(Kind::Event, "a", 1, Ipld::Null).unwrap_err();
    assert!(matches!(
        error,
        UpcastError::Undeclared { name: "a", version: 1, made: "b", made_version: 7 }
    ));
}

#[test]
fn states_go_to_the_version_that_is_wanted_and_no_further() {
    let evolution = evolution();
    let state = |from, to| {
        let path = evolution.path(Kind::State, "box", from, to)?;
        Some(path.take(Ipld::Integer(i128::from(from))).unwrap())
    };
    assert_eq!(state(1, 2), Some(Ipld::Integer(2)));
    assert_eq!(state(1, 3), Some(Ipld::Integer(3)));
    assert_eq!(state(2, 3), Some(Ipld::Integer(3)));
    assert_eq!([state(3, 3), state(3, 2), state(1, 4), state(0, 3)], [None, None, None, None]);
    assert!(evolution.path(Kind::Model, "box", 1, 3).is_none());
}

#[test]
fn fields_are_changed_or_left_as_they_are() {
    let mut value = ipld!({ "a": 1, "b": { "c": 2 } });
    let before = value.clone();
    let present = vec!["a".to_owned(), "b".to_owned()];
    let missing = || Err(ReshapeError::Missing { field: "x".to_owned(), present: present.clone() });
    assert_eq!(value.within("x").map(drop), missing());
    assert_eq!(value.remove("x").map(drop), missing());
    assert_eq!(value.rename("x", "y"), missing());
    assert_eq!(value.rename("a", "b"), Err(ReshapeError::Occupied { field: "b".to_owned() }));
    assert_eq!(value.put("a", 2), Err(ReshapeError::Occupied { field: "a".to_owned() }));
    assert_eq!(
        value.within("a").unwrap().put("d", 1),
        Err(ReshapeError::NoFields { found: "an integer" })
    );
    value.rename("a", "a").unwrap();
    assert_eq!(value, before);
}

#[derive(Debug, Clone, PartialEq)]
struct Money {
    cents: i128,
    currency: String,
}

struct MoneyText;

impl Transcoder for MoneyText {
    const NAME: &'static str = "money/1";
    type Value = Money;
    type Wire = String;
    fn to_wire(money: &Money) -> Result<String, Refusal> {
        if money.currency.len() != 3 {
            return Err("a currency has three letters".into());
        }
        Ok(format!("{} {}", money.cents, money.currency))
    }
    fn from_wire(wire: String) -> Result<Money, Refusal> {
        let (cents, currency) = wire.split_once(' ').ok_or("there is no currency")?;
        Ok(Money { cents: cents.parse()?, currency: currency.to_owned() })
    }
}

/// A time with the name of its zone, with money within: carried types may hold others.
#[derive(Debug, Clone, PartialEq)]
struct Priced {
    zone: String,
    price: Money,
}

struct PricedFields;

#[derive(Serialize, Deserialize)]
struct PricedWire {
    zone: String,
    #[serde(with = "As::<Tagged<MoneyText>>")]
    price: Money,
}

impl Transcoder for PricedFields {
    const NAME: &'static str = "priced/1";
    type Value = Priced;
    type Wire = PricedWire;
    fn to_wire(priced: &Priced) -> Result<PricedWire, Refusal> {
        Ok(PricedWire { zone: priced.zone.clone(), price: priced.price.clone() })
    }
    fn from_wire(PricedWire { zone, price }: PricedWire) -> Result<Priced, Refusal> {
        Ok(Priced { zone, price })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Order {
    Placed {
        #[serde(with = "As::<Tagged<MoneyText>>")]
        total: Money,
        #[serde(default, with = "As::<Option<Tagged<MoneyText>>>")]
        tip: Option<Money>,
        #[serde(with = "As::<BTreeMap<String, Vec<Option<Tagged<PricedFields>>>>>")]
        parts: BTreeMap<String, Vec<Option<Priced>>>,
    },
}

fn money(cents: i128) -> Money {
    Money { cents, currency: "EUR".to_owned() }
}

fn order() -> Order {
    let priced = Priced { zone: "Europe/Berlin".to_owned(), price: money(-7) };
    let parts = [("a".to_owned(), vec![Some(priced), None]), ("b".to_owned(), vec![])].into();
    Order::Placed { total: money(i128::MAX), tip: None, parts }
}

#[test]
fn carried_types_look_the_same_in_every_codec() {
    let carried = |cents: i128| ipld!({ "$type": "money/1", "value": (format!("{cents} EUR")) });
    let priced = ipld!({ "zone": "Europe/Berlin", "price": (carried(-7)) });
    let priced = ipld!({ "$type": "priced/1", "value": priced });
    let wanted = ipld!({ "Placed": {
        "total": (carried(i128::MAX)), "tip": null, "parts": { "a": [priced, null], "b": [] },
    } });
    for codec in [Codec::DagCbor, Codec::DagJson] {
        let ipld = IpldSerializer::new(codec, Hash::Sha2);
        let (bytes, cid) = ipld.serialize(&order()).unwrap();
        assert_eq!(ipld.deserialize::<Ipld>(&bytes, &cid).unwrap(), wanted, "{codec:?}");
        assert_eq!(ipld.deserialize::<Order>(&bytes, &cid).unwrap(), order(), "{codec:?}");
    }
    let plain = Block::encode(BlockFormat::PlainJson, &order()).unwrap();
    assert_eq!(serde_json::from_slice::<Ipld>(&plain.bytes).unwrap(), wanted);
    assert_eq!(serde_json::from_slice::<Order>(&plain.bytes).unwrap(), order());
    let by_name = Transcoders::new().with::<MoneyText>().unwrap().with::<PricedFields>().unwrap();
    by_name.check(&wanted).unwrap();
}

#[test]
fn carried_types_refuse_what_they_are_not() {
    let read = |json: &str| {
        let json = format!(r#"{{"Placed":{{"total":{json},"parts":{{}}}}}}"#);
        serde_json::from_str::<Order>(&json).map_err(|error| error.to_string())
    };
    assert!(read(r#"{"$type":"money/1","value":"1 EUR"}"#).is_ok());
    let fails = |json, part: &str| {
        let text = read(json).expect_err("it is wrong");
        assert!(text.contains(part), "{text}");
    };
    fails(
        r#"{"$type":"money/2","value":"1 EUR"}"#,
        r#"carried as "money/1" was expected, "money/2""#,
    );
    fails(
        r#"{"$type":"money/1","value":"1"}"#,
        r#""money/1" refuses the value: there is no currency"#,
    );
    fails(r#"{"$type":"money/1","value":"1 EUR","more":1}"#, "unknown field");
    fails(r#"{"value":"1 EUR"}"#, "missing field `$type`");
    let nobody = Money { cents: 1, currency: String::new() };
    let nameless = Order::Placed { total: nobody.clone(), tip: None, parts: BTreeMap::new() };
    let text = serde_json::to_string(&nameless).unwrap_err().to_string();
    assert_eq!(text, r#""money/1" refuses the value: a currency has three letters"#);
    assert!(Tagged::<MoneyText>::to_ipld(&nobody).is_err());
}

#[test]
fn carried_values_are_found_by_name() {
    let names = Transcoders::new().with::<MoneyText>().unwrap();
    assert!(matches!(
        names.clone().with::<MoneyText>(),
        Err(TranscodeError::Twice { name: "money/1" })
    ));
    let carried = Tagged::<MoneyText>::to_ipld(&money(3)).unwrap();
    let decoded = names.decode(carried.clone()).unwrap();
    assert_eq!(decoded.downcast_ref::<Money>(), Some(&money(3)));
    assert_eq!(Tagged::<MoneyText>::from_ipld(carried).unwrap(), money(3));
    let unknown = ipld!({ "$type": "other/1", "value": 1 });
    let deep = ipld!({ "a": [1, { "b": (unknown.clone()) }] });
    for value in [unknown, deep] {
        let error = names.check(&value).unwrap_err();
        assert!(matches!(error, TranscodeError::Unknown { name } if name == "other/1"));
    }
    let more = ipld!({ "$type": "money/1", "value": 1, "more": 1 });
    names.check(&more).unwrap();
    assert!(matches!(names.decode(more), Err(TranscodeError::NotTagged)));
    assert!(matches!(names.decode(Ipld::Null), Err(TranscodeError::NotTagged)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn carried_values_come_back(cents: i128, currency in "[A-Z]{3}") {
        let money = Money { cents, currency };
        let carried = Tagged::<MoneyText>::to_ipld(&money).unwrap();
        prop_assert_eq!(Tagged::<MoneyText>::from_ipld(carried).unwrap(), money);
    }
}
