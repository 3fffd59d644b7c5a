//! How SQLite goes about the statements of the hot path: none of them may read a whole table that grows.

use sqlx::Row as _;

use super::sql::{Rows, fetch_dynamic};
use super::{
    cancellations, command, connect, copies, cron, ending, ends, examine, ingest, journal, limits, pausing,
    read, runs, schedule, slots, swaps, throttles, upkeep, waits, windows,
};

/// Tables that grow with use.
const LARGE: [&str; 18] = [
    "runs",
    "journal",
    "events",
    "blobs",
    "outcomes",
    "completions",
    "waits",
    "ready",
    "timers",
    "logs",
    "dedupe",
    "limits",
    "throttled",
    "batched",
    "slots",
    "slots_freed",
    "swaps",
    "decisions",
];

/// Steps of a plan that read a whole large table. Rows of values are no table, and a search is no scan.
fn scans(plan: &[String]) -> Vec<&String> {
    let scans = |step: &&String| {
        let mut words = step.split_whitespace();
        words.next() == Some("SCAN")
            && words.next().is_some_and(|name| {
                LARGE.contains(&name) || ["r", "e", "b", "c", "j", "w", "o"].contains(&name)
            })
    };
    plan.iter().filter(scans).collect()
}

#[tokio::test]
async fn no_statement_of_the_hot_path_reads_a_whole_table() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut conn = connect::writer(&dir.path().join("dormouse.db"), 1000)
        .await
        .expect("opens");
    connect::migrate(&mut conn).await.expect("migrates");
    let rows = [
        runs::statements(),
        ingest::statements(),
        copies::statements(),
        schedule::statements(),
        slots::statements(),
        upkeep::statements(),
        read::statements(),
        examine::statements(),
        waits::statements(),
        limits::statements(),
        throttles::statements(),
        windows::statements(),
        cron::statements(),
        ending::statements(),
        ends::statements(),
        swaps::statements(),
    ]
    .concat();
    assert!(rows.len() > 25);
    let texts = rows.iter().map(|rows: &&Rows| rows.text(3).to_owned()).chain(
        [
            journal::PACKED,
            "SELECT at_ms, run_id FROM ready WHERE shard = 0 ORDER BY at_ms, run_id LIMIT 5",
            "SELECT due_ms, run_id FROM timers WHERE shard = 0 AND due_ms <= 7 ORDER BY due_ms, run_id LIMIT 5",
            "SELECT id, event_id FROM runs WHERE ended_ms IS NOT NULL AND ended_ms < 7 ORDER BY ended_ms, id LIMIT 5",
            "SELECT id FROM events WHERE has_runs = 0 AND received_ms < 7 ORDER BY received_ms, id LIMIT 5",
            waits::RECEIVED,
            ending::NEXT,
            ending::DUE,
            waits::HOLDER,
            waits::CALLER,
            cancellations::CANDIDATES,
            pausing::RELEASED,
            throttles::FIRSTS,
            slots::NEXT_LINE,
            slots::LINE,
            command::UNREADABLE,
            swaps::TO_RESTART,
            "SELECT 1 FROM runs r WHERE r.phase = 1 AND r.version_id IN (SELECT id FROM versions)",
        ]
        .map(str::to_owned),
    );
    for text in texts {
        let plan = fetch_dynamic(&mut conn, format!("EXPLAIN QUERY PLAN {text}"), |_| {})
            .await
            .expect(&text);
        let plan: Vec<String> = plan.iter().map(|row| row.get(3)).collect();
        assert_eq!(scans(&plan), Vec::<&String>::new(), "{text}: {plan:?}");
        // Blocked runs are few, and asked for at a start.
        assert!(
            text == command::UNREADABLE || !plan.iter().any(|step| step.contains("TEMP B-TREE FOR ORDER BY")),
            "{text}: {plan:?}"
        );
    }
}
