//! Functions of which one run is there at a time, on Postgres, where events come in at several nodes at once.
//!
//! Whoever would start a run locks its key's row among the limits before anything else that it locks, in the order of the keys:
//! then nobody else decides about the key until the commit, and the run that it names is the last. Only one that may have to
//! make room is locked, with the other runs of the batch.

use std::collections::HashSet;

use dormouse_core::RunId;

use super::cache::Cache;
use super::fault::Attempt;
use super::limits::locked;
use super::sql::{Cells, Conn};
use crate::batch::limits::{LimitKey, Limits, limit_keys};
use crate::batch::singletons::{displaceable, holders, is_singleton};
use crate::error::Result;
use crate::ingest::Ingest;

const LIVING: &str = "SELECT id FROM runs WHERE id = ANY($1) AND live";
/// With the runs whose steps wait for them.
const TO_END: &str = "SELECT id, parent_id FROM runs WHERE id = ANY($1) AND live";

/// What is known of the keys of a batch, whose rows are locked until the transaction ends, and the runs that are to be locked
/// with the batch's.
#[derive(Default)]
pub(super) struct Singletons {
    pub(super) limits: Limits,
    pub(super) runs: Vec<RunId>,
}

/// Locks the keys of a batch.
pub(super) async fn lock(conn: &mut Conn, cache: &Cache, ingests: &[&Ingest]) -> Attempt<Singletons> {
    let mut runs = ingests.iter().flat_map(|ingest| &ingest.runs);
    if !runs.any(|run| run.admission.singleton.is_some()) {
        return Ok(Singletons::default());
    }
    let mut keys = limit_keys(cache, ingests)?;
    keys.retain(is_singleton);
    let limits = locked(conn, &keys).await?;
    let mut runs = Vec::new();
    let displaceable = displaceable(cache, ingests, &limits)?;
    if !displaceable.is_empty() {
        let rows = conn
            .fetch(TO_END, |args| {
                args.keys(displaceable.iter().copied());
            })
            .await?;
        for row in &rows {
            let mut cells = Cells::of(row);
            runs.push(cells.run()?);
            runs.extend(cells.run_or_null()?);
        }
    }
    Ok(Singletons { limits, runs })
}

/// Of the last runs of some keys, those that have not ended, after what the batch has done so far.
pub(super) async fn living(conn: &mut Conn, limits: &Limits, keys: &[LimitKey]) -> Attempt<HashSet<RunId>> {
    let holders = holders(limits, keys);
    if holders.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = conn
        .fetch(LIVING, |args| {
            args.keys(holders.iter().copied());
        })
        .await?;
    let living: Result<HashSet<RunId>> = rows.iter().map(|row| Cells::of(row).run()).collect();
    Ok(living?)
}
