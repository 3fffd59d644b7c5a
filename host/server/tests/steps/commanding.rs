//! What people do to runs that wait for others, and to those others: pausing, cancelling many, reruns.

use std::time::Duration;

use dormouse_core::rerun::FromStep;
use dormouse_core::run::{Phase, Status};
use dormouse_core::{FunctionName, RunId};
use serde_json::json;

use super::invoking::{children, waiting};
use super::{PARKING, output, run_out, start};

const MINUTE: Duration = Duration::from_secs(60);

fn name(function: &str) -> FunctionName {
    function.parse().expect("a name")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_another_run_is_kept_for_a_paused_one() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let app = running.server.app();
        let data = json!({"data": {"sleep_ms": 60_000}});
        let (in_time, first) = waiting(&running, "steps/invoke", data).await;
        let data = json!({"data": {"sleep_ms": 60_000}, "timeout_ms": 30_000});
        let (too_late, second) = waiting(&running, "steps/invoke", data).await;
        for run in [in_time, too_late] {
            app.pause(run).await.expect("paused");
        }
        clock.advance(MINUTE);
        for child in [first, second] {
            assert_eq!(running.settled(child).await.state.status, Status::Completed);
        }
        for run in [in_time, too_late] {
            assert_eq!(running.run(run).await.state.phase, Some(Phase::Paused));
            app.resume(run).await.expect("resumed");
        }
        assert_eq!(
            output(&running.settled(in_time).await),
            json!({"output": {"sleep_ms": 60_000}})
        );
        // Whichever came first counts, not when somebody looked.
        assert_eq!(output(&running.settled(too_late).await)["code"], "invoke-timeout");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_invoked_of_a_paused_function_is_held() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let app = running.server.app();
        let child = name("steps/child");
        assert!(app.pause_function(&child).await.expect("paused"));
        let run = running
            .invoke("steps/invoke", r#"{"data":{"sleep_ms":60000}}"#)
            .await;
        running
            .until(run, "waiting", |run| run.state.phase == Some(Phase::Waiting))
            .await;
        let held = children(&running, run).await[0].clone();
        assert_eq!(held.state.phase, Some(Phase::Paused), "{held:#?}");
        assert!(app.resume_function(&child).await.expect("resumed"));
        running
            .until(held.id, "asleep", |run| run.state.phase == Some(Phase::Sleeping))
            .await;
        clock.advance(MINUTE);
        assert_eq!(
            output(&running.settled(run).await),
            json!({"output": {"sleep_ms": 60_000}})
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_many_tells_those_that_wait_and_gives_up_those_that_were_invoked() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let app = running.server.app();
        let data = json!({"data": {"sleep_ms": 3_600_000}});
        let (told, cancelled) = waiting(&running, "steps/invoke", data.clone()).await;
        // Ids of runs that are meant are less than the cancellation's.
        clock.advance(Duration::from_secs(1));
        app.cancel_many(name("steps/child"), None, None, None)
            .await
            .expect("asked");
        assert_eq!(running.settled(cancelled).await.state.status, Status::Cancelled);
        assert_eq!(output(&running.settled(told).await)["code"], "invoke-cancelled");
        let (caller, orphan) = waiting(&running, "steps/invoke", data).await;
        clock.advance(Duration::from_secs(1));
        app.cancel_many(name("steps/invoke"), None, None, None)
            .await
            .expect("asked");
        for run in [caller, orphan] {
            assert_eq!(running.settled(run).await.state.status, Status::Cancelled);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_waits_for_runs_of_its_own_and_nobody_waits_for_it() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let app = running.server.app();
        let rerun = async |run: RunId, from: Option<&str>| {
            let from = from.map(|name| FromStep::Name(name.to_owned()));
            app.rerun(run, from, None).await.expect("a rerun").0
        };
        let first = running.invoke("steps/invoke", r#"{"data":{"n":1}}"#).await;
        let first = running.settled(first).await;
        let child = children(&running, first.id).await[0].clone();
        let alone = rerun(child.id, None).await;
        let alone = running.settled(alone).await;
        assert_eq!((alone.parent, alone.rerun_of), (None, Some(child.id)));
        assert_eq!(output(&alone), json!({"n": 1}));
        let again = rerun(first.id, Some("other")).await;
        let again = running.settled(again).await;
        assert_eq!(output(&again), output(&first));
        let own = children(&running, again.id).await;
        assert_eq!(own.len(), 1);
        assert_ne!(own[0].id, child.id);
        // The earlier ones are as they were.
        assert_eq!(running.run(first.id).await, first);
        assert_eq!(children(&running, first.id).await, [child]);

        // What was invoked, sent and waited for before the step is taken over, and not done again.
        let all = running.invoke("steps/all-kinds", "{}").await;
        let all = run_out(&running, &clock, all).await;
        let part = rerun(all.id, Some("slow")).await;
        let part = run_out(&running, &clock, part).await;
        assert_eq!(output(&part), output(&all));
        assert_eq!(children(&running, part.id).await.len(), 2);
    }
}
