//! Permissions that the server refused. It says so apart from any request, which would otherwise just time out.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// More refusals than requests that can sensibly be under way at once.
const REMEMBERED: usize = 4096;

/// The refusals of one connection, newest last.
#[derive(Debug, Default)]
pub(super) struct Denials {
    seen: Mutex<Seen>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    recent: VecDeque<Denial>,
    /// The refused subscription to answers: without it no request of this connection can be answered.
    inbox: Option<String>,
    inbox_prefix: String,
}

#[derive(Debug)]
struct Denial {
    subject: String,
    text: String,
    at: Instant,
}

impl Denials {
    pub(super) fn new(inbox_prefix: &str) -> Self {
        let seen = Seen { inbox_prefix: format!("{inbox_prefix}."), ..Seen::default() };
        Self { seen: Mutex::new(seen), changed: Notify::new() }
    }

    /// Takes note of an error text of the server, if it is a refused permission.
    pub(super) fn note(&self, text: &str) {
        let Some(refused) = parse(text) else { return };
        let mut seen = self.lock();
        match refused {
            Refused::Subscription(subject) if subject.starts_with(&seen.inbox_prefix) => {
                seen.inbox = Some(text.to_owned());
            }
            Refused::Subscription(subject) | Refused::Publish(subject) => {
                if seen.recent.len() == REMEMBERED {
                    seen.recent.pop_front();
                }
                let (subject, text) = (subject.to_owned(), text.to_owned());
                seen.recent.push_back(Denial { subject, text, at: Instant::now() });
            }
        }
        drop(seen);
        self.changed.notify_waiters();
    }

    /// Forgets everything: a new connection may have new permissions.
    pub(super) fn forget(&self) {
        let mut seen = self.lock();
        seen.recent.clear();
        seen.inbox = None;
    }

    /// What the server said about `subject`, or about answers, at `since` or later.
    pub(super) fn since(&self, since: Instant, subject: &str) -> Option<String> {
        let seen = self.lock();
        seen.about(Some(since), subject).or_else(|| seen.inbox.clone())
    }

    /// What the server said about `subject`, or about answers, within the last `age`.
    pub(super) fn within(&self, age: Duration, subject: &str) -> Option<String> {
        let seen = self.lock();
        seen.about(Instant::now().checked_sub(age), subject).or_else(|| seen.inbox.clone())
    }

    /// What the server said about `subject` itself within the last `age`.
    pub(super) fn published_within(&self, age: Duration, subject: &str) -> Option<String> {
        self.lock().about(Instant::now().checked_sub(age), subject)
    }

    /// Waits until the server refuses `subject`; for ever when it does not.
    pub(super) async fn refused(&self, since: Instant, subject: &str) -> String {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Armed before looking, so that a refusal between the look and the wait is not missed.
            changed.as_mut().enable();
            if let Some(text) = self.since(since, subject) {
                return text;
            }
            changed.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Seen {
    /// What the server said about `subject` at `since` or later; at any time where `since` lies before all times.
    fn about(&self, since: Option<Instant>, subject: &str) -> Option<String> {
        let recent = |denial: &&Denial| since.is_none_or(|since| denial.at >= since);
        let mut newest_first = self.recent.iter().rev().take_while(recent);
        let about = newest_first.find(|denial| denial.subject == subject);
        about.map(|denial| denial.text.clone())
    }
}

enum Refused<'a> {
    Publish(&'a str),
    Subscription(&'a str),
}

/// Reads `Permissions Violation for Publish to "subject"` and the like.
fn parse(text: &str) -> Option<Refused<'_>> {
    let what = text.strip_prefix("Permissions Violation for ")?;
    let subject = what.split('"').nth(1)?;
    if what.starts_with("Subscription to ") {
        Some(Refused::Subscription(subject))
    } else if what.starts_with("Publish ") {
        Some(Refused::Publish(subject))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn knows_what_was_refused_and_forgets_on_a_new_connection() {
        let denials = Denials::new("_INBOX");
        denials.note("Permissions Violation for Publish to \"a.b\"");
        denials.note("Maximum Connections Exceeded");
        assert_eq!(
            denials.within(LONG, "a.b").as_deref(),
            Some("Permissions Violation for Publish to \"a.b\"")
        );
        assert_eq!(denials.within(LONG, "a"), None);
        assert_eq!(denials.since(Instant::now(), "a.b"), None);
        denials.forget();
        assert_eq!(denials.within(LONG, "a.b"), None);
    }

    #[test]
    fn a_refused_inbox_refuses_every_request() {
        let denials = Denials::new("_INBOX");
        let text = "Permissions Violation for Subscription to \"_INBOX.x.*\"";
        denials.note("Permissions Violation for Subscription to \"other\"");
        assert_eq!(denials.within(LONG, "a"), None);
        denials.note(text);
        assert_eq!(denials.since(Instant::now(), "a").as_deref(), Some(text));
        assert_eq!(denials.within(LONG, "a").as_deref(), Some(text));
        assert_eq!(denials.published_within(LONG, "a"), None, "a message is stored all the same");
    }

    #[test]
    fn holds_a_bounded_number() {
        let denials = Denials::new("_INBOX");
        for i in 0..=REMEMBERED {
            denials.note(&format!("Permissions Violation for Publish to \"s.{i}\""));
        }
        assert_eq!(denials.within(LONG, "s.0"), None);
        assert!(denials.within(LONG, "s.1").is_some());
    }

    #[tokio::test]
    async fn wakes_whoever_waits() {
        let denials = std::sync::Arc::new(Denials::new("_INBOX"));
        let since = Instant::now();
        let waiter = tokio::spawn({
            let denials = denials.clone();
            async move { denials.refused(since, "x").await }
        });
        denials.note("Permissions Violation for Publish to \"y\"");
        denials.note("Permissions Violation for Publish with Reply of \"x\"");
        let text = waiter.await.unwrap();
        assert_eq!(text, "Permissions Violation for Publish with Reply of \"x\"");
    }
}
