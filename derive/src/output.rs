//! The implementation that the macro writes.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, parse_quote};

use crate::input::Event;

/// `impl DomainEvent` for a type with these events, of which there is at least one.
pub(crate) fn implementation(item: &DeriveInput, events: &[Event]) -> TokenStream {
    let ident = &item.ident;
    let mut generics = item.generics.clone();
    if generics.type_params().next().is_some() {
        // Which parameters have to be storable is for serde to say.
        generics.make_where_clause().predicates.push(parse_quote! {
            Self: ::cim_persistence::event::__private::Serialize
                + for<'de> ::cim_persistence::event::__private::Deserialize<'de>
        });
    }
    let (parameters, arguments, conditions) = generics.split_for_impl();
    let patterns: Vec<TokenStream> = events.iter().map(pattern).collect();
    let names = events.iter().map(|event| &event.name).collect::<Vec<_>>();
    let versions = events.iter().map(|event| event.version).collect::<Vec<_>>();
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #parameters ::cim_persistence::event::DomainEvent for #ident #arguments #conditions {
            fn event_type(&self) -> &'static str {
                match self { #(#patterns => #names,)* }
            }

            fn schema_version(&self) -> ::cim_persistence::event::SchemaVersion {
                match self { #(#patterns => #versions,)* }
            }

            fn shapes() -> &'static [::cim_persistence::event::Shape] {
                &[#(::cim_persistence::event::Shape { name: #names, version: #versions },)*]
            }
        }
    }
}

/// A pattern with braces fits variants and structs of every form.
fn pattern(event: &Event) -> TokenStream {
    match &event.variant {
        Some(variant) => quote!(Self::#variant { .. }),
        None => quote!(Self { .. }),
    }
}
