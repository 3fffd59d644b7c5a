//! Concurrency limits on whole servers: how many bodies a gate outside sees at once.

#[path = "support/gate.rs"]
mod gate;
mod support;

use std::time::{Duration, Instant};

use dormouse_core::RunId;
use dormouse_core::run::{Phase, Status};
use dormouse_server::Tuning;
use dormouse_store::read::Run;
use serde_json::{Value, json};

use gate::Gate;
use support::{Running, park_idle};

const DEADLINE: Duration = Duration::from_secs(60);

async fn start(gate: &Gate) -> Running {
    let running = Running::start(&gate.config("slots"), park_idle(), Tuning::default()).await;
    running.deploy("slots", "slots").await;
    running
}

async fn send(running: &Running, name: &str, data: Value) -> Vec<RunId> {
    let event = json!({ "name": name, "data": data }).to_string();
    let sent = running.server.app().send_events(&[&event], None).await;
    sent.expect("sent").runs
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn all_completed(running: &Running, runs: &[RunId]) {
    for run in runs {
        let run = running.settled(*run).await;
        assert_eq!(run.state.status, Status::Completed, "{:?}", run.error);
    }
}

fn waits_for_slot(run: &Run) -> bool {
    run.state.phase == Some(Phase::Limited)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_bodies_are_open_than_the_limit_says() {
    let gate = Gate::start(Some(Duration::from_millis(5))).await;
    let running = start(&gate).await;
    let mut runs = Vec::new();
    for number in 0..60 {
        let data = json!({"key": format!("user-{}", number % 7), "turns": 2});
        for name in ["slots/limited", "slots/nested", "slots/shared", "slots/free"] {
            runs.extend(send(&running, name, data.clone()).await);
        }
    }
    all_completed(&running, &runs).await;
    for (of, most, all) in [("limited", 3, 120), ("nested", 4, 120), ("shared", 2, 240)] {
        let seen = gate.seen(of);
        assert!(seen.most <= most, "{of}: {seen:?}");
        assert_eq!(
            (seen.open, seen.all),
            (0, all),
            "{of}: nothing is lost and nothing done twice"
        );
        println!("{of}: {} of {most} at once", seen.most);
    }
    for user in 0..7 {
        let seen = gate.seen(&format!("nested user-{user}"));
        assert_eq!((seen.most, seen.open), (1, 0), "{user}: {seen:?}");
    }
    assert_eq!(gate.seen("free").all, 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_a_slot_says_so_and_holds_up_nobody_else() {
    let gate = Gate::start(None).await;
    let running = start(&gate).await;
    let mut runs = Vec::new();
    for _ in 0..40 {
        runs.extend(send(&running, "slots/limited", json!({"key": "a"})).await);
    }
    until("three are at work", || gate.seen("limited").open == 3).await;
    let waiting = running.until(runs[39], "waiting", waits_for_slot).await;
    assert_eq!(waiting.state.status, Status::Scheduled);
    assert_eq!(
        waiting.reason.as_deref(),
        Some("waits for a slot: the concurrency limit of 3 is used up")
    );
    // More than a node has slots of its own would not help others either, were they to take any.
    let free = send(&running, "slots/free", json!({"key": "b"})).await;
    until("the other function is at work", || gate.seen("free").open == 1).await;
    // Cancelled and paused where they wait.
    let app = running.server.app();
    app.cancel(runs[38]).await.expect("cancelled");
    app.pause(runs[37]).await.expect("paused");
    let refused = app.wake(runs[36]).await.expect_err("it would lose its place");
    assert_eq!(
        (refused.status, refused.code),
        (409, "nothing-to-wake"),
        "{refused:?}"
    );
    gate.keep_for(Some(Duration::ZERO));
    all_completed(&running, &free).await;
    all_completed(&running, &runs[..37]).await;
    assert_eq!(running.run(runs[38]).await.state.status, Status::Cancelled);
    assert_eq!(running.run(runs[37]).await.state.phase, Some(Phase::Paused));
    running.server.app().resume(runs[37]).await.expect("resumed");
    all_completed(&running, &runs[37..38]).await;
    let seen = gate.seen("limited");
    assert_eq!((seen.most, seen.all), (3, 39));
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_wait_go_on_after_a_restart() {
    let gate = Gate::start(None).await;
    let running = start(&gate).await;
    let mut runs = Vec::new();
    for _ in 0..12 {
        runs.extend(send(&running, "slots/shared", json!({"key": "a", "turns": 2})).await);
    }
    until("two are at work", || gate.seen("shared").open == 2).await;
    running.until(runs[23], "waiting", waits_for_slot).await;
    gate.keep_for(Some(Duration::from_millis(2)));
    let running = running.restart(park_idle(), Tuning::default()).await;
    all_completed(&running, &runs).await;
    let seen = gate.seen("shared");
    assert!(seen.most <= 2 && seen.all >= 48, "{seen:?}");
    assert_eq!(seen.open, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_and_an_invoked_run_need_a_slot_as_any_other() {
    let gate = Gate::start(None).await;
    let running = start(&gate).await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(running.invoke("slots/limited", r#"{"key":"a"}"#).await);
    }
    until("three are at work", || gate.seen("limited").open == 3).await;
    let app = running.server.app();
    let (again, _) = app
        .rerun(runs[0], None, None)
        .await
        .expect("it is done once more");
    running.until(again, "waiting", waits_for_slot).await;
    gate.keep_for(Some(Duration::ZERO));
    runs.push(again);
    all_completed(&running, &runs).await;
    assert_eq!(gate.seen("limited").most, 3);
}
