//! The application's database, which the programs' SQL steps change.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use dormouse_testing_postgres::Cluster;

/// Two tables: the counters, and who added what to them. What a counter holds is never below zero.
const TABLES: &str = "\
CREATE TABLE counter (id BIGINT PRIMARY KEY, n BIGINT NOT NULL CHECK (n >= 0));
CREATE TABLE ledger (run_id TEXT NOT NULL, step TEXT NOT NULL, counter BIGINT NOT NULL, amount BIGINT NOT NULL);
";

/// Its name on a server.
const DATABASE: &str = "app";

/// The database, and the directory of its migrations.
pub(crate) struct Application {
    dir: tempfile::TempDir,
    cluster: Option<Arc<Cluster>>,
}

impl Application {
    /// A database on a server, or a SQLite file, that is empty yet; the nodes make its tables.
    pub(crate) fn new(cluster: Option<Arc<Cluster>>) -> Application {
        let dir = tempfile::TempDir::new().expect("a temporary directory");
        let migrations = dir.path().join("migrations");
        std::fs::create_dir(&migrations).expect("a directory");
        std::fs::write(migrations.join("0001_tables.sql"), TABLES).expect("a migration");
        if let Some(cluster) = &cluster {
            cluster.psql("postgres", &format!("CREATE DATABASE {DATABASE}"));
        }
        Application { dir, cluster }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("app.db")
    }

    /// What the configuration says of it.
    pub(crate) fn grant(&self) -> String {
        let url = match &self.cluster {
            Some(cluster) => cluster.url(DATABASE),
            None => format!("sqlite:{}", self.file().display()),
        };
        let migrations = self.dir.path().join("migrations");
        format!("{{ url = \"{url}\", migrations = \"{}\" }}", migrations.display())
    }

    /// What each counter holds.
    pub(crate) fn counters(&self) -> BTreeMap<u32, i64> {
        let rows = self.rows("SELECT CAST(id AS TEXT), CAST(n AS TEXT) FROM counter");
        let row = |row: Vec<String>| (number(&row[0]) as u32, number(&row[1]));
        rows.into_iter().map(row).collect()
    }

    /// Who added how much to which: run, step, counter, amount.
    pub(crate) fn ledger(&self) -> Vec<(String, String, u32, i64)> {
        let sql = "SELECT run_id, step, CAST(counter AS TEXT), CAST(amount AS TEXT) FROM ledger";
        let row = |row: Vec<String>| {
            (
                row[0].clone(),
                row[1].clone(),
                number(&row[2]) as u32,
                number(&row[3]),
            )
        };
        self.rows(sql).into_iter().map(row).collect()
    }

    fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        if let Some(cluster) = &self.cluster {
            let rows = cluster.psql(DATABASE, sql);
            return rows
                .lines()
                .map(|row| row.split('|').map(str::to_owned).collect())
                .collect();
        }
        let database = rusqlite::Connection::open(self.file()).expect("the application's database");
        let mut statement = database.prepare(sql).expect("its tables");
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect());
        rows.expect("rows").collect::<Result<_, _>>().expect("rows")
    }
}

fn number(text: &str) -> i64 {
    text.parse().expect("a number")
}
