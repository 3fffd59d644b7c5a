//! `send_events`: once, with the entry; what is wrong is data.

use std::time::Duration;

use dormouse_core::EventId;
use dormouse_core::run::{Phase, Status};
use serde_json::{Value, json};

use super::{PARKING, START, output, runs_of, start};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_sends_is_stored_and_starts_runs() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let later = START.as_millis() + 60_000;
        let events = json!({"events": [
            {"name": "steps/echo", "data": {"n": 1}},
            {"name": "steps/nobody", "data": {}},
            {"name": "steps/echo", "data": {"n": 2}, "ts": later},
            {"name": "steps/echo", "data": {"n": 3}, "id": "own"},
            {"name": "steps/echo", "data": {"n": 4}, "id": "own"},
        ]});
        let run = running.invoke("steps/send", &events.to_string()).await;
        let run = running.settled(run).await;
        let ids = output(&run)["ids"].as_array().expect("ids").clone();
        assert_eq!(ids.len(), 5);
        for (id, sent) in ids.iter().zip(events["events"].as_array().expect("events")) {
            let id: EventId = id.as_str().expect("a text").parse().expect("an id");
            let stored = running
                .server
                .app()
                .store()
                .event(id)
                .await
                .expect("reads")
                .expect("is there");
            assert_eq!(stored.name, sent["name"].as_str().expect("a name"));
        }
        // The second with the sender's own id starts nothing; the future one waits for its time.
        let mut done = Vec::new();
        for run in runs_of(&running, "echo").await {
            if run.state.phase == Some(Phase::Sleeping) {
                assert_eq!(run.queued_at.as_millis(), later);
                clock.advance(Duration::from_secs(60));
            }
            done.push(output(&running.settled(run.id).await)["n"].clone());
        }
        done.sort_by_key(Value::to_string);
        assert_eq!(done, [json!(1), json!(2), json!(3)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_send_nothing_again() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let run = running.invoke("steps/send-between", "{}").await;
        running
            .until(run, "asleep", |run| run.state.phase == Some(Phase::Sleeping))
            .await;
        assert_eq!(runs_of(&running, "echo").await.len(), 2);
        clock.advance(Duration::from_secs(3600));
        let ids = output(&running.settled(run).await);
        let ids: Vec<&str> = ids
            .as_array()
            .expect("three lists")
            .iter()
            .map(|ids| ids[0].as_str().expect("an id"))
            .collect();
        assert!(
            ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2],
            "{ids:?}"
        );
        let echoes = runs_of(&running, "echo").await;
        assert_eq!(echoes.len(), 3);
        for echo in echoes {
            assert!(ids.contains(&echo.event_id.to_string().as_str()));
            running.settled(echo.id).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_is_sent_all_the_same() {
    for park_idle in PARKING {
        let (running, _clock) = start(park_idle).await;
        let run = running.invoke("steps/give-up-sending", "{}").await;
        // The body comes to its end while the sending is on its way, so that is given up.
        assert_eq!(output(&running.settled(run).await), "body");
        assert_eq!(runs_of(&running, "echo").await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_event_is_a_failure_as_data_and_sends_nothing() {
    let (running, _clock) = start(super::support::park_idle()).await;
    let good = json!({"name": "steps/echo", "data": {}});
    for (bad, code, word) in [
        (json!({"name": "", "data": {}}), "invalid-event", "empty"),
        (json!({"name": "Dormouse/x"}), "invalid-event", "reserved"),
        (json!({"name": "x".repeat(513)}), "invalid-event", "512"),
        (json!({"name": "a", "data": 7}), "invalid-event", "object"),
        (json!(7), "invalid-event", "event 1"),
    ] {
        let data = json!({ "events": [good, bad] }).to_string();
        let run = running.invoke("steps/send", &data).await;
        let answer = output(&running.settled(run).await);
        assert_eq!(answer["code"], code, "{answer}");
        assert!(
            answer["message"].as_str().expect("a text").contains(word),
            "{answer}"
        );
    }
    let many = json!({ "events": vec![json!({"name": "a"}); 5_001] }).to_string();
    let run = running.invoke("steps/send", &many).await;
    assert_eq!(output(&running.settled(run).await)["code"], "too-many-events");
    assert_eq!(runs_of(&running, "echo").await.len(), 0, "all or nothing");
    let run = running.invoke("steps/send", r#"{"events":[]}"#).await;
    let run = running.settled(run).await;
    assert_eq!(
        (run.state.status, output(&run)),
        (Status::Completed, json!({"ids": []}))
    );
}
