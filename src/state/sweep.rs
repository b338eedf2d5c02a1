//! Going over all keys of a bucket, however many.

use std::collections::HashSet;
use std::future::ready;

use futures::{Stream, TryStreamExt};

use super::{Entry, Watched};
use crate::backend::BackendError;

/// The keys there are and what they hold, each once, up to the end of what there is. Remembers the keys, because one that
/// is written meanwhile comes again.
pub(crate) fn each_once(
    watched: impl Stream<Item = Result<Watched, BackendError>>,
) -> impl Stream<Item = Result<Entry, BackendError>> {
    let mut handed_out = HashSet::new();
    watched.try_take_while(|watched| ready(Ok(*watched != Watched::CaughtUp))).try_filter_map(
        move |watched| {
            let new = match watched {
                Watched::Entry(entry) => Some(entry).filter(|e| handed_out.insert(e.key.clone())),
                Watched::CaughtUp => None,
            };
            ready(Ok(new))
        },
    )
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};

    use super::*;
    use crate::clock::Timestamp;
    use crate::event::Headers;
    use crate::state::Key;

    #[tokio::test]
    async fn a_key_that_is_written_while_all_are_read_is_handed_out_once() {
        let entry = |key: &str, revision| {
            Watched::Entry(Entry {
                key: Key::new(key).unwrap(),
                revision,
                written_at: Timestamp::from_micros(0),
                headers: Headers::new(),
                value: Some("state".into()),
            })
        };
        let watched = [
            entry("order.1", 1),
            entry("order.2", 2),
            entry("order.1", 3),
            Watched::CaughtUp,
            entry("order.3", 4),
        ];
        let found: Vec<Entry> =
            each_once(stream::iter(watched).map(Ok)).try_collect().await.unwrap();
        let found: Vec<_> =
            found.iter().map(|entry| (entry.key.as_str(), entry.revision)).collect();
        assert_eq!(found, [("order.1", 1), ("order.2", 2)]);
    }
}
