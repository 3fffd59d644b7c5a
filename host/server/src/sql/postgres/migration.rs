//! Applying the operator's migrations on Postgres: each file in one transaction, one node at a time.

use dormouse_core::Failure;
use sqlx::postgres::{PgDatabaseError, PgErrorPosition};

use super::connect::{Link, simple};
use super::fault::{Fault, foreign, own};
use super::tables::{LOCK, MIGRATIONS, cell, create, row};
use super::{Job, check};
use crate::sql::migration::Migration;

impl Job for Migration {
    type Done = ();

    async fn run(&self, link: &mut Link, schema: &str) -> Result<(), Fault> {
        let result = apply(self, link, schema).await;
        if let Err(fault) = &result {
            let is_lost = matches!(fault, Fault::Lost(_));
            link.broken = is_lost || simple(&mut link.pg, "ROLLBACK".to_owned()).await.is_err();
        }
        result
    }
}

/// Applies one, unless it was applied before.
async fn apply(migration: &Migration, link: &mut Link, schema: &str) -> Result<(), Fault> {
    check::migration(&migration.sql)?;
    create(link, schema, MIGRATIONS).await?;
    // A migration takes the time that it takes, and so does another node's that is waited for.
    let begin = format!(
        "BEGIN READ WRITE; SET LOCAL statement_timeout = 0; SELECT pg_catalog.pg_advisory_xact_lock({LOCK})"
    );
    simple(&mut link.pg, begin).await.map_err(own)?;
    let (table, name) = (MIGRATIONS.0, literal(&migration.name));
    let text = format!("SELECT checksum FROM {schema}.{table} WHERE name = {name}");
    let remembered = row(&mut link.pg, text)
        .await
        .map_err(own)?
        .and_then(|row| cell(&row, 0));
    if migration.is_applied(remembered.as_deref())? {
        return simple(&mut link.pg, "ROLLBACK".to_owned()).await.map_err(own);
    }
    let before = transaction(link).await?;
    simple(&mut link.pg, migration.sql.clone())
        .await
        .map_err(|error| in_words(error, &migration.sql))?;
    if transaction(link).await? != before {
        let message = "it has ended its own transaction: what it did before that stays, and it is not marked as applied";
        return Err(Failure::terminal("sql-not-allowed", message).into());
    }
    let checksum = literal(&migration.checksum());
    let text = format!("INSERT INTO {schema}.{table} (name, checksum) VALUES ({name}, {checksum})");
    simple(&mut link.pg, text).await.map_err(own)?;
    simple(&mut link.pg, "COMMIT".to_owned())
        .await
        .map_err(|error| in_words(error, ""))
}

/// The transaction's number.
async fn transaction(link: &mut Link) -> Result<Option<String>, Fault> {
    let text = "SELECT pg_catalog.txid_current()".to_owned();
    let row = row(&mut link.pg, text).await.map_err(own)?;
    Ok(row.and_then(|row| cell(&row, 0)))
}

/// A migration's error, with the line of its file where the server says where it is.
fn in_words(error: sqlx::Error, sql: &str) -> Fault {
    let position = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .and_then(|error| match error.position() {
            Some(PgErrorPosition::Original(position)) => Some(position),
            _ => None,
        });
    match (foreign(error), position) {
        (Fault::Refused(failure), Some(position)) if !sql.is_empty() => {
            let line = 1 + sql.chars().take(position).filter(|c| *c == '\n').count();
            Fault::Refused(Failure {
                message: format!("line {line}: {}", failure.message),
                ..failure
            })
        }
        (fault, _) => fault,
    }
}

/// A string as an SQL text has it, whatever the server's settings are.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
