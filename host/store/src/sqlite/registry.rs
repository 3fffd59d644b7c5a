//! Versions of modules, activation, configuration documents.

use dormouse_core::swap::Policy;
use dormouse_core::{Digest, Json, Timestamp};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::cache::Cache;
use super::sql::{Cells, execute, fetch};
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

const LIVE_RUNS: &str = "(SELECT count(*) FROM runs r WHERE r.phase IS NOT NULL AND r.version_id = v.id)";

pub(super) async fn put_version(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    version: &NewVersion,
) -> Result<Stored> {
    let new = cache.version_id(&version.module, version.digest).is_none();
    if new {
        execute(
            conn,
            "INSERT INTO versions (module, digest, manifest, size, uploaded_by, message, uploaded_ms, listens) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (module, digest) DO UPDATE SET manifest = ?3, size = ?4, \
             uploaded_by = ?5, message = ?6, uploaded_ms = ?7, deleted = 0, listens = ?8",
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
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    module: &str,
    digest: Digest,
    policy: Option<Policy>,
    now: Timestamp,
) -> Result<Changed> {
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
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    module: &str,
    digest: Digest,
) -> Result<Changed> {
    let Some(id) = cache.version_id(module, digest) else {
        return Ok(Changed::NotFound);
    };
    if active(conn, module)
        .await?
        .is_some_and(|(active, _)| active == id)
    {
        return Ok(Changed::Needed(0));
    }
    let rows = fetch(
        conn,
        "SELECT count(*) FROM runs WHERE phase IS NOT NULL AND (version_id = ?1 OR asked_id = ?1)",
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
    execute(
        conn,
        "UPDATE versions SET deleted = 1, manifest = '{}' WHERE id = ?",
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
async fn active(conn: &mut SqliteConnection, module: &str) -> Result<Option<(i64, Policy)>> {
    let rows = fetch(
        conn,
        "SELECT version_id, policy FROM modules WHERE module = ?",
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
    conn: &mut SqliteConnection,
    cache: &Cache,
    module: &str,
    digest: Digest,
    policy: Option<Policy>,
    now: Timestamp,
) -> Result<bool> {
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
    execute(
        conn,
        "INSERT INTO modules (module, version_id, activated_ms, policy) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (module) DO UPDATE SET version_id = ?2, policy = ?4, \
         activated_ms = CASE WHEN version_id = ?2 THEN activated_ms ELSE ?3 END",
        |args| {
            args.text(module).int(id).time(now).int(policy as i64);
        },
    )
    .await?;
    slots::look_again(conn, Some(module), now).await?;
    Ok(true)
}

pub(super) async fn next_generation(conn: &mut SqliteConnection, cache: &mut Cache) -> Result<()> {
    execute(conn, "UPDATE registry SET generation = generation + 1", |_| {}).await?;
    cache.generation += 1;
    ends::listen(conn).await
}

pub(super) async fn put_config(conn: &mut SqliteConnection, document: &Json, now: Timestamp) -> Result<i64> {
    let digest = Digest::of(document.as_str().as_bytes());
    let known = fetch(conn, "SELECT revision FROM configs WHERE digest = ?", |args| {
        args.bytes(digest.as_bytes());
    })
    .await?;
    if let Some(row) = known.first() {
        return Cells::of(row).int();
    }
    let rows = fetch(
        conn,
        "INSERT INTO configs (digest, document, created_ms) VALUES (?, ?, ?) RETURNING revision",
        |args| {
            args.bytes(digest.as_bytes()).text(document.as_str()).time(now);
        },
    )
    .await?;
    let row = rows
        .first()
        .ok_or_else(|| Error::Corrupt("an insert answered nothing".to_owned()))?;
    Cells::of(row).int()
}

pub(super) async fn config(conn: &mut SqliteConnection, revision: i64) -> Result<Option<Json>> {
    let rows = fetch(conn, "SELECT document FROM configs WHERE revision = ?", |args| {
        args.int(revision);
    })
    .await?;
    rows.first()
        .map(|row| Cells::of(row).text().map(Json::trusted))
        .transpose()
}

fn read_version(row: &SqliteRow) -> Result<Version> {
    let mut cells = Cells::of(row);
    let module = cells.text()?.to_owned();
    let digest = Digest::from_bytes(cells.bytes()?);
    let manifest = Json::trusted(cells.text()?);
    let size = cells.int()?.unsigned_abs();
    let uploaded_by = cells.text()?.to_owned();
    let message = cells.text_or_null()?.map(str::to_owned);
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
pub(super) async fn registry(conn: &mut SqliteConnection) -> Result<Registry> {
    let rows = fetch(
        conn,
        concat!(
            "SELECT ",
            version_columns!(),
            ", 0, g.generation FROM registry g LEFT JOIN modules m LEFT JOIN versions v ON v.id = m.version_id \
             ORDER BY m.module"
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

pub(super) async fn versions(
    conn: &mut SqliteConnection,
    module: &str,
    digest: Option<Digest>,
) -> Result<Vec<Version>> {
    let text = format!(
        "SELECT {}, {LIVE_RUNS} FROM versions v LEFT JOIN modules m ON m.version_id = v.id \
         WHERE v.deleted = 0 AND v.module = ?1 AND (?2 IS NULL OR v.digest = ?2) \
         ORDER BY v.uploaded_ms DESC, v.digest",
        version_columns!()
    );
    let rows = super::sql::fetch_dynamic(conn, text, |args| {
        args.text(module)
            .bytes_or_null(digest.as_ref().map(|digest| digest.as_bytes().as_slice()));
    })
    .await?;
    rows.iter().map(read_version).collect()
}
