//! Flow control on a whole server, in virtual time: what functions say of how their runs start, from their manifests on.

mod support;

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::flow::Decision;
use dormouse_core::{EventId, RunId, Timestamp};
use dormouse_server::clock::SimClock;
use dormouse_server::{Options, Server, Tuning};
use dormouse_store::read::Decided;
use serde_json::{Value, json};
use support::{Running, park_idle};
use tokio_util::sync::CancellationToken;

const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn tuning(clock: &SimClock) -> Tuning {
    Tuning {
        clock: Arc::new(clock.clone()),
        ..Tuning::default()
    }
}

async fn start() -> (Running, SimClock) {
    let clock = SimClock::new(START);
    let running = Running::start("", park_idle(), tuning(&clock)).await;
    running.deploy("flow", "flow").await;
    (running, clock)
}

/// The server ends and another begins on the same data.
async fn restart(running: Running, clock: &SimClock) -> Running {
    let Running { server, dir } = running;
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    server.run(shutdown).await.expect("it ends");
    let options = Options {
        park_idle: park_idle(),
        ..Options::new(dir.path().join("data"))
    };
    let server = Server::start(options, tuning(clock))
        .await
        .expect("it starts again");
    Running { server, dir }
}

async fn send(running: &Running, name: &str, data: Value) -> (EventId, Option<RunId>) {
    let event = json!({ "name": name, "data": data }).to_string();
    let sent = running
        .server
        .app()
        .send_events(&[&event], None)
        .await
        .expect("sent");
    (sent.ids[0], sent.runs.first().copied())
}

async fn decisions(running: &Running, event: EventId) -> Vec<Decided> {
    let store = running.server.app().store();
    store.decisions(event).await.expect("reads")
}

#[tokio::test(flavor = "multi_thread")]
async fn events_over_the_rate_start_nothing_and_say_why() {
    let (running, clock) = start().await;
    for _ in 0..2 {
        let (_, run) = send(&running, "flow/rate", json!({"user": "ann"})).await;
        running.settled(run.expect("within the rate")).await;
    }
    let (event, run) = send(&running, "flow/rate", json!({"user": "ann"})).await;
    assert_eq!(run, None);
    let stored = running.server.app().store().event(event).await.expect("reads");
    assert!(stored.is_some(), "the event is kept");
    let kept = decisions(&running, event).await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0].decision, Decision::RateLimited);
    assert_eq!(
        kept[0].detail,
        format!(
            "the rate limit of 2 per 1m for \"ann\" is used up; the next one may start at {}",
            START.after(Duration::from_secs(30))
        )
    );
    assert!(
        send(&running, "flow/rate", json!({"user": "bob"}))
            .await
            .1
            .is_some(),
        "another key"
    );

    // What is used up stays so over a restart.
    clock.advance(Duration::from_millis(29_999));
    let running = restart(running, &clock).await;
    assert_eq!(send(&running, "flow/rate", json!({"user": "ann"})).await.1, None);
    clock.advance(Duration::from_millis(1));
    assert!(
        send(&running, "flow/rate", json!({"user": "ann"}))
            .await
            .1
            .is_some()
    );

    // Who asks for the function by name is told.
    let function = "flow/rate-limited".parse().expect("a name");
    let data = dormouse_core::Json::parse(r#"{"user":"ann"}"#).expect("JSON");
    let refused = running
        .server
        .app()
        .invoke(&function, data)
        .await
        .expect_err("refused");
    assert_eq!(
        (refused.status, refused.code, refused.retry_after),
        (429, "rate-limited", Some(30))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_value_starts_a_function_once_a_day() {
    let (running, clock) = start().await;
    let first = send(&running, "flow/once", json!({"order": 7}))
        .await
        .1
        .expect("the first");
    let (event, run) = send(&running, "flow/once", json!({"order": 7, "again": true})).await;
    assert_eq!(run, None);
    let kept = decisions(&running, event).await;
    assert_eq!(
        (kept[0].decision, kept[0].run),
        (Decision::Idempotent, Some(first))
    );
    for data in [
        json!({"order": "7"}),
        json!({"order": 8}),
        json!({}),
        json!({}),
        json!({"order": null}),
    ] {
        assert!(
            send(&running, "flow/once", data.clone()).await.1.is_some(),
            "{data}"
        );
    }
    let function = "flow/once".parse().expect("a name");
    let data = dormouse_core::Json::parse(r#"{"order":7}"#).expect("JSON");
    let refused = running
        .server
        .app()
        .invoke(&function, data)
        .await
        .expect_err("refused");
    assert_eq!((refused.status, refused.code), (409, "already-started"));
    assert!(refused.message.contains(&first.to_string()), "{refused:?}");
    clock.advance(DAY);
    assert!(
        send(&running, "flow/once", json!({"order": 7})).await.1.is_some(),
        "a day later"
    );
}
