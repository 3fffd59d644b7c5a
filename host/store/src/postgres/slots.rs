//! Slots of concurrency limits, and the lines for them.
//!
//! Who takes slots, or puts a run into a line, has locked their pool, so that no two nodes take the same one: an advisory lock,
//! which is only tried, because nobody waits here while holding runs. Who gives slots back locks nothing: it leaves a note of
//! its own, in the commit that ends the lease. A claim reads the notes before it locks, and counts after: a note that it does
//! not see is of a commit that comes later, and stays.

use std::collections::{BTreeSet, HashMap};

use dormouse_core::flow::Taken;
use dormouse_core::run::Phase;
use dormouse_core::{Digest, RunId, Timestamp};

use super::cache::Cache;
use super::fault::{Attempt, Fault};
use super::runs::load_free;
use super::sql::{Cells, Conn, Key, Together};
use crate::batch::runs::{Changes, Work};
use crate::batch::slots::{Declared, Desk, LOOK, NOTES, Needed, Pool};

/// The class of the locks of pools; the other half of a lock is the hash of what names the pool. Of two pools with the same
/// hash one is looked at a moment later.
const SLOTS_LOCK: i32 = 0x6d6f_7505;

const INSERT: &str = "INSERT INTO slots (run_id, number, function_id, scope, key, source, slot_limit) \
     SELECT * FROM UNNEST($1::uuid[], $2::int8[], $3::int8[], $4::int8[], $5::text[], $6::text[], $7::int8[])";
const NOTE: &str = "INSERT INTO slots_freed (scope, key, run_id, epoch) \
     SELECT s.scope, s.key, s.run_id, v.epoch FROM UNNEST($1::uuid[], $2::int8[]) AS v(run_id, epoch) \
     JOIN slots s ON s.run_id = v.run_id ON CONFLICT DO NOTHING";
const GONE: &str = "DELETE FROM slots WHERE run_id = ANY($1::uuid[])";
const LEFT: &str = "UPDATE slots SET epoch = NULL, since_ms = NULL WHERE run_id = ANY($1::uuid[])";
const TAKE: &str = "UPDATE slots SET epoch = v.epoch, since_ms = NULL \
     FROM UNNEST($1::uuid[], $2::int8[]) AS v(run_id, epoch) WHERE slots.run_id = v.run_id";
const AWAIT: &str = "UPDATE slots SET epoch = NULL, since_ms = CASE WHEN slots.number = v.number THEN v.since_ms END \
     FROM UNNEST($1::uuid[], $2::int8[], $3::int8[]) AS v(run_id, number, since_ms) WHERE slots.run_id = v.run_id";

const FREED: &str =
    "SELECT scope, key, run_id, epoch FROM slots_freed ORDER BY scope, key LIMIT $1 FOR UPDATE SKIP LOCKED";
const CLEAR: &str = "DELETE FROM slots_freed f USING UNNEST($1::int8[], $2::text[], $3::uuid[], $4::int8[]) \
     AS v(scope, key, run_id, epoch) \
     WHERE f.scope = v.scope AND f.key = v.key AND f.run_id = v.run_id AND f.epoch = v.epoch";
const LOCK: &str = "SELECT v.scope, v.key FROM UNNEST($1::int8[], $2::text[]) AS v(scope, key) \
     WHERE pg_try_advisory_xact_lock($3::int4, hashtext(v.scope::text || v.key))";
/// The first of each function's line, the functions one after the other.
const LINES: &str = "SELECT v.scope, v.key, l.since_ms, l.run_id FROM UNNEST($1::int8[], $2::text[]) AS v(scope, key) \
     CROSS JOIN LATERAL (WITH RECURSIVE f(id) AS ( \
     SELECT min(s.function_id) FROM slots s WHERE s.scope = v.scope AND s.key = v.key AND s.since_ms IS NOT NULL \
     UNION ALL SELECT (SELECT min(s.function_id) FROM slots s WHERE s.scope = v.scope AND s.key = v.key \
     AND s.since_ms IS NOT NULL AND s.function_id > f.id) FROM f WHERE f.id IS NOT NULL) \
     SELECT id FROM f WHERE id IS NOT NULL) f \
     CROSS JOIN LATERAL (SELECT s.since_ms, s.run_id FROM slots s WHERE s.scope = v.scope AND s.key = v.key \
     AND s.function_id = f.id AND s.since_ms IS NOT NULL ORDER BY s.since_ms, s.run_id LIMIT $3) l";
const NEEDS: &str = "SELECT run_id, number::int8, function_id, scope, key, source, slot_limit FROM slots \
     WHERE run_id = ANY($1) ORDER BY run_id, number";
/// A row whose lease is over holds no slot, whoever has ended it: a node of a release that does not know slots, for one.
const TAKEN: &str = "SELECT s.scope, s.key, count(*) FROM UNNEST($1::int8[], $2::text[]) AS v(scope, key) \
     JOIN slots s ON s.scope = v.scope AND s.key = v.key AND s.epoch IS NOT NULL \
     JOIN runs r ON r.id = s.run_id AND r.phase = 1 AND r.epoch = s.epoch GROUP BY s.scope, s.key";
const _: () = assert!(Phase::Executing as u8 == 1);
const LOOK_AGAIN: &str = "INSERT INTO slots_freed (scope, key, run_id, epoch) \
     SELECT DISTINCT s.scope, s.key, '00000000-0000-0000-0000-000000000000'::uuid, $1::int8 FROM slots s \
     WHERE s.since_ms IS NOT NULL AND s.function_id IN (SELECT id FROM functions WHERE module = $2) ON CONFLICT DO NOTHING";

/// Adds what new runs need.
pub(super) fn insert(together: &mut Together, rows: &[(RunId, Needed)]) {
    together.add(rows, INSERT, |args, rows| {
        let needs = || rows.iter().map(|(_, needed)| needed);
        args.keys(rows.iter().map(|(run, _)| *run))
            .ints(needs().map(|needed| needed.number))
            .ints(needs().map(|needed| needed.function_id))
            .ints(needs().map(Needed::scope))
            .texts(needs().map(|needed| needed.need.name.as_str()))
            .texts_or_null(needs().map(|needed| needed.need.source.as_deref()))
            .ints(needs().map(|needed| needed.need.limit.into()));
    });
}

/// Writes what became of slots.
pub(super) fn write(together: &mut Together, changes: &Changes) {
    together.add(&changes.slots_freed, NOTE, |args, rows| {
        args.keys(rows.iter().map(|(run, _)| *run))
            .ints(rows.iter().map(|(_, epoch)| *epoch));
    });
    together.add(&changes.slots_gone, GONE, |args, runs| {
        args.keys(runs.iter().copied());
    });
    together.add(&changes.slots_left, LEFT, |args, runs| {
        args.keys(runs.iter().copied());
    });
    together.add(&changes.slots_taken, TAKE, |args, rows| {
        args.keys(rows.iter().map(|(run, _)| *run))
            .ints(rows.iter().map(|(_, epoch)| *epoch));
    });
    together.add(&changes.slots_awaited, AWAIT, |args, rows| {
        args.keys(rows.iter().map(|(run, ..)| *run))
            .ints(rows.iter().map(|(_, number, _)| *number))
            .ints(rows.iter().map(|(.., since)| since.as_millis()));
    });
}

/// Notes that the lines of a module's functions are to be looked at: their limits may be others now.
pub(super) async fn look_again(conn: &mut Conn, module: &str, now: Timestamp) -> Attempt<()> {
    conn.execute(LOOK_AGAIN, |args| {
        args.time(now).text(module);
    })
    .await?;
    Ok(())
}

/// The writer's connection and what it remembers, for a claim.
pub(super) struct Claiming<'c> {
    conn: &'c mut Conn,
    cache: &'c mut Cache,
    /// The notes that were read, and are locked.
    notes: Vec<(Pool, Key, i64)>,
}

impl<'c> Claiming<'c> {
    pub(super) fn on(conn: &'c mut Conn, cache: &'c mut Cache) -> Claiming<'c> {
        Claiming {
            conn,
            cache,
            notes: Vec::new(),
        }
    }
}

impl Desk for Claiming<'_> {
    type Fault = Fault;

    async fn freed(&mut self) -> Attempt<Vec<Pool>> {
        let rows = self
            .conn
            .fetch(FREED, |args| {
                args.int(NOTES as i64);
            })
            .await?;
        for row in &rows {
            let mut cells = Cells::of(row);
            let pool = (cells.int()?, cells.text()?);
            self.notes
                .push((pool, Key(cells.run()?.to_bytes()), cells.int()?));
        }
        let mut pools: Vec<Pool> = self.notes.iter().map(|(pool, ..)| pool.clone()).collect();
        pools.sort_unstable();
        pools.dedup();
        Ok(pools)
    }

    async fn lock(&mut self, pools: &[Pool]) -> Attempt<Vec<Pool>> {
        if pools.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self
            .conn
            .fetch(LOCK, |args| {
                args.ints(pools.iter().map(|(scope, _)| *scope))
                    .texts(pools.iter().map(|(_, key)| key.as_str()))
                    .int(SLOTS_LOCK.into());
            })
            .await?;
        let mut locked = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut cells = Cells::of(row);
            locked.push((cells.int()?, cells.text()?));
        }
        Ok(locked)
    }

    async fn lines(&mut self, pools: &[Pool]) -> Attempt<Vec<(Pool, Timestamp, RunId)>> {
        if pools.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self
            .conn
            .fetch(LINES, |args| {
                args.ints(pools.iter().map(|(scope, _)| *scope))
                    .texts(pools.iter().map(|(_, key)| key.as_str()))
                    .int(LOOK as i64);
            })
            .await?;
        let mut lines = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut cells = Cells::of(row);
            lines.push(((cells.int()?, cells.text()?), cells.time()?, cells.run()?));
        }
        Ok(lines)
    }

    async fn needs(&mut self, runs: &[RunId]) -> Attempt<HashMap<RunId, Vec<Needed>>> {
        let mut needs: HashMap<RunId, Vec<Needed>> = HashMap::new();
        if runs.is_empty() {
            return Ok(needs);
        }
        let rows = self
            .conn
            .fetch(NEEDS, |args| {
                args.keys(runs.iter().copied());
            })
            .await?;
        for row in &rows {
            let mut cells = Cells::of(row);
            let run = cells.run()?;
            let of = (cells.int()?, cells.int()?, cells.int()?);
            let (key, source) = (cells.text()?, cells.text_or_null()?);
            let needed = Needed::stored(of, key, source, cells.number()?);
            needs.entry(run).or_default().push(needed);
        }
        Ok(needs)
    }

    async fn taken(&mut self, pools: &[Pool]) -> Attempt<Taken<Pool>> {
        let mut taken = Taken::default();
        if pools.is_empty() {
            return Ok(taken);
        }
        let rows = self
            .conn
            .fetch(TAKEN, |args| {
                args.ints(pools.iter().map(|(scope, _)| *scope))
                    .texts(pools.iter().map(|(_, key)| key.as_str()));
            })
            .await?;
        for row in &rows {
            let mut cells = Cells::of(row);
            taken.insert((cells.int()?, cells.text()?), cells.number()?);
        }
        Ok(taken)
    }

    async fn load(&mut self, work: &mut Work, ids: Vec<RunId>) -> Attempt<()> {
        load_free(self.conn, work, ids).await
    }

    async fn declared(&mut self, functions: &BTreeSet<i64>) -> Attempt<Declared> {
        let ids: Vec<i64> = functions.iter().copied().collect();
        self.cache.learn(self.conn, &ids, &[]).await?;
        let mut names = HashMap::with_capacity(ids.len());
        for id in ids {
            names.insert(id, self.cache.function(id)?);
        }
        let modules: BTreeSet<&str> = names.values().map(|name| name.module()).collect();
        let rows = self
            .conn
            .fetch(
                "SELECT module, version_id FROM modules WHERE module = ANY($1)",
                |args| {
                    args.texts(modules.iter().copied());
                },
            )
            .await?;
        let mut active: HashMap<String, i64> = HashMap::with_capacity(rows.len());
        for row in &rows {
            let mut cells = Cells::of(row);
            active.insert(cells.text()?, cells.int()?);
        }
        for version in active.values() {
            if self.cache.manifests.has(*version) {
                continue;
            }
            let rows = self
                .conn
                .fetch("SELECT manifest FROM versions WHERE id = $1", |args| {
                    args.int(*version);
                })
                .await?;
            let manifest = rows
                .first()
                .map_or(Ok(String::new()), |row| Cells::of(row).text())?;
            self.cache.manifests.read(*version, &manifest);
        }
        let declared = names.into_iter().map(|(id, name)| {
            let version = active.get(name.module());
            let limits = version.and_then(|version| self.cache.manifests.of(*version, name.function()));
            (id, limits)
        });
        Ok(declared.collect())
    }

    async fn digests(&mut self, versions: &[i64]) -> Attempt<HashMap<i64, Digest>> {
        self.cache.learn(self.conn, &[], versions).await?;
        let mut digests = HashMap::with_capacity(versions.len());
        for version in versions {
            digests.insert(*version, self.cache.digest(*version)?);
        }
        Ok(digests)
    }

    async fn clear(&mut self, pools: &[Pool]) -> Attempt<()> {
        let notes: Vec<&(Pool, Key, i64)> = self
            .notes
            .iter()
            .filter(|(pool, ..)| pools.contains(pool))
            .collect();
        if notes.is_empty() {
            return Ok(());
        }
        self.conn
            .execute(CLEAR, |args| {
                args.ints(notes.iter().map(|((scope, _), ..)| *scope))
                    .texts(notes.iter().map(|((_, key), ..)| key.as_str()))
                    .keys(notes.iter().map(|(_, run, _)| *run))
                    .ints(notes.iter().map(|(.., epoch)| *epoch));
            })
            .await?;
        Ok(())
    }
}
