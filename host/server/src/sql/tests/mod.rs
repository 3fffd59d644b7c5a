//! Operations on real databases: exactly once, hostile SQL, faults.

mod both;
mod migrations;
mod postgres;
mod proxy;
mod sqlite;

use std::time::Duration;

use dormouse_core::{Failure, Json, Outcome, RunId, Timestamp};
use dormouse_testing_postgres::Cluster;
use tempfile::TempDir;

use super::{Databases, OperationKey, Unavailable};
use crate::config::Database;

/// Far more than any of these statements takes.
const AMPLE: Duration = Duration::from_secs(60);

fn key(operation: u32) -> OperationKey {
    OperationKey {
        run: RunId::from_parts(Timestamp::from_millis(1), [7; 10]),
        operation,
    }
}

fn one(sql: &str) -> String {
    format!("[{}]", serde_json::json!({ "sql": sql }))
}

/// A database system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Sqlite,
    Postgres,
}

/// An empty database.
struct Place {
    system: System,
    directory: TempDir,
    databases: Databases,
    database: Database,
}

impl Place {
    fn on(system: System) -> Place {
        let directory = tempfile::tempdir().expect("a directory");
        let url = match system {
            System::Sqlite => format!("sqlite:{}", directory.path().join("app.db").display()),
            System::Postgres => Cluster::shared().database(),
        };
        Place {
            system,
            directory,
            databases: Databases::with_busy_timeout(Duration::from_millis(20)),
            database: Database {
                url,
                migrations: None,
            },
        }
    }

    /// With a table `t` of an `id` and a unique `x`.
    async fn with_table(system: System) -> Place {
        let place = Place::on(system);
        let sql = match system {
            System::Sqlite => "CREATE TABLE t (id INTEGER PRIMARY KEY, x UNIQUE)",
            System::Postgres => "CREATE TABLE t (id bigserial PRIMARY KEY, x float8 UNIQUE)",
        };
        place.answers(0, &one(sql)).await;
        place
    }

    /// Executes as somebody else and answers with the first row, columns separated by `|`.
    fn outside(&self, sql: &str) -> String {
        match self.system {
            System::Sqlite => {
                let path = self.directory.path().join("app.db");
                let connection = rusqlite::Connection::open(path).expect("opens");
                let mut prepared = connection.prepare(sql).expect(sql);
                let count = prepared.column_count();
                let mut rows = prepared.query([]).expect(sql);
                let Some(row) = rows.next().expect(sql) else {
                    return String::new();
                };
                let cell = |index| match row.get::<_, rusqlite::types::Value>(index).expect("a value") {
                    rusqlite::types::Value::Null => String::new(),
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    rusqlite::types::Value::Real(number) => number.to_string(),
                    rusqlite::types::Value::Text(text) => text,
                    rusqlite::types::Value::Blob(bytes) => format!("{bytes:?}"),
                };
                (0..count).map(cell).collect::<Vec<_>>().join("|")
            }
            System::Postgres => Cluster::shared().psql(self.name(), sql),
        }
    }

    /// The database's name on its server.
    fn name(&self) -> &str {
        let path = self.database.url.split('?').next().expect("a path");
        path.rsplit('/').next().expect("a name")
    }

    fn count(&self, table: &str) -> i64 {
        let count = self.outside(&format!("SELECT count(*) FROM {table}"));
        count.parse().expect("a number")
    }

    async fn perform(&self, operation: u32, statements: &str) -> Result<Outcome, Unavailable> {
        self.within(operation, statements, AMPLE).await
    }

    async fn within(
        &self,
        operation: u32,
        statements: &str,
        timeout: Duration,
    ) -> Result<Outcome, Unavailable> {
        let statements = Json::parse(statements).expect("JSON");
        self.databases
            .perform(&self.database, key(operation), &statements, timeout)
            .await
    }

    async fn answers(&self, operation: u32, statements: &str) -> String {
        let outcome = self.perform(operation, statements).await.expect("available");
        outcome.expect(statements).as_str().to_owned()
    }

    async fn fails(&self, operation: u32, statements: &str) -> Failure {
        self.perform(operation, statements)
            .await
            .expect("available")
            .expect_err(statements)
    }

    async fn migrate(&self) -> Result<(), String> {
        let applied = self.databases.migrate(&self.database).await;
        applied.map_err(|error| error.to_string())
    }
}

/// Makes a test of a function for each database system.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                super::$name(crate::sql::tests::System::Sqlite).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                super::$name(crate::sql::tests::System::Postgres).await;
            })*
        }
    };
}
use on_both;
