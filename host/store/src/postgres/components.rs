//! Components as rows, by digest, so that every node finds them.

use std::collections::HashSet;
use std::time::Duration;

use dormouse_core::Digest;

use super::fault::Attempt;
use super::sql::{Cells, Conn};
use crate::error::Error;

/// One that nothing refers to is kept this long: its version may be about to be stored.
const ORPHAN_AGE: Duration = Duration::from_secs(3600);

/// Stores bytes under their digest, which the caller has checked.
pub(super) async fn put(conn: &mut Conn, digest: Digest, bytes: &[u8]) -> Attempt<()> {
    // Written anew even if it is there: what is damaged is repaired, and what is young is no orphan.
    conn.execute(
        "INSERT INTO components (digest, bytes, stored_ms) \
         VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::int8) \
         ON CONFLICT (digest) DO UPDATE SET bytes = excluded.bytes, stored_ms = excluded.stored_ms",
        |args| {
            args.bytes(digest.as_bytes()).bytes(bytes);
        },
    )
    .await?;
    Ok(())
}

/// The bytes, checked.
pub(super) async fn get(conn: &mut Conn, digest: Digest) -> Attempt<Option<Vec<u8>>> {
    let rows = conn
        .fetch("SELECT bytes FROM components WHERE digest = $1", |args| {
            args.bytes(digest.as_bytes());
        })
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let bytes = Cells::of(row).all_bytes()?;
    if Digest::of(&bytes) != digest {
        return Err(Error::Corrupt(format!(
            "component {digest} is not what was stored: upload it again"
        ))
        .into());
    }
    Ok(Some(bytes))
}

/// Removes what no version refers to.
pub(super) async fn sweep(conn: &mut Conn) -> Attempt<()> {
    let rows = conn
        .fetch(
            "DELETE FROM components c WHERE NOT EXISTS (SELECT 1 FROM versions v WHERE v.digest = c.digest AND NOT v.deleted) \
             AND c.stored_ms < (extract(epoch FROM clock_timestamp()) * 1000)::int8 - $1 RETURNING c.digest",
            |args| {
                args.int(ORPHAN_AGE.as_millis() as i64);
            },
        )
        .await?;
    let mut removed = HashSet::new();
    for row in &rows {
        removed.insert(Digest::from_bytes(Cells::of(row).bytes()?));
    }
    if !removed.is_empty() {
        tracing::debug!(
            count = removed.len(),
            "components that no version refers to were removed"
        );
    }
    Ok(())
}
