//! Following a stream.

use futures::Stream;

use super::NatsLog;
use crate::backend::{BackendError, Followed, TailQuery};

pub(super) fn follow(
    _log: NatsLog,
    _query: TailQuery,
) -> impl Stream<Item = Result<Followed, BackendError>> + Send + 'static {
    futures::stream::empty()
}
