//! The application's database, which the programs' SQL steps change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Two tables: the counters, and who added what to them. What a counter holds is never below zero.
const TABLES: &str = "\
CREATE TABLE counter (id BIGINT PRIMARY KEY, n BIGINT NOT NULL CHECK (n >= 0));
CREATE TABLE ledger (run_id TEXT NOT NULL, step TEXT NOT NULL, counter BIGINT NOT NULL, amount BIGINT NOT NULL);
";

/// The database, and the directory that it and its migrations are in.
pub(crate) struct Application {
    dir: tempfile::TempDir,
}

impl Application {
    /// A SQLite file that does not exist yet; the nodes make it.
    pub(crate) fn new() -> Application {
        let dir = tempfile::TempDir::new().expect("a temporary directory");
        let migrations = dir.path().join("migrations");
        std::fs::create_dir(&migrations).expect("a directory");
        std::fs::write(migrations.join("0001_tables.sql"), TABLES).expect("a migration");
        Application { dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("app.db")
    }

    /// What the configuration says of it.
    pub(crate) fn grant(&self) -> String {
        let path = |path: &Path| path.display().to_string();
        format!(
            "{{ url = \"sqlite:{}\", migrations = \"{}\" }}",
            path(&self.file()),
            path(&self.dir.path().join("migrations"))
        )
    }

    /// What each counter holds.
    pub(crate) fn counters(&self) -> BTreeMap<u32, i64> {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        self.rows("SELECT id, n FROM counter", row).into_iter().collect()
    }

    /// Who added how much to which: run, step, counter, amount.
    pub(crate) fn ledger(&self) -> Vec<(String, String, u32, i64)> {
        self.rows("SELECT run_id, step, counter, amount FROM ledger", |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
    }

    fn rows<T>(&self, sql: &str, read: fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
        let database = rusqlite::Connection::open(self.file()).expect("the application's database");
        let mut statement = database.prepare(sql).expect("its tables");
        let rows = statement.query_map([], read).expect("rows");
        rows.collect::<Result<_, _>>().expect("rows")
    }
}
