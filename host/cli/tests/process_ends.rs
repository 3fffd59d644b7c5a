//! Ends of runs, tested by killing: while runs complete, fail and are cancelled, by commands and by events, the server is killed again and again, and
//! then each end is counted: told once to who listens, and each failure handled once.

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};
use support::server::Server;
use support::{DEADLINE, Dice, guest, long};

/// How the runs of a function have ended: their ids and statuses, as the database has them.
fn statuses(database: &Connection, function: &str) -> HashMap<String, i64> {
    let mut found = HashMap::new();
    let mut statement = database
        .prepare(
            "SELECT r.id, r.status FROM runs r JOIN functions f ON f.id = r.function_id WHERE f.function = ?1",
        )
        .expect("it is read");
    let rows = statement
        .query_map([function], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?)))
        .expect("they are read");
    for row in rows {
        let (id, status) = row.expect("it is read");
        let id: [u8; 16] = id.try_into().expect("an id");
        found.insert(dormouse_core::RunId::from_bytes(id).to_string(), status);
    }
    found
}

/// How often a function has run for the end of each run, which its output names.
fn told(database: &Connection, function: &str) -> HashMap<String, u32> {
    let mut statement = database
        .prepare(
            "SELECT o.output FROM runs r JOIN functions f ON f.id = r.function_id JOIN outcomes o ON o.run_id = r.id \
             WHERE f.function = ?1 AND r.status = 2",
        )
        .expect("it is read");
    let rows = statement
        .query_map([function], |row| row.get::<_, String>(0))
        .expect("they are read");
    let mut found: HashMap<String, u32> = HashMap::new();
    for row in rows {
        let output: Value = serde_json::from_str(&row.expect("it is read")).expect("JSON");
        let run = [&output["run_id"], &output["run"], &output["data"]["run_id"]];
        let run = run.into_iter().find_map(Value::as_str).expect("a run");
        *found.entry(run.to_owned()).or_default() += 1;
    }
    found
}

/// Waits until no run goes on and nothing is left to be told.
async fn quiet(server: &Server) {
    let mut last = Instant::now() + DEADLINE;
    let path = server.data_dir().join("dormouse.db");
    let mut quiet_looks = 0;
    while quiet_looks < 3 {
        let (status, page) = server
            .send("GET", "/v1/runs?status=Scheduled,Running&limit=100", "")
            .await;
        assert_eq!(status, 200, "{page}");
        let open = page["data"].as_array().expect("a list");
        for run in open.iter().filter(|run| run["phase"] == "blocked") {
            // It was under way at five kills in a row, and is innocent.
            let path = format!("/v1/runs/{}/wake", run["run_id"].as_str().expect("an id"));
            server.send("POST", &path, "").await;
        }
        let database = Connection::open(&path).expect("it opens");
        let untold: i64 = database
            .query_row("SELECT count(*) FROM ends", [], |row| row.get(0))
            .expect("it is read");
        match open.is_empty() && untold == 0 {
            true => quiet_looks += 1,
            false => quiet_looks = 0,
        }
        if quiet_looks == 1 {
            last = Instant::now() + DEADLINE;
        }
        assert!(
            Instant::now() < last,
            "{untold} ends are not told; these never end: {open:#?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_end_is_told_once_however_often_the_server_is_killed() {
    let rounds = if long() { 60 } else { 10 };
    let mut dice = Dice::new();
    let mut server = Server::start("", &["--park-idle", "0"]).await;
    server.deploy("ends", guest("ends")).await;
    let (mut sent, mut cancelled_by_events) = (0, 0);
    for _ in 0..rounds {
        let mut runs = Vec::new();
        for _ in 0..8 {
            sent += 1;
            let fails = dice.one_in(2);
            let data = json!({"fails": fails, "sleeps_ms": dice.below(300)});
            let id = format!("order {sent}");
            let event = server.event("shop/ordered", &id, &data).await;
            runs.push((event, dice.one_in(4)));
        }
        // What an acknowledged event cancels is cancelled.
        for _ in 0..2 {
            cancelled_by_events += 1;
            let id = json!({"id": cancelled_by_events});
            server
                .event("test/cancellable", &format!("begins {cancelled_by_events}"), &id)
                .await;
            server
                .event("test/cancel", &format!("cancels {cancelled_by_events}"), &id)
                .await;
        }
        for (event, cancels) in runs {
            if !cancels {
                continue;
            }
            let found = server
                .get(&format!("/v1/events/{event}/runs"))
                .await
                .expect("lists");
            let run = found[0]["run_id"].as_str().expect("an id").to_owned();
            let (status, answer) = server.send("DELETE", &format!("/v1/runs/{run}"), "").await;
            assert!(matches!(status, 200 | 409), "{status} {answer}");
        }
        // A moment in which they end, are told and handled, or not.
        tokio::time::sleep(Duration::from_millis(dice.below(400))).await;
        server.kill();
        server.boot().await;
    }
    quiet(&server).await;
    server.kill();
    let database = Connection::open(server.data_dir().join("dormouse.db")).expect("it opens");
    let orders = statuses(&database, "order");
    let cancellable = statuses(&database, "cancellable");
    assert_eq!(cancellable.len(), cancelled_by_events);
    assert_eq!(orders.len(), sent, "each order has one run");
    let [finished, failed, cancelled, handled] = [
        "hears-finished",
        "hears-failed",
        "hears-cancelled",
        "order-failed",
    ]
    .map(|name| told(&database, name));
    let mut counts = [0; 3];
    for (run, status) in &orders {
        let expected = match status {
            2 => [Some(&1), None, None, None],
            3 => [Some(&1), Some(&1), None, Some(&1)],
            4 => [None, None, Some(&1), None],
            other => panic!("run {run} has the status {other}"),
        };
        counts[*status as usize - 2] += 1;
        let heard = [&finished, &failed, &cancelled, &handled].map(|told| told.get(run));
        assert_eq!(heard, expected, "run {run}, status {status}");
    }
    for (run, status) in &cancellable {
        assert_eq!((*status, cancelled.get(run)), (4, Some(&1)), "run {run}");
    }
    // Nobody heard of anything else.
    for (told, count) in [
        (&finished, counts[0] + counts[1]),
        (&failed, counts[1]),
        (&cancelled, counts[2] + cancelled_by_events),
        (&handled, counts[1]),
    ] {
        assert_eq!(told.len(), count);
    }
    println!("{rounds} kills: {counts:?} runs completed, failed and were cancelled");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
