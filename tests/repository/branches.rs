//! Branches of the bank, whose ids have several tokens, and the places they can live in.

use std::collections::BTreeMap;
use std::sync::Arc;

use cim_persistence::event::Tag;
use cim_persistence::event_log::MemoryLog;
use cim_persistence::prelude::*;
use cim_persistence::repository::{AggregateMetadata, Repository, SaveOptions};
use cim_persistence::state::MemoryKeyValue;
use cim_persistence::store::{Context, ExpectedVersion, NatsRepositoryConfig, Ports};
use cim_persistence::subject::{AggregateId, InvalidToken};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::domain::{AccountEvent, Lab, bank, deposited};

/// Tokens with dots between them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Path(pub(crate) String);

impl Identity for Path {
    fn to_aggregate_id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::from_tokens(self.0.split('.'))
    }
    fn from_aggregate_id(id: &AggregateId) -> Result<Self, InvalidToken> {
        Ok(Self(id.to_string()))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Branch {
    pub(crate) id: Path,
    pub(crate) owner: String,
    pub(crate) cents: i64,
}

impl Aggregate for Branch {
    const TYPE: &'static str = "branch";
    type Id = Path;
    type Event = AccountEvent;
    fn new(id: &Path) -> Self {
        Self { id: id.clone(), owner: String::new(), cents: 0 }
    }
    fn id(&self) -> &Path {
        &self.id
    }
    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { owner } => self.owner = owner.clone(),
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Withdrawn { cents } => self.cents -= cents,
        }
    }
}

pub(crate) type Branches = Repository<Branch>;

/// What tests compare: cents and version by id.
pub(crate) type Seen = BTreeMap<String, (i64, u64)>;

pub(crate) fn seen<'a>(found: impl IntoIterator<Item = &'a (Branch, AggregateMetadata)>) -> Seen {
    let rows = found.into_iter().map(|(branch, known)| {
        assert_eq!(known.aggregate_id.to_string(), branch.id.0);
        (branch.id.0.clone(), (branch.cents, known.version))
    });
    rows.collect()
}

pub(crate) fn ids(found: &[(Branch, AggregateMetadata)]) -> Vec<&str> {
    found.iter().map(|(branch, _)| branch.id.0.as_str()).collect()
}

pub(crate) fn branch(id: &str) -> Branch {
    Branch::new(&Path(id.to_owned()))
}

pub(crate) async fn pay_in(branches: &Branches, id: &str, cents: i64) -> AggregateMetadata {
    branches.save(&branch(id), vec![deposited(cents)], ExpectedVersion::Any).await.unwrap()
}

pub(crate) async fn tagged(branches: &Branches, id: &str, cents: i64, tags: &[&str]) {
    let options = SaveOptions {
        tags: tags.iter().map(|tag| Tag::new(*tag).unwrap()).collect(),
        expected_version: ExpectedVersion::Any,
        ..SaveOptions::default()
    };
    branches.save(&branch(id), vec![deposited(cents)], options).await.unwrap();
}

/// So many branches, `many.0000` and on, with their number in cents; many commits are under way at once.
pub(crate) async fn open_many(branches: &Branches, count: usize) {
    let openings = (0..count).map(|number| async move {
        pay_in(branches, &many(number), number as i64).await;
    });
    futures::stream::iter(openings).buffer_unordered(200).collect::<Vec<()>>().await;
    branches.context().flush().await;
}

pub(crate) fn many(number: usize) -> String {
    format!("many.{number:04}")
}

/// What several processes share.
#[derive(Clone)]
pub(crate) struct Memory {
    pub(crate) log: MemoryLog,
    pub(crate) state: MemoryKeyValue,
    pub(crate) snapshots: MemoryKeyValue,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            log: MemoryLog::new(),
            state: MemoryKeyValue::new("state"),
            snapshots: MemoryKeyValue::new("snapshots"),
        }
    }

    /// A process with caches of its own.
    pub(crate) fn process(&self, config: &NatsRepositoryConfig) -> Branches {
        let ports = Ports {
            log: Arc::new(self.log.clone()),
            state: Arc::new(self.state.clone()),
            snapshots: Arc::new(self.snapshots.clone()),
            ..Ports::in_memory()
        };
        Repository::of(&Context::on(ports, config).unwrap()).unwrap()
    }

    pub(crate) fn branches(&self) -> Branches {
        self.process(&bank())
    }
}

/// A place where several processes find the same branches.
pub(crate) enum Place {
    Memory(Memory),
    Server(Lab),
}

impl Place {
    pub(crate) async fn all() -> [Self; 2] {
        [Self::Memory(Memory::new()), Self::Server(Lab::start().await)]
    }

    pub(crate) async fn process(&self, config: &NatsRepositoryConfig) -> Branches {
        match self {
            Self::Memory(memory) => memory.process(config),
            Self::Server(lab) => Repository::of(&lab.process(config).await).unwrap(),
        }
    }

    pub(crate) async fn branches(&self) -> Branches {
        self.process(&bank()).await
    }

    /// A text that names the bank, with the name that it has in this place.
    pub(crate) fn text(&self, text: &str) -> String {
        match self {
            Self::Memory(_) => text.to_owned(),
            Self::Server(lab) => lab.text(text),
        }
    }
}
