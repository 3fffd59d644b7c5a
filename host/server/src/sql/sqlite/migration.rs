//! Applying the operator's migrations on SQLite.

use dormouse_core::Failure;
use rusqlite::{Connection, OptionalExtension};

use super::authorizer::{Author, restrained};
use super::{Trouble, classify};
use crate::sql::migration::Migration;

/// Applies one in the open transaction, unless it was applied before.
pub(super) fn apply(migration: &Migration, connection: &Connection) -> Result<(), Trouble> {
    let own = |error: rusqlite::Error| Trouble::Unavailable(error.to_string());
    connection
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS _dormouse_migrations (
                name TEXT NOT NULL PRIMARY KEY,
                checksum TEXT NOT NULL,
                applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
            ) STRICT",
        )
        .map_err(own)?;
    let remembered: Option<String> = connection
        .query_row(
            "SELECT checksum FROM _dormouse_migrations WHERE name = ?1",
            [&migration.name],
            |row| row.get(0),
        )
        .optional()
        .map_err(own)?;
    if migration.is_applied(remembered.as_deref())? {
        return Ok(());
    }
    let (result, refusal) = restrained(connection, Author::Operator, || {
        connection.execute_batch(&migration.sql)
    })
    .map_err(own)?;
    if let Err(error) = result {
        return Err(match refusal {
            Some(reason) => Failure::terminal("sql-not-allowed", reason).into(),
            None => classify(&error, |message| Failure::terminal("sql-error", message)),
        });
    }
    connection
        .execute(
            "INSERT INTO _dormouse_migrations (name, checksum) VALUES (?1, ?2)",
            [&migration.name, &migration.checksum()],
        )
        .map(drop)
        .map_err(own)
}
