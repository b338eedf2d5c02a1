//! How a stream must be set, and whether one is.

use std::fmt::Display;
use std::time::Duration;

use crate::subject::{SubjectScheme, TimeoutSubjects};

use super::Replicas;
use super::error::{SettingMismatch, TopologyError};
use super::settings::{Discard, Retention, Storage, StreamSettings};

/// How long a created stream remembers message ids, and the least for the stream of the events.
///
/// Commits of events do not hang on it, since their expectations refuse a second copy.
/// [`Outbox::save_messages`](crate::outbox::Outbox::save_messages) does: nothing guards what it saves, so for half a
/// minute it sends again what it had no answer to, and for two minutes it promises to refuse an id that is stored.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// How many consumers a created stream may have.
///
/// Set, because a server of 2.15 takes an unset limit for 1000, and every projection, watcher and long read is a
/// consumer. Far above what one stream can serve, and still a bound.
pub const MAX_CONSUMERS: u64 = 100_000;

/// A stream that may have fewer consumers than this is refused. Every projection, watcher and long read of every
/// process has one of its own, so a smaller limit was not set with this crate in mind.
const MIN_CONSUMERS: u64 = 100;

/// A stream that takes only smaller messages than this is refused: a server's default `max_payload`, in bytes.
pub const MIN_MESSAGE_BYTES: u64 = 1024 * 1024;

/// The longest name of a stream, with room below the server's 255 for the prefix of a bucket.
const MAX_STREAM_NAME: usize = 240;

/// How one stream must be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    settings: StreamSettings,
    keeps: Keeps,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeps {
    /// Every message.
    Everything,
    /// The last of each subject.
    Latest,
    /// What is scheduled until its time has come, and what is due until it is removed.
    Schedules,
}

impl StreamSpec {
    /// The stream of a context's events, outbox messages and claims: it keeps everything for ever.
    ///
    /// # Errors
    /// [`TopologyError::Name`] when the name cannot be that of a stream.
    pub fn events(
        name: &str,
        scheme: &SubjectScheme,
        replicas: Replicas,
    ) -> Result<Self, TopologyError> {
        check_name("stream name", name)?;
        let context = scheme.context();
        let subjects = vec![
            scheme.all_events(),
            format!("cim.outbox.{context}.>"),
            format!("cim.unique.{context}.>"),
        ];
        let settings =
            StreamSettings { deny_purge: true, ..base(name.to_owned(), subjects, replicas) };
        Ok(Self { settings, keeps: Keeps::Everything })
    }

    /// A key-value bucket: what the standard clients make, with atomic batches allowed, which they do not notice.
    ///
    /// # Errors
    /// [`TopologyError::Name`] when the name cannot be that of a bucket.
    pub fn bucket(bucket: &str, replicas: Replicas) -> Result<Self, TopologyError> {
        check_name("bucket name", bucket)?;
        let base = base(format!("KV_{bucket}"), vec![format!("$KV.{bucket}.>")], replicas);
        let settings = StreamSettings { max_msgs_per_subject: Some(1), allow_rollup: true, ..base };
        Ok(Self { settings, keeps: Keeps::Latest })
    }

    /// The stream of a context's timeouts: the server publishes each message at its time, from one subject to another.
    ///
    /// A stream with schedules cannot refuse messages when it is full, so it has no limits and is never full.
    ///
    /// # Errors
    /// [`TopologyError::Name`] when the name cannot be that of a stream.
    pub fn timeouts(
        name: &str,
        scheme: &SubjectScheme,
        replicas: Replicas,
    ) -> Result<Self, TopologyError> {
        check_name("stream name", name)?;
        let subjects = TimeoutSubjects::of(scheme.context()).all().to_vec();
        let settings = StreamSettings {
            discard: Discard::Old,
            allow_rollup: true,
            allow_msg_schedules: true,
            ..base(name.to_owned(), subjects, replicas)
        };
        Ok(Self { settings, keeps: Keeps::Schedules })
    }

    /// The stream's name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// The settings it is created with.
    pub fn settings(&self) -> &StreamSettings {
        &self.settings
    }

    /// Whether a stream with these settings can stand in: it may differ from what would be created as long as it can
    /// lose nothing and refuses nothing that is needed.
    ///
    /// What may be larger has a least value: [`MIN_MESSAGE_BYTES`], 100 consumers, the replicas that are wanted, and
    /// for the stream of the events [`DUPLICATE_WINDOW`].
    ///
    /// # Errors
    /// Every setting that is wrong.
    pub fn check(&self, actual: &StreamSettings) -> Result<(), Vec<SettingMismatch>> {
        let wanted = &self.settings;
        let mut wrong = Mismatches::default();
        wrong.unless_equal("retention", wanted.retention, actual.retention);
        wrong.unless_equal("discard", wanted.discard, actual.discard);
        wrong.unless_equal("storage", wanted.storage, actual.storage);
        wrong.unless_equal("no_ack", wanted.no_ack, actual.no_ack);
        wrong.unless_equal("sealed", wanted.sealed, actual.sealed);
        wrong.unless_equal("deny_delete", wanted.deny_delete, actual.deny_delete);
        wrong.unless_equal("allow_rollup_hdrs", wanted.allow_rollup, actual.allow_rollup);
        wrong.unless_equal("allow_direct", wanted.allow_direct, actual.allow_direct);
        wrong.unless_equal("allow_atomic", wanted.allow_atomic, actual.allow_atomic);
        wrong.unless_equal("allow_msg_counter", wanted.allow_msg_counter, actual.allow_msg_counter);
        wrong.unless_none("max_msgs", actual.max_msgs);
        wrong.unless_none("max_bytes", actual.max_bytes);
        wrong.unless_none("max_age", actual.max_age.map(|age| format!("{age:?}")));
        wrong.unless_none("mirror", actual.mirror.as_ref());
        wrong.unless_none("sources", actual.sources.as_ref());
        wrong.unless_none("subject_transform", actual.subject_transform.as_ref());
        if self.keeps != Keeps::Latest {
            wrong.unless_equal("deny_purge", wanted.deny_purge, actual.deny_purge);
            wrong.unless_equal("allow_msg_ttl", wanted.allow_msg_ttl, actual.allow_msg_ttl);
            let schedules = (wanted.allow_msg_schedules, actual.allow_msg_schedules);
            wrong.unless_equal("allow_msg_schedules", schedules.0, schedules.1);
            wrong.unless_none("max_msgs_per_subject", actual.max_msgs_per_subject);
        }
        if actual.persist_mode.as_deref() == Some("async") {
            wrong.add("persist_mode", "default", "async");
        }
        wrong.unless_at_least("max_msg_size", MIN_MESSAGE_BYTES, actual.max_msg_size);
        wrong.unless_at_least("max_consumers", MIN_CONSUMERS, actual.max_consumers);
        wrong.unless_at_least("num_replicas", wanted.num_replicas, Some(actual.num_replicas));
        let window = actual.duplicate_window.unwrap_or_default();
        if self.keeps == Keeps::Everything && window < DUPLICATE_WINDOW {
            let wanted = format!("at least {DUPLICATE_WINDOW:?}");
            wrong.add("duplicate_window", wanted, format!("{window:?}"));
        }
        for subject in &wanted.subjects {
            if !actual.subjects.iter().any(|pattern| covers(pattern, subject)) {
                wrong.add("subjects", format!("covering {subject}"), actual.subjects.join(" "));
            }
        }
        if wrong.0.is_empty() { Ok(()) } else { Err(wrong.0) }
    }
}

fn base(name: String, subjects: Vec<String>, replicas: Replicas) -> StreamSettings {
    StreamSettings {
        name,
        subjects,
        retention: Retention::Limits,
        discard: Discard::New,
        storage: Storage::File,
        num_replicas: replicas.count(),
        max_consumers: Some(MAX_CONSUMERS),
        duplicate_window: Some(DUPLICATE_WINDOW),
        deny_delete: true,
        allow_direct: true,
        allow_atomic: true,
        ..StreamSettings::default()
    }
}

fn check_name(what: &'static str, text: &str) -> Result<(), TopologyError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !text.is_empty() && text.len() <= MAX_STREAM_NAME && text.chars().all(plain) {
        return Ok(());
    }
    Err(TopologyError::Name { what, text: text.to_owned(), max: MAX_STREAM_NAME })
}

/// Whether every subject that `inner` matches is matched by `outer`.
fn covers(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('.'), inner.split('.'));
    loop {
        match (outer.next(), inner.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

#[derive(Default)]
struct Mismatches(Vec<SettingMismatch>);

impl Mismatches {
    fn add(&mut self, field: &'static str, wanted: impl Display, found: impl Display) {
        let (wanted, found) = (wanted.to_string(), found.to_string());
        self.0.push(SettingMismatch { field, wanted, found });
    }

    fn unless_equal<T: PartialEq + Display>(&mut self, field: &'static str, wanted: T, found: T) {
        if wanted != found {
            self.add(field, wanted, found);
        }
    }

    /// A limit that is not set is none.
    fn unless_at_least(&mut self, field: &'static str, least: u64, limit: Option<u64>) {
        if let Some(limit) = limit.filter(|limit| *limit < least) {
            self.add(field, format!("at least {least}"), limit);
        }
    }

    fn unless_none<T: Display>(&mut self, field: &'static str, found: Option<T>) {
        if let Some(found) = found {
            self.add(field, "unset", found);
        }
    }
}

#[cfg(test)]
mod tests;
