//! Pausing and resuming.

use std::time::Duration;

use dormouse_core::run::{Phase, Status};
use dormouse_core::{FunctionName, Json};
use serde_json::{Value, json};

use super::support::park_idle;
use super::{PARKING, START, output, send, start, tuning};

#[tokio::test(flavor = "multi_thread")]
async fn a_sleep_goes_on_in_the_background_and_is_delivered_when_the_run_is_resumed() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let app = running.server.app();
        let run = running.invoke("bench/sleeper", r#"{"ms":60000}"#).await;
        running
            .until(run, "sleeping", |run| run.state.phase == Some(Phase::Sleeping))
            .await;
        let paused = app.pause(run).await.expect("paused");
        assert_eq!(paused.phase, Some(Phase::Paused));
        // The time comes while nobody is let on: nothing happens, and nothing is lost.
        clock.advance(Duration::from_secs(100));
        let other = running.invoke("bench/one", "{}").await;
        running.settled(other).await;
        assert_eq!(running.run(run).await.state.phase, Some(Phase::Paused));
        app.resume(run).await.expect("resumed");
        let ended = running.settled(run).await;
        assert_eq!(ended.state.status, Status::Completed, "{ended:#?}");
        assert_eq!(ended.ended_at, Some(START.after(Duration::from_secs(100))));
        // One that is resumed in time sleeps for as long as it would have.
        let run = running.invoke("bench/sleeper", r#"{"ms":60000}"#).await;
        let sleeping = running
            .until(run, "sleeping", |run| run.state.phase == Some(Phase::Sleeping))
            .await;
        app.pause(run).await.expect("paused");
        app.resume(run).await.expect("resumed");
        let again = running
            .until(run, "sleeping", |run| run.state.phase == Some(Phase::Sleeping))
            .await;
        assert_eq!(again.wake_at, sleeping.wake_at);
        clock.advance(Duration::from_secs(60));
        assert_eq!(running.settled(run).await.state.status, Status::Completed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_paused_run_waits_for_is_kept_for_it() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let app = running.server.app();
        let waiting = async |data: &str| {
            let run = running.invoke("steps/wait", data).await;
            running
                .until(run, "waiting", |run| run.state.phase == Some(Phase::Waiting))
                .await;
            app.pause(run).await.expect("paused");
            run
        };
        let answered = waiting(r#"{"timeout_ms":60000}"#).await;
        send(&running, r#"{"name":"steps/answer","data":{"n":1}}"#).await;
        clock.advance(Duration::from_secs(90));
        let too_late = waiting(r#"{"timeout_ms":60000}"#).await;
        clock.advance(Duration::from_secs(90));
        send(&running, r#"{"name":"steps/answer","data":{"n":2}}"#).await;
        for run in [answered, too_late] {
            assert_eq!(running.run(run).await.state.phase, Some(Phase::Paused));
            app.resume(run).await.expect("resumed");
        }
        // Whichever came first counts, not when somebody looked.
        assert_eq!(output(&running.settled(answered).await), json!({"n": 1}));
        assert_eq!(output(&running.settled(too_late).await), Value::Null);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_function_holds_its_new_runs_also_over_a_restart_and_a_new_version() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let name: FunctionName = "bench/one".parse().expect("a name");
        let app = running.server.app();
        let before = running.invoke("bench/sleeper", r#"{"ms":1000}"#).await;
        assert!(app.pause_function(&name).await.expect("paused"));
        assert!(!app.pause_function(&name).await.expect("paused already"));
        let unknown: FunctionName = "bench/none".parse().expect("a name");
        assert_eq!(
            app.pause_function(&unknown).await.expect_err("unknown").status,
            404
        );
        let mut held = send(&running, r#"{"name":"bench/one"}"#).await;
        held.push(running.invoke("bench/one", "{}").await);
        // A new version of the module is no reason to begin.
        running.deploy("bench", "steps").await;
        running.deploy("bench", "bench").await;
        held.extend(send(&running, r#"{"name":"bench/one"}"#).await);
        assert_eq!(held.len(), 3);
        clock.advance(Duration::from_secs(1));
        assert_eq!(
            running.settled(before).await.state.status,
            Status::Completed,
            "other functions go on"
        );
        let running = running.restart(park_idle, tuning(&clock)).await;
        for run in &held {
            let run = running.run(*run).await;
            assert_eq!(
                (run.state.status, run.state.phase),
                (Status::Scheduled, Some(Phase::Paused))
            );
            assert!(run.reason.expect("a reason").contains("bench/one is paused"));
        }
        let app = running.server.app();
        app.cancel(held[0]).await.expect("a held run can be cancelled");
        assert!(app.resume_function(&name).await.expect("resumed"));
        assert!(!app.resume_function(&name).await.expect("resumed already"));
        for run in &held[1..] {
            assert_eq!(running.settled(*run).await.state.status, Status::Completed);
        }
        let (after, _) = app.invoke(&name, Json::trusted("{}")).await.expect("invoked");
        assert_eq!(running.settled(after).await.state.status, Status::Completed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_paused_or_resumed_is_said() {
    let (running, _) = start(park_idle()).await;
    let app = running.server.app();
    let sleeping = running.invoke("bench/sleeper", r#"{"ms":60000}"#).await;
    running
        .until(sleeping, "sleeping", |run| {
            run.state.phase == Some(Phase::Sleeping)
        })
        .await;
    let code = |problem: dormouse_server::Problem| (problem.status, problem.code);
    assert_eq!(
        code(app.resume(sleeping).await.expect_err("sleeps")),
        (409, "not-paused")
    );
    app.pause(sleeping).await.expect("paused");
    app.pause(sleeping).await.expect("once more is no mistake");
    assert_eq!(
        code(app.wake(sleeping).await.expect_err("paused")),
        (409, "nothing-to-wake")
    );
    app.cancel(sleeping).await.expect("a paused run can be cancelled");
    assert_eq!(
        code(app.pause(sleeping).await.expect_err("ended")),
        (409, "already-ended")
    );
    assert_eq!(
        code(app.resume(sleeping).await.expect_err("ended")),
        (409, "already-ended")
    );
}
