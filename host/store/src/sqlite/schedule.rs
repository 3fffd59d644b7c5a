//! Nodes, claims, timers and takeover.

use std::collections::HashMap;

use dormouse_core::{Digest, FunctionName, Json, RunId, Timestamp};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::cache::Cache;
use super::runs::{flush, hot_columns, read_row};
use super::slots::{self, Claiming};
use super::sql::{Cells, Rows, execute, fetch};
use super::throttles;
use crate::batch;
use crate::batch::runs::{SHARD, Work, place};
use crate::batch::schedule::Details;
use crate::batch::throttles::waiting;
use crate::error::{Error, Result};
use crate::schedule::{
    Claim, ClaimedBatch, ClaimedRun, FireTimers, Fired, Incarnation, LACKING_MAX, NewNode, Node, Standing,
};
use crate::swap::Swapped;

/// What a claimed run has beside its row.
static DETAILS: Rows = Rows::new(
    "SELECT r.id, r.function_id, r.config_revision, r.event_id, r.depth, r.seed, \
     CASE WHEN r.continued THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = r.id AND b.seq = -2) END, \
     CASE WHEN e.large THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END, \
     CASE WHEN r.began_base = r.journal_base THEN r.began_ms END, r.swapped, \
     CASE WHEN r.asked_id IS NOT NULL THEN (SELECT a.digest FROM versions a WHERE a.id = r.asked_id) END \
     FROM runs r LEFT JOIN events e ON e.id = r.event_id WHERE r.id IN (VALUES ",
    1,
    ")",
);
const _: () = assert!(place::CONTINUED == -2 && place::EVENT == -3);

/// Registers a node. It holds the data directory's lock, so all others are dead.
pub(super) async fn join(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    node: &NewNode,
    now: Timestamp,
) -> Result<Standing> {
    execute(conn, "DELETE FROM nodes", |_| {}).await?;
    execute(
        conn,
        "INSERT INTO nodes (incarnation, name, release, url, joined_ms, heartbeat_ms) VALUES (?, ?, ?, ?, ?, ?)",
        |args| {
            args.bytes(&node.incarnation.0)
                .text(&node.name)
                .text(&node.release)
                .text(&node.url)
                .time(now)
                .time(now);
        },
    )
    .await?;
    // What somebody has let go of who did not know of slots, or could not say so.
    slots::look_again(conn, None, now).await?;
    cache.nodes.clear();
    cache.nodes.insert(node.incarnation);
    Ok(Standing {
        now,
        draining: false,
        mixed: false,
        generation: cache.generation,
    })
}

pub(super) async fn heartbeat(
    conn: &mut SqliteConnection,
    cache: &Cache,
    node: Incarnation,
    now: Timestamp,
) -> Result<Standing> {
    lives(cache, node)?;
    let rows = fetch(
        conn,
        "UPDATE nodes SET heartbeat_ms = ? WHERE incarnation = ? RETURNING draining",
        |args| {
            args.time(now).bytes(&node.0);
        },
    )
    .await?;
    let row = rows.first().ok_or(Error::DeclaredDead)?;
    let draining = Cells::of(row).flag()?;
    Ok(Standing {
        now,
        draining,
        // There is one node.
        mixed: false,
        generation: cache.generation,
    })
}

/// Marks a node as draining. Returns how many nodes that were.
pub(super) async fn drain(conn: &mut SqliteConnection, node: Incarnation) -> Result<u64> {
    execute(
        conn,
        "UPDATE nodes SET draining = 1 WHERE incarnation = ?",
        |args| {
            args.bytes(&node.0);
        },
    )
    .await
}

pub(super) async fn leave(conn: &mut SqliteConnection, cache: &mut Cache, node: Incarnation) -> Result<()> {
    execute(conn, "DELETE FROM nodes WHERE incarnation = ?", |args| {
        args.bytes(&node.0);
    })
    .await?;
    cache.nodes.remove(&node);
    Ok(())
}

fn lives(cache: &Cache, node: Incarnation) -> Result<()> {
    if cache.nodes.contains(&node) {
        Ok(())
    } else {
        Err(Error::DeclaredDead)
    }
}

/// Makes runs of dead nodes ready.
pub(super) async fn take_over(conn: &mut SqliteConnection, limit: u32, now: Timestamp) -> Result<u64> {
    let rows = fetch(
        conn,
        concat!(
            "SELECT ",
            hot_columns!(),
            " FROM runs r WHERE r.phase = 1 AND r.version_id IN (SELECT id FROM versions) \
             AND r.owner NOT IN (SELECT incarnation FROM nodes) ORDER BY r.id LIMIT ?"
        ),
        |args| {
            args.int(limit.into());
        },
    )
    .await?;
    let (mut work, ids) = take(&rows)?;
    for id in &ids {
        batch::schedule::take_over(&mut work, *id, now)?;
    }
    flush(conn, &mut work).await?;
    Ok(rows.len() as u64)
}

/// Leases ready runs.
pub(super) async fn claim(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    claim: &Claim,
) -> Result<ClaimedBatch> {
    lives(cache, claim.node)?;
    let rows = match &claim.versions {
        None => {
            fetch(
                conn,
                concat!(
                    "SELECT ",
                    hot_columns!(),
                    " FROM (SELECT at_ms, run_id FROM ready WHERE shard = ? ORDER BY at_ms, run_id LIMIT ?) q \
                     CROSS JOIN runs r ON r.id = q.run_id ORDER BY q.at_ms, q.run_id"
                ),
                |args| {
                    args.int(SHARD).int(claim.limit.into());
                },
            )
            .await?
        }
        Some(versions) => {
            fetch(
                conn,
                concat!(
                    "SELECT ",
                    hot_columns!(),
                    " FROM ready q CROSS JOIN runs r ON r.id = q.run_id WHERE q.shard = ? AND r.version_id IN \
                     (SELECT v.id FROM versions v WHERE lower(hex(v.digest)) IN (SELECT value FROM json_each(?))) \
                     ORDER BY q.at_ms, q.run_id LIMIT ?"
                ),
                |args| {
                    args.int(SHARD).text(&array_of(versions)).int(claim.limit.into());
                },
            )
            .await?
        }
    };
    let (mut work, ids) = take(&rows)?;
    let notes = cache.slots_freed;
    let mut desk = Claiming { conn, cache };
    let mut outcome = batch::slots::claim(&mut desk, &mut work, &ids, claim, notes).await?;
    let claimed = describe(conn, cache, &work, &outcome.claimed).await?;
    flush(conn, &mut work).await?;
    if let Some(versions) = &claim.versions
        && ids.len() < claim.limit as usize
    {
        outcome.lacking.extend(lacking(conn, versions).await?);
    }
    Ok(ClaimedBatch {
        claimed,
        blocked: outcome.blocked,
        lacking: outcome.lacking.into_iter().collect(),
        waiting: outcome.waiting,
        again: outcome.again,
    })
}

/// The versions of the oldest ready runs, without these.
async fn lacking(conn: &mut SqliteConnection, versions: &[Digest]) -> Result<Vec<Digest>> {
    let rows = fetch(
        conn,
        "SELECT DISTINCT v.digest FROM (SELECT run_id FROM ready WHERE shard = ? ORDER BY at_ms, run_id LIMIT ?) q \
         CROSS JOIN runs r ON r.id = q.run_id CROSS JOIN versions v ON v.id = r.version_id \
         WHERE lower(hex(v.digest)) NOT IN (SELECT value FROM json_each(?)) ORDER BY v.digest",
        |args| {
            args.int(SHARD).int(LACKING_MAX.into()).text(&array_of(versions));
        },
    )
    .await?;
    rows.iter()
        .map(|row| Ok(Digest::from_bytes(Cells::of(row).bytes()?)))
        .collect()
}

/// Digests as a JSON array of their hexadecimal digits.
fn array_of(versions: &[Digest]) -> String {
    let quoted: Vec<String> = versions
        .iter()
        .map(|digest| format!("\"{}\"", digest.hex()))
        .collect();
    format!("[{}]", quoted.join(","))
}

/// Fires due timers.
pub(super) async fn fire_timers(
    conn: &mut SqliteConnection,
    cache: &Cache,
    fire: &FireTimers,
) -> Result<Fired> {
    lives(cache, fire.node)?;
    let rows = fetch(
        conn,
        concat!(
            "SELECT ",
            hot_columns!(),
            " FROM (SELECT due_ms, run_id FROM timers WHERE shard = ? AND due_ms <= ? ORDER BY due_ms, run_id LIMIT ?) q \
             CROSS JOIN runs r ON r.id = q.run_id ORDER BY q.due_ms, q.run_id"
        ),
        |args| {
            args.int(SHARD).time(fire.now).int(fire.limit.into());
        },
    )
    .await?;
    let (mut work, ids) = take(&rows)?;
    let mut lines = throttles::lines(conn, &waiting(&work, &ids)).await?;
    let (claimed, mut fired) =
        batch::schedule::fire(&mut work, &ids, &mut lines, fire, |id| cache.digest(id))?;
    fired
        .held
        .extend(throttles::settle(conn, &mut work, lines).await?);
    fired.claimed = describe(conn, cache, &work, &claimed).await?;
    flush(conn, &mut work).await?;
    Ok(fired)
}

/// The runs that a statement found, in the order in which it found them.
fn take(rows: &[SqliteRow]) -> Result<(Work, Vec<RunId>)> {
    let mut work = Work::default();
    let mut ids = Vec::with_capacity(rows.len());
    for row in rows {
        let row = read_row(&mut Cells::of(row))?;
        ids.push(row.id);
        work.add(row);
    }
    Ok((work, ids))
}

/// What a claimed run has beside its row, from behind the function's cells.
pub(super) fn details(cells: &mut Cells<'_>, function: FunctionName, version: Digest) -> Result<Details> {
    Ok(Details {
        function,
        version,
        config_revision: cells.int()?,
        event_id: cells.event()?,
        depth: cells.number()?,
        seed: cells.bytes()?,
        continued: cells.text_or_null()?.map(Json::trusted),
        event: cells.text_or_null()?.map(Json::trusted),
        began: cells.time_or_null()?,
        swapped: Swapped::from_bits(cells.int()?),
        asked: cells.bytes_or_null()?.map(Digest::from_bytes),
    })
}

/// Claimed runs with all that a node needs to drive them, in the order given.
async fn describe(
    conn: &mut SqliteConnection,
    cache: &Cache,
    work: &Work,
    ids: &[RunId],
) -> Result<Vec<ClaimedRun>> {
    let rows = DETAILS
        .fetch(conn, ids, |args, id| {
            args.run(*id);
        })
        .await?;
    let mut found: HashMap<RunId, ClaimedRun> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        let id = cells.run()?;
        let Some(row) = work.get(id) else { continue };
        let function = cache.function(cells.int()?)?;
        let details = details(&mut cells, function, cache.digest(row.version_id)?)?;
        found.insert(id, batch::schedule::claimed_run(row, details)?);
    }
    Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
}

/// All nodes that live.
pub(super) async fn nodes(conn: &mut SqliteConnection, now: Timestamp) -> Result<Vec<Node>> {
    let rows = fetch(
        conn,
        "SELECT n.incarnation, n.name, n.release, n.url, n.joined_ms, n.heartbeat_ms, n.draining, \
         (SELECT count(*) FROM runs r WHERE r.phase = 1 AND r.version_id IN (SELECT id FROM versions) \
         AND r.owner = n.incarnation) \
         FROM nodes n ORDER BY n.joined_ms, n.incarnation",
        |_| {},
    )
    .await?;
    rows.iter()
        .map(|row| {
            let mut cells = Cells::of(row);
            let incarnation = Incarnation(cells.bytes()?);
            let (name, release, url) = (
                cells.text()?.to_owned(),
                cells.text()?.to_owned(),
                cells.text()?.to_owned(),
            );
            let (joined_at, heartbeat_at) = (cells.time()?, cells.time()?);
            Ok(Node {
                incarnation,
                name,
                release,
                url,
                joined_at,
                heartbeat_at,
                silent_for: now.since(heartbeat_at),
                draining: cells.flag()?,
                runs: cells.int()?.unsigned_abs(),
            })
        })
        .collect()
}

/// When the soonest timers are due.
pub(super) async fn upcoming_timers(
    conn: &mut SqliteConnection,
    until: Timestamp,
    limit: u32,
) -> Result<Vec<Timestamp>> {
    let rows = fetch(
        conn,
        "SELECT due_ms FROM timers WHERE shard = ? AND due_ms < ? ORDER BY due_ms LIMIT ?",
        |args| {
            args.int(SHARD).time(until).int(limit.into());
        },
    )
    .await?;
    rows.iter().map(|row| Cells::of(row).time()).collect()
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![&DETAILS]
}
