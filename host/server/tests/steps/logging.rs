//! Log lines of a real guest: each is kept once, whatever is replayed.

use std::time::Duration;

use dormouse_core::run::{Phase, Status};

use super::setting::*;
use super::support::park_idle;

#[tokio::test(flavor = "multi_thread")]
async fn each_line_is_kept_once_with_its_level_its_step_and_its_fields() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let run = running.invoke("steps/log", "{}").await;
        // In the middle another life of the server takes the run up.
        running
            .until(run, "asleep", |run| run.state.phase == Some(Phase::Sleeping))
            .await;
        clock.advance(Duration::from_secs(1));
        running
            .until(run, "between attempts", |run| {
                run.state.phase == Some(Phase::BackingOff)
            })
            .await;
        let running = running.restart(park_idle, tuning(&clock)).await;
        let ended = run_out(&running, &clock, run).await;
        assert_eq!(ended.state.status, Status::Completed, "{ended:#?}");
        let lines = running
            .server
            .app()
            .store()
            .logs(run, 0, 100)
            .await
            .expect("read");
        let told: Vec<_> = lines
            .iter()
            .map(|line| {
                let fields = line.fields.as_ref().map(|fields| fields.as_str());
                (
                    line.number,
                    line.level.as_str(),
                    line.step.as_deref(),
                    line.message.as_str(),
                    fields,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (0, "info", None, "begins", None),
                (1, "warn", None, "slept", Some(r#"{"naps":1}"#)),
                (2, "info", Some("body"), "attempt 1", None),
                (3, "info", Some("body"), "attempt 2", None),
                (4, "info", None, "awake", None),
                (5, "info", None, "ends", None),
            ]
        );
        assert!(lines.is_sorted_by_key(|line| line.at), "{lines:?}");
    }
}

/// What a later release brings is an error that the function can tell from others, and no trap.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_yet_answers_as_data() {
    let (running, clock) = start(park_idle()).await;
    let run = running.invoke("steps/reveal", "{}").await;
    let ended = run_out(&running, &clock, run).await;
    assert_eq!(
        output(&ended),
        serde_json::json!({ "reveal": "not-supported", "hmac": "not-supported" })
    );
}
