//! Addresses: the literal subjects a person may name, and where the data behind them lies.
//!
//! Subjects with wildcards are in `pattern.rs` and `event_pattern.rs`; the names of streams and buckets are in
//! `scheme.rs`.

use super::event_pattern::{HeaderFilter, parse_version};
use super::id::AggregateId;
use super::literal::{Subject, shown};
use super::scheme::{Names, SubjectScheme};
use super::token::{AggregateType, EventType, InvalidToken, ModelType};

/// Why a text is not the address of anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAddress {
    /// The text begins like none of the context's subjects. Begin it with one of `prefixes`.
    #[error("{text:?} is no address of this context; begin it with one of {}", prefixes.join(", "))]
    Elsewhere {
        /// The text.
        text: String,
        /// What addresses of the context begin with.
        prefixes: Vec<String>,
    },
    /// The text ends too early or too late for its kind. Write it in the form that is named.
    #[error("{text:?} has too few or too many tokens; write it as {form}")]
    Shape {
        /// The text.
        text: String,
        /// What addresses of this kind look like.
        form: String,
    },
    /// A token of the text is not what belongs in its place. Correct it; a wildcard belongs in a pattern.
    #[error("{text:?} is no address: {source}")]
    Token {
        /// The text.
        text: String,
        /// What is wrong with the token.
        source: InvalidToken,
    },
    /// The version is not a number. Write digits, as `2` or `v2`.
    #[error(
        "{text:?} has {token:?} for a version; write a number up to {max} without leading zeros, as 2 or v2",
        max = u32::MAX
    )]
    Version {
        /// The text.
        text: String,
        /// The token.
        token: String,
    },
}

/// What a literal subject of the language names.
///
/// | subject | names |
/// |---|---|
/// | `cim.events.<context>.<aggregate>.<id>` | the events of one aggregate |
/// | `cim.events.<context>.<aggregate>.<id>.<event>` | those of one type |
/// | `cim.events.<context>.<aggregate>.<id>.<event>.<version>` | those of one type and schema version |
/// | `cim.aggregates.<context>.<aggregate>.<id>.state` | an aggregate's current state |
/// | `cim.readmodels.<type>.<id>` | a read model of the context |
///
/// Only the first is a subject that messages are stored on; [`location`](Self::location) tells where the data of each
/// lies. Ids are written in their escaped form. The kinds are told apart by what they begin with; when a deployment
/// gives events and aggregates one prefix, a text that ends with `.state` names a state.
///
/// ```
/// use cim_persistence::subject::{Address, ContextName, Location, Names, SubjectScheme};
///
/// let sales = ContextName::new("sales")?;
/// let names = Names::of(&sales);
/// let scheme = SubjectScheme::new(sales, "cim.events", "cim.aggregates")?;
/// let text = "cim.aggregates.sales.order.42.state";
/// let address = Address::parse(&scheme, text)?;
/// assert_eq!(address.subject(&scheme).as_str(), text);
/// let bucket = "cim-state-sales".to_owned();
/// assert_eq!(address.location(&scheme, &names), Location::Key { bucket, key: "order.42".to_owned() });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// Every event of one aggregate.
    Events {
        /// The aggregate's type.
        aggregate: AggregateType,
        /// The aggregate's id.
        id: AggregateId,
    },
    /// The events of one aggregate that have one type, and one schema version if it is given.
    EventForm {
        /// The aggregate's type.
        aggregate: AggregateType,
        /// The aggregate's id.
        id: AggregateId,
        /// The type of the events.
        event_type: EventType,
        /// Their schema version; `None` means any.
        schema_version: Option<u32>,
    },
    /// The current state of one aggregate.
    State {
        /// The aggregate's type.
        aggregate: AggregateType,
        /// The aggregate's id.
        id: AggregateId,
    },
    /// One read model.
    ReadModel {
        /// The read model's type.
        model: ModelType,
        /// The read model's id.
        id: AggregateId,
    },
}

/// Where the data behind an address lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Location {
    /// Messages of a stream.
    Stream {
        /// The stream.
        stream: String,
        /// The subject they are stored on.
        subject: Subject,
        /// Which of them are meant.
        filter: HeaderFilter,
    },
    /// A key of a bucket.
    Key {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
}

impl Address {
    /// Reads an address whose aggregate id has one token.
    ///
    /// # Errors
    /// [`InvalidAddress`], which names the text and what to change.
    pub fn parse(scheme: &SubjectScheme, text: &str) -> Result<Self, InvalidAddress> {
        Self::parse_with_id_tokens(scheme, text, 1)
    }

    /// Reads an address of events whose id has `id_tokens` tokens. No id has less than one, so 0 counts as 1.
    ///
    /// States and read models say themselves where their id ends, so theirs may have any number of tokens.
    ///
    /// # Errors
    /// [`InvalidAddress`], which names the text and what to change.
    pub fn parse_with_id_tokens(
        scheme: &SubjectScheme,
        text: &str,
        id_tokens: usize,
    ) -> Result<Self, InvalidAddress> {
        let [events, aggregates, models] = scheme.prefixes();
        let state = text.strip_prefix(aggregates);
        if let Some(state) = state.and_then(|own| own.strip_suffix(".state")) {
            return parse_state(scheme, text, state);
        }
        if let Some(own) = text.strip_prefix(events) {
            return parse_events(scheme, text, own, id_tokens.max(1));
        }
        if let Some(own) = text.strip_prefix(models) {
            return parse_read_model(text, own, models);
        }
        if state.is_some() {
            return Err(shape(text, state_form(scheme)));
        }
        Err(InvalidAddress::Elsewhere {
            text: shown(text),
            prefixes: scheme.prefixes().map(str::to_owned).to_vec(),
        })
    }

    /// The address as text, with the version (if it has one) as plain digits.
    pub fn subject(&self, scheme: &SubjectScheme) -> Subject {
        match self {
            Address::Events { aggregate, id } => scheme.events_of(aggregate, id),
            Address::EventForm { aggregate, id, .. } => {
                let (subject, filter) = (scheme.events_of(aggregate, id), self.header_filter());
                Subject::trusted(format!("{subject}{filter}"))
            }
            Address::State { aggregate, id } => scheme.state_of(aggregate, id),
            Address::ReadModel { model, id } => scheme.read_model(model, id),
        }
    }

    /// Where the data lies, in the streams and buckets of `names`.
    pub fn location(&self, scheme: &SubjectScheme, names: &Names) -> Location {
        match self {
            Address::Events { aggregate, id } | Address::EventForm { aggregate, id, .. } => {
                Location::Stream {
                    stream: names.event_stream.clone(),
                    subject: scheme.events_of(aggregate, id),
                    filter: self.header_filter(),
                }
            }
            Address::State { aggregate, id } => Location::Key {
                bucket: names.state_bucket.clone(),
                key: SubjectScheme::key_of(aggregate, id),
            },
            Address::ReadModel { model, id } => Location::Key {
                bucket: names.read_model_bucket.clone(),
                key: SubjectScheme::read_model_key(model, id),
            },
        }
    }

    fn header_filter(&self) -> HeaderFilter {
        match self {
            Address::EventForm { event_type, schema_version, .. } => HeaderFilter {
                event_type: Some(event_type.clone()),
                schema_version: *schema_version,
            },
            _ => HeaderFilter::default(),
        }
    }
}

fn parse_events(
    scheme: &SubjectScheme,
    text: &str,
    own: &str,
    id_tokens: usize,
) -> Result<Address, InvalidAddress> {
    let form = || {
        let id = match id_tokens {
            1 => "<id>".to_owned(),
            n => format!("<id of {n} tokens>"),
        };
        let prefix = scheme.event_prefix();
        format!("{prefix}<aggregate>.{id}, and .<event> or .<event>.<version> after it")
    };
    let tokens: Vec<&str> = own.split('.').collect();
    if tokens.len() <= id_tokens {
        return Err(shape(text, form()));
    }
    let (subject, event) = tokens.split_at(id_tokens + 1);
    let aggregate = AggregateType::new(subject[0]).map_err(token_of(text))?;
    let id = AggregateId::from_escaped(&subject[1..].join(".")).map_err(token_of(text))?;
    let (event_type, version) = match event {
        [] => return Ok(Address::Events { aggregate, id }),
        [event] => (*event, None),
        [event, version] => (*event, Some(*version)),
        _ => return Err(shape(text, form())),
    };
    let schema_version = version.map(|token| {
        parse_version(token)
            .ok_or_else(|| InvalidAddress::Version { text: shown(text), token: shown(token) })
    });
    Ok(Address::EventForm {
        aggregate,
        id,
        event_type: EventType::new(event_type).map_err(token_of(text))?,
        schema_version: schema_version.transpose()?,
    })
}

fn parse_state(scheme: &SubjectScheme, text: &str, own: &str) -> Result<Address, InvalidAddress> {
    let Some((aggregate, id)) = own.split_once('.') else {
        return Err(shape(text, state_form(scheme)));
    };
    Ok(Address::State {
        aggregate: AggregateType::new(aggregate).map_err(token_of(text))?,
        id: AggregateId::from_escaped(id).map_err(token_of(text))?,
    })
}

fn parse_read_model(text: &str, own: &str, prefix: &str) -> Result<Address, InvalidAddress> {
    let Some((model, id)) = own.split_once('.') else {
        return Err(shape(text, format!("{prefix}<type>.<id>")));
    };
    Ok(Address::ReadModel {
        model: ModelType::new(model).map_err(token_of(text))?,
        id: AggregateId::from_escaped(id).map_err(token_of(text))?,
    })
}

fn state_form(scheme: &SubjectScheme) -> String {
    let [_, aggregates, _] = scheme.prefixes();
    format!("{aggregates}<aggregate>.<id>.state")
}

fn shape(text: &str, form: String) -> InvalidAddress {
    let text = shown(text);
    InvalidAddress::Shape { text, form }
}

fn token_of(text: &str) -> impl Fn(InvalidToken) -> InvalidAddress {
    move |source| InvalidAddress::Token { text: shown(text), source }
}
