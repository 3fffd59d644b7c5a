//! What only SQLite does: its values, its faults, and what its authorizer refuses.

use std::path::PathBuf;
use std::time::Duration;

use dormouse_core::{Failure, Json, Outcome};
use rusqlite::Connection;
use tempfile::TempDir;

use super::{AMPLE, key, one};
use crate::config::Database;
use crate::sql::{Databases, Unavailable, sqlite};

struct Bench {
    directory: TempDir,
    databases: Databases,
    database: Database,
}

impl Bench {
    fn new() -> Bench {
        let directory = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite:{}", directory.path().join("app.db").display());
        let databases = Databases::with_busy_timeout(Duration::from_millis(20));
        Bench {
            directory,
            databases,
            database: Database {
                url,
                migrations: None,
            },
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("app.db")
    }

    /// Another process's view of the file.
    fn outside(&self) -> Connection {
        Connection::open(self.path()).expect("opens")
    }

    fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.outside().query_row(&sql, [], |row| row.get(0)).expect(table)
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

    async fn with_table() -> Bench {
        let bench = Bench::new();
        bench
            .answers(
                0,
                r#"[{"sql":"CREATE TABLE t (id INTEGER PRIMARY KEY, x UNIQUE)"}]"#,
            )
            .await;
        bench
    }
}

#[tokio::test]
async fn answers_with_rows_and_counts_and_keeps_every_value() {
    let bench = Bench::new();
    let answer = bench
        .answers(
            1,
            r#"[{"sql":"CREATE TABLE v (n, i, r, t, b)"},
                {"sql":"INSERT INTO v VALUES (?,?,?,?,?)","params":[null,9223372036854775807,0.1,"日本 \"ü\" \u0000 😀",{"$base64":"AP8="}]},
                {"sql":"INSERT INTO v VALUES (?2,?1,?3,?4,?5) RETURNING i","params":[-9223372036854775808,true,2.0,"",{"$base64":""}]},
                {"sql":"SELECT * FROM v ORDER BY rowid"},
                {"sql":"UPDATE v SET t = 'x'"},
                {"sql":"UPDATE v SET t = 'y' WHERE 0"},
                {"sql":"CREATE TABLE w (a)"},
                {"sql":"SELECT 1 AS \"größe\" WHERE 0"}]"#,
        )
        .await;
    assert_eq!(
        answer,
        r#"[{"rows":[],"rows_affected":0},{"rows":[],"rows_affected":1},{"rows":[{"i":-9223372036854775808}],"rows_affected":1},{"rows":[{"n":null,"i":9223372036854775807,"r":0.1,"t":"日本 \"ü\" \u0000 😀","b":{"$base64":"AP8="}},{"n":1,"i":-9223372036854775808,"r":2.0,"t":"","b":{"$base64":""}}],"rows_affected":0},{"rows":[],"rows_affected":2},{"rows":[],"rows_affected":0},{"rows":[],"rows_affected":0},{"rows":[],"rows_affected":0}]"#
    );
    serde_json::from_str::<serde_json::Value>(&answer).expect("JSON");
}

#[tokio::test]
async fn a_failed_statement_rolls_back_all_and_leaves_no_mark() {
    let bench = Bench::with_table().await;
    let twice =
        r#"[{"sql":"INSERT INTO t (x) VALUES (1)"},{"sql":"INSERT INTO t (x) VALUES (?)","params":[1]}]"#;
    let failure = bench.fails(1, twice).await;
    assert_eq!(failure.code.as_deref(), Some("sql-error"));
    assert_eq!(failure.message, "statement 2 of 2: UNIQUE constraint failed: t.x");
    assert_eq!(
        failure.details.expect("details").as_str(),
        r#"{"sqlite_code":2067}"#
    );
    assert_eq!(bench.count("t"), 0);
    assert_eq!(
        bench.count("_dormouse_operations"),
        1,
        "of the table's creation only"
    );
    bench.answers(1, &one("INSERT INTO t (x) VALUES (1)")).await;
    assert_eq!(bench.count("t"), 1);
}

#[tokio::test]
async fn a_statement_that_ends_the_transaction_by_failing_leaves_nothing() {
    let bench = Bench::with_table().await;
    bench.answers(1, &one("INSERT INTO t (x) VALUES (1)")).await;
    for sql in [
        "INSERT OR ROLLBACK INTO t (x) VALUES (2), (1)",
        "INSERT OR FAIL INTO t (x) VALUES (2), (1)",
        "INSERT INTO t (x) VALUES (2), (1) ON CONFLICT (id) DO NOTHING",
    ] {
        let statements = format!(
            r#"[{{"sql":"INSERT INTO t (x) VALUES (9)"}},{{"sql":"{sql}"}},{{"sql":"INSERT INTO t (x) VALUES (3)"}}]"#
        );
        assert_eq!(
            bench.fails(2, &statements).await.code.as_deref(),
            Some("sql-error"),
            "{sql}"
        );
        assert_eq!(
            (bench.count("t"), bench.count("_dormouse_operations")),
            (1, 2),
            "{sql}"
        );
    }
}

#[tokio::test]
async fn a_constraint_that_is_checked_at_the_end_is_the_statements_fault() {
    let bench = Bench::new();
    let sql = r#"[{"sql":"CREATE TABLE p (id INTEGER PRIMARY KEY)"},
        {"sql":"CREATE TABLE c (p REFERENCES p DEFERRABLE INITIALLY DEFERRED)"}]"#;
    bench.answers(0, sql).await;
    let failure = bench.fails(1, &one("INSERT INTO c VALUES (7)")).await;
    assert_eq!(
        failure.message,
        "at the end of the statements: FOREIGN KEY constraint failed"
    );
    assert_eq!((bench.count("c"), bench.count("_dormouse_operations")), (0, 1));
    bench
        .answers(
            1,
            r#"[{"sql":"INSERT INTO c VALUES (7)"},{"sql":"INSERT INTO p VALUES (7)"}]"#,
        )
        .await;
}

#[tokio::test]
async fn hostile_sql_is_refused_and_leaves_nothing() {
    let bench = Bench::with_table().await;
    bench
        .answers(
            1,
            r#"[{"sql":"INSERT INTO t (x) VALUES ('kept')"},{"sql":"CREATE VIEW w AS SELECT x FROM t"}]"#,
        )
        .await;
    let other = bench.directory.path().join("other.db");
    let attach = format!("ATTACH '{}' AS o", other.display());
    let into = format!("VACUUM INTO '{}'", other.display());
    let many = format!("SELECT 1{}; DELETE FROM t", ";".repeat(100_000));
    for (sql, code) in [
        (attach.as_str(), "sql-not-allowed"),
        ("DETACH main", "sql-not-allowed"),
        (into.as_str(), "sql-error"),
        ("VACUUM", "sql-error"),
        ("PRAGMA journal_mode = OFF", "sql-not-allowed"),
        ("PRAGMA writable_schema = 1", "sql-not-allowed"),
        ("PRAGMA user_version", "sql-not-allowed"),
        ("PRAGMA page_size = 512", "sql-not-allowed"),
        ("SELECT * FROM pragma_table_info('t')", "sql-not-allowed"),
        ("SELECT load_extension('x')", "sql-not-allowed"),
        ("SELECT LOAD_EXTENSION('x', 'y')", "sql-not-allowed"),
        (
            "CREATE VIEW v AS SELECT 1; SELECT load_extension('x')",
            "sql-not-allowed",
        ),
        ("BEGIN", "sql-not-allowed"),
        ("COMMIT", "sql-not-allowed"),
        ("END", "sql-not-allowed"),
        ("ROLLBACK", "sql-not-allowed"),
        ("SAVEPOINT a", "sql-not-allowed"),
        ("RELEASE a", "sql-not-allowed"),
        ("/* x */ -- y\n COMMIT", "sql-not-allowed"),
        ("SELECT 1; SELECT 2", "invalid-sql-input"),
        ("SELECT 1; COMMIT", "sql-not-allowed"),
        (many.as_str(), "invalid-sql-input"),
        ("", "invalid-sql-input"),
        (" ; -- nothing", "invalid-sql-input"),
        ("SELECT ?", "invalid-sql-input"),
        ("SELEKT", "sql-error"),
        ("SELECT * FROM missing", "sql-error"),
        ("CREATE TEMP TABLE x (a)", "sql-not-allowed"),
        (
            "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
            "sql-not-allowed",
        ),
        ("CREATE TEMP VIEW x AS SELECT 1", "sql-not-allowed"),
        ("CREATE VIRTUAL TABLE temp.x USING fts5(a)", "sql-not-allowed"),
        ("SELECT answer FROM _dormouse_operations", "sql-not-allowed"),
        ("SELECT count(*) FROM _dormouse_operations", "sql-not-allowed"),
        (
            "SELECT (SELECT max(answer) FROM \"_DorMouse_Operations\")",
            "sql-not-allowed",
        ),
        (
            "CREATE VIEW spy AS SELECT * FROM _dormouse_operations; ",
            "answered",
        ),
        ("DELETE FROM _dormouse_operations", "sql-not-allowed"),
        ("UPDATE _dormouse_operations SET answer = '1'", "sql-not-allowed"),
        (
            "INSERT INTO _dormouse_operations (run, operation, answer) VALUES (x'00', 1, '')",
            "sql-not-allowed",
        ),
        ("DROP TABLE _dormouse_operations", "sql-not-allowed"),
        ("ALTER TABLE _dormouse_operations ADD COLUMN x", "sql-not-allowed"),
        (
            "ALTER TABLE _dormouse_operations RENAME TO mine",
            "sql-not-allowed",
        ),
        ("CREATE TABLE _dormouse_migrations (a)", "sql-not-allowed"),
        (
            "CREATE INDEX i ON _dormouse_operations (answer)",
            "sql-not-allowed",
        ),
        (
            "CREATE TRIGGER g AFTER INSERT ON _dormouse_operations BEGIN SELECT 1; END",
            "sql-not-allowed",
        ),
        ("UPDATE sqlite_schema SET sql = 'x'", "sql-error"),
        ("DELETE FROM sqlite_schema", "sql-error"),
        ("SELECT zeroblob(1000000000)", "sql-error"),
        ("SELECT CAST(x'ff' AS TEXT) AS a", "invalid-sql-result"),
        ("SELECT 9e999 AS a", "invalid-sql-result"),
        ("SELECT 1 AS a, 2 AS a", "invalid-sql-result"),
        ("SELECT hex(zeroblob(8000000)) AS a", "output-too-large"),
        ("SELECT zeroblob(4000000) AS a", "output-too-large"),
        (
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n, 'some more text' FROM c",
            "output-too-large",
        ),
    ] {
        let statements = serde_json::json!([{ "sql": "UPDATE t SET x = 'changed'" }, { "sql": sql }]);
        let outcome = bench.perform(2, &statements.to_string()).await.expect(sql);
        let shown = &sql[..sql.len().min(80)];
        if code == "answered" {
            // A view that reads the host's table can be made, but nothing can be read through it.
            outcome.expect(shown);
            let failure = bench.fails(3, &one("SELECT * FROM spy")).await;
            assert_eq!(failure.code.as_deref(), Some("sql-not-allowed"), "{failure}");
            bench.outside().execute_batch("DELETE FROM _dormouse_operations WHERE operation = 2; UPDATE t SET x = 'kept'; DROP VIEW spy").expect("undone");
            continue;
        }
        let failure = outcome.expect_err(shown);
        assert_eq!(failure.code.as_deref(), Some(code), "{shown}: {failure}");
        assert_eq!(failure.retry, dormouse_core::Retry::Never);
        let kept: String = bench
            .outside()
            .query_row("SELECT x FROM t", [], |row| row.get(0))
            .expect("a row");
        assert_eq!(kept, "kept", "{shown}");
        assert_eq!(bench.count("_dormouse_operations"), 2, "{shown}");
    }
    assert!(!other.exists());
    bench.answers(4, &one("SELECT x FROM w")).await;
}

#[tokio::test]
async fn ordinary_sql_is_not_refused() {
    let bench = Bench::with_table().await;
    let statements = [
        "CREATE VIRTUAL TABLE words USING fts5(body)",
        "INSERT INTO words VALUES ('a dormouse sleeps')",
        "SELECT body FROM words WHERE words MATCH 'dormouse' ORDER BY rank",
        "CREATE TABLE log (what)",
        "CREATE TRIGGER note AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.x); END",
        "INSERT INTO t (x) VALUES (1), (2) ON CONFLICT (x) DO UPDATE SET x = excluded.x",
        "SELECT json_group_array(what) AS j, upper('x') AS u FROM log",
        "ALTER TABLE log RENAME TO notes",
        "ALTER TABLE notes RENAME COLUMN what TO thing",
        "ALTER TABLE notes ADD COLUMN more",
        "ALTER TABLE notes DROP COLUMN more",
        "CREATE INDEX i ON notes (thing)",
        "REINDEX",
        "ANALYZE",
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 3) SELECT sum(n) AS s FROM c",
        "EXPLAIN QUERY PLAN SELECT * FROM t",
        "DELETE FROM notes",
        "DROP TRIGGER note",
        "DROP TABLE notes",
        "DROP TABLE words",
        "SELECT 1 ; -- the end",
    ];
    for (operation, sql) in (1..).zip(statements) {
        let outcome = bench.perform(operation, &one(sql)).await.expect(sql);
        let answer = outcome.unwrap_or_else(|failure| panic!("{sql}: {failure}"));
        match sql {
            _ if sql.contains("MATCH") => assert!(answer.as_str().contains("sleeps"), "{answer}"),
            _ if sql.contains("json_group") => {
                assert!(answer.as_str().contains(r#""j":"[1,2]","u":"X""#), "{answer}")
            }
            _ if sql.contains("sum(n)") => assert!(answer.as_str().contains(r#"{"s":6}"#), "{answer}"),
            _ if sql.starts_with("INSERT INTO t") => {
                assert!(answer.as_str().contains(r#""rows_affected":2"#), "{answer}")
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_locked_database_is_unavailable_until_it_is_not() {
    let bench = Bench::with_table().await;
    let other = bench.outside();
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let insert = one("INSERT INTO t (x) VALUES (1)");
    let unavailable = bench.perform(1, &insert).await.expect_err("locked");
    assert!(
        unavailable.to_string().contains("app.db: database is locked"),
        "{unavailable}"
    );
    other.execute_batch("ROLLBACK").expect("unlocked");
    bench.answers(1, &insert).await;
    assert_eq!(bench.count("t"), 1);
}

#[tokio::test]
async fn a_full_database_is_unavailable_and_keeps_nothing() {
    let bench = Bench::with_table().await;
    // What a full disk is to SQLite, on any file system: its answer is SQLITE_FULL.
    let connection = sqlite::open(&bench.path(), Duration::ZERO).expect("opens");
    connection.pragma_update(None, "max_page_count", 1).expect("set");
    let error = connection
        .execute("INSERT INTO t (x) VALUES (zeroblob(1000000))", [])
        .expect_err("full");
    let trouble = sqlite::classify(&error, |message| Failure::terminal("sql-error", message));
    assert!(matches!(trouble, sqlite::Trouble::Unavailable(message) if message.contains("full")));
}

#[test]
fn whose_fault_an_error_is() {
    use rusqlite::ffi::{self, Error};
    let is_unavailable = |code| {
        let error = rusqlite::Error::SqliteFailure(Error::new(code), None);
        let trouble = sqlite::classify(&error, |message| Failure::terminal("sql-error", message));
        matches!(trouble, sqlite::Trouble::Unavailable(_))
    };
    for code in [
        ffi::SQLITE_BUSY,
        ffi::SQLITE_BUSY_SNAPSHOT,
        ffi::SQLITE_LOCKED,
        ffi::SQLITE_FULL,
        ffi::SQLITE_IOERR,
        ffi::SQLITE_IOERR_FSYNC,
        ffi::SQLITE_IOERR_DIR_FSYNC,
        ffi::SQLITE_CANTOPEN,
        ffi::SQLITE_READONLY,
        ffi::SQLITE_CORRUPT,
        ffi::SQLITE_NOTADB,
        ffi::SQLITE_NOMEM,
    ] {
        assert!(is_unavailable(code), "{code}");
    }
    for code in [
        ffi::SQLITE_ERROR,
        ffi::SQLITE_CONSTRAINT,
        ffi::SQLITE_CONSTRAINT_TRIGGER,
        ffi::SQLITE_MISMATCH,
        ffi::SQLITE_TOOBIG,
        ffi::SQLITE_RANGE,
    ] {
        assert!(!is_unavailable(code), "{code}");
    }
}

#[tokio::test]
async fn what_cannot_be_opened_is_unavailable_and_tried_again() {
    let bench = Bench::new();
    std::fs::write(
        bench.path(),
        "this is a text, long enough not to be taken for an empty file".repeat(100),
    )
    .expect("written");
    let unavailable = bench.perform(1, &one("SELECT 1")).await.expect_err("no database");
    assert!(
        unavailable.to_string().contains("not a database"),
        "{unavailable}"
    );
    std::fs::remove_file(bench.path()).expect("removed");
    bench.answers(1, &one("SELECT 1")).await;

    let nowhere = Database {
        url: "sqlite:/nowhere/at/all/app.db".to_owned(),
        migrations: None,
    };
    let unavailable = bench
        .databases
        .perform(&nowhere, key(1), &Json::trusted(one("SELECT 1")), AMPLE)
        .await;
    assert!(
        unavailable
            .expect_err("no directory")
            .to_string()
            .contains("/nowhere/at/all")
    );
    for url in ["mysql://localhost/x", "sqlite:relative.db", ""] {
        let other = Database {
            url: url.to_owned(),
            migrations: None,
        };
        let outcome = bench
            .databases
            .perform(&other, key(1), &Json::trusted(one("SELECT 1")), AMPLE)
            .await;
        assert_eq!(
            outcome.expect("answered").expect_err(url).code.as_deref(),
            Some("not-supported")
        );
    }
}

#[tokio::test]
async fn a_database_that_is_created_is_durable_and_one_that_exists_keeps_its_mode() {
    let mut bench = Bench::new();
    bench.database.url = format!("sqlite:{}", bench.directory.path().join("new/made.db").display());
    bench.answers(1, &one("SELECT 1")).await;
    let mode = |path: PathBuf| -> String {
        Connection::open(path)
            .expect("opens")
            .query_row("PRAGMA journal_mode", [], |row| row.get(0))
            .expect("a mode")
    };
    assert_eq!(mode(bench.directory.path().join("new/made.db")), "wal");

    bench
        .outside()
        .execute_batch("CREATE TABLE before (a)")
        .expect("created");
    bench.database.url = format!("sqlite:{}", bench.path().display());
    bench.answers(1, &one("INSERT INTO before VALUES (1)")).await;
    assert_eq!(mode(bench.path()), "delete");
    for path in [bench.path(), bench.directory.path().join("new/made.db")] {
        let connection = sqlite::open(&path, Duration::ZERO).expect("opens");
        let synchronous: i64 = connection
            .query_row("PRAGMA synchronous", [], |row| row.get(0))
            .expect("a mode");
        assert_eq!(synchronous, 2, "FULL");
    }
}

#[tokio::test]
async fn migrations_cannot_end_their_transaction_or_touch_the_hosts_tables() {
    for (sql, words) in [
        ("CREATE TABLE a (x); COMMIT; CREATE TABLE b (x);", "COMMIT"),
        ("CREATE TABLE a (x); ROLLBACK;", "ROLLBACK"),
        ("CREATE TABLE a (x); ATTACH 'x.db' AS x;", "ATTACH"),
        (
            "CREATE TABLE a (x); DELETE FROM _dormouse_migrations;",
            "belongs to the host",
        ),
        (
            "CREATE TABLE a (x); SELECT load_extension('x');",
            "load_extension",
        ),
    ] {
        let mut bench = Bench::new();
        std::fs::write(bench.directory.path().join("0001_x.sql"), sql).expect("written");
        bench.database.migrations = Some(bench.directory.path().to_owned());
        let error = bench.databases.migrate(&bench.database).await.expect_err(sql);
        assert!(error.to_string().contains(words), "{sql}: {error}");
        let exists = "SELECT count(*) FROM sqlite_schema WHERE name IN ('a', 'b')";
        let count: i64 = bench
            .outside()
            .query_row(exists, [], |row| row.get(0))
            .expect("a count");
        assert_eq!(count, 0, "{sql}");
    }
}
