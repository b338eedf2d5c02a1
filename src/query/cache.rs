//! Results that are kept, and when one may be given again.
//!
//! A result is given again only while the store it was read from has the revision it had before the read. Any replica may have
//! answered the read, one that was behind too, so nothing is given again that is older than [`KEPT_FOR`].

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::QueryResult;
use crate::specification::Page;

/// The most results that are kept.
const MOST_RESULTS: usize = 256;

/// The most documents of a result that is kept.
const MOST_DOCUMENTS: usize = 1000;

/// How long a result is kept.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(10);

/// Results by what tells queries apart.
#[derive(Debug)]
pub(super) struct Results(Cache<String, Arc<Kept>>);

#[derive(Debug)]
struct Kept {
    revision: u64,
    since: Instant,
    page: Page<QueryResult>,
}

impl Results {
    pub(super) fn new() -> Self {
        Self(Cache::new(MOST_RESULTS))
    }

    /// What is kept of a query, if it was read at this revision of the store.
    pub(super) fn get(&self, identity: &str, revision: u64) -> Option<Page<QueryResult>> {
        let kept = self.0.get(identity)?;
        let current = kept.revision == revision && kept.since.elapsed() < KEPT_FOR;
        current.then(|| kept.page.clone())
    }

    /// Keeps a result that was read when the store had at least this revision.
    pub(super) fn keep(&self, identity: String, revision: u64, page: &Page<QueryResult>) {
        if page.items.len() <= MOST_DOCUMENTS {
            let kept = Kept { revision, since: Instant::now(), page: page.clone() };
            self.0.insert(identity, Arc::new(kept));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn page() -> Page<QueryResult> {
        let result = QueryResult { key: "a.1".to_owned(), document: json!(1), revision: 1 };
        Page { items: vec![result], next: None, total: 1 }
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_is_given_again_at_its_revision_and_for_a_while() {
        let results = Results::new();
        results.keep("q".to_owned(), 7, &page());
        assert_eq!(results.get("q", 7), Some(page()));
        assert_eq!(results.get("q", 8), None);
        assert_eq!(results.get("other", 7), None);
        tokio::time::advance(KEPT_FOR).await;
        assert_eq!(results.get("q", 7), None);
    }

    #[tokio::test]
    async fn large_results_are_not_kept() {
        let results = Results::new();
        let one = page().items.remove(0);
        let items = vec![one; MOST_DOCUMENTS + 1];
        results.keep("q".to_owned(), 7, &Page { items, next: None, total: 0 });
        assert_eq!(results.get("q", 7), None);
    }
}
