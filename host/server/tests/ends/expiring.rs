//! Runs that take too long.

use std::time::Duration;

use dormouse_core::run::{Phase, Status};
use serde_json::json;

use super::{PARKING, begin, ended_runs_of, output, quiet, runs_of, start, tuning};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_has_not_ended_in_time_is_cancelled() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let long = begin(&running, "test/hasty", json!({"sleeps_ms": 3_600_000})).await;
        let short = begin(&running, "test/hasty", json!({"sleeps_ms": 300_000})).await;
        for run in [long, short] {
            running
                .until(run, "asleep", |run| run.state.phase == Some(Phase::Sleeping))
                .await;
        }
        clock.advance(5 * MINUTE);
        assert_eq!(running.settled(short).await.state.status, Status::Completed);
        assert_eq!(running.run(long).await.state.phase, Some(Phase::Sleeping));
        clock.advance(5 * MINUTE);
        let run = running.settled(long).await;
        assert_eq!(run.state.status, Status::Cancelled, "{run:#?}");
        assert_eq!(
            run.reason.as_deref(),
            Some("cancelled: it did not end within 10 min (timeouts.finish)")
        );
        assert_eq!(run.ended_at, Some(super::START.after(10 * MINUTE)));
        let heard = ended_runs_of(&running, "hears-cancelled", 1).await;
        let message = output(&heard[0])["error"]["message"].clone();
        assert_eq!(
            message,
            "cancelled: it did not end within 10 min (timeouts.finish)"
        );
        quiet(&running).await;
        // It was cancelled and has not failed.
        assert_eq!(runs_of(&running, "order-failed").await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_has_not_begun_in_time_is_cancelled() {
    let (running, clock) = start(Duration::ZERO).await;
    let first = begin(&running, "test/queued", json!({})).await;
    assert_eq!(running.settled(first).await.state.status, Status::Completed);
    let second = begin(&running, "test/queued", json!({})).await;
    running
        .until(second, "limited", |run| run.state.phase == Some(Phase::Limited))
        .await;
    clock.advance(59 * MINUTE);
    assert_eq!(running.run(second).await.state.phase, Some(Phase::Limited));
    clock.advance(MINUTE);
    let run = running.settled(second).await;
    assert_eq!(run.state.status, Status::Cancelled, "{run:#?}");
    assert_eq!(
        run.reason.as_deref(),
        Some("cancelled: it did not begin within 1 h (timeouts.start)")
    );
    assert_eq!(run.started_at, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_does_not_stop_the_clock_and_a_delay_is_not_counted() {
    let (running, clock) = start(Duration::ZERO).await;
    let app = running.server.app();
    let hasty = "ends/hasty".parse().expect("a name");
    app.pause_function(&hasty).await.expect("it is paused");
    let held = begin(&running, "test/hasty", json!({"sleeps_ms": 1})).await;
    running
        .until(held, "held", |run| run.state.phase == Some(Phase::Paused))
        .await;
    clock.advance(MINUTE);
    assert_eq!(running.settled(held).await.state.status, Status::Cancelled);
    app.resume_function(&hasty).await.expect("it is resumed");
    // One that is to begin in two hours has its minute then.
    let at = super::START.after(Duration::from_secs(7_200)).as_millis();
    let event = json!({"name": "test/hasty", "data": {"sleeps_ms": 60_000}, "ts": at}).to_string();
    let delayed = app.send_events(&[&event], None).await.expect("sent").runs[0];
    clock.advance(Duration::from_secs(7_000));
    running
        .until(delayed, "asleep", |run| run.state.phase == Some(Phase::Sleeping))
        .await;
    // To the moment it may begin, not past its minute: both would be due at once then.
    clock.advance(Duration::from_secs(140));
    running
        .until(delayed, "begun", |run| {
            run.state.status == Status::Running && run.state.phase == Some(Phase::Sleeping)
        })
        .await;
    clock.advance(MINUTE);
    assert_eq!(running.settled(delayed).await.state.status, Status::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_outlive_the_server() {
    let (running, clock) = start(Duration::ZERO).await;
    let run = begin(&running, "test/hasty", json!({"sleeps_ms": 3_600_000})).await;
    running
        .until(run, "asleep", |run| run.state.phase == Some(Phase::Sleeping))
        .await;
    let running = running.restart(Duration::ZERO, tuning(&clock)).await;
    clock.advance(9 * MINUTE);
    assert_eq!(running.run(run).await.state.phase, Some(Phase::Sleeping));
    clock.advance(MINUTE);
    let found = running.settled(run).await;
    assert_eq!(found.state.status, Status::Cancelled, "{found:#?}");
    // While the server was down, too.
    let run = begin(&running, "test/hasty", json!({"sleeps_ms": 3_600_000})).await;
    running
        .until(run, "asleep", |run| run.state.phase == Some(Phase::Sleeping))
        .await;
    clock.advance(Duration::from_secs(1));
    let dir = {
        let stop = tokio_util::sync::CancellationToken::new();
        stop.cancel();
        running.server.run(stop).await.expect("it stops");
        running.dir
    };
    clock.advance(30 * MINUTE);
    let running = super::Running::on(dir, Duration::ZERO, tuning(&clock)).await;
    let found = running.settled(run).await;
    assert_eq!(found.state.status, Status::Cancelled, "{found:#?}");
}
