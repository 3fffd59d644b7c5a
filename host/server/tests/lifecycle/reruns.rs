//! Runs that are done once more.

use std::time::Duration;

use dormouse_core::rerun::FromStep;
use dormouse_core::run::{Phase, Status};
use dormouse_core::{Digest, FunctionName, Json, RunId};
use dormouse_server::Problem;
use dormouse_store::read::Run;
use serde_json::json;

use super::support::{Running, component, park_idle, verifying};
use super::{PARKING, output, send, start};

fn from(name: &str) -> Option<FromStep> {
    Some(FromStep::Name(name.to_owned()))
}

async fn rerun(running: &Running, run: RunId, from: Option<FromStep>) -> RunId {
    let rerun = running.server.app().rerun(run, from, None).await;
    rerun.expect("a rerun").0
}

fn code(problem: Problem) -> (u16, &'static str) {
    (problem.status, problem.code)
}

/// What code was told of time and chance before the step is told again, though it is later now.
#[tokio::test(flavor = "multi_thread")]
async fn from_a_step_on_what_was_recorded_replays_as_it_was() {
    let config = "[modules.determinism]\nhttp = [\"127.0.0.1:9\"]\n";
    for park_idle in PARKING {
        let running = Running::start(config, park_idle, verifying(true)).await;
        running.deploy("determinism", "determinism").await;
        for function in ["clocks", "random"] {
            let first = running.invoke(&format!("determinism/{function}"), "{}").await;
            let first = running.settled(first).await;
            let again = rerun(&running, first.id, from("inside")).await;
            running.settled(again).await;
            let second = rerun(&running, again, from("inside")).await;
            for id in [again, second] {
                let run = running.settled(id).await;
                assert_eq!(run.state.status, Status::Completed, "{function}: {run:#?}");
                assert_eq!(output(&run)["seen"], output(&first)["seen"], "{function}");
                assert_ne!(output(&run)["inside"], output(&first)["inside"], "{function}");
                assert!(run.rerun_of.is_some() && run.queued_at >= first.queued_at);
            }
            let whole = rerun(&running, first.id, None).await;
            let whole = running.settled(whole).await;
            assert_eq!((whole.rerun_of, whole.event_id), (Some(first.id), first.event_id));
            assert_ne!(output(&whole)["seen"], output(&first)["seen"], "{function}");
            // The earlier run is as it was.
            assert_eq!(running.run(first.id).await, first);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_is_on_the_active_version_and_what_that_does_otherwise_blocks_it() {
    for park_idle in PARKING {
        let (running, _) = start(park_idle).await;
        let run_of = async |version: &str| -> Run {
            running.deploy("swap", version).await;
            let run = running.invoke("swap/swap", r#"{"ms":0}"#).await;
            running.settled(run).await
        };
        let one = run_of("swap_v1").await;
        let two = run_of("swap_v2").await;
        let whole = rerun(&running, one.id, None).await;
        assert_eq!(output(&running.settled(whole).await), "Hello from two");
        // The new code goes on where the record ends: the greeting is the old one.
        let part = rerun(&running, one.id, from("pause")).await;
        let part = running.settled(part).await;
        assert_eq!(output(&part), "Hello from one");
        assert_eq!(part.version, Digest::of(&component("swap_v2")));
        // Back on the first version, which does not know the step that was recorded.
        running.deploy("swap", "swap_v1").await;
        let blocked = rerun(&running, two.id, from("pause")).await;
        let blocked = running.settled(blocked).await;
        assert_eq!(blocked.state.phase, Some(Phase::Blocked), "{blocked:#?}");
        let error = blocked.error.expect("an error");
        assert_eq!(error.code, "diverged");
        assert!(
            error.message.contains("entry 1") && error.message.contains("added"),
            "{error:?}"
        );
        // A blocked run can be rerun, too.
        let again = rerun(&running, blocked.id, None).await;
        assert_eq!(output(&running.settled(again).await), "Hello from one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_edited_input_a_run_is_for_another_event_that_nobody_else_notices() {
    let (running, clock) = start(park_idle()).await;
    let app = running.server.app();
    let run = send(&running, r#"{"name":"bench/sleeper","data":{"ms":1000}}"#).await[0];
    let waiter = running.invoke("steps/wait", r#"{"event":"bench/sleeper"}"#).await;
    running
        .until(waiter, "waiting", |run| run.state.phase == Some(Phase::Waiting))
        .await;
    let sleeping = |run: &Run| run.state.phase == Some(Phase::Sleeping);
    running.until(run, "sleeping", sleeping).await;
    clock.advance(Duration::from_secs(1));
    let first = running.settled(run).await;
    let (edited, event) = app
        .rerun(run, None, Some(Json::trusted(r#"{"ms":0}"#)))
        .await
        .expect("a rerun");
    let edited = running.settled(edited).await;
    assert_eq!(output(&edited), 0);
    assert_eq!(edited.event_id, event);
    assert_ne!(event, first.event_id);
    let stored = app.store().event(event).await.expect("read").expect("there");
    let payload: serde_json::Value = stored.payload.read().expect("JSON");
    assert_eq!(
        (&payload["name"], &payload["data"]),
        (&json!("bench/sleeper"), &json!({"ms": 0}))
    );
    assert_eq!(
        running.run(waiter).await.state.phase,
        Some(Phase::Waiting),
        "it has not come again"
    );
    // What is edited may be at odds with what was recorded: then nothing happens, and it is said.
    let odd = app
        .rerun(run, from("sleep"), Some(Json::trusted(r#"{"ms":7}"#)))
        .await
        .expect("a rerun");
    running.until(odd.0, "sleeping", sleeping).await;
    clock.advance(Duration::from_millis(7));
    assert_eq!(
        output(&running.settled(odd.0).await),
        7,
        "nothing came before the step"
    );
    let scalar = app.rerun(run, None, Some(Json::trusted("7"))).await;
    assert_eq!(
        code(scalar.expect_err("data is an object")),
        (400, "invalid-event")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_rerun_cannot_begin_is_said() {
    let (running, _) = start(park_idle()).await;
    let app = running.server.app();
    let waiting = running.invoke("steps/any-of-three", "{}").await;
    running
        .until(waiting, "waiting", |run| run.state.phase == Some(Phase::Waiting))
        .await;
    let open = app
        .rerun(waiting, from("give up"), None)
        .await
        .expect_err("waits are open");
    assert!(open.message.contains("one of three"), "{open:?}");
    assert_eq!(open.help.as_deref(), Some("begin there: from_step 0"));
    assert_eq!(code(open), (409, "rerun-not-possible"));
    let unknown = RunId::from_parts(super::START, [7; 10]);
    for (run, step) in [
        (waiting, from("nothing")),
        (waiting, Some(FromStep::Seq(99))),
        (unknown, None),
    ] {
        let refused = app
            .rerun(run, step.clone(), None)
            .await
            .expect_err("there is none");
        assert_eq!(code(refused), (404, "not-found"), "{run} {step:?}");
    }
    // From the first of what is open on, nothing is taken over.
    let again = rerun(&running, waiting, Some(FromStep::Seq(0))).await;
    running
        .until(again, "waiting", |run| run.state.phase == Some(Phase::Waiting))
        .await;
    let name: FunctionName = "steps/any-of-three".parse().expect("a name");
    app.pause_function(&name).await.expect("paused");
    let held = rerun(&running, waiting, None).await;
    assert_eq!(running.run(held).await.state.phase, Some(Phase::Paused));
    running.deploy("steps", "bench").await;
    let gone = app
        .rerun(waiting, None, None)
        .await
        .expect_err("the function is gone");
    assert_eq!(code(gone), (404, "not-found"));
}
