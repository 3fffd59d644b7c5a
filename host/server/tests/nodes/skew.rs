//! Nodes whose clocks are wrong: the database's is the one that counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dormouse_core::Timestamp;
use dormouse_core::run::{Phase, Status};
use dormouse_server::Tuning;
use dormouse_server::clock::{Clock, SystemClock};
use dormouse_store::read::Run;
use dormouse_testing_postgres::Cluster;
use futures::future::BoxFuture;

use super::Node;

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
    // A back-off is jittered by a tenth of its length.
    assert!(
        slept >= begun + PAUSE && retried >= slept + PAUSE * 9 / 10,
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
