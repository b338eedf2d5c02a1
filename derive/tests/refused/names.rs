//! Names that repeat, and names that cannot be stored.

use cim_persistence_derive::DomainEvent;

#[derive(DomainEvent)]
enum Repeated {
    Placed,
    Cancelled,
    #[event(name = "placed")]
    PlacedAgain,
    #[event(name = "cancelled")]
    Placed2,
    #[event(name = "placed2")]
    Third,
    HTTPCalled,
    HttpCalled,
}

#[derive(DomainEvent)]
enum NotStorable {
    #[event(name = "order placed")]
    Space,
    #[event(name = "order.placed")]
    Dot,
    #[event(name = "")]
    Empty,
    #[event(name = "cim-tombstone")]
    Reserved,
    #[event(name = "a123456789b123456789c123456789d123456789e123456789f123456789g123")]
    Longest,
    #[event(name = "a123456789b123456789c123456789d123456789e123456789f123456789g1234")]
    TooLong,
    Verfügt,
}

#[derive(DomainEvent)]
struct Ärger;

#[derive(DomainEvent)]
#[event(name = "*")]
struct Star;

fn main() {}
