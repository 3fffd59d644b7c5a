//! Forgetting operations: their rows are needed until the run's journal has the answer, and are small, so that they go
//! late and only when their run is over.

use std::time::Duration;

use dormouse_core::{RunId, Timestamp};
use dormouse_store::Store;

use super::Databases;
use crate::config::Database;

/// For how long an operation is kept at least, after it was performed. Long: a database may be shared with another
/// installation, whose runs nobody here knows, and one of those may be stuck for a while.
const KEEP: Duration = Duration::from_secs(30 * 86_400);
/// Runs that are looked at in one go.
const BATCH: u32 = 500;

/// Deletes from a database the rows of operations that were performed 30 days ago or more, by runs that have ended or
/// that the store does not have. A database that this node has not used is left alone.
///
/// # Errors
/// A sentence; what was deleted before stays so.
pub(crate) async fn prune(
    databases: &Databases,
    database: &Database,
    store: &dyn Store,
    now: Timestamp,
) -> Result<(), String> {
    if !databases.is_open(database) {
        return Ok(());
    }
    let before = now.before(KEEP);
    let mut after: Option<RunId> = None;
    loop {
        let found = databases.old_runs(database, after, before, BATCH).await;
        let mut runs = found.map_err(|error| error.to_string())?;
        let is_last = runs.len() < BATCH as usize;
        after = runs.last().copied();
        let known = store.glance(&runs).await.map_err(|error| error.to_string())?;
        runs.retain(|run| {
            !known
                .iter()
                .any(|glance| glance.id == *run && !glance.state.status.is_terminal())
        });
        if !runs.is_empty() {
            let forgotten = databases.forget(database, runs, before).await;
            forgotten.map_err(|error| error.to_string())?;
        }
        if is_last {
            return Ok(());
        }
    }
}
