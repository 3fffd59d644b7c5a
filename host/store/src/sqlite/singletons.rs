//! Functions of which one run is there at a time.

use std::collections::HashSet;

use dormouse_core::RunId;
use sqlx::SqliteConnection;

use super::sql::{Cells, Rows};
use crate::batch::limits::{LimitKey, Limits};
use crate::batch::singletons::holders;
use crate::error::Result;

static LIVING: Rows = Rows::new(
    "SELECT id FROM runs WHERE +phase IS NOT NULL AND id IN (VALUES ",
    1,
    ")",
);

/// Of the last runs of some keys, those that have not ended.
pub(super) async fn living(
    conn: &mut SqliteConnection,
    limits: &Limits,
    keys: &[LimitKey],
) -> Result<HashSet<RunId>> {
    let rows = LIVING
        .fetch(conn, &holders(limits, keys), |args, run| {
            args.run(*run);
        })
        .await?;
    rows.iter().map(|row| Cells::of(row).run()).collect()
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![&LIVING]
}
