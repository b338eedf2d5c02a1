//! The derive macro of cim-persistence, which shows it again: write `use cim_persistence::DomainEvent`, read there what it
//! does, and do not depend on this crate by itself.
//!
//! `input` reads the type and refuses what is wrong with it, with `attribute` and `name` for the parts; `output` writes the
//! implementation. Absent: serde, which makes the data of an event and does not care for its name.

mod attribute;
mod input;
mod name;
mod output;

use proc_macro::TokenStream;

/// Implements `cim_persistence::DomainEvent` for an enum whose variants are events, or for a struct that is one.
#[proc_macro_derive(DomainEvent, attributes(event))]
pub fn domain_event(item: TokenStream) -> TokenStream {
    let item = syn::parse_macro_input!(item as syn::DeriveInput);
    match input::read(&item) {
        Ok(events) => output::implementation(&item, &events).into(),
        Err(errors) => errors.into_compile_error().into(),
    }
}
