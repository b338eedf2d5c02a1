//! From what an author wrote to the events it means, or to everything that is wrong with it.

use proc_macro2::Span;
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::{Attribute, Data, DataEnum, DeriveInput, Error, Fields, Ident, Result};

use crate::{attribute, name};

/// One event: where it is in the type, and what it is called.
pub(crate) struct Event {
    /// The variant; none where the type is a struct.
    pub(crate) variant: Option<Ident>,
    pub(crate) name: String,
    pub(crate) version: u32,
    /// Where the name comes from.
    origin: Span,
}

/// What was found wrong so far: an author is told everything at once.
#[derive(Default)]
pub(crate) struct Errors(Option<Error>);

/// The events of a type.
///
/// # Errors
/// Everything that is wrong with it, together.
pub(crate) fn read(item: &DeriveInput) -> Result<Vec<Event>> {
    let mut errors = Errors::default();
    let events = match &item.data {
        Data::Struct(data) => {
            refuse_on_fields(&data.fields, &mut errors);
            vec![event(&item.ident, &item.attrs, None, &mut errors)]
        }
        Data::Enum(data) => variants(item, data, &mut errors),
        Data::Union(data) => {
            let why = "a union cannot be stored; make it an enum";
            errors.add(data.union_token, why);
            Vec::new()
        }
    };
    refuse_repetitions(&events, &mut errors);
    errors.or(events)
}

fn variants(item: &DeriveInput, data: &DataEnum, errors: &mut Errors) -> Vec<Event> {
    let why = "an enum has one event for each variant; write `#[event(…)]` before a variant";
    attribute::refuse(&item.attrs, why, errors);
    if data.variants.is_empty() {
        errors.add(&item.ident, "an enum without variants has no events; give it a variant");
    }
    let mut events = Vec::with_capacity(data.variants.len());
    for variant in &data.variants {
        refuse_on_fields(&variant.fields, errors);
        events.push(event(&variant.ident, &variant.attrs, Some(&variant.ident), errors));
    }
    events
}

fn event(
    ident: &Ident,
    attributes: &[Attribute],
    variant: Option<&Ident>,
    errors: &mut Errors,
) -> Event {
    let said = attribute::read(attributes, errors);
    let default = name::snake_case(&ident.unraw().to_string());
    let origin = said.name.as_ref().map_or(ident.span(), |name| name.span());
    let stored = said.name.as_ref().map_or(default, |name| name.value());
    if let Some(objection) = name::objection(&stored) {
        let way_out =
            if said.name.is_none() { "; give it one: `#[event(name = \"…\")]`" } else { "" };
        errors.take(Err(Error::new(origin, format!("{objection}{way_out}"))));
    }
    let version = match said.version.as_ref().map(|version| (version, version.base10_parse())) {
        None => 1,
        Some((_, Ok(version @ 1..))) => version,
        Some((version, _)) => {
            errors.add(version, &format!("a version is a number from 1 to {}", u32::MAX));
            1
        }
    };
    Event { variant: variant.cloned(), name: stored, version, origin }
}

fn refuse_on_fields(fields: &Fields, errors: &mut Errors) {
    for field in fields {
        let why =
            "a field is part of an event; write `#[event(…)]` before the variant or the struct";
        attribute::refuse(&field.attrs, why, errors);
    }
}

fn refuse_repetitions(events: &[Event], errors: &mut Errors) {
    for (at, event) in events.iter().enumerate() {
        let earlier = events[..at].iter().find(|earlier| earlier.name == event.name);
        if let Some(Event { variant: Some(earlier), name, .. }) = earlier {
            let why = format!(
                "{name:?} is the name of `{earlier}` already, and stored events are told apart by it; \
                 give this one another: `#[event(name = \"…\")]`"
            );
            errors.take(Err(Error::new(event.origin, why)));
        }
    }
}

impl Errors {
    pub(crate) fn add(&mut self, place: impl ToTokens, why: &str) {
        self.take(Err(Error::new_spanned(place, why)));
    }

    pub(crate) fn take(&mut self, found: Result<()>) {
        match (&mut self.0, found) {
            (_, Ok(())) => {}
            (Some(errors), Err(error)) => errors.combine(error),
            (none, Err(error)) => *none = Some(error),
        }
    }

    fn or<T>(self, value: T) -> Result<T> {
        self.0.map_or(Ok(value), Err)
    }
}
