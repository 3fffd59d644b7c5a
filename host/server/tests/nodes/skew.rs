//! Nodes whose clocks are wrong: the database's is the one that counts.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dormouse_core::run::{Phase, Status};
use dormouse_core::{FunctionName, Timestamp};
use dormouse_server::Tuning;
use dormouse_server::clock::{Clock, SystemClock};
use dormouse_store::read::{Run, RunFilter};
use dormouse_testing_postgres::Cluster;
use futures::future::BoxFuture;

use super::{DEADLINE, Node, database_of};

/// By how many milliseconds the clocks of two nodes are wrong.
const EARLY: i64 = -7 * 60_000;
const LATE: i64 = 5 * 60_000;
/// How far what a node takes for the database's time may be from it.
const OFF_MAX: i64 = 1_000;

/// This machine's clock, wrong by so many milliseconds.
struct Wrong(i64);

impl Clock for Wrong {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemClock.now().as_millis() + self.0)
    }

    fn sleep_until(&self, time: Timestamp) -> BoxFuture<'static, ()> {
        SystemClock.sleep_until(Timestamp::from_millis(time.as_millis().saturating_sub(self.0)))
    }
}

async fn node(database: &str, wrong_by: i64) -> Node {
    let tuning = Tuning {
        clock: Arc::new(Wrong(wrong_by)),
        ..Tuning::default()
    };
    Node::start_with(database, tuning).await.expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_minutes_apart_neither_hurry_nor_delay_a_run() {
    let database = Cluster::shared().database();
    let (early, late) = (node(&database, EARLY).await, node(&database, LATE).await);
    early.deploy("bench").await;
    for node in [&early, &late] {
        let asked = Instant::now();
        let mut runs = Vec::new();
        for _ in 0..20 {
            runs.push(node.invoke("bench/sleeper", r#"{"ms":1500}"#).await);
        }
        for run in runs {
            let run = late.ended(run).await;
            assert_eq!(run.state.status, Status::Completed, "{:?}", run.error);
            let took = run.ended_at.expect("ended").since(run.queued_at);
            assert!(took >= Duration::from_millis(1500), "{took:?}");
            let journal = early.app.store().journal(run.id, 0).await.expect("read");
            assert!(
                journal.windows(2).all(|pair| pair[0].at <= pair[1].at),
                "{journal:?}"
            );
        }
        assert!(asked.elapsed() >= Duration::from_millis(1500));
        // Minutes would pass if a node went by its own clock; the deadline of this test is one.
        let difference = early.app.now().as_millis() - late.app.now().as_millis();
        assert!(difference.abs() < 1_000, "{difference}");
    }
    early.stop().await;
    late.stop().await;
}

/// Sleeps, a body's retry and `sleep-until`, each of which begins at one node and ends at another.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_moves_between_clocks_that_are_minutes_apart_keeps_the_database_s_time() {
    /// How long the nap and the back-off are, in milliseconds: long enough for a node to leave meanwhile.
    const PAUSE: i64 = 3_000;
    let database = Cluster::shared().database();
    // The database is on this machine: they have one clock.
    let now = || SystemClock.now().as_millis();
    let mut driver = node(&database, EARLY).await;
    driver.deploy("steps").await;
    driver.deploy("bench").await;
    let asked = now();
    let timed = driver
        .invoke("steps/timed", &format!(r#"{{"ms":{PAUSE}}}"#))
        .await;
    let moment = asked + 2 * PAUSE;
    let until = driver
        .invoke("bench/until", &format!(r#"{{"at":{moment}}}"#))
        .await;
    for (phase, next) in [(Phase::Sleeping, LATE), (Phase::BackingOff, EARLY)] {
        driver
            .until(timed, "waiting", |run| run.state.phase == Some(phase))
            .await;
        // It comes before the other leaves: somebody has to have the module.
        let other = node(&database, next).await;
        driver.stop().await;
        driver = other;
    }
    let run = driver.ended(timed).await;
    let ended = now();
    assert_eq!(run.state.status, Status::Completed, "{:?}", run.error);
    let output = run.output.expect("an output");
    let [begun, slept, retried]: [i64; 3] = output.read().expect("three times");
    assert!(
        (asked - OFF_MAX..asked + PAUSE).contains(&begun),
        "begun {}",
        begun - asked
    );
    // A back-off is jittered by a tenth of its length; each begins by one node's time and ends by another's.
    assert!(
        slept >= begun + PAUSE - OFF_MAX && retried >= slept + PAUSE * 9 / 10 - OFF_MAX,
        "{output:?}"
    );
    assert!(retried <= ended + OFF_MAX, "{} ms early", retried - ended);
    let run: Run = driver.ended(until).await;
    assert_eq!(run.state.status, Status::Completed, "{:?}", run.error);
    let woke = run.ended_at.expect("ended").as_millis();
    assert!(woke >= moment, "{} ms early", moment - woke);
    // Minutes would pass if a node went by its own clock.
    assert!(now() - asked < 60_000, "it took {} ms", now() - asked);
    driver.stop().await;
}

/// Three nodes wait for the same ticks, and each tick comes at all of them in the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_tick_is_started_once_however_many_nodes_see_it() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut nodes = Vec::new();
    for wrong_by in [0, 240_000, -240_000] {
        nodes.push(node(&database, wrong_by).await);
    }
    nodes[0].deploy("cron").await;
    let functions = ["hourly", "forgets", "renamed"];
    let filter = |function: &str| RunFilter {
        module: Some("cron".to_owned()),
        function: Some(function.to_owned()),
        limit: 100,
        ..RunFilter::default()
    };
    let deadline = Instant::now() + DEADLINE;
    for round in 1..=3 {
        // All rows are there, and in four seconds all their ticks come.
        while nodes[0].app.store().schedules().await.expect("lists").len() < 9 {
            assert!(Instant::now() < deadline, "the schedules never were there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cluster.psql(
            database_of(&database),
            "UPDATE schedules SET next_ms = (extract(epoch FROM clock_timestamp()) * 1000)::int8 + 4000",
        );
        // Every node looks anew when something else is active or paused than before.
        let other: FunctionName = "cron/allows".parse().expect("a name");
        match round % 2 {
            1 => nodes[1].app.pause_function(&other).await.expect("paused"),
            _ => nodes[1].app.resume_function(&other).await.expect("resumed"),
        };
        for function in functions {
            loop {
                let found = nodes[2].app.store().runs(filter(function)).await.expect("lists");
                if found.len() >= round {
                    break;
                }
                assert!(
                    Instant::now() < deadline,
                    "{function} ticked {} times",
                    found.len()
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    for function in functions {
        let found = nodes[2].app.store().runs(filter(function)).await.expect("lists");
        for run in &found {
            let run = nodes[0].ended(run.id).await;
            assert_eq!(run.state.status, Status::Completed, "{run:#?}");
        }
        // An hour may begin meanwhile, but a tick has one event, and that one run.
        let events: HashSet<_> = found.iter().map(|run| run.event_id).collect();
        assert_eq!(events.len(), found.len(), "{found:#?}");
    }
    for node in nodes {
        node.stop().await;
    }
}
