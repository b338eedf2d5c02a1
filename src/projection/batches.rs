//! The writes of a run in batches, as few as hold them.

use super::Rejection;
use super::session::Group;
use crate::state::KeyValue;

/// The most keys of one atomic batch, one of them the checkpoint's.
const BATCH: usize = 1000;

/// Groups of writes in as few batches as hold them, each with room for the checkpoint. Never none.
///
/// Of several batches the first are stored before the bucket sees the last, so what no message holds is looked for first.
/// A single one is refused whole.
pub(super) fn pack(
    groups: Vec<Group>,
    bucket: &dyn KeyValue,
) -> Result<Vec<Vec<Group>>, Rejection> {
    let mut batches = vec![Vec::new()];
    let mut room = BATCH - 1;
    for group in groups {
        let size = group.writes.len();
        if size > BATCH - 1 {
            return Err(format!(
                "a model with its index entries takes {size} keys, more than {}",
                BATCH - 1
            )
            .into());
        }
        if size > room {
            batches.push(Vec::new());
            room = BATCH - 1;
        }
        room -= size;
        batches.last_mut().expect("begun with one").push(group);
    }
    if batches.len() > 1 {
        let mut writes = batches.iter().flatten().flat_map(|group| &group.writes);
        writes.try_for_each(|write| bucket.check(write))?;
    }
    Ok(batches)
}
