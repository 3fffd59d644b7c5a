//! Versions of modules, activation, configuration documents. What writes here holds the registry's lock alone, so that
//! deploys on two nodes come one after the other, and no ingest decides on what one of them changes.

use dormouse_core::swap::Policy;
use dormouse_core::{Digest, Json, Timestamp};
use sqlx::postgres::PgRow;

use super::cache::Cache;
use super::fault::Attempt;
use super::sql::{Cells, Conn};
use super::{ends, pausing, slots};
use crate::batch::ends::listens;
use crate::batch::ingest::Small;
use crate::batch::swaps::policy;
use crate::error::{Error, Result};
use crate::registry::{Changed, NewVersion, Registry, Stored, Version};

/// The cells of [`read_version`].
macro_rules! version_columns {
    () => {
        "v.module, v.digest, v.manifest, v.size, v.uploaded_by, v.message, v.uploaded_ms, m.activated_ms, m.policy"
    };
}

pub(super) async fn put_version(conn: &mut Conn, cache: &mut Cache, version: &NewVersion) -> Attempt<Stored> {
    let new = cache.version_id(&version.module, version.digest).is_none();
    if new {
        conn.execute(
            "INSERT INTO versions (id, module, digest, manifest, size, uploaded_by, message, uploaded_ms, listens) \
             SELECT coalesce(max(id), 0) + 1, $1, $2, $3, $4, $5, $6, $7, $8 FROM versions \
             ON CONFLICT (module, digest) DO UPDATE SET manifest = $3, size = $4, uploaded_by = $5, message = $6, \
             uploaded_ms = $7, deleted = false, listens = $8",
            |args| {
                args.text(&version.module)
                    .bytes(version.digest.as_bytes())
                    .text(version.manifest.as_str())
                    .int(i64::try_from(version.size).unwrap_or(i64::MAX))
                    .text(&version.uploaded_by)
                    .text_or_null(version.message.as_deref())
                    .time(version.now)
                    .int(listens(&version.manifest).bits());
            },
        )
        .await?;
        cache.reload_versions(conn).await?;
    }
    let activated = version.activate
        && set_active(
            conn,
            cache,
            &version.module,
            version.digest,
            version.policy,
            version.now,
        )
        .await?;
    if new || activated {
        next_generation(conn, cache).await?;
    }
    Ok(Stored {
        new,
        activated,
        generation: cache.generation,
    })
}

pub(super) async fn activate(
    conn: &mut Conn,
    cache: &mut Cache,
    module: &str,
    digest: Digest,
    policy: Option<Policy>,
    now: Timestamp,
) -> Attempt<Changed> {
    if cache.version_id(module, digest).is_none() {
        return Ok(Changed::NotFound);
    }
    if !set_active(conn, cache, module, digest, policy, now).await? {
        return Ok(Changed::Unchanged(cache.generation));
    }
    next_generation(conn, cache).await?;
    Ok(Changed::Done(cache.generation))
}

pub(super) async fn delete_version(
    conn: &mut Conn,
    cache: &mut Cache,
    module: &str,
    digest: Digest,
) -> Attempt<Changed> {
    let Some(id) = cache.version_id(module, digest) else {
        return Ok(Changed::NotFound);
    };
    if active(conn, module)
        .await?
        .is_some_and(|(active, _)| active == id)
    {
        return Ok(Changed::Needed(0));
    }
    let rows = conn
        .fetch(
            "SELECT count(*) FROM runs WHERE live AND (version_id = $1 OR asked_id = $1)",
            |args| {
                args.int(id);
            },
        )
        .await?;
    let live = rows.first().map_or(Ok(0), |row| Cells::of(row).int())?;
    if live > 0 {
        return Ok(Changed::Needed(live.unsigned_abs()));
    }
    // The row stays: runs that have ended name it.
    conn.execute(
        "UPDATE versions SET deleted = true, manifest = '{}' WHERE id = $1",
        |args| {
            args.int(id);
        },
    )
    .await?;
    cache.reload_versions(conn).await?;
    next_generation(conn, cache).await?;
    Ok(Changed::Done(cache.generation))
}

/// A module's active version, by its number, and its policy.
async fn active(conn: &mut Conn, module: &str) -> Attempt<Option<(i64, Policy)>> {
    let rows = conn
        .fetch(
            "SELECT version_id, policy FROM modules WHERE module = $1",
            |args| {
                args.text(module);
            },
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let mut cells = Cells::of(row);
    Ok(Some((cells.int()?, policy(cells.int()?)?)))
}

/// Makes a version active, and says what becomes of runs in flight: if that is not said, it stays as it is where the version is
/// active already. False: it was so.
async fn set_active(
    conn: &mut Conn,
    cache: &Cache,
    module: &str,
    digest: Digest,
    policy: Option<Policy>,
    now: Timestamp,
) -> Attempt<bool> {
    let id = cache
        .version_id(module, digest)
        .ok_or_else(|| Error::Corrupt(format!("version {digest} of {module} is not stored")))?;
    let before = active(conn, module).await?.filter(|(active, _)| *active == id);
    if let Some((_, before)) = before
        && policy.is_none_or(|policy| policy == before)
    {
        return Ok(false);
    }
    let policy = policy.unwrap_or_default();
    conn.execute(
        "INSERT INTO modules (module, version_id, activated_ms, policy) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (module) DO UPDATE SET version_id = $2, policy = $4, \
         activated_ms = CASE WHEN modules.version_id = $2 THEN modules.activated_ms ELSE $3 END",
        |args| {
            args.text(module).int(id).time(now).int(policy as i64);
        },
    )
    .await?;
    slots::look_again(conn, module, now).await?;
    Ok(true)
}

pub(super) async fn next_generation(conn: &mut Conn, cache: &mut Cache) -> Attempt<()> {
    conn.execute("UPDATE registry SET generation = generation + 1", |_| {})
        .await?;
    cache.generation += 1;
    ends::listen(conn).await
}

pub(super) async fn put_config(conn: &mut Conn, document: &Json, now: Timestamp) -> Attempt<i64> {
    let digest = Digest::of(document.as_str().as_bytes());
    let known = conn
        .fetch("SELECT revision FROM configs WHERE digest = $1", |args| {
            args.bytes(digest.as_bytes());
        })
        .await?;
    if let Some(row) = known.first() {
        return Ok(Cells::of(row).int()?);
    }
    let rows = conn
        .fetch(
            "INSERT INTO configs (revision, digest, document, created_ms) \
             SELECT coalesce(max(revision), 0) + 1, $1, $2, $3 FROM configs RETURNING revision",
            |args| {
                args.bytes(digest.as_bytes()).text(document.as_str()).time(now);
            },
        )
        .await?;
    conn.wrote = true;
    let row = rows
        .first()
        .ok_or_else(|| Error::Corrupt("an insert answered nothing".to_owned()))?;
    Ok(Cells::of(row).int()?)
}

pub(super) async fn config(conn: &mut Conn, revision: i64) -> Attempt<Option<Json>> {
    let rows = conn
        .fetch("SELECT document FROM configs WHERE revision = $1", |args| {
            args.int(revision);
        })
        .await?;
    let document = rows.first().map(|row| Cells::of(row).text()).transpose()?;
    Ok(document.map(Json::trusted))
}

fn read_version(row: &PgRow) -> Result<Version> {
    let mut cells = Cells::of(row);
    let module = cells.text()?;
    let digest = Digest::from_bytes(cells.bytes()?);
    let manifest = Json::trusted(cells.text()?);
    let size = cells.int()?.unsigned_abs();
    let uploaded_by = cells.text()?;
    let message = cells.text_or_null()?;
    let uploaded_at = cells.time()?;
    let activated_at = cells.time_or_null()?;
    let policy = policy(cells.int_or_null()?.unwrap_or_default())?;
    Ok(Version {
        module,
        digest,
        manifest,
        size,
        uploaded_by,
        message,
        uploaded_at,
        active: activated_at.is_some(),
        activated_at,
        policy,
        live_runs: cells.int()?.unsigned_abs(),
    })
}

/// The active versions. One statement, so that versions and generation belong together.
pub(super) async fn registry(conn: &mut Conn) -> Attempt<Registry> {
    let rows = conn
        .fetch(
            concat!(
                "SELECT ",
                version_columns!(),
                ", 0::int8, g.generation FROM registry g LEFT JOIN modules m ON true \
                 LEFT JOIN versions v ON v.id = m.version_id ORDER BY m.module COLLATE \"C\""
            ),
            |_| {},
        )
        .await?;
    let mut registry = Registry::default();
    for row in &rows {
        /// The generation stands behind the version's cells.
        const GENERATION: usize = 10;
        registry.generation = Cells::at(row, GENERATION).int()?;
        if Cells::of(row).text_or_null()?.is_some() {
            registry.active.push(read_version(row)?);
        }
    }
    // Read after the generation: what is newer is refused when it is committed, what is older would not be.
    registry.paused = pausing::paused(conn).await?;
    Ok(registry)
}

pub(super) async fn versions(conn: &mut Conn, module: &str, digest: Option<Digest>) -> Attempt<Vec<Version>> {
    let rows = conn
        .fetch(
            concat!(
                "SELECT ",
                version_columns!(),
                ", (SELECT count(*) FROM runs r WHERE r.live AND r.version_id = v.id) \
                 FROM versions v LEFT JOIN modules m ON m.version_id = v.id \
                 WHERE NOT v.deleted AND v.module = $1 AND ($2::bytea IS NULL OR v.digest = $2) \
                 ORDER BY v.uploaded_ms DESC, v.digest"
            ),
            |args| {
                args.text(module)
                    .bytes_or_null(digest.as_ref().map(|digest| digest.as_bytes().as_slice()));
            },
        )
        .await?;
    let mut versions = Vec::with_capacity(rows.len());
    for row in &rows {
        versions.push(read_version(row)?);
    }
    Ok(versions)
}
