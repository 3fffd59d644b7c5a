//! The file: opening it, and the host's own rows in it.

use std::path::Path;
use std::time::{Duration, Instant};

use dormouse_core::{Json, RunId, Timestamp};
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, OptionalExtension};

use crate::sql::OperationKey;

/// The longest text, blob or row in bytes. Some functions of SQLite take time in its square and can't be interrupted.
const VALUE_BYTES_MAX: i32 = 16 << 20;
/// The longest text of a statement in bytes.
const SQL_BYTES_MAX: i32 = 1 << 20;
/// The longest pattern of LIKE and GLOB in bytes: matching takes time in its product with the text.
const PATTERN_BYTES_MAX: i32 = 1_000;

/// Opens the file, creating it and its directory where they are missing, and the host's tables in it.
pub(crate) fn open(path: &Path, busy_timeout: Duration) -> Result<Connection, String> {
    let is_new = std::fs::metadata(path).map_or(true, |file| file.len() == 0);
    if is_new && let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        std::fs::create_dir(directory)
            .map_err(|error| format!("the directory {} cannot be created: {error}", directory.display()))?;
    }
    let configured = || -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(busy_timeout)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        for (limit, most) in [
            (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX),
            (Limit::SQLITE_LIMIT_SQL_LENGTH, SQL_BYTES_MAX),
            (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_BYTES_MAX),
            (Limit::SQLITE_LIMIT_ATTACHED, 0),
        ] {
            connection.set_limit(limit, most)?;
        }
        if is_new {
            enter_wal(&connection, busy_timeout)?;
        }
        // An answer goes into the run's journal at once: what it says must not be lost with the power.
        connection.pragma_update(None, "synchronous", "FULL")?;
        let exists: Option<i64> = connection
            .query_row(
                "SELECT 1 FROM sqlite_schema WHERE name = '_dormouse_operations'",
                [],
                |row| row.get(0),
            )
            .optional()?;
        if exists.is_none() {
            connection.execute_batch(
                "CREATE TABLE IF NOT EXISTS _dormouse_operations (
                    run BLOB NOT NULL,
                    operation INTEGER NOT NULL,
                    performed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
                    answer TEXT NOT NULL,
                    PRIMARY KEY (run, operation)
                ) STRICT",
            )?;
        }
        Ok(connection)
    };
    configured().map_err(|error| error.to_string())
}

/// Puts a new file into WAL mode. Where several do this to the same file at once SQLite refuses all but one without
/// waiting, whatever the busy timeout says: so the waiting is done here.
fn enter_wal(connection: &Connection, busy_timeout: Duration) -> rusqlite::Result<()> {
    /// The first one is done after a few writes to the file.
    const APART: Duration = Duration::from_millis(5);
    let until = Instant::now() + busy_timeout;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < until =>
            {
                std::thread::sleep(APART);
            }
            result => return result,
        }
    }
}

/// Inserts the operation's marker. Answers with what is stored when it was there.
pub(super) fn mark(connection: &Connection, key: OperationKey) -> rusqlite::Result<Option<Json>> {
    let (run, operation) = (key.run.to_bytes(), key.operation);
    let inserted = connection.execute(
        "INSERT INTO _dormouse_operations (run, operation, answer) VALUES (?1, ?2, '') ON CONFLICT DO NOTHING",
        rusqlite::params![run, operation],
    )?;
    if inserted == 1 {
        return Ok(None);
    }
    let answer: String = connection.query_row(
        "SELECT answer FROM _dormouse_operations WHERE run = ?1 AND operation = ?2",
        rusqlite::params![run, operation],
        |row| row.get(0),
    )?;
    Ok(Some(Json::trusted(answer)))
}

/// Stores the answer in the operation's marker.
pub(super) fn store(connection: &Connection, key: OperationKey, answer: &Json) -> rusqlite::Result<()> {
    let changed = connection.execute(
        "UPDATE _dormouse_operations SET answer = ?3 WHERE run = ?1 AND operation = ?2",
        rusqlite::params![key.run.to_bytes(), key.operation, answer.as_str()],
    )?;
    if changed == 1 {
        Ok(())
    } else {
        Err(Error::StatementChangedRows(changed))
    }
}

/// Up to `limit` runs behind `after` that have rows from before `before`, in order of their ids.
pub(super) fn old_runs(
    connection: &Connection,
    after: Option<RunId>,
    before: Timestamp,
    limit: u32,
) -> rusqlite::Result<Vec<RunId>> {
    // A run's id begins with its time, so that what is newer is not looked at.
    let mut prepared = connection.prepare(
        "SELECT DISTINCT run FROM _dormouse_operations
         WHERE run > ?1 AND run < ?2 AND performed_at < strftime('%Y-%m-%dT%H:%M:%fZ', ?3 / 1000.0, 'unixepoch')
         ORDER BY run LIMIT ?4",
    )?;
    let after = after.map_or(Vec::new(), |run| run.to_bytes().to_vec());
    let newest = RunId::from_parts(before, [0; 10]).to_bytes();
    let rows = prepared.query_map(
        rusqlite::params![after, newest, before.as_millis(), limit],
        |row| row.get(0).map(RunId::from_bytes),
    )?;
    rows.collect()
}

/// Deletes the rows of runs that are from before `before`.
pub(super) fn forget(connection: &Connection, runs: &[RunId], before: Timestamp) -> rusqlite::Result<()> {
    let mut prepared = connection.prepare(
        "DELETE FROM _dormouse_operations
         WHERE run = ?1 AND performed_at < strftime('%Y-%m-%dT%H:%M:%fZ', ?2 / 1000.0, 'unixepoch')",
    )?;
    for run in runs {
        prepared.execute(rusqlite::params![run.to_bytes(), before.as_millis()])?;
    }
    Ok(())
}
