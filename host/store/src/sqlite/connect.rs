//! Opening the database: its settings, its schema, its connections.

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, SqlSafeStr as _, SqliteConnection};

use super::sql::{Cells, fetch};
use crate::error::{Error, Result};

/// Read connections: pages and the API wait for nobody, and two cores don't need more.
const READERS: u32 = 4;
/// Reads beyond this wait in the pool; nobody waits longer than this.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Somebody else's transaction (a person with a `sqlite3` shell) may hold the database this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Texts of multi-row statements come in a handful of sizes each; all of them stay prepared.
const STATEMENTS: usize = 400;
/// Rows that may be under way from a connection's thread: a whole journal in one go. With fewer, thread and reader wake
/// each other for every row once the buffer is full. It holds what is on its way and no more.
const ROW_BUFFER: usize = 1 << 15;

/// Schema changes, oldest first. The text is part of the binary; once released, it is never edited.
const MIGRATIONS: [(i64, &str, &str); 15] = [
    (
        1,
        "initial",
        include_str!("../../../../migrations/sqlite/0001_initial.sql"),
    ),
    (
        2,
        "nodes",
        include_str!("../../../../migrations/sqlite/0002_nodes.sql"),
    ),
    (
        3,
        "flow",
        include_str!("../../../../migrations/sqlite/0003_flow.sql"),
    ),
    (
        4,
        "pausing",
        include_str!("../../../../migrations/sqlite/0004_pausing.sql"),
    ),
    (
        5,
        "reruns",
        include_str!("../../../../migrations/sqlite/0005_reruns.sql"),
    ),
    (
        6,
        "cancellations",
        include_str!("../../../../migrations/sqlite/0006_cancellations.sql"),
    ),
    (
        7,
        "invoke",
        include_str!("../../../../migrations/sqlite/0007_invoke.sql"),
    ),
    (
        8,
        "schedules",
        include_str!("../../../../migrations/sqlite/0008_schedules.sql"),
    ),
    (
        9,
        "throttle",
        include_str!("../../../../migrations/sqlite/0009_throttle.sql"),
    ),
    (
        10,
        "ends",
        include_str!("../../../../migrations/sqlite/0010_ends.sql"),
    ),
    (
        11,
        "endings",
        include_str!("../../../../migrations/sqlite/0011_endings.sql"),
    ),
    (
        12,
        "concurrency",
        include_str!("../../../../migrations/sqlite/0012_concurrency.sql"),
    ),
    (
        13,
        "batches",
        include_str!("../../../../migrations/sqlite/0013_batches.sql"),
    ),
    (
        14,
        "swaps",
        include_str!("../../../../migrations/sqlite/0014_swaps.sql"),
    ),
    (
        15,
        "asked",
        include_str!("../../../../migrations/sqlite/0015_asked.sql"),
    ),
];

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(false)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENTS)
        .row_buffer_size(ROW_BUFFER)
        .disable_statement_logging()
}

/// The write connection. `checkpoint_pages`: after how many pages the log is copied into the database.
pub(super) async fn writer(path: &Path, checkpoint_pages: u32) -> Result<SqliteConnection> {
    let conn = options(path)
        .create_if_missing(true)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", checkpoint_pages.to_string())
        .pragma("journal_size_limit", (64 << 20).to_string())
        .pragma("cache_size", "-16384")
        .pragma("temp_store", "MEMORY")
        .thread_name(|_| "dormouse-writer".to_owned())
        .connect()
        .await?;
    Ok(conn)
}

/// Connections that cannot write.
pub(super) async fn readers(path: &Path) -> Result<SqlitePool> {
    let options = options(path)
        .read_only(true)
        .pragma("query_only", "ON")
        .pragma("cache_size", "-4096")
        .thread_name(|id| format!("dormouse-read-{id}"));
    let pool = SqlitePoolOptions::new()
        .max_connections(READERS)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options)
        .await?;
    Ok(pool)
}

/// Brings the schema up to date.
pub(super) async fn migrate(conn: &mut SqliteConnection) -> Result<()> {
    let known = MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or(0);
    let tables = fetch(
        conn,
        "SELECT 1 FROM sqlite_master WHERE name = '_sqlx_migrations'",
        |_| {},
    )
    .await?;
    if !tables.is_empty() {
        let rows = fetch(
            conn,
            "SELECT coalesce(max(version), 0) FROM _sqlx_migrations",
            |_| {},
        )
        .await?;
        let found = rows.first().map_or(Ok(0), |row| Cells::of(row).int())?;
        if found > known {
            return Err(Error::NewerSchema { found, known });
        }
    }
    let migrations = MIGRATIONS
        .iter()
        .map(|(version, name, text)| {
            Migration::new(
                *version,
                (*name).into(),
                MigrationType::Simple,
                text.into_sql_str(),
                false,
            )
        })
        .collect();
    Migrator::with_migrations(migrations)
        .run(conn)
        .await
        .map_err(|error| match error {
            sqlx::migrate::MigrateError::Execute(error)
            | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => error.into(),
            other => Error::Corrupt(format!("the schema cannot be brought up to date: {other}")),
        })
}
