//! Patterns of models: a type, and a pattern for the ids.

use super::{ReadModelError, layout};
use crate::subject::{ModelType, Pattern};

/// Which models of one type are meant: `board.JFK.*.*`, or the same as a subject, `cim.readmodels.board.JFK.*.*`.
///
/// The first token is the type; the others stand for the tokens of the id, in their escaped form. The server filters
/// by it.
///
/// ```
/// use cim_persistence::read_model::ModelPattern;
/// let boards = ModelPattern::parse("board", "board.JFK.*.*")?;
/// assert_eq!(boards, ModelPattern::parse("board", "cim.readmodels.board.JFK.*.*")?);
/// assert!(ModelPattern::parse("board", "carrier.B6").is_err());
/// # Ok::<(), cim_persistence::read_model::ReadModelError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelPattern {
    model: String,
    /// The pattern of the ids.
    ids: String,
}

/// The prefix of a read model's subject.
const SUBJECT: &str = "cim.readmodels.";

impl ModelPattern {
    /// Every model of a type.
    pub fn all(model: &str) -> Self {
        Self { model: model.to_owned(), ids: ">".to_owned() }
    }

    /// Reads a pattern for models of this type.
    ///
    /// # Errors
    /// [`ReadModelError::InvalidPattern`] when it is no pattern, [`ReadModelError::OutsideStore`] when it means something else.
    pub fn parse(model: &str, text: &str) -> Result<Self, ReadModelError> {
        let whole = Pattern::parse(text)?;
        let outside = || ReadModelError::OutsideStore {
            pattern: text.to_owned(),
            model_type: model.to_owned(),
        };
        let own = whole.as_str().strip_prefix(SUBJECT).unwrap_or(whole.as_str());
        let (kind, ids) = own.split_once('.').ok_or_else(outside)?;
        if kind != model {
            return Err(outside());
        }
        Ok(Self { model: model.to_owned(), ids: ids.to_owned() })
    }

    /// Reads a pattern that names its type itself.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and [`ReadModelError::InvalidToken`] when it begins with no type.
    pub fn of_any_type(text: &str) -> Result<Self, ReadModelError> {
        let own = text.strip_prefix(SUBJECT).unwrap_or(text);
        let kind = ModelType::new(own.split('.').next().unwrap_or_default())?;
        Self::parse(kind.as_str(), text)
    }

    /// The model type.
    pub fn model_type(&self) -> &str {
        &self.model
    }

    /// The pattern of the ids.
    pub fn ids(&self) -> &str {
        &self.ids
    }

    /// Whether it means exactly one model.
    pub fn is_literal(&self) -> bool {
        !self.ids.split('.').any(|token| token == "*" || token == ">")
    }

    /// Whether it means the model with this id.
    pub fn matches(&self, id: &str) -> bool {
        Pattern::parse(&self.ids).is_ok_and(|ids| ids.matches(id))
    }

    /// The keys of these models in a generation.
    pub(crate) fn keys(&self, generation: u64) -> Result<Pattern, ReadModelError> {
        Ok(Pattern::parse(&format!("{}.{}", layout::token(&self.model, generation), self.ids))?)
    }
}

impl std::fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.model, self.ids)
    }
}
