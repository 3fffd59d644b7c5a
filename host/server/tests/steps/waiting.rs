//! `wait_for_event`: what ends a wait, alone and beside other steps.

use std::time::Duration;

use dormouse_core::RunId;
use dormouse_core::run::Phase;
use serde_json::{Value, json};

use super::support::Running;
use super::{PARKING, START, output, start};

async fn send(running: &Running, name: &str, data: Value) {
    let event = json!({ "name": name, "data": data }).to_string();
    running
        .server
        .app()
        .send_events(&[&event], None)
        .await
        .expect("sent");
}

async fn waiting(running: &Running, run: RunId) -> dormouse_store::read::Run {
    running
        .until(run, "waiting", |run| run.state.phase == Some(Phase::Waiting))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_ends_the_wait_it_fits_and_no_other() {
    for park_idle in PARKING {
        let (running, _clock) = start(park_idle).await;
        let any = running.invoke("steps/wait", "{}").await;
        let matched = running
            .invoke("steps/wait", r#"{"match":"data.order.id","order":{"id":7}}"#)
            .await;
        let by_cel = r#"{"if":"async.data.amount > event.data.least","least":10}"#;
        let conditional = running.invoke("steps/wait", by_cel).await;
        for run in [any, matched, conditional] {
            let run = waiting(&running, run).await;
            assert_eq!(
                run.reason.as_deref(),
                Some("waits for event \"steps/answer\" (step \"answer\")")
            );
        }
        send(&running, "steps/another", json!({})).await;
        send(&running, "steps/answer", json!({"order": {"id": 8}})).await;
        assert_eq!(output(&running.settled(any).await), json!({"order": {"id": 8}}));
        send(&running, "steps/answer", json!({"order": {"id": 7}})).await;
        assert_eq!(
            output(&running.settled(matched).await),
            json!({"order": {"id": 7}})
        );
        waiting(&running, conditional).await;
        send(&running, "steps/answer", json!({"amount": 11})).await;
        assert_eq!(output(&running.settled(conditional).await), json!({"amount": 11}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_answers_null_and_a_later_event_changes_nothing() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let run = running.invoke("steps/wait", r#"{"timeout_ms":60000}"#).await;
        let found = waiting(&running, run).await;
        let due = START.after(Duration::from_secs(60));
        assert_eq!(found.wake_at, Some(due));
        assert!(found.reason.expect("a reason").ends_with(&format!("until {due}")));
        clock.advance(Duration::from_secs(60));
        assert_eq!(output(&running.settled(run).await), Value::Null);
        send(&running, "steps/answer", json!({})).await;
        // In time, the event wins, and the timer does nothing.
        let run = running.invoke("steps/wait", r#"{"timeout_ms":60000}"#).await;
        waiting(&running, run).await;
        clock.advance(Duration::from_secs(59));
        send(&running, "steps/answer", json!({"n": 1})).await;
        assert_eq!(output(&running.settled(run).await), json!({"n": 1}));
        clock.advance(Duration::from_secs(60));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_looks_back_as_far_as_it_says() {
    let (running, clock) = start(super::support::park_idle()).await;
    send(&running, "steps/answer", json!({"n": 1})).await;
    clock.advance(Duration::from_secs(10));
    let run = running.invoke("steps/wait", r#"{"lookback_ms":10000}"#).await;
    assert_eq!(output(&running.settled(run).await), json!({"n": 1}));
    for data in [r#"{"lookback_ms":9999}"#, "{}"] {
        let run = running.invoke("steps/wait", data).await;
        waiting(&running, run).await;
        running.server.app().cancel(run).await.expect("cancelled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_of_several_wins_and_the_others_are_given_up() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let run = running.invoke("steps/any-of-three", "{}").await;
        waiting(&running, run).await;
        send(&running, "steps/b", json!({})).await;
        assert_eq!(output(&running.settled(run).await), "b");
        let run = running.invoke("steps/any-of-three", "{}").await;
        waiting(&running, run).await;
        clock.advance(Duration::from_secs(60));
        assert_eq!(output(&running.settled(run).await), "none");
        // Given up while the run lives: the event ends nothing.
        let run = running.invoke("steps/lose-interest", "{}").await;
        waiting(&running, run).await;
        clock.advance(Duration::from_secs(1));
        running
            .until(run, "asleep", |run| run.state.phase == Some(Phase::Sleeping))
            .await;
        send(&running, "steps/answer", json!({})).await;
        assert_eq!(
            running
                .server
                .app()
                .store()
                .completions(run)
                .await
                .expect("reads"),
            []
        );
        clock.advance(Duration::from_secs(60));
        output(&running.settled(run).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_sends_itself_ends_its_wait_if_that_came_first() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let run = running.invoke("steps/wait-then-send", r#"{"id":"x"}"#).await;
        assert_eq!(output(&running.settled(run).await), json!({"id": "x"}));
        let run = running.invoke("steps/send-then-wait", "{}").await;
        waiting(&running, run).await;
        clock.advance(Duration::from_secs(60));
        assert_eq!(output(&running.settled(run).await), false);
        // From another run's step.
        let run = running.invoke("steps/wait", "{}").await;
        waiting(&running, run).await;
        let events = r#"{"events":[{"name":"steps/answer","data":{"by":"another run"}}]}"#;
        let other = running.invoke("steps/send", events).await;
        assert_eq!(output(&running.settled(run).await), json!({"by": "another run"}));
        output(&running.settled(other).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_overlaps_with_failing_bodies_and_sleeps() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let run = running.invoke("steps/beside-a-failing-body", "{}").await;
        waiting(&running, run).await;
        send(&running, "steps/answer", json!({"n": 1})).await;
        // The nap, then two back-offs; the answer finds its place between them.
        let mut now = START;
        loop {
            let rest = running
                .until(run, "at rest", |run| {
                    let phases = [Some(Phase::Executing), Some(Phase::Queued)];
                    !phases.contains(&run.state.phase)
                        && (run.state.status.is_terminal() || run.wake_at > Some(now))
                })
                .await;
            let Some(wake_at) = rest.wake_at else {
                break;
            };
            clock.advance(wake_at.since(now));
            now = wake_at;
        }
        assert_eq!(output(&running.settled(run).await), json!([3, {"n": 1}]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_answers_at_once_all_arrive() {
    for park_idle in PARKING {
        let (running, _clock) = start(park_idle).await;
        let run = running.invoke("steps/all-answers", "{}").await;
        waiting(&running, run).await;
        let events: Vec<String> = (0..50)
            .rev()
            .map(|number| json!({"name": "steps/answer", "data": {"number": number}}).to_string())
            .collect();
        let texts: Vec<&str> = events.iter().map(String::as_str).collect();
        for part in texts.chunks(7) {
            running.server.app().send_events(part, None).await.expect("sent");
        }
        let numbers = output(&running.settled(run).await);
        assert_eq!(numbers, json!((0..50).collect::<Vec<u32>>()));
    }
}

/// A run that waits holds nothing that the one it waits for may need.
#[tokio::test(flavor = "multi_thread")]
async fn more_runs_wait_than_may_execute_at_once() {
    let (running, _clock) = start(Duration::from_secs(5)).await;
    let mut waiters = Vec::new();
    for _ in 0..300 {
        waiters.push(running.invoke("steps/wait", "{}").await);
    }
    for run in &waiters {
        waiting(&running, *run).await;
    }
    // The answer comes from a run, which needs a place to execute as well.
    let events = r#"{"events":[{"name":"steps/answer","data":{"all":true}}]}"#;
    let answering = running.invoke("steps/send", events).await;
    output(&running.settled(answering).await);
    for run in waiters {
        assert_eq!(output(&running.settled(run).await), json!({"all": true}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_wait_is_a_failure_as_data() {
    let (running, _clock) = start(super::support::park_idle()).await;
    for (data, code, word) in [
        (json!({"event": ""}), "invalid-event", "empty"),
        (json!({"event": "x".repeat(513)}), "invalid-event", "512"),
        (
            json!({"match": "data.missing"}),
            "invalid-options",
            "data.missing",
        ),
        (json!({"if": "async.data."}), "invalid-options", "column"),
        (
            json!({"if": "async.ts.matches('x')"}),
            "invalid-options",
            "matches",
        ),
        (json!({"if": "(".repeat(33)}), "invalid-options", "32"),
        (json!({"if": "x".repeat(5000)}), "invalid-options", "4096"),
        (
            json!({"timeout_ms": 400u64 * 86_400_000}),
            "invalid-duration",
            "366",
        ),
        (
            json!({"lookback_ms": 8u64 * 86_400_000}),
            "invalid-duration",
            "7 days",
        ),
    ] {
        let run = running.invoke("steps/wait", &data.to_string()).await;
        let answer = output(&running.settled(run).await);
        assert_eq!(answer["code"], code, "{answer}");
        assert!(
            answer["message"].as_str().expect("a text").contains(word),
            "{answer}"
        );
    }
}
