//! Slots of concurrency limits, and the lines for them.

use std::collections::{BTreeSet, HashMap};

use dormouse_core::flow::Taken;
use dormouse_core::run::Phase;
use dormouse_core::{Digest, RunId, Timestamp};
use sqlx::SqliteConnection;

use super::cache::Cache;
use super::runs;
use super::sql::{Args, Cells, Rows, execute, fetch};
use crate::batch::runs::{Changes, Work};
use crate::batch::slots::{Declared, Desk, LOOK, NOTES, Needed, Pool};
use crate::error::{Error, Result};

static INSERT: Rows = Rows::insert(
    "INSERT INTO slots (run_id, number, function_id, scope, key, source, slot_limit) SELECT * FROM (VALUES ",
    7,
);
static NEEDS: Rows = Rows::new(
    "SELECT run_id, number, function_id, scope, key, source, slot_limit FROM slots WHERE run_id IN (VALUES ",
    1,
    ") ORDER BY run_id, number",
);
/// A row whose lease is over holds no slot, whoever has ended it.
static TAKEN: Rows = Rows::new(
    "SELECT s.scope, s.key, count(*) FROM slots s CROSS JOIN runs r ON r.id = s.run_id \
     WHERE s.epoch IS NOT NULL AND r.phase = 1 AND r.epoch = s.epoch AND (s.scope, s.key) IN (VALUES ",
    2,
    ") GROUP BY s.scope, s.key",
);
const _: () = assert!(Phase::Executing as u8 == 1);
static NOTE: Rows = Rows::new(
    "INSERT OR IGNORE INTO slots_freed (scope, key, run_id, epoch) \
     SELECT s.scope, s.key, s.run_id, v.column2 FROM (VALUES ",
    2,
    ") AS v CROSS JOIN slots s ON s.run_id = v.column1",
);
static LEFT: Rows = Rows::new(
    "UPDATE slots SET epoch = NULL, since_ms = NULL WHERE run_id IN (VALUES ",
    1,
    ")",
);
/// As an insert of what is there, because an update from a list of runs would read all rows of the table.
static TAKE: Rows = Rows::new(
    "INSERT INTO slots (run_id, number, function_id, scope, key, source, slot_limit, epoch) \
     SELECT s.run_id, s.number, s.function_id, s.scope, s.key, s.source, s.slot_limit, v.column2 FROM (VALUES ",
    2,
    ") AS v CROSS JOIN slots s ON s.run_id = v.column1 WHERE v.column1 IS NOT NULL \
     ON CONFLICT (run_id, number) DO UPDATE SET epoch = excluded.epoch, since_ms = NULL",
);
static AWAIT: Rows = Rows::new(
    "INSERT INTO slots (run_id, number, function_id, scope, key, source, slot_limit, since_ms) \
     SELECT s.run_id, s.number, s.function_id, s.scope, s.key, s.source, s.slot_limit, \
     CASE WHEN s.number = v.column2 THEN v.column3 END FROM (VALUES ",
    3,
    ") AS v CROSS JOIN slots s ON s.run_id = v.column1 WHERE v.column1 IS NOT NULL \
     ON CONFLICT (run_id, number) DO UPDATE SET epoch = NULL, since_ms = excluded.since_ms",
);
static GONE: Rows = Rows::new("DELETE FROM slots WHERE run_id IN (VALUES ", 1, ")");
static CLEAR: Rows = Rows::new("DELETE FROM slots_freed WHERE (scope, key) IN (VALUES ", 2, ")");
/// Functions that have a line for some slots, one after the other.
pub(super) const NEXT_LINE: &str = "SELECT min(function_id) FROM slots \
     WHERE scope = ? AND key = ? AND function_id > ? AND since_ms IS NOT NULL";
pub(super) const LINE: &str = "SELECT since_ms, run_id FROM slots \
     WHERE scope = ? AND key = ? AND function_id = ? AND since_ms IS NOT NULL ORDER BY since_ms, run_id LIMIT ?";

/// Adds what new runs need.
pub(super) async fn insert(conn: &mut SqliteConnection, rows: &[(RunId, Needed)]) -> Result<()> {
    INSERT
        .apply(conn, rows, |args, (run, needed)| {
            args.run(*run)
                .int(needed.number)
                .int(needed.function_id)
                .int(needed.scope())
                .text(&needed.need.name)
                .text_or_null(needed.need.source.as_deref())
                .int(needed.need.limit.into());
        })
        .await
}

/// Writes what became of slots.
pub(super) async fn write(conn: &mut SqliteConnection, changes: &Changes) -> Result<()> {
    let run = |args: &mut Args, id: &RunId| {
        args.run(*id);
    };
    let lease = |args: &mut Args, (run, epoch): &(RunId, i64)| {
        args.run(*run).int(*epoch);
    };
    NOTE.apply(conn, &changes.slots_freed, lease).await?;
    GONE.apply(conn, &changes.slots_gone, run).await?;
    LEFT.apply(conn, &changes.slots_left, run).await?;
    TAKE.apply(conn, &changes.slots_taken, lease).await?;
    AWAIT
        .apply(conn, &changes.slots_awaited, |args, (run, number, since)| {
            args.run(*run).int(*number).time(*since);
        })
        .await
}

/// Notes that all lines are to be looked at, or those of a module's functions: their limits may be others now.
pub(super) async fn look_again(
    conn: &mut SqliteConnection,
    module: Option<&str>,
    now: Timestamp,
) -> Result<()> {
    execute(
        conn,
        "INSERT OR IGNORE INTO slots_freed (scope, key, run_id, epoch) \
         SELECT DISTINCT scope, key, zeroblob(16), ?1 FROM slots WHERE since_ms IS NOT NULL \
         AND (?2 IS NULL OR function_id IN (SELECT id FROM functions WHERE module = ?2))",
        |args| {
            args.time(now).text_or_null(module);
        },
    )
    .await?;
    Ok(())
}

/// The writer's connection and what it remembers, for a claim. Nobody else writes: nothing has to be locked.
pub(super) struct Claiming<'c> {
    pub(super) conn: &'c mut SqliteConnection,
    pub(super) cache: &'c mut Cache,
}

impl Desk for Claiming<'_> {
    type Fault = Error;

    async fn freed(&mut self) -> Result<Vec<Pool>> {
        let rows = fetch(
            self.conn,
            "SELECT DISTINCT scope, key FROM (SELECT scope, key FROM slots_freed ORDER BY scope, key LIMIT ?)",
            |args| {
                args.int(NOTES as i64);
            },
        )
        .await?;
        self.cache.slots_freed = !rows.is_empty();
        rows.iter()
            .map(|row| {
                let mut cells = Cells::of(row);
                Ok((cells.int()?, cells.text()?.to_owned()))
            })
            .collect()
    }

    async fn lock(&mut self, pools: &[Pool]) -> Result<Vec<Pool>> {
        Ok(pools.to_vec())
    }

    async fn lines(&mut self, pools: &[Pool]) -> Result<Vec<(Pool, Timestamp, RunId)>> {
        let mut found = Vec::new();
        for pool in pools {
            let mut before = -1;
            while let Some(function_id) = next_line(self.conn, pool, before).await? {
                let rows = fetch(self.conn, LINE, |args| {
                    args.int(pool.0).text(&pool.1).int(function_id).int(LOOK as i64);
                })
                .await?;
                for row in &rows {
                    let mut cells = Cells::of(row);
                    found.push((pool.clone(), cells.time()?, cells.run()?));
                }
                before = function_id;
            }
        }
        Ok(found)
    }

    async fn needs(&mut self, runs: &[RunId]) -> Result<HashMap<RunId, Vec<Needed>>> {
        let mut needs: HashMap<RunId, Vec<Needed>> = HashMap::new();
        let rows = NEEDS
            .fetch(self.conn, runs, |args, id| {
                args.run(*id);
            })
            .await?;
        for row in &rows {
            let mut cells = Cells::of(row);
            let run = cells.run()?;
            let of = (cells.int()?, cells.int()?, cells.int()?);
            let (key, source) = (cells.text()?.to_owned(), cells.text_or_null()?.map(str::to_owned));
            let needed = Needed::stored(of, key, source, cells.number()?);
            needs.entry(run).or_default().push(needed);
        }
        Ok(needs)
    }

    async fn taken(&mut self, pools: &[Pool]) -> Result<Taken<Pool>> {
        let mut taken = Taken::default();
        let rows = TAKEN
            .fetch(self.conn, pools, |args, (scope, key)| {
                args.int(*scope).text(key);
            })
            .await?;
        for row in &rows {
            let mut cells = Cells::of(row);
            taken.insert((cells.int()?, cells.text()?.to_owned()), cells.number()?);
        }
        Ok(taken)
    }

    async fn load(&mut self, work: &mut Work, ids: Vec<RunId>) -> Result<()> {
        runs::load(self.conn, work, ids).await
    }

    async fn declared(&mut self, functions: &BTreeSet<i64>) -> Result<Declared> {
        let mut declared = Declared::new();
        for id in functions {
            let function = self.cache.function(*id)?;
            let rows = fetch(
                self.conn,
                "SELECT version_id FROM modules WHERE module = ?",
                |args| {
                    args.text(function.module());
                },
            )
            .await?;
            let Some(row) = rows.first() else { continue };
            let version = Cells::of(row).int()?;
            if !self.cache.manifests.has(version) {
                let rows = fetch(self.conn, "SELECT manifest FROM versions WHERE id = ?", |args| {
                    args.int(version);
                })
                .await?;
                let manifest = rows.first().map_or(Ok(""), |row| Cells::of(row).text())?;
                self.cache.manifests.read(version, manifest);
            }
            declared.insert(*id, self.cache.manifests.of(version, function.function()));
        }
        Ok(declared)
    }

    async fn digests(&mut self, versions: &[i64]) -> Result<HashMap<i64, Digest>> {
        versions
            .iter()
            .map(|id| Ok((*id, self.cache.digest(*id)?)))
            .collect()
    }

    async fn clear(&mut self, pools: &[Pool]) -> Result<()> {
        CLEAR
            .apply(self.conn, pools, |args, (scope, key)| {
                args.int(*scope).text(key);
            })
            .await
    }
}

/// The next function after one that has a line for some slots.
async fn next_line(conn: &mut SqliteConnection, pool: &Pool, after: i64) -> Result<Option<i64>> {
    let rows = fetch(conn, NEXT_LINE, |args| {
        args.int(pool.0).text(&pool.1).int(after);
    })
    .await?;
    rows.first().map_or(Ok(None), |row| Cells::of(row).int_or_null())
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![
        &INSERT, &NEEDS, &TAKEN, &NOTE, &LEFT, &TAKE, &AWAIT, &GONE, &CLEAR,
    ]
}
