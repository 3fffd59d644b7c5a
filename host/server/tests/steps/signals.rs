//! `wait_for_signal` and sending signals.

use std::time::Duration;

use dormouse_core::run::Phase;
use dormouse_core::{Json, RunId};
use serde_json::{Value, json};

use super::support::Running;
use super::{PARKING, output, start};

async fn waiting(running: &Running, data: &str) -> RunId {
    let run = running.invoke("steps/wait-for-signal", data).await;
    let found = running
        .until(run, "waiting", |run| run.state.phase == Some(Phase::Waiting))
        .await;
    assert!(
        found
            .reason
            .expect("a reason")
            .starts_with("waits for signal \"go\" (step \"signal\")")
    );
    run
}

async fn signal(running: &Running, data: &str) -> Result<RunId, u16> {
    let sent = running
        .server
        .app()
        .signal("go".to_owned(), Json::trusted(data))
        .await;
    sent.map_err(|problem| problem.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reaches_the_one_that_waits() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        assert_eq!(signal(&running, "1").await, Err(404));
        let run = waiting(&running, "{}").await;
        assert_eq!(signal(&running, r#"{"n":1}"#).await, Ok(run));
        assert_eq!(output(&running.settled(run).await), json!({"data": {"n": 1}}));
        assert_eq!(signal(&running, "2").await, Err(404), "once");
        let run = waiting(&running, r#"{"timeout_ms":60000}"#).await;
        clock.advance(Duration::from_secs(60));
        assert_eq!(
            output(&running.settled(run).await),
            json!({ "data": Value::Null })
        );
        assert_eq!(signal(&running, "3").await, Err(404), "the wait is over");
        let run = waiting(&running, "{}").await;
        running.server.app().cancel(run).await.expect("cancelled");
        assert_eq!(
            signal(&running, "4").await,
            Err(404),
            "so is that of a cancelled run"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_wait_one_fails_as_asked() {
    for park_idle in PARKING {
        let (running, _clock) = start(park_idle).await;
        let first = waiting(&running, "{}").await;
        let second = running.invoke("steps/wait-for-signal", "{}").await;
        assert_eq!(
            output(&running.settled(second).await),
            json!({"code": "signal-taken"})
        );
        let third = waiting(&running, r#"{"replace":true}"#).await;
        assert_eq!(
            output(&running.settled(first).await),
            json!({"code": "signal-replaced"})
        );
        assert_eq!(signal(&running, "5").await, Ok(third));
        assert_eq!(output(&running.settled(third).await), json!({"data": 5}));
        let long = json!({"signal": "x".repeat(513)}).to_string();
        let bad = running.invoke("steps/wait-for-signal", &long).await;
        assert_eq!(
            output(&running.settled(bad).await),
            json!({"code": "invalid-name"})
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_sends_a_signal_once() {
    for park_idle in PARKING {
        let (running, _clock) = start(park_idle).await;
        let nobody = running.invoke("steps/send-signal", "{}").await;
        assert_eq!(
            output(&running.settled(nobody).await),
            json!({ "run": Value::Null })
        );
        let run = waiting(&running, "{}").await;
        let sender = running.invoke("steps/send-signal", r#"{"n":1}"#).await;
        assert_eq!(output(&running.settled(sender).await), json!({ "run": run }));
        assert_eq!(output(&running.settled(run).await), json!({"data": {"n": 1}}));
        let itself = running.invoke("steps/signal-itself", "{}").await;
        assert_eq!(
            output(&running.settled(itself).await),
            json!({"early": Value::Null, "waited": 2, "itself": true})
        );
        let long = json!({"signal": "x".repeat(513)}).to_string();
        let bad = running.invoke("steps/send-signal", &long).await;
        assert_eq!(
            output(&running.settled(bad).await),
            json!({"code": "invalid-name"})
        );
    }
}
