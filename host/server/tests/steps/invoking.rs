//! `invoke`: once, with the entry; the other function's end is the step's; who is given up is cancelled.

use std::time::Duration;

use dormouse_core::RunId;
use dormouse_core::run::{Phase, Status};
use dormouse_store::read::{Run, RunFilter};
use serde_json::{Value, json};

use super::support::{Running, park_idle};
use super::{PARKING, output, run_out, runs_of, start};

pub(super) async fn children(running: &Running, parent: RunId) -> Vec<Run> {
    let filter = RunFilter {
        parent: Some(parent),
        limit: 100,
        ..RunFilter::default()
    };
    running.server.app().store().runs(filter).await.expect("lists")
}

/// A run that waits for another, and the other, asleep.
pub(super) async fn waiting(running: &Running, function: &str, data: Value) -> (RunId, RunId) {
    let run = running.invoke(function, &data.to_string()).await;
    running
        .until(run, "waiting", |run| run.state.phase == Some(Phase::Waiting))
        .await;
    let child = children(running, run).await[0].id;
    running
        .until(child, "at rest", |run| {
            matches!(run.state.phase, Some(Phase::Sleeping | Phase::Waiting))
        })
        .await;
    (run, child)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_functions_end_is_the_steps() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let (run, child) = waiting(
            &running,
            "steps/invoke",
            json!({"data": {"sleep_ms": 60_000, "n": 1}}),
        )
        .await;
        let found = running.run(run).await;
        assert_eq!(
            found.reason.as_deref(),
            Some("waits for function \"child\" (step \"other\")")
        );
        let found = running.run(child).await;
        assert_eq!(
            (found.parent, found.function.to_string().as_str()),
            (Some(run), "steps/child")
        );
        clock.advance(Duration::from_secs(60));
        assert_eq!(
            output(&running.settled(run).await),
            json!({"output": {"sleep_ms": 60_000, "n": 1}})
        );
        assert_eq!(children(&running, run).await.len(), 1);
        // Its failure, as it is.
        let data = json!({"fail": "card-declined", "left": 3});
        let run = running
            .invoke("steps/invoke", &json!({ "data": data }).to_string())
            .await;
        assert_eq!(
            output(&running.settled(run).await),
            json!({"code": "card-declined", "message": "declined", "details": data})
        );
        // Somebody cancels it.
        let (run, child) = waiting(
            &running,
            "steps/invoke",
            json!({"function": "steps/child", "data": {"sleep_ms": 60_000}}),
        )
        .await;
        running.server.app().cancel(child).await.expect("cancelled");
        assert_eq!(output(&running.settled(run).await)["code"], "invoke-cancelled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_fails_the_step_and_cancels_or_abandons_the_other() {
    for park_idle in PARKING {
        for abandon in [false, true] {
            let (running, clock) = start(park_idle).await;
            let data = json!({"data": {"sleep_ms": 90_000}, "timeout_ms": 60_000, "abandon": abandon});
            let (run, child) = waiting(&running, "steps/invoke", data).await;
            clock.advance(Duration::from_secs(60));
            assert_eq!(output(&running.settled(run).await)["code"], "invoke-timeout");
            if abandon {
                clock.advance(Duration::from_secs(30));
            }
            let status = running.settled(child).await.state.status;
            assert_eq!(
                status,
                if abandon {
                    Status::Completed
                } else {
                    Status::Cancelled
                }
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_run_cancels_all_that_it_has_invoked() {
    for park_idle in PARKING {
        let (running, _clock) = start(park_idle).await;
        let data = json!({"left": 5, "sleep_ms": 3_600_000});
        let (mut run, child) = waiting(&running, "steps/descend", data).await;
        let mut line = vec![run, child];
        while line.len() < 6 {
            run = *line.last().expect("one");
            running
                .until(run, "waiting", |run| run.state.phase == Some(Phase::Waiting))
                .await;
            line.push(children(&running, run).await[0].id);
        }
        running
            .until(line[5], "asleep", |run| run.state.phase == Some(Phase::Sleeping))
            .await;
        running.server.app().cancel(line[0]).await.expect("cancelled");
        for run in line {
            assert_eq!(running.settled(run).await.state.status, Status::Cancelled);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_a_race_is_cancelled_unless_abandoned() {
    for park_idle in PARKING {
        for abandon in [false, true] {
            let (running, clock) = start(park_idle).await;
            let (run, child) = waiting(&running, "steps/race-invoke", json!({ "abandon": abandon })).await;
            clock.advance(Duration::from_secs(1));
            running
                .until(run, "asleep", |run| run.state.phase == Some(Phase::Sleeping))
                .await;
            if !abandon {
                assert_eq!(running.settled(child).await.state.status, Status::Cancelled);
            }
            clock.advance(Duration::from_secs(60));
            assert_eq!(output(&running.settled(run).await), "sleep");
            if abandon {
                assert_eq!(running.run(child).await.state.phase, Some(Phase::Sleeping));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_invoked_is_a_failure_as_data() {
    let (running, _clock) = start(park_idle()).await;
    for (data, code, word) in [
        (
            json!({"function": "nobody", "data": {}}),
            "function-not-found",
            "steps/nobody",
        ),
        (
            json!({"function": "other/child", "data": {}}),
            "function-not-found",
            "other/child",
        ),
        (json!({"function": "A B", "data": {}}), "invalid-name", "A B"),
        (json!({"data": [1]}), "invalid-event", "object"),
        (
            json!({"data": {}, "timeout_ms": 400u64 * 86_400_000}),
            "invalid-duration",
            "366",
        ),
    ] {
        let run = running.invoke("steps/invoke", &data.to_string()).await;
        let answer = output(&running.settled(run).await);
        assert_eq!(answer["code"], code, "{answer}");
        assert!(
            answer["message"].as_str().expect("a text").contains(word),
            "{answer}"
        );
        assert_eq!(children(&running, run).await.len(), 0);
    }
    // A function that is deployed while the run waits for something else is there.
    running.deploy("other", "steps").await;
    let data = json!({"function": "other/child", "data": {"n": 1}}).to_string();
    let run = running.invoke("steps/invoke", &data).await;
    assert_eq!(output(&running.settled(run).await), json!({"output": {"n": 1}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn invokes_without_an_end_come_to_one() {
    let (running, _clock) = start(park_idle()).await;
    let run = running
        .invoke("steps/descend", r#"{"left":10,"sleep_ms":0}"#)
        .await;
    assert_eq!(output(&running.settled(run).await), 10);
    let run = running
        .invoke("steps/descend", r#"{"left":1000,"sleep_ms":0}"#)
        .await;
    let run = running.settled(run).await;
    let error = run.error.expect("it has failed");
    assert_eq!(error.code, "invoke-too-deep", "{error:?}");
    let depth = runs_of(&running, "descend").await.len();
    assert_eq!(depth, 11 + 1 + dormouse_core::limit::INVOKE_DEPTH_MAX as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_kinds_of_steps_overlap_and_replay_identically() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let run = running.invoke("steps/all-kinds", "{}").await;
        let run = run_out(&running, &clock, run).await;
        assert_eq!(
            output(&run),
            json!({
                "numbers": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "attempts": 3, "declined": "declined",
                "sent": 1, "first": "quick",
            })
        );
        for child in children(&running, run.id).await {
            let child = running.settled(child.id).await;
            assert_ne!(child.state.phase, Some(Phase::Blocked), "{child:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_used_up_its_attempts_is_caught_and_compensated() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let run = running.invoke("steps/compensate", "{}").await;
        let run = run_out(&running, &clock, run).await;
        assert_eq!(
            output(&run),
            json!({
                "step": "charge", "code": "card-declined", "message": "the card is declined",
                "details": {"left": 3}, "undone": 7,
            })
        );
    }
}
