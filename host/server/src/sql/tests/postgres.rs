//! What only Postgres does: its types, its sessions, and a server that goes away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dormouse_core::Outcome;
use dormouse_testing_postgres::{Cluster, Pooler, Stop};

use super::proxy::{self, Losses};
use super::{AMPLE, Place, System, one};
use crate::sql::Databases;

const SYSTEM: System = System::Postgres;

/// Asks as the worker does: until the database can answer.
async fn until_available(place: &Place, operation: u32, statements: &str) -> Outcome {
    let began = Instant::now();
    loop {
        match place.perform(operation, statements).await {
            Ok(outcome) => return outcome,
            Err(unavailable) => assert!(began.elapsed() < AMPLE, "{unavailable}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn every_type_goes_in_and_comes_out() {
    let place = Place::on(SYSTEM);
    place
        .answers(
            0,
            r#"[{"sql":"CREATE TYPE mood AS ENUM ('good', 'bad')"},{"sql":"CREATE DOMAIN year AS int2 CHECK (value > 0)"}]"#,
        )
        .await;
    for (operation, (kind, given, back)) in (1..).zip([
        ("bool", "true", "true"),
        ("int2", "-7", "-7"),
        ("int4", "2147483647", "2147483647"),
        ("int8", "9223372036854775807", "9223372036854775807"),
        ("int8", "\"-9223372036854775808\"", "-9223372036854775808"),
        ("oid", "4294967295", "4294967295"),
        ("year", "2026", "2026"),
        ("float4", "0.1", "0.1"),
        ("float8", "1e300", "1e+300"),
        (
            "numeric",
            "12345678901234567890.1250",
            "\"12345678901234567890.1250\"",
        ),
        ("numeric", "-0.000001", "\"-0.000001\""),
        ("numeric(10,3)", "\"1.5\"", "\"1.500\""),
        ("numeric", "\"NaN\"", "\"NaN\""),
        ("text", r#""日本 \"ü\" 😀""#, r#""日本 \"ü\" 😀""#),
        ("varchar(3)", "\"abc\"", "\"abc\""),
        ("char(3)", "\"a\"", "\"a  \""),
        ("mood", "\"good\"", "\"good\""),
        ("json", r#"{"b": [1e400, null]}"#, r#"{"b": [1e400, null]}"#),
        ("jsonb", r#"{"b":1,"a":[true]}"#, r#"{"a": [true], "b": 1}"#),
        ("jsonb", r#""text""#, r#""text""#),
        ("bytea", r#"{"$base64":"AP8="}"#, r#"{"$base64":"AP8="}"#),
        (
            "uuid",
            "\"0190F5FE-7C00-7A00-8ABC-012345678901\"",
            "\"0190f5fe-7c00-7a00-8abc-012345678901\"",
        ),
        (
            "timestamptz",
            "\"2026-01-31T14:00:00.123456+02:00\"",
            "\"2026-01-31T12:00:00.123456Z\"",
        ),
        ("timestamp", "\"2026-01-31T12:00:00\"", "\"2026-01-31T12:00:00\""),
        ("date", "\"2024-02-29\"", "\"2024-02-29\""),
        ("time", "\"23:59:59.5\"", "\"23:59:59.5\""),
        ("int4[]", "[1, null, 3]", "[1,null,3]"),
        ("text[]", r#"[["a","b"],["c","d"]]"#, r#"[["a","b"],["c","d"]]"#),
        ("numeric[]", "[1.50]", "[\"1.50\"]"),
        ("jsonb[]", r#"[[1],{"a":2}]"#, r#"[[1],{"a": 2}]"#),
        ("mood[]", r#"["bad"]"#, r#"["bad"]"#),
        ("uuid[]", "[]", "[]"),
        ("int4", "null", "null"),
    ]) {
        let statements = format!(r#"[{{"sql":"SELECT $1::{kind} AS a","params":[{given}]}}]"#);
        let answer = place.answers(operation, &statements).await;
        let rows = format!(r#"[{{"rows":[{{"a":{back}}}],"rows_affected":0}}]"#);
        assert_eq!(answer, rows, "{kind} {given}");
    }
}

#[tokio::test]
async fn counts_are_of_changed_rows_and_nothing_else() {
    let place = Place::on(SYSTEM);
    let answer = place
        .answers(
            1,
            r#"[{"sql":"CREATE TABLE t AS SELECT n, n::text AS x FROM generate_series(1, 5) n"},
                {"sql":"SELECT n FROM t WHERE n > 4"},
                {"sql":"SELECT * FROM t"},
                {"sql":"ALTER TABLE t DROP COLUMN x"},
                {"sql":"SELECT * FROM t"},
                {"sql":"UPDATE t SET n = n + 1 WHERE n < 3 RETURNING n"},
                {"sql":"WITH gone AS (DELETE FROM t WHERE n > 4 RETURNING n) SELECT count(*) AS c FROM gone"},
                {"sql":"WITH n AS (SELECT 9 AS n) INSERT INTO t SELECT n FROM n"},
                {"sql":"SELECT pg_notify('x', 'y') AS nothing"},
                {"sql":"SELECT 1 AS \"größe\" WHERE false"}]"#,
        )
        .await;
    let parts: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    let counts: Vec<_> = parts
        .as_array()
        .expect("an array")
        .iter()
        .map(|part| part["rows_affected"].clone())
        .collect();
    assert_eq!(counts, [0, 0, 0, 0, 0, 2, 0, 1, 0, 0]);
    assert_eq!(parts[1]["rows"], serde_json::json!([{"n": 5}]));
    assert_eq!(parts[2]["rows"][0], serde_json::json!({"n": 1, "x": "1"}));
    assert_eq!(
        parts[4]["rows"][0],
        serde_json::json!({"n": 1}),
        "the same text, another table"
    );
    assert_eq!(parts[6]["rows"], serde_json::json!([{"c": 1}]));
    assert_eq!(parts[8]["rows"], serde_json::json!([{"nothing": null}]));
    assert_eq!(parts[9]["rows"], serde_json::json!([]));
}

#[tokio::test]
async fn what_does_not_fit_is_named() {
    let place = Place::on(SYSTEM);
    for (statement, code, words) in [
        (
            r#"{"sql":"SELECT $1::int4 + $2::int4 AS a","params":[1,2.5]}"#,
            "invalid-sql-input",
            "statement 1 of 1: parameter 2 is of type int4, and 2.5 does not fit: it is not an integer",
        ),
        (
            r#"{"sql":"SELECT $1 AS a","params":[7]}"#,
            "invalid-sql-input",
            "parameter 1 is of type text, and 7 does not fit: pass a string",
        ),
        (
            r#"{"sql":"SELECT now() - $1::interval AS a","params":["1 day"]}"#,
            "invalid-sql-input",
            "write $1::text::interval",
        ),
        (
            r#"{"sql":"SELECT $1 AS a"}"#,
            "invalid-sql-input",
            "it has 1 parameters, and 0 values are given",
        ),
        (
            r#"{"sql":"SELECT now() - now() AS age"}"#,
            "invalid-sql-result",
            "column \"age\": its type interval has no JSON form here: cast it, for example age::text AS age",
        ),
        (
            r#"{"sql":"SELECT row(1, 2) AS r"}"#,
            "invalid-sql-result",
            "column \"r\": its type record",
        ),
        (
            r#"{"sql":"SELECT 'NaN'::float8 AS a"}"#,
            "invalid-sql-result",
            "column \"a\": NaN",
        ),
        (
            r#"{"sql":"SELECT 'infinity'::timestamptz AS a"}"#,
            "invalid-sql-result",
            "infinite or outside",
        ),
        (r#"{"sql":"SELECT 1/0 AS a"}"#, "sql-error", "division by zero"),
        (r#"{"sql":"SELECT ?","params":[1]}"#, "sql-error", "syntax error"),
        (
            r#"{"sql":"SET search_path = x"}"#,
            "sql-not-allowed",
            "SET is not allowed",
        ),
    ] {
        let failure = place.fails(1, &format!("[{statement}]")).await;
        assert_eq!(failure.code.as_deref(), Some(code), "{statement}: {failure}");
        assert!(failure.message.contains(words), "{statement}: {failure}");
    }
    let cast = r#"[{"sql":"SELECT ($1::text::interval * 2)::text AS a","params":["1 day"]}]"#;
    assert!(place.answers(2, cast).await.contains("2 days"));
}

#[tokio::test]
async fn nothing_of_a_step_is_left_in_the_session() {
    let place = Place::on(SYSTEM);
    let functions = r#"[
        {"sql":"CREATE PROCEDURE ends() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$"},
        {"sql":"CREATE FUNCTION hears() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'LISTEN x'; END $$"},
        {"sql":"CREATE FUNCTION forgets() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'DELETE FROM _dor' || 'mouse_operations'; END $$"}
    ]"#;
    // As whoever writes migrations can: the check does not look into what a function does.
    place.answers(0, functions).await;
    let failure = place.fails(1, &one("CALL ends()")).await;
    assert_eq!(failure.code.as_deref(), Some("sql-not-allowed"), "{failure}");
    let failure = place.fails(1, &one("SELECT forgets() AS a")).await;
    assert!(failure.message.contains("the host's own row"), "{failure}");
    assert_eq!(place.count("_dormouse_operations"), 1);
    let dirty = r#"[
        {"sql":"SELECT hears() AS a"},
        {"sql":"SELECT set_config('search_path', 'nowhere', false) AS a"},
        {"sql":"SELECT set_config('statement_timeout', '1', false) AS a"},
        {"sql":"SELECT pg_advisory_lock(7)::text AS a"},
        {"sql":"CREATE TEMPORARY TABLE here (x int4)"}
    ]"#;
    // A millisecond may be enough for the rest, or not: either way nothing of it may stay.
    let _ = place.perform(2, dirty).await.expect("available");
    let dirty = dirty.replace("'statement_timeout', '1'", "'statement_timeout', '5000'");
    place.answers(3, &dirty).await;
    let clean = r#"[{"sql":"SELECT current_setting('search_path') AS path,
        (SELECT count(*) FROM pg_listening_channels()) AS heard,
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks,
        to_regclass('here')::text AS here"}]"#
        .replace('\n', " ");
    assert_eq!(
        place.answers(4, &clean).await,
        r#"[{"rows":[{"path":"\"$user\", public","heard":0,"locks":0,"here":null}],"rows_affected":0}]"#
    );
}

#[tokio::test]
async fn a_row_of_any_size_is_not_taken_in() {
    let place = Place::on(SYSTEM);
    let huge = one("SELECT repeat('x', 100000000) AS a");
    let failure = place.fails(1, &huge).await;
    assert_eq!(failure.code.as_deref(), Some("output-too-large"), "{failure}");
    place.answers(1, &one("SELECT 1 AS a")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_operation_is_waited_for_by_whoever_asks_again() {
    let place = Place::with_table(SYSTEM).await;
    let slow =
        r#"[{"sql":"INSERT INTO t (x) VALUES (random()) RETURNING x"},{"sql":"SELECT pg_sleep(0.5) AS a"}]"#;
    let other = Place {
        databases: Databases::new(),
        directory: tempfile::tempdir().expect("a directory"),
        database: place.database.clone(),
        ..place
    };
    let (first, second) = tokio::join!(place.answers(1, slow), other.answers(1, slow));
    assert_eq!(first, second);
    assert_eq!(place.count("t"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_postgres_wants_again_is_done_again() {
    let place = Place::with_table(SYSTEM).await;
    place.outside(&format!(
        "ALTER DATABASE {} SET default_transaction_isolation = 'serializable'",
        place.name()
    ));
    place.outside("INSERT INTO t (id, x) VALUES (1, 0), (2, 0.5)");
    let place = Arc::new(Place {
        databases: Databases::new(),
        ..place
    });
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=40 {
        let place = Arc::clone(&place);
        tasks.spawn(async move {
            // In both orders, so that there are deadlocks where there are no serialization failures.
            let (one, two) = if number % 2 == 0 { (1, 2) } else { (2, 1) };
            let sql = |id| format!(r#"{{"sql":"UPDATE t SET x = x + 1 WHERE id = {id}"}}"#);
            let outcome = until_available(&place, number, &format!("[{},{}]", sql(one), sql(two))).await;
            outcome.expect("is done again");
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    assert_eq!(place.outside("SELECT x FROM t WHERE id = 1"), "40");
    assert_eq!(place.outside("SELECT x FROM t WHERE id = 2"), "40.5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lost_commit_or_its_lost_answer_is_neither_lost_nor_doubled() {
    let direct = Place::with_table(SYSTEM).await;
    let losses = Arc::new(Losses::default());
    let port = Cluster::shared().port();
    let between = proxy::start(port, Arc::clone(&losses)).await;
    let mut through = Place::on(System::Sqlite);
    through.database.url = direct
        .database
        .url
        .replace(&format!(":{port}/"), &format!(":{between}/"));
    let insert = r#"[{"sql":"INSERT INTO t (x) VALUES (random()) RETURNING x"}]"#;
    for operation in 1..=20 {
        let lost = if operation % 2 == 0 {
            &losses.answers
        } else {
            &losses.requests
        };
        lost.store(1, Ordering::Release);
        let answer = until_available(&through, operation, insert)
            .await
            .expect("inserts");
        assert!(losses.are_over(), "a COMMIT or its answer was lost");
        assert_eq!(direct.count("t"), i64::from(operation));
        assert_eq!(direct.answers(operation, insert).await, answer.as_str());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_down_is_waited_for() {
    let cluster = Cluster::start();
    let mut place = Place::on(System::Sqlite);
    place.database.url = cluster.url("postgres");
    let create = one("CREATE TABLE t (id bigserial PRIMARY KEY, x float8)");
    place.answers(0, &create).await;
    let insert = one("INSERT INTO t (x) VALUES (random()) RETURNING x");
    for (operation, how) in [(1, Stop::Immediate), (2, Stop::Fast)] {
        cluster.stop(how);
        let unavailable = place.perform(operation, &insert).await.expect_err("is down");
        let shown = unavailable.to_string();
        assert!(shown.contains("refused") && !shown.contains("secret"), "{shown}");
        cluster.resume();
        until_available(&place, operation, &insert)
            .await
            .expect("inserts");
        let count = i64::from(operation).to_string();
        assert_eq!(cluster.psql("postgres", "SELECT count(*) FROM t"), count);
        // Again, with a connection that is idle; in the next round it is dead.
        until_available(&place, operation, &insert)
            .await
            .expect("has inserted");
        assert_eq!(cluster.psql("postgres", "SELECT count(*) FROM t"), count);
    }
    // While a statement runs: its connection ends, and it is done again.
    let slow = r#"[{"sql":"INSERT INTO t (x) VALUES (1)"},{"sql":"SELECT pg_sleep(1) AS a"}]"#;
    let place = Arc::new(place);
    let performing = tokio::spawn({
        let place = Arc::clone(&place);
        async move { until_available(&place, 3, slow).await }
    });
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let began = Instant::now();
    while cluster.psql("postgres", sleeps) != "1" {
        assert!(began.elapsed() < AMPLE, "the statement never began");
    }
    cluster.stop(Stop::Immediate);
    cluster.resume();
    performing.await.expect("no panic").expect("inserts");
    assert_eq!(
        cluster.psql("postgres", "SELECT count(*) FROM t WHERE x = 1"),
        "1"
    );
}

#[tokio::test]
async fn a_role_that_may_not_create_is_told_what_it_needs() {
    let mut place = Place::on(SYSTEM);
    let name = place.name().to_owned();
    let role = format!("weak_{name}");
    place.outside(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'"));
    place.outside("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    place.database.url = place.database.url.replace("dormouse:", &format!("{role}:"));
    let unavailable = place
        .perform(1, &one("SELECT 1 AS a"))
        .await
        .expect_err("may not create");
    let shown = unavailable.to_string();
    for words in [
        "_dormouse_operations",
        "permission denied for schema public",
        "GRANT CREATE ON SCHEMA public",
    ] {
        assert!(shown.contains(words), "{shown}");
    }
    assert!(!shown.contains("secret"), "{shown}");
    let start = shown.find("CREATE TABLE public").expect("the statement");
    let end = shown.find(", and GRANT").expect("its end");
    place.outside(&shown[start..end]);
    let unavailable = place
        .perform(1, &one("SELECT 1 AS a"))
        .await
        .expect_err("may not insert");
    assert!(
        unavailable
            .to_string()
            .contains("GRANT SELECT, INSERT, UPDATE, DELETE"),
        "{unavailable}"
    );
    Cluster::shared().psql(
        &name,
        &format!("GRANT SELECT, INSERT, UPDATE, DELETE ON _dormouse_operations TO {role}"),
    );
    place.answers(1, &one("SELECT 1 AS a")).await;
    let failure = place.fails(2, &one("CREATE TABLE mine (x int4)")).await;
    assert!(failure.details.expect("details").as_str().contains("42501"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_are_few() {
    let place = Arc::new(Place::on(SYSTEM));
    let mut tasks = tokio::task::JoinSet::new();
    for operation in 1..=24 {
        let place = Arc::clone(&place);
        tasks.spawn(async move { place.answers(operation, &one("SELECT pg_sleep(0.05) AS a")).await });
    }
    let mut most = 0;
    let count = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dormouse-sql' AND datname = '{}'",
        place.name()
    );
    while !tasks.is_empty() {
        most = most.max(place.outside(&count).parse().expect("a number"));
        while let Some(done) = tasks.try_join_next() {
            done.expect("no panic");
        }
    }
    assert!((1..=4).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pooler_in_transaction_mode_will_do() {
    let direct = Place::with_table(SYSTEM).await;
    let pooler = Pooler::start(Cluster::shared(), 2);
    let mut through = Place::on(System::Sqlite);
    through.database.url = pooler.url(&direct.database.url);
    let through = Arc::new(through);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..60 {
        let through = Arc::clone(&through);
        tasks.spawn(async move {
            let statements = r#"[{"sql":"INSERT INTO t (x) VALUES (random()) RETURNING x"},
                {"sql":"SELECT x FROM t WHERE id < $1","params":[0]}]"#;
            let failing = number % 3 == 0;
            if failing {
                through.fails(1_000 + number, &one("SELECT 1/0 AS a")).await;
            }
            until_available(&through, 1 + number / 2, statements)
                .await
                .expect("inserts");
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    assert_eq!(direct.count("t"), 30);
    let failure = through
        .within(
            2_000,
            &one("SELECT pg_sleep(30) AS a"),
            Duration::from_millis(100),
        )
        .await
        .expect("available")
        .expect_err("is ended");
    assert_eq!(failure.code.as_deref(), Some("sql-timeout"));
    through.answers(2_001, &one("SELECT 1 AS a")).await;
}
