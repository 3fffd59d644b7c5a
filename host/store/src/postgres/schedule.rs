//! Nodes, claims, timers and takeover. Whether a node is late is decided by the server's clock alone.

use std::collections::HashMap;
use std::time::Duration;

use dormouse_core::{Digest, FunctionName, Json, RunId, Timestamp};

use super::cache::Cache;
use super::fault::Attempt;
use super::runs::{flush, hot_columns, take};
use super::slots::Claiming;
use super::sql::{Cells, Conn};
use super::throttles;
use super::writer::Effects;
use crate::batch;
use crate::batch::runs::{Work, place};
use crate::batch::schedule::Details;
use crate::batch::throttles::waiting;
use crate::error::{Error, Result};
use crate::schedule::{
    Claim, ClaimedBatch, ClaimedRun, FireTimers, Fired, Incarnation, LACKING_MAX, NewNode, Node, Standing,
};
use crate::swap::Swapped;

/// The server's clock in milliseconds, as text of a statement.
macro_rules! clock {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::int8"
    };
}

/// What a claimed run has beside its row.
const DETAILS: &str = "SELECT r.id, r.function_id, r.config_revision, r.event_id, r.depth, r.seed, \
     CASE WHEN r.continued THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = r.id AND b.seq = -2) END, \
     CASE WHEN e.large THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END, \
     CASE WHEN r.began_base = r.journal_base THEN r.began_ms END, r.swapped, \
     CASE WHEN r.asked_id IS NOT NULL THEN (SELECT a.digest FROM versions a WHERE a.id = r.asked_id) END \
     FROM runs r LEFT JOIN events e ON e.id = r.event_id WHERE r.id = ANY($1)";
const _: () = assert!(place::CONTINUED == -2 && place::EVENT == -3);

/// Whether the node lives, the time of the first row of the ready queue, and whether slots were freed.
pub(super) const FIRST_READY: &str = "SELECT EXISTS (SELECT 1 FROM nodes WHERE incarnation = $1), \
     (SELECT at_ms FROM ready WHERE shard = 0 AND at_ms >= $2 ORDER BY at_ms LIMIT 1), \
     EXISTS (SELECT 1 FROM slots_freed)";

// ---- nodes, each a single statement that may be executed twice ----------------------------------------------------

pub(super) async fn join(conn: &mut Conn, node: &NewNode) -> Attempt<Standing> {
    let rows = conn
        .fetch(
            concat!(
                "WITH risen AS (DELETE FROM graves WHERE incarnation = $1), clock AS (SELECT ",
                clock!(),
                " AS ms), \
                 look AS (INSERT INTO slots_freed (scope, key, run_id, epoch) \
                 SELECT DISTINCT s.scope, s.key, '00000000-0000-0000-0000-000000000000'::uuid, clock.ms \
                 FROM slots s CROSS JOIN clock WHERE s.since_ms IS NOT NULL ON CONFLICT DO NOTHING) \
                 INSERT INTO nodes (incarnation, name, release, url, joined_ms, heartbeat_ms) \
                 SELECT $1, $2, $3, $4, ms, ms FROM clock ON CONFLICT (incarnation) DO UPDATE SET name = excluded.name, \
                 release = excluded.release, url = excluded.url, joined_ms = excluded.joined_ms, \
                 heartbeat_ms = excluded.heartbeat_ms, draining = false \
                 RETURNING heartbeat_ms, draining, false, (SELECT generation FROM registry)"
            ),
            |args| {
                args.key(node.incarnation)
                    .text(&node.name)
                    .text(&node.release)
                    .text(&node.url);
            },
        )
        .await?;
    standing(&rows)
}

/// Answers, too, whether other nodes live.
pub(super) async fn heartbeat(conn: &mut Conn, node: Incarnation) -> Attempt<(Standing, bool)> {
    let rows = conn
        .fetch(
            concat!(
                "UPDATE nodes SET heartbeat_ms = ",
                clock!(),
                " WHERE incarnation = $1 RETURNING heartbeat_ms, draining, \
                 EXISTS (SELECT 1 FROM nodes o WHERE o.release <> nodes.release), (SELECT generation FROM registry), \
                 EXISTS (SELECT 1 FROM nodes o WHERE o.incarnation <> $1)"
            ),
            |args| {
                args.key(node);
            },
        )
        .await?;
    let others = rows.first().map_or(Ok(false), |row| Cells::at(row, 4).flag())?;
    Ok((standing(&rows)?, others))
}

fn standing(rows: &[sqlx::postgres::PgRow]) -> Attempt<Standing> {
    let row = rows.first().ok_or(Error::DeclaredDead)?;
    let mut cells = Cells::of(row);
    Ok(Standing {
        now: cells.time()?,
        draining: cells.flag()?,
        mixed: cells.flag()?,
        generation: cells.int()?,
    })
}

pub(super) async fn drain(conn: &mut Conn, node: Incarnation) -> Attempt<bool> {
    let marked = conn
        .execute(
            "UPDATE nodes SET draining = true WHERE incarnation = $1",
            |args| {
                args.key(node);
            },
        )
        .await?;
    Ok(marked > 0)
}

pub(super) async fn leave(conn: &mut Conn, node: Incarnation) -> Attempt<()> {
    conn.execute(
        "WITH gone AS (DELETE FROM nodes WHERE incarnation = $1 RETURNING incarnation) \
         INSERT INTO graves (incarnation) SELECT incarnation FROM gone ON CONFLICT DO NOTHING",
        |args| {
            args.key(node);
        },
    )
    .await?;
    Ok(())
}

/// All nodes that live.
pub(super) async fn nodes(conn: &mut Conn) -> Attempt<Vec<Node>> {
    let rows = conn
        .fetch(
            concat!(
                "WITH owned AS (SELECT owner, count(*) AS runs FROM runs WHERE live AND owner IS NOT NULL GROUP BY owner) \
                 SELECT n.incarnation, n.name, n.release, n.url, n.joined_ms, n.heartbeat_ms, n.draining, \
                 greatest(",
                clock!(),
                " - n.heartbeat_ms, 0), coalesce(o.runs, 0) FROM nodes n LEFT JOIN owned o ON o.owner = n.incarnation \
                 ORDER BY n.joined_ms, n.incarnation"
            ),
            |_| {},
        )
        .await?;
    let mut nodes = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        nodes.push(Node {
            incarnation: cells.node()?,
            name: cells.text()?,
            release: cells.text()?,
            url: cells.text()?,
            joined_at: cells.time()?,
            heartbeat_at: cells.time()?,
            draining: cells.flag()?,
            silent_for: Duration::from_millis(cells.int()?.unsigned_abs()),
            runs: cells.int()?.unsigned_abs(),
        });
    }
    Ok(nodes)
}

// ---- takeover -----------------------------------------------------------------------------------------------------

/// Declares nodes dead that were not heard of for longer than the lease. Answers whether there are graves.
pub(super) async fn bury(conn: &mut Conn, lease: Duration) -> Attempt<bool> {
    let rows = conn
        .fetch(
            concat!(
                "WITH late AS (SELECT incarnation FROM nodes WHERE heartbeat_ms < ",
                clock!(),
                " - $1 ORDER BY incarnation FOR UPDATE SKIP LOCKED), \
                 gone AS (DELETE FROM nodes USING late WHERE nodes.incarnation = late.incarnation \
                 RETURNING nodes.incarnation), \
                 dug AS (INSERT INTO graves (incarnation) SELECT incarnation FROM gone ON CONFLICT DO NOTHING \
                 RETURNING incarnation) \
                 SELECT EXISTS (SELECT 1 FROM graves) OR EXISTS (SELECT 1 FROM dug)"
            ),
            |args| {
                args.int(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX));
            },
        )
        .await?;
    Ok(rows.first().map_or(Ok(false), |row| Cells::of(row).flag())?)
}

/// Makes a grave for every owner of a run that is no node. There should be none without: this is for what nobody
/// thought of. Reads all live runs.
pub(super) async fn search(conn: &mut Conn) -> Attempt<()> {
    conn.execute(
        "INSERT INTO graves (incarnation) SELECT DISTINCT r.owner FROM runs r WHERE r.live AND r.owner IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.incarnation = r.owner) ON CONFLICT DO NOTHING",
        |_| {},
    )
    .await?;
    Ok(())
}

/// Makes runs of dead nodes ready. A grave whose runs are all taken is closed.
pub(super) async fn take_over(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    limit: u32,
    now: Timestamp,
) -> Attempt<u64> {
    // A grave can belong to a node that lives, when one joins under the name it had.
    let dead = conn
        .fetch(
            "SELECT g.incarnation FROM graves g \
             WHERE NOT EXISTS (SELECT 1 FROM nodes n WHERE n.incarnation = g.incarnation) ORDER BY g.incarnation",
            |_| {},
        )
        .await?;
    if dead.is_empty() {
        return Ok(0);
    }
    let mut owners = Vec::with_capacity(dead.len());
    for row in &dead {
        owners.push(Cells::of(row).node()?);
    }
    // OFFSET 0 keeps the search apart from the order: it reads the index of live runs, not all runs in order.
    let rows = conn
        .fetch(
            concat!(
                "SELECT ",
                hot_columns!(),
                " FROM runs r WHERE r.id IN (SELECT o.id FROM \
                 (SELECT id FROM runs WHERE live AND owner = ANY($1) OFFSET 0) o ORDER BY o.id LIMIT $2) \
                 AND r.live AND r.owner = ANY($1) ORDER BY r.id FOR NO KEY UPDATE OF r SKIP LOCKED"
            ),
            |args| {
                args.keys(owners.iter().copied()).int(limit.into());
            },
        )
        .await?;
    let (mut work, ids) = take(&rows)?;
    for id in &ids {
        batch::schedule::take_over(&mut work, *id, now)?;
    }
    effects.woke |= work.woke;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    if ids.is_empty() && limit > 0 {
        conn.execute(
            "DELETE FROM graves g WHERE g.incarnation = ANY($1) \
             AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.live AND r.owner = g.incarnation)",
            |args| {
                args.keys(owners.iter().copied());
            },
        )
        .await?;
    }
    Ok(rows.len() as u64)
}

// ---- claims and timers --------------------------------------------------------------------------------------------

/// Ready runs, oldest first. What somebody else has locked is left to them.
const READY: &str = concat!(
    "SELECT ",
    hot_columns!(),
    " FROM ready q JOIN runs r ON r.id = q.run_id WHERE q.shard = 0 AND q.at_ms >= $1 \
     ORDER BY q.shard, q.at_ms, q.run_id LIMIT $2 FOR UPDATE OF q, r SKIP LOCKED"
);

/// The same of some versions.
const READY_OF_VERSIONS: &str = concat!(
    "SELECT ",
    hot_columns!(),
    " FROM ready q JOIN runs r ON r.id = q.run_id WHERE q.shard = 0 AND q.at_ms >= $1 \
     AND r.version_id = ANY(ARRAY(SELECT v.id FROM versions v WHERE v.digest = ANY($3))) \
     ORDER BY q.shard, q.at_ms, q.run_id LIMIT $2 FOR UPDATE OF q, r SKIP LOCKED"
);

/// Whether the node lives, since when the run is ready that is first in the queue, and whether slots were freed. One read, so
/// that an idle node writes nothing.
pub(super) async fn first_ready(
    conn: &mut Conn,
    node: Incarnation,
    low: i64,
) -> Attempt<(bool, Option<Timestamp>, bool)> {
    let rows = conn
        .fetch(FIRST_READY, |args| {
            args.key(node).int(low);
        })
        .await?;
    let mut cells = Cells::of(answer(&rows)?);
    Ok((cells.flag()?, cells.time_or_null()?, cells.flag()?))
}

/// The one row of a question that is always answered.
fn answer(rows: &[sqlx::postgres::PgRow]) -> Attempt<&sqlx::postgres::PgRow> {
    let row = rows.first();
    row.ok_or_else(|| Error::Corrupt("a question was answered with nothing".to_owned()).into())
}

/// Whether any timer is due, and whether the node lives.
pub(super) async fn anything_due(
    conn: &mut Conn,
    node: Incarnation,
    low: i64,
    now: Timestamp,
) -> Attempt<(bool, bool)> {
    let rows = conn
        .fetch(
            "SELECT EXISTS (SELECT 1 FROM nodes WHERE incarnation = $1), \
             EXISTS (SELECT 1 FROM timers WHERE shard = 0 AND due_ms >= $2 AND due_ms <= $3)",
            |args| {
                args.key(node).int(low).time(now);
            },
        )
        .await?;
    let mut cells = Cells::of(answer(&rows)?);
    Ok((cells.flag()?, cells.flag()?))
}

/// Makes sure that the node lives, and goes on living until the transaction ends.
async fn lives(conn: &mut Conn, node: Incarnation) -> Attempt<()> {
    let rows = conn
        .fetch(
            "SELECT incarnation FROM nodes WHERE incarnation = $1 FOR KEY SHARE",
            |args| {
                args.key(node);
            },
        )
        .await?;
    match rows.is_empty() {
        true => Err(Error::DeclaredDead.into()),
        false => Ok(()),
    }
}

/// Leases ready runs. What somebody else has locked is left to them: nobody waits here while holding a lock.
pub(super) async fn claim(
    conn: &mut Conn,
    cache: &mut Cache,
    effects: &mut Effects<'_>,
    claim: &Claim,
    freed: bool,
) -> Attempt<ClaimedBatch> {
    lives(conn, claim.node).await?;
    let low = effects.marks.ready.low();
    let text = if claim.versions.is_some() {
        READY_OF_VERSIONS
    } else {
        READY
    };
    let rows = conn
        .fetch(text, |args| {
            args.int(low).int(claim.limit.into());
            if let Some(versions) = &claim.versions {
                args.byteses(versions.iter().map(|digest| digest.as_bytes().as_slice()));
            }
        })
        .await?;
    let (mut work, ids) = take(&rows)?;
    let mut desk = Claiming::on(conn, cache);
    let mut outcome = batch::slots::claim(&mut desk, &mut work, &ids, claim, freed).await?;
    let claimed = describe(conn, cache, &work, &outcome.claimed).await?;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    if let Some(versions) = &claim.versions
        && ids.len() < claim.limit as usize
    {
        outcome.lacking.extend(lacking(conn, low, versions).await?);
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
async fn lacking(conn: &mut Conn, low: i64, versions: &[Digest]) -> Attempt<Vec<Digest>> {
    let rows = conn
        .fetch(
            "SELECT DISTINCT v.digest FROM (SELECT run_id FROM ready WHERE shard = 0 AND at_ms >= $1 \
             ORDER BY at_ms, run_id LIMIT $2) q JOIN runs r ON r.id = q.run_id JOIN versions v ON v.id = r.version_id \
             WHERE v.digest <> ALL($3) ORDER BY v.digest",
            |args| {
                args.int(low)
                    .int(LACKING_MAX.into())
                    .byteses(versions.iter().map(|digest| digest.as_bytes().as_slice()));
            },
        )
        .await?;
    let mut lacking = Vec::with_capacity(rows.len());
    for row in &rows {
        lacking.push(Digest::from_bytes(Cells::of(row).bytes()?));
    }
    Ok(lacking)
}

/// Fires due timers.
pub(super) async fn fire_timers(
    conn: &mut Conn,
    cache: &mut Cache,
    effects: &mut Effects<'_>,
    fire: &FireTimers,
) -> Attempt<Fired> {
    lives(conn, fire.node).await?;
    let low = effects.marks.timers.low();
    let rows = conn
        .fetch(
            concat!(
                "SELECT ",
                hot_columns!(),
                " FROM timers q JOIN runs r ON r.id = q.run_id WHERE q.shard = 0 AND q.due_ms >= $1 AND q.due_ms <= $2 \
                 ORDER BY q.shard, q.due_ms, q.run_id LIMIT $3 FOR UPDATE OF q, r SKIP LOCKED"
            ),
            |args| {
                args.int(low).time(fire.now).int(fire.limit.into());
            },
        )
        .await?;
    let (mut work, ids) = take(&rows)?;
    if let Some(due) = ids.first().and_then(|id| work.get(*id)?.due) {
        effects.marks.timers.seen(low, due);
    }
    let versions: Vec<i64> = match &fire.versions {
        Some(_) => ids
            .iter()
            .filter_map(|id| Some(work.get(*id)?.version_id))
            .collect(),
        None => Vec::new(),
    };
    cache.learn(conn, &[], &versions).await?;
    let mut lines = throttles::lines(conn, &waiting(&work, &ids)).await?;
    let (claimed, mut fired) =
        batch::schedule::fire(&mut work, &ids, &mut lines, fire, |id| cache.digest(id))?;
    fired
        .held
        .extend(throttles::settle(conn, &mut work, lines).await?);
    fired.claimed = describe(conn, cache, &work, &claimed).await?;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    Ok(fired)
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
    conn: &mut Conn,
    cache: &mut Cache,
    work: &Work,
    ids: &[RunId],
) -> Attempt<Vec<ClaimedRun>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = conn
        .fetch(DETAILS, |args| {
            args.keys(ids.iter().copied());
        })
        .await?;
    let mut functions = Vec::with_capacity(rows.len());
    for row in &rows {
        functions.push(Cells::at(row, 1).int()?);
    }
    let versions: Vec<i64> = ids
        .iter()
        .filter_map(|id| work.get(*id))
        .map(|row| row.version_id)
        .collect();
    cache.learn(conn, &functions, &versions).await?;
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

/// When the soonest timers are due.
pub(super) async fn upcoming_timers(
    conn: &mut Conn,
    low: i64,
    until: Timestamp,
    limit: u32,
) -> Attempt<Vec<Timestamp>> {
    let rows = conn
        .fetch(
            "SELECT due_ms FROM timers WHERE shard = 0 AND due_ms >= $1 AND due_ms < $2 ORDER BY due_ms LIMIT $3",
            |args| {
                args.int(low).time(until).int(limit.into());
            },
        )
        .await?;
    let mut timers = Vec::with_capacity(rows.len());
    for row in &rows {
        timers.push(Cells::of(row).time()?);
    }
    Ok(timers)
}
