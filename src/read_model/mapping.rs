//! How the fields of a Rust type become the fields of a stored document, and back, where serde's own way is not wanted.
//!
//! Pure. Who applies it is in `models.rs` and `save.rs`; what serde can do by itself (`rename`, `default`, `with`) needs none.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

/// Says how the fields of a model are stored: under other names, in other forms, not at all, or beside what is made from
/// them. By default every field as serde writes it. Cloning is cheap.
///
/// - it speaks of the outermost fields, by the names that serde gives them;
/// - a field may be renamed and converted; the order in which that is said does not matter;
/// - specifications, indexes and other clients of NATS see the stored form.
///
/// ```
/// use cim_persistence::read_model::{InvalidMapping, Mapping};
/// use serde_json::{Value, json};
///
/// let mapping = Mapping::none()
///     .rename("delay", "delay_minutes")
///     .exclude("cache", json!([]))
///     .derive("late", |model| Value::from(model["delay"].as_i64() > Some(15)));
/// let model = json!({"delay": 20, "cache": []});
/// let stored = mapping.write(model.clone())?;
/// assert_eq!(stored, json!({"delay_minutes": 20, "late": true}));
/// assert_eq!(mapping.read(stored)?, model);
/// # Ok::<(), InvalidMapping>(())
/// ```
#[derive(Clone, Default)]
pub struct Mapping {
    rules: Arc<Vec<(String, Rule)>>,
}

/// Why a document does not fit its [`Mapping`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMapping {
    /// What is mapped is no object and so has no fields. Use no mapping for such a model.
    #[error("a mapping is of fields, and this is no object")]
    NoObject,
    /// Two fields would have one name. Rename or derive to another one.
    #[error("two fields would be called {field:?}; give one of them another name")]
    Twice {
        /// The name.
        field: String,
    },
    /// A value cannot be converted. Correct the value or the conversion.
    #[error("field {field:?} cannot be converted: {reason}")]
    Conversion {
        /// The field, as the Rust type has it.
        field: String,
        /// What the conversion said.
        reason: String,
    },
}

type Convert = Arc<dyn Fn(Value) -> Result<Value, String> + Send + Sync>;
type Derive = Arc<dyn Fn(&Value) -> Value + Send + Sync>;

#[derive(Clone)]
enum Rule {
    Renamed(String),
    /// With what is put back.
    Excluded(Value),
    Converted {
        to_stored: Convert,
        to_model: Convert,
    },
    Derived(Derive),
}

impl Mapping {
    /// Every field as serde writes it.
    pub fn none() -> Self {
        Self::default()
    }

    /// Stores `field` under another name.
    #[must_use]
    pub fn rename(self, field: &str, stored: &str) -> Self {
        self.with(field, Rule::Renamed(stored.to_owned()))
    }

    /// Does not store `field`; a model that is read has `value` in its place.
    #[must_use]
    pub fn exclude(self, field: &str, value: impl Into<Value>) -> Self {
        self.with(field, Rule::Excluded(value.into()))
    }

    /// Stores `field` in another form. The second function must undo the first.
    #[must_use]
    pub fn convert(
        self,
        field: &str,
        to_stored: impl Fn(Value) -> Result<Value, String> + Send + Sync + 'static,
        to_model: impl Fn(Value) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        let (to_stored, to_model) = (Arc::new(to_stored), Arc::new(to_model));
        self.with(field, Rule::Converted { to_stored, to_model })
    }

    /// Stores one more field, made from the model as serde writes it; it is left out when the model is read.
    #[must_use]
    pub fn derive(
        self,
        stored: &str,
        from: impl Fn(&Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        self.with(stored, Rule::Derived(Arc::new(from)))
    }

    /// Whether every field is stored as serde writes it.
    pub fn is_none(&self) -> bool {
        self.rules.is_empty()
    }

    /// The document that is stored for a model, given as serde writes it.
    ///
    /// # Errors
    /// [`InvalidMapping`].
    pub fn write(&self, model: Value) -> Result<Value, InvalidMapping> {
        if self.is_none() {
            return Ok(model);
        }
        let fields = model.as_object().ok_or(InvalidMapping::NoObject)?;
        let mut stored = Map::new();
        for (name, value) in fields.iter().filter(|(name, _)| self.excluded(name).is_none()) {
            let value = match self.conversion(name) {
                Some((to_stored, _)) => converted(name, to_stored, value.clone())?,
                None => value.clone(),
            };
            insert(&mut stored, self.stored_name(name), value)?;
        }
        for (name, rule) in self.rules.iter() {
            if let Rule::Derived(from) = rule {
                insert(&mut stored, name, from(&model))?;
            }
        }
        Ok(Value::Object(stored))
    }

    /// The model, as serde reads it, that a stored document stands for.
    ///
    /// # Errors
    /// [`InvalidMapping`].
    pub fn read(&self, stored: Value) -> Result<Value, InvalidMapping> {
        if self.is_none() {
            return Ok(stored);
        }
        let Value::Object(fields) = stored else { return Err(InvalidMapping::NoObject) };
        let mut model = Map::new();
        for (stored_name, value) in fields {
            if self.is_derived(&stored_name) {
                continue;
            }
            let name = self.model_name(&stored_name);
            let value = match self.conversion(name) {
                Some((_, to_model)) => converted(name, to_model, value)?,
                None => value,
            };
            insert(&mut model, name, value)?;
        }
        for (name, rule) in self.rules.iter() {
            if let Rule::Excluded(value) = rule {
                insert(&mut model, name, value.clone())?;
            }
        }
        Ok(Value::Object(model))
    }

    /// The names of the stored fields, by those of the model.
    pub(super) fn stored_names(&self, model: &[&str]) -> Vec<String> {
        let kept = model.iter().filter(|name| self.excluded(name).is_none());
        let mut names: Vec<_> = kept.map(|name| self.stored_name(name).to_owned()).collect();
        let derived = self.rules.iter().filter(|(_, rule)| matches!(rule, Rule::Derived(_)));
        names.extend(derived.map(|(name, _)| name.clone()));
        names
    }

    fn with(mut self, field: &str, rule: Rule) -> Self {
        Arc::make_mut(&mut self.rules).push((field.to_owned(), rule));
        self
    }

    fn rules_of(&self, field: &str) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |(name, _)| name == field).map(|(_, rule)| rule)
    }

    fn excluded(&self, field: &str) -> Option<&Value> {
        self.rules_of(field).find_map(|rule| match rule {
            Rule::Excluded(value) => Some(value),
            _ => None,
        })
    }

    fn conversion(&self, field: &str) -> Option<(&Convert, &Convert)> {
        self.rules_of(field).find_map(|rule| match rule {
            Rule::Converted { to_stored, to_model } => Some((to_stored, to_model)),
            _ => None,
        })
    }

    fn is_derived(&self, stored: &str) -> bool {
        self.rules_of(stored).any(|rule| matches!(rule, Rule::Derived(_)))
    }

    fn stored_name<'a>(&'a self, field: &'a str) -> &'a str {
        let renamed = self.rules_of(field).find_map(|rule| match rule {
            Rule::Renamed(stored) => Some(stored.as_str()),
            _ => None,
        });
        renamed.unwrap_or(field)
    }

    fn model_name<'a>(&'a self, stored: &'a str) -> &'a str {
        let renamed = self.rules.iter().find_map(|(name, rule)| match rule {
            Rule::Renamed(to) if to == stored => Some(name.as_str()),
            _ => None,
        });
        renamed.unwrap_or(stored)
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, rule) in self.rules.iter() {
            match rule {
                Rule::Renamed(stored) => map.entry(name, &format_args!("renamed to {stored:?}")),
                Rule::Excluded(value) => map.entry(name, &format_args!("excluded for {value}")),
                Rule::Converted { .. } => map.entry(name, &format_args!("converted")),
                Rule::Derived(_) => map.entry(name, &format_args!("derived")),
            };
        }
        map.finish()
    }
}

fn converted(field: &str, by: &Convert, value: Value) -> Result<Value, InvalidMapping> {
    by(value).map_err(|reason| InvalidMapping::Conversion { field: field.to_owned(), reason })
}

fn insert(into: &mut Map<String, Value>, field: &str, value: Value) -> Result<(), InvalidMapping> {
    match into.insert(field.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err(InvalidMapping::Twice { field: field.to_owned() }),
    }
}
