//! Flow control on a whole server, in virtual time: what functions say of how their runs start, from their manifests on.

mod support;

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::flow::Decision;
use dormouse_core::run::{Phase, State, Status};
use dormouse_core::{EventId, RunId, Timestamp};
use dormouse_server::clock::{Clock as _, SimClock};
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

#[tokio::test(flavor = "multi_thread")]
async fn throttled_runs_begin_in_turn_also_over_a_restart() {
    let (running, clock) = start().await;
    let mut runs = Vec::new();
    for _ in 0..4 {
        let (_, run) = send(&running, "flow/throttle", json!({"user": "ann"})).await;
        runs.push(run.expect("a throttle drops nothing"));
    }
    running.settled(runs[0]).await;
    for (number, run) in runs.iter().enumerate().skip(1) {
        let found = running.run(*run).await;
        let turn = START.after(Duration::from_secs(10 * number as u64));
        assert_eq!(found.state, State::live(Status::Scheduled, Phase::Limited));
        assert_eq!(found.wake_at, Some(turn));
        assert_eq!(
            found.reason,
            Some(format!("throttled to 6 per 1m for \"ann\": begins at {turn}"))
        );
    }
    let (_, other) = send(&running, "flow/throttle", json!({"user": "bob"})).await;
    running.settled(other.expect("another key")).await;
    clock.advance(Duration::from_secs(10));
    running.settled(runs[1]).await;
    assert_eq!(running.run(runs[2]).await.state.phase, Some(Phase::Limited));

    // The server was down when the third and the fourth had their turns: they do not begin together.
    let running = restart(running, &clock).await;
    let running = {
        let Running { server, dir } = running;
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        server.run(shutdown).await.expect("it ends");
        clock.advance(Duration::from_secs(600));
        let options = Options {
            park_idle: Duration::ZERO,
            ..Options::new(dir.path().join("data"))
        };
        let server = Server::start(options, tuning(&clock))
            .await
            .expect("it starts again");
        Running { server, dir }
    };
    running.settled(runs[2]).await;
    let held = running
        .until(runs[3], "held back again", |run| {
            run.wake_at == Some(START.after(Duration::from_secs(620)))
        })
        .await;
    assert_eq!(held.state.phase, Some(Phase::Limited));
    clock.advance(Duration::from_secs(10));
    running.settled(runs[3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_cancelled_or_paused_leaves_its_turn_to_the_next() {
    let (running, clock) = start().await;
    let app = running.server.app();
    let mut runs = Vec::new();
    for _ in 0..6 {
        let (_, run) = send(&running, "flow/throttle", json!({"user": "ann"})).await;
        runs.push(run.expect("a throttle drops nothing"));
    }
    running.settled(runs[0]).await;
    app.cancel(runs[1]).await.expect("cancels");
    app.pause(runs[3]).await.expect("pauses");
    for run in [runs[2], runs[4], runs[5]] {
        let turn = clock.now().after(Duration::from_secs(10));
        running
            .until(run, "first in line", |run| run.wake_at == Some(turn))
            .await;
        clock.advance(Duration::from_secs(10));
        running.settled(run).await;
    }
    // Resumed when the rate allows no more at once, it waits for that.
    assert_eq!(
        app.resume(runs[3]).await.expect("resumes"),
        State::live(Status::Scheduled, Phase::Limited)
    );
    let turn = clock.now().after(Duration::from_secs(10));
    running
        .until(runs[3], "in line again", |run| run.wake_at == Some(turn))
        .await;
    clock.advance(Duration::from_secs(10));
    let ended = running.settled(runs[3]).await;
    assert_eq!(ended.started_at, Some(turn));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_paused_function_held_keeps_to_its_throttle_also_over_a_restart() {
    let (running, clock) = start().await;
    let function = "flow/throttled".parse().expect("a name");
    running
        .server
        .app()
        .pause_function(&function)
        .await
        .expect("pauses");
    let mut runs = Vec::new();
    for _ in 0..4 {
        let (_, run) = send(&running, "flow/throttle", json!({"user": "ann"})).await;
        let run = run.expect("created and held");
        clock.advance(Duration::from_millis(1));
        assert_eq!(running.run(run).await.state.phase, Some(Phase::Paused));
        runs.push(run);
    }
    clock.advance(Duration::from_secs(600));
    let mut running = restart(running, &clock).await;
    assert_eq!(running.run(runs[0]).await.state.phase, Some(Phase::Paused));
    running
        .server
        .app()
        .resume_function(&function)
        .await
        .expect("resumes");
    running.settled(runs[0]).await;
    for run in &runs[1..] {
        let turn = clock.now().after(Duration::from_secs(10));
        running
            .until(*run, "in line", |run| run.wake_at == Some(turn))
            .await;
        running = restart(running, &clock).await;
        clock.advance(Duration::from_secs(10));
        let ended = running.settled(*run).await;
        assert_eq!(
            (ended.state.status, ended.started_at),
            (Status::Completed, Some(turn))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_sends_is_throttled_too_and_begins_on_time() {
    let (running, clock) = start().await;
    let (_, relay) = send(&running, "flow/relay", json!({"n": 3})).await;
    running.settled(relay.expect("starts")).await;
    let filter = dormouse_store::read::RunFilter {
        module: Some("flow".to_owned()),
        function: Some("relayed".to_owned()),
        limit: 10,
        ..dormouse_store::read::RunFilter::default()
    };
    let runs = running.server.app().store().runs(filter).await.expect("lists");
    assert_eq!(runs.len(), 3);
    let mut held: Vec<_> = runs.iter().filter(|run| run.wake_at.is_some()).collect();
    held.sort_by_key(|run| run.wake_at);
    assert_eq!(held.len(), 2, "{runs:#?}");
    for run in held {
        clock.advance(Duration::from_secs(10));
        running.settled(run.id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_invokes_waits_in_line_and_leaves_it_when_it_is_given_up() {
    let (running, clock) = start().await;
    let (_, first) = send(&running, "flow/throttle", json!({"user": "ann"})).await;
    running.settled(first.expect("begins at once")).await;
    let mut asking = Vec::new();
    for _ in 0..2 {
        let (_, run) = send(&running, "flow/asks", json!({"user": "ann"})).await;
        let run = run.expect("starts");
        running
            .until(run, "waiting", |run| run.state.phase == Some(Phase::Waiting))
            .await;
        asking.push(run);
    }
    let of_throttled = dormouse_store::read::RunFilter {
        module: Some("flow".to_owned()),
        function: Some("throttled".to_owned()),
        phase: Some(Phase::Limited),
        limit: 10,
        ..dormouse_store::read::RunFilter::default()
    };
    let app = running.server.app();
    let children = app.store().runs(of_throttled).await.expect("lists");
    assert_eq!(children.len(), 2);
    let child = |of: RunId| {
        let found = children.iter().find(|run| run.parent == Some(of));
        found.expect("a child").id
    };
    // The first asks no more: what it has invoked is cancelled, and the second's is next.
    app.cancel(asking[0]).await.expect("cancels");
    let turn = START.after(Duration::from_secs(10));
    running
        .until(child(asking[1]), "next in line", |run| run.wake_at == Some(turn))
        .await;
    assert_eq!(
        running.settled(child(asking[0])).await.state.status,
        Status::Cancelled
    );
    clock.advance(Duration::from_secs(10));
    let ended = running.settled(asking[1]).await;
    assert_eq!(ended.state.status, Status::Completed);
    assert_eq!(
        ended.output.map(|output| output.to_string()),
        Some(r#"{"user":"ann"}"#.to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_priority_is_read_from_the_event_and_stops_nothing() {
    let (running, _clock) = start().await;
    for data in [json!({"vip": true}), json!({"vip": false}), json!({})] {
        let (_, run) = send(&running, "flow/urgent", data).await;
        running.settled(run.expect("starts")).await;
    }
}
