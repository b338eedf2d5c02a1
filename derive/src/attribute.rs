//! `#[event(name = "…", version = 2)]`, read from the attributes of a variant or a struct.

use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Expr, ExprLit, Lit, LitInt, LitStr, MetaNameValue, Result, Token};

use crate::input::Errors;

const FORM: &str =
    "write what the event is: `#[event(name = \"order_placed\", version = 2)]`; both have defaults";

/// What an author said of an event.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) name: Option<LitStr>,
    pub(crate) version: Option<LitInt>,
}

/// Everything said in a list of attributes. What cannot be understood goes to `errors`.
pub(crate) fn read(attributes: &[Attribute], errors: &mut Errors) -> Said {
    let mut said = Said::default();
    for attribute in ours(attributes) {
        let list = Punctuated::<MetaNameValue, Token![,]>::parse_terminated;
        match attribute.parse_args_with(list) {
            Ok(entries) if !entries.is_empty() => {
                entries.iter().for_each(|entry| errors.take(said.take(entry)));
            }
            _ => errors.add(attribute, FORM),
        }
    }
    said
}

/// Refuses the attributes where no event is.
pub(crate) fn refuse(attributes: &[Attribute], why: &str, errors: &mut Errors) {
    ours(attributes).for_each(|attribute| errors.add(attribute, why));
}

fn ours(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("event"))
}

impl Said {
    fn take(&mut self, entry: &MetaNameValue) -> Result<()> {
        let refuse = |why| Err(Error::new_spanned(entry, why));
        let literal = match &entry.value {
            Expr::Lit(ExprLit { lit, .. }) => Some(lit),
            _ => None,
        };
        let before = match (entry.path.get_ident().map(ToString::to_string).as_deref(), literal) {
            (Some("name"), Some(Lit::Str(name))) => self.name.replace(name.clone()).is_some(),
            (Some("version"), Some(Lit::Int(version))) => {
                self.version.replace(version.clone()).is_some()
            }
            (Some("name"), _) => return refuse("a name is a text: `name = \"order_placed\"`"),
            (Some("version"), _) => return refuse("a version is a number: `version = 2`"),
            _ => return refuse("`#[event(…)]` has `name` and `version`, and no such entry"),
        };
        if before { refuse("this is said already; say it once") } else { Ok(()) }
    }
}
