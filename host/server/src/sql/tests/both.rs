//! What is the same on every database.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dormouse_core::{Json, RunId, Timestamp, limit};

use super::{AMPLE, Place, System, key, on_both, one};
use crate::sql::{Databases, OperationKey, prune};

on_both!(
    performed_twice_happens_once_and_answers_the_same,
    performed_by_many_at_once_happens_once,
    an_answer_that_nobody_waits_for_stops_the_statement,
    a_failed_statement_rolls_back_all_and_leaves_no_mark,
    a_constraint_that_is_checked_at_the_end_is_the_statements_fault,
    a_statement_without_end_is_ended_and_the_database_goes_on,
    an_answer_at_the_limit_is_kept_and_one_over_is_not,
    what_is_not_one_valid_statement_is_refused,
    old_operations_are_forgotten_when_their_run_is_over,
);

const INSERT: &str = r#"[{"sql":"INSERT INTO t (x) VALUES (random()) RETURNING id, x"}]"#;

async fn performed_twice_happens_once_and_answers_the_same(system: System) {
    let place = Place::with_table(system).await;
    let first = place.answers(1, INSERT).await;
    assert_eq!(place.answers(1, INSERT).await, first);
    // The answer was lost with the process, after the commit: another process asks again.
    let again = Place {
        databases: Databases::new(),
        ..place
    };
    assert_eq!(again.answers(1, INSERT).await, first);
    assert_eq!(
        again
            .answers(2, "[{\"sql\":\"SELECT count(*) AS n FROM t\"}]")
            .await,
        r#"[{"rows":[{"n":1}],"rows_affected":0}]"#
    );
    let other_run = OperationKey {
        run: RunId::from_bytes([9; 16]),
        operation: 1,
    };
    let outcome = again
        .databases
        .perform(&again.database, other_run, &Json::trusted(INSERT), AMPLE)
        .await;
    assert_ne!(
        outcome.expect("available").expect("inserts").as_str(),
        first,
        "another run's operation is its own"
    );
}

async fn performed_by_many_at_once_happens_once(system: System) {
    let place = Place::with_table(system).await;
    // Two nodes, as after a takeover: connections of their own, so that the database's locks have to hold.
    let nodes = [
        place.databases.clone(),
        Databases::with_busy_timeout(Duration::from_secs(20)),
    ];
    let mut tasks = tokio::task::JoinSet::new();
    for node in nodes {
        for operation in 0..100 {
            let (node, database) = (node.clone(), place.database.clone());
            tasks.spawn(async move {
                let key = key(1_000 + operation / 4);
                loop {
                    let statements = Json::trusted(INSERT);
                    let performed = node.perform(&database, key, &statements, AMPLE);
                    if let Ok(outcome) = performed.await {
                        return (key, outcome.expect("inserts"));
                    }
                }
            });
        }
    }
    let mut answers = HashMap::new();
    while let Some(done) = tasks.join_next().await {
        let (key, answer) = done.expect("no panic");
        assert_eq!(answers.entry(key).or_insert_with(|| answer.clone()), &answer);
    }
    assert_eq!(answers.len(), 25);
    assert_eq!(place.count("t"), 25);
}

async fn an_answer_that_nobody_waits_for_stops_the_statement(system: System) {
    let place = Place::with_table(system).await;
    let endless = one(
        "INSERT INTO t (x) WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c",
    );
    let abandoned = tokio::time::timeout(Duration::from_millis(300), place.perform(1, &endless)).await;
    assert!(abandoned.is_err(), "an endless statement does not answer");
    // The same operation waits for its turn, which comes: the statement's own time would be a minute.
    let began = Instant::now();
    place.answers(1, &one("SELECT 1 AS a")).await;
    assert!(began.elapsed() < AMPLE / 2);
    assert_eq!(place.count("t"), 0);
}

async fn a_failed_statement_rolls_back_all_and_leaves_no_mark(system: System) {
    let place = Place::with_table(system).await;
    let (parameter, message, details) = match system {
        System::Sqlite => ("?", "UNIQUE constraint failed: t.x", r#"{"sqlite_code":2067}"#),
        System::Postgres => (
            "$1",
            "duplicate key value violates unique constraint \"t_x_key\"",
            r#"{"sqlstate":"23505","constraint":"t_x_key","detail":"Key (x)=(1) already exists."}"#,
        ),
    };
    let twice =
        r#"[{"sql":"INSERT INTO t (x) VALUES (1)"},{"sql":"INSERT INTO t (x) VALUES (?)","params":[1]}]"#;
    let failure = place.fails(1, &twice.replace('?', parameter)).await;
    assert_eq!(failure.code.as_deref(), Some("sql-error"));
    assert_eq!(failure.message, format!("statement 2 of 2: {message}"));
    assert_eq!(failure.details.expect("details").as_str(), details);
    assert_eq!(place.count("t"), 0);
    assert_eq!(
        place.count("_dormouse_operations"),
        1,
        "of the table's creation only"
    );
    place.answers(1, &one("INSERT INTO t (x) VALUES (1)")).await;
    assert_eq!(place.count("t"), 1);
}

async fn a_constraint_that_is_checked_at_the_end_is_the_statements_fault(system: System) {
    let place = Place::on(system);
    let sql = r#"[{"sql":"CREATE TABLE p (id INTEGER PRIMARY KEY)"},
        {"sql":"CREATE TABLE c (p INTEGER REFERENCES p DEFERRABLE INITIALLY DEFERRED)"}]"#;
    place.answers(0, sql).await;
    let failure = place.fails(1, &one("INSERT INTO c VALUES (7)")).await;
    assert!(
        failure.message.starts_with("at the end of the statements: "),
        "{failure}"
    );
    assert_eq!(failure.code.as_deref(), Some("sql-error"));
    assert_eq!((place.count("c"), place.count("_dormouse_operations")), (0, 1));
    let both = r#"[{"sql":"INSERT INTO c VALUES (7)"},{"sql":"INSERT INTO p VALUES (7)"}]"#;
    place.answers(1, both).await;
}

async fn a_statement_without_end_is_ended_and_the_database_goes_on(system: System) {
    let place = Place::with_table(system).await;
    for (operation, sql) in [
        (
            1,
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT max(n) AS m FROM c",
        ),
        (
            3,
            "INSERT INTO t (x) WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c",
        ),
    ] {
        let failure = place
            .within(operation, &one(sql), Duration::from_millis(100))
            .await
            .expect("available")
            .expect_err(sql);
        assert_eq!(failure.code.as_deref(), Some("sql-timeout"), "{failure}");
        assert!(failure.message.contains("100 ms"), "{failure}");
        place.answers(operation + 1, &one("SELECT 1 AS a")).await;
        let marked = format!("_dormouse_operations WHERE operation = {operation}");
        assert_eq!((place.count("t"), place.count(&marked)), (0, 0));
    }
}

async fn an_answer_at_the_limit_is_kept_and_one_over_is_not(system: System) {
    let place = Place::on(system);
    let frame = r#"[{"rows":[{"a":""}],"rows_affected":0}]"#.len();
    let of = |length: usize| match system {
        System::Sqlite => one(&format!("SELECT printf('%.{length}c', 'x') AS a")),
        System::Postgres => one(&format!("SELECT repeat('x', {length}) AS a")),
    };
    let most = limit::OUTPUT_BYTES_MAX - frame;
    assert_eq!(place.answers(1, &of(most)).await.len(), limit::OUTPUT_BYTES_MAX);
    assert_eq!(place.answers(1, &of(most)).await.len(), limit::OUTPUT_BYTES_MAX);
    let failure = place.fails(2, &of(most + 1)).await;
    assert_eq!(failure.code.as_deref(), Some("output-too-large"));
    assert_eq!(place.count("_dormouse_operations WHERE operation = 2"), 0);
}

async fn what_is_not_one_valid_statement_is_refused(system: System) {
    let place = Place::with_table(system).await;
    place.answers(1, &one("INSERT INTO t (x) VALUES (1)")).await;
    for (sql, code) in [
        ("BEGIN", "sql-not-allowed"),
        ("COMMIT", "sql-not-allowed"),
        ("END", "sql-not-allowed"),
        ("ROLLBACK", "sql-not-allowed"),
        ("SAVEPOINT a", "sql-not-allowed"),
        ("RELEASE a", "sql-not-allowed"),
        ("/* x */ -- y\n COMMIT", "sql-not-allowed"),
        ("SELECT 1; SELECT 2", "invalid-sql-input"),
        ("SELECT 1; COMMIT", "sql-not-allowed"),
        ("", "invalid-sql-input"),
        (" ; -- nothing", "invalid-sql-input"),
        ("SELECT * FROM missing", "sql-error"),
        ("SELECT answer FROM _dormouse_operations", "sql-not-allowed"),
        ("DELETE FROM \"_DorMouse_Operations\"", "sql-not-allowed"),
        ("CREATE TABLE _dormouse_migrations (a INTEGER)", "sql-not-allowed"),
        ("SELECT 1 AS a, 2 AS a", "invalid-sql-result"),
        ("SELECT CAST('Infinity' AS float8) + 9e999 AS a", "float"),
        (
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n, 'some more text' AS t FROM c",
            "output-too-large",
        ),
    ] {
        let statements = serde_json::json!([{ "sql": "UPDATE t SET x = 2" }, { "sql": sql }]);
        let failure = place.fails(2, &statements.to_string()).await;
        let expected = match (code, system) {
            ("float", System::Sqlite) => "invalid-sql-result",
            // Beyond what a float holds is an error there.
            ("float", System::Postgres) => "sql-error",
            (code, _) => code,
        };
        assert_eq!(failure.code.as_deref(), Some(expected), "{sql}: {failure}");
        assert_eq!(failure.retry, dormouse_core::Retry::Never, "{sql}");
        assert!(
            failure.message.contains("statement 2 of 2") || system == System::Sqlite,
            "{failure}"
        );
        assert_eq!(place.outside("SELECT CAST(x AS integer) FROM t"), "1", "{sql}");
        assert_eq!(place.count("_dormouse_operations"), 2, "{sql}");
    }
}

async fn old_operations_are_forgotten_when_their_run_is_over(system: System) {
    let place = Place::with_table(system).await;
    let store = dormouse_store::MemoryStore::new();
    let now = Timestamp::from_millis(1_800_000_000_000);
    let days = |days: u64| now.before(Duration::from_secs(days * 86_400));
    for (number, started) in [(1, 100), (2, 100), (3, 1)] {
        let key = OperationKey {
            run: RunId::from_parts(days(started), [number; 10]),
            operation: 1,
        };
        let performed = place
            .databases
            .perform(&place.database, key, &Json::trusted(INSERT), AMPLE)
            .await;
        performed.expect("available").expect("inserts");
    }
    // As if they had been performed then: the first and the third long ago, the second of an old run lately.
    let ago = |days: u64| match system {
        System::Sqlite => format!(
            "strftime('%Y-%m-%dT%H:%M:%fZ', {} - {days} * 86400, 'unixepoch')",
            1_800_000_000
        ),
        System::Postgres => format!("to_timestamp({} - {days} * 86400)", 1_800_000_000),
    };
    place.outside(&format!(
        "UPDATE _dormouse_operations SET performed_at = {}",
        ago(40)
    ));
    let second = RunId::from_parts(days(100), [2; 10]).to_bytes();
    let hex: String = second.iter().map(|byte| format!("{byte:02x}")).collect();
    let literal = match system {
        System::Sqlite => format!("x'{hex}'"),
        System::Postgres => format!("'{hex}'"),
    };
    place.outside(&format!(
        "UPDATE _dormouse_operations SET performed_at = {} WHERE run = {literal}",
        ago(20)
    ));
    assert_eq!(place.count("_dormouse_operations"), 4);
    prune(&Databases::new(), &place.database, &store, now)
        .await
        .expect("not used: left alone");
    assert_eq!(place.count("_dormouse_operations"), 4);
    prune(&place.databases, &place.database, &store, now)
        .await
        .expect("prunes");
    // Gone: the first run's and the table's own. The second's was performed lately; the third is too new to have.
    assert_eq!(place.count("_dormouse_operations"), 2);
}
