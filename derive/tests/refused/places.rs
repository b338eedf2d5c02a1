//! Attributes where no event is, and types that cannot be events.

use cim_persistence_derive::DomainEvent;

#[derive(DomainEvent)]
#[event(name = "order")]
enum OnTheEnum {
    Placed {
        #[event(name = "customer")]
        customer: String,
    },
    Shipped(#[event(version = 2)] u32),
}

#[derive(DomainEvent)]
struct OnAField {
    #[event(name = "cents")]
    cents: u64,
}

#[derive(DomainEvent)]
enum Nothing {}

#[derive(DomainEvent)]
union Bits {
    unsigned: u32,
    signed: i32,
}

fn main() {}
