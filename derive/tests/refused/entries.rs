//! Entries of `#[event(…)]` that there are not, or that say nothing that can be used.

use cim_persistence_derive::DomainEvent;

#[derive(DomainEvent)]
enum Versions {
    #[event(version = 0)]
    Zero,
    #[event(version = 4294967295)]
    Newest,
    #[event(version = 4294967296)]
    TooNew,
    #[event(version = "2")]
    Text,
    #[event(version = -1)]
    Negative,
    #[event(version = 1.5)]
    Half,
}

#[derive(DomainEvent)]
enum Entries {
    #[event(nmae = "placed")]
    Misspelt,
    #[event(name = placed)]
    NoText,
    #[event(name)]
    NoValue,
    #[event("placed")]
    NoEntry,
    #[event(name = "a", name = "b")]
    Twice,
    #[event(version = 2)]
    #[event(version = 2)]
    TwiceApart,
    #[event]
    Nothing,
    #[event()]
    Empty,
    #[event = "placed"]
    Value,
}

fn main() {}
