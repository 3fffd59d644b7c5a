//! Events that cancel runs.

use std::time::Duration;

use dormouse_core::RunId;
use dormouse_core::run::{Phase, Status};
use dormouse_store::read::Run;
use serde_json::{Value, json};

use super::support::Running;
use super::{PARKING, begin, ended_runs_of, output, quiet, runs_of, send, start};

const HOUR: Duration = Duration::from_secs(3_600);

async fn in_phase(running: &Running, run: RunId, phase: Phase) -> Run {
    running
        .until(run, phase.as_str(), |run| run.state.phase == Some(phase))
        .await
}

async fn cancelled(running: &Running, run: RunId) -> String {
    let run = running.settled(run).await;
    assert_eq!(run.state.status, Status::Cancelled, "{run:#?}");
    run.reason.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_cancels_what_has_its_id_whatever_that_does() {
    for park_idle in PARKING {
        let (running, _clock) = start(park_idle).await;
        let mut runs = Vec::new();
        for (does, phase) in [
            ("sleep", Phase::Sleeping),
            ("wait", Phase::Waiting),
            ("invoke", Phase::Waiting),
            ("fail", Phase::BackingOff),
            ("spin", Phase::Executing),
        ] {
            let run = begin(&running, "test/cancellable", json!({"id": 7, "does": does})).await;
            in_phase(&running, run, phase).await;
            runs.push(run);
        }
        let paused = begin(&running, "test/cancellable", json!({"id": 7})).await;
        in_phase(&running, paused, Phase::Sleeping).await;
        running.server.app().pause(paused).await.expect("it is paused");
        runs.push(paused);
        let other = begin(&running, "test/cancellable", json!({"id": 8})).await;
        in_phase(&running, other, Phase::Sleeping).await;
        send(&running, "test/cancel", json!({"id": 7})).await;
        for run in &runs {
            let reason = cancelled(&running, *run).await;
            assert!(
                reason.starts_with("cancelled by event \"test/cancel\" ("),
                "{reason}"
            );
        }
        in_phase(&running, other, Phase::Sleeping).await;
        // Who listens is told; what was invoked is given up.
        let mut orders = ended_runs_of(&running, "order", 2).await;
        // The other one is of a function that listens to invokes.
        orders.retain(|run| run.state.status == Status::Cancelled);
        assert_eq!(orders.len(), 1);
        let heard = ended_runs_of(&running, "hears-cancelled", 7).await;
        let told: Vec<Value> = heard.iter().map(output).collect();
        for run in &runs {
            let of = told.iter().filter(|told| told["run_id"] == run.to_string());
            let messages: Vec<&Value> = of.map(|told| &told["error"]["message"]).collect();
            assert_eq!(messages.len(), 1, "{run}");
            let message = messages[0].as_str().expect("a text");
            assert!(message.starts_with("cancelled by event"), "{message}");
        }
        // Its body was ended, and its slot given back.
        let again = begin(&running, "test/cancellable", json!({"id": 7})).await;
        in_phase(&running, again, Phase::Sleeping).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_windows_are_minded() {
    let (running, clock) = start(Duration::ZERO).await;
    let nothing = begin(
        &running,
        "test/cancellable",
        json!({"id": "a", "does": "nothing"}),
    )
    .await;
    let sleeps = begin(&running, "test/cancellable", json!({"id": "b", "does": "sleep"})).await;
    for run in [nothing, sleeps] {
        in_phase(&running, run, Phase::Sleeping).await;
    }
    send(&running, "test/cancel.all", json!({"sure": false})).await;
    send(&running, "test/cancel.all", json!({})).await;
    send(&running, "test/cancel.soon", json!({"order": "c"})).await;
    for run in [nothing, sleeps] {
        in_phase(&running, run, Phase::Sleeping).await;
    }
    send(&running, "test/cancel.all", json!({"sure": true})).await;
    cancelled(&running, sleeps).await;
    in_phase(&running, nothing, Phase::Sleeping).await;
    // The window of a minute is over.
    clock.advance(Duration::from_secs(61));
    send(&running, "test/cancel.soon", json!({"order": "a"})).await;
    in_phase(&running, nothing, Phase::Sleeping).await;
    let young = begin(
        &running,
        "test/cancellable",
        json!({"id": "a", "does": "nothing"}),
    )
    .await;
    in_phase(&running, young, Phase::Sleeping).await;
    send(&running, "test/cancel.soon", json!({"order": "a"})).await;
    cancelled(&running, young).await;
    in_phase(&running, nothing, Phase::Sleeping).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_cancels_older_runs_and_not_the_one_that_it_starts() {
    let (running, _clock) = start(Duration::ZERO).await;
    let first = begin(&running, "test/renew", json!({"id": 1})).await;
    let other = begin(&running, "test/renew", json!({"id": 2})).await;
    let second = begin(&running, "test/renew", json!({"id": 1})).await;
    cancelled(&running, first).await;
    for run in [second, other] {
        in_phase(&running, run, Phase::Sleeping).await;
    }
    // In one request, one after the other.
    let events = [
        json!({"name": "test/renew", "data": {"id": 3}}).to_string(),
        json!({"name": "test/renew", "data": {"id": 3}}).to_string(),
    ];
    let texts: Vec<&str> = events.iter().map(String::as_str).collect();
    let sent = running
        .server
        .app()
        .send_events(&texts, None)
        .await
        .expect("sent");
    assert_eq!(sent.runs.len(), 2);
    cancelled(&running, sent.runs[0]).await;
    in_phase(&running, sent.runs[1], Phase::Sleeping).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_to_begin_is_cancelled_and_who_stands_behind_moves_up() {
    let (running, clock) = start(Duration::ZERO).await;
    let mut runs = Vec::new();
    for id in 0..3 {
        runs.push(begin(&running, "test/throttled", json!({"id": id})).await);
    }
    running.settled(runs[0]).await;
    for run in &runs[1..] {
        in_phase(&running, *run, Phase::Limited).await;
    }
    send(&running, "test/cancel", json!({"id": 1})).await;
    let reason = cancelled(&running, runs[1]).await;
    assert!(reason.contains("test/cancel"), "{reason}");
    clock.advance(HOUR);
    assert_eq!(running.settled(runs[2]).await.state.status, Status::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_sends_cancels_too_and_rounds_without_end_are_cancelled() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let anew = begin(&running, "test/anew", json!({"id": "x"})).await;
        let sleeps = begin(&running, "test/cancellable", json!({"id": "x"})).await;
        for _ in 0..3 {
            for run in [anew, sleeps] {
                in_phase(&running, run, Phase::Sleeping).await;
            }
            let before = running.run(anew).await.journal_base;
            clock.advance(HOUR);
            running
                .until(anew, "in its next turn", |run| {
                    run.journal_base > before && run.state.phase == Some(Phase::Sleeping)
                })
                .await;
        }
        let sends = begin(&running, "test/sends", json!({"id": "x"})).await;
        running.settled(sends).await;
        for run in [anew, sleeps] {
            cancelled(&running, run).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_can_be_cancelled_as_well() {
    let (running, _clock) = start(Duration::ZERO).await;
    let first = begin(&running, "test/cancellable", json!({"id": 7})).await;
    in_phase(&running, first, Phase::Sleeping).await;
    send(&running, "test/cancel", json!({"id": 7})).await;
    cancelled(&running, first).await;
    let (again, _) = running
        .server
        .app()
        .rerun(first, None, None)
        .await
        .expect("it is done again");
    in_phase(&running, again, Phase::Sleeping).await;
    send(&running, "test/cancel", json!({"id": 7})).await;
    cancelled(&running, again).await;
    quiet(&running).await;
    assert_eq!(runs_of(&running, "hears-cancelled").await.len(), 2);
}
