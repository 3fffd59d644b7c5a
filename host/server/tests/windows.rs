//! Events that start one run together, on a whole server in virtual time: debounces and batches, over restarts.

mod support;

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::run::{Phase, Status};
use dormouse_core::{EventId, RunId, Timestamp};
use dormouse_server::Tuning;
use dormouse_server::clock::SimClock;
use dormouse_server::preflight::Candidate;
use dormouse_store::read::{Run, RunFilter};
use serde_json::{Value, json};
use support::{Running, park_idle};

const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn tuning(clock: &SimClock) -> Tuning {
    Tuning {
        clock: Arc::new(clock.clone()),
        ..Tuning::default()
    }
}

async fn start(park: Duration) -> (Running, SimClock) {
    let clock = SimClock::new(START);
    let running = Running::start("", park, tuning(&clock)).await;
    running.deploy("windows", "windows").await;
    (running, clock)
}

/// Answers with the event's id, and the run that it has a part in.
async fn send(running: &Running, name: &str, data: Value) -> (EventId, RunId) {
    let event = json!({ "name": format!("windows/{name}"), "data": data }).to_string();
    let sent = running.server.app().send_events(&[&event], None).await;
    let sent = sent.expect("sent");
    (sent.ids[0], sent.runs[0])
}

fn output(run: &Run) -> Value {
    let output = run.output.as_ref().expect("an output");
    output.read().expect("JSON")
}

/// The runs of a function, newest first.
async fn runs(running: &Running, function: &str) -> Vec<Run> {
    let filter = RunFilter {
        module: Some("windows".to_owned()),
        function: Some(function.to_owned()),
        limit: 100,
        ..RunFilter::default()
    };
    let store = running.server.app().store();
    store.runs(filter).await.expect("reads")
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn debounces(park: Duration) {
    let (running, clock) = start(park).await;
    let (_, run) = send(&running, "debounced", json!({"user": "ann", "n": 1})).await;
    assert_eq!(running.run(run).await.state.phase, Some(Phase::Limited));
    clock.advance(seconds(9));
    let (last, joined) = send(&running, "debounced", json!({"user": "ann", "n": 2})).await;
    assert_eq!(joined, run);
    let (_, bobs) = send(&running, "debounced", json!({"user": "bob", "n": 3})).await;
    assert_ne!(bobs, run, "another key");
    // It would have started now; it is put off over a restart.
    let running = running.restart(park, tuning(&clock)).await;
    clock.advance(seconds(9));
    assert_eq!(running.run(run).await.state.phase, Some(Phase::Limited));
    clock.advance(seconds(1));
    for run in [run, bobs] {
        running
            .until(run, "sleeping", |run| run.state.phase == Some(Phase::Sleeping))
            .await;
    }
    clock.advance(seconds(1));
    let ended = running.settled(run).await;
    assert_eq!(
        (ended.event_id, output(&ended)),
        (last, json!({"user": "ann", "n": 2}))
    );
    running.settled(bobs).await;
    let (_, next) = send(&running, "debounced", json!({"user": "ann", "n": 4})).await;
    assert_ne!(next, run);
    // One that came due while the server was down begins when it is up again.
    let clock_of_the_next = SimClock::new(START.after(seconds(3_600)));
    let running = running.restart(park, tuning(&clock_of_the_next)).await;
    running
        .until(next, "sleeping", |run| run.state.phase == Some(Phase::Sleeping))
        .await;
    clock_of_the_next.advance(seconds(1));
    assert_eq!(
        output(&running.settled(next).await),
        json!({"user": "ann", "n": 4})
    );
    assert_eq!(runs(&running, "debounced").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debounce_starts_once_with_the_last_event_over_restarts() {
    debounces(Duration::ZERO).await;
    debounces(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debounce_ends_at_its_timeout_and_takes_its_turn_in_a_throttle() {
    let (running, clock) = start(park_idle()).await;
    let (_, first) = send(&running, "hurried", json!({"n": 0})).await;
    for n in 1..5 {
        clock.advance(seconds(6));
        assert_eq!(send(&running, "hurried", json!({"n": n})).await.1, first);
    }
    clock.advance(seconds(1));
    assert_eq!(output(&running.settled(first).await), json!({"n": 4}));
    let (_, second) = send(&running, "hurried", json!({"n": 5})).await;
    clock.advance(seconds(10));
    let throttled = |run: &Run| {
        run.reason
            .as_ref()
            .is_some_and(|reason| reason.contains("throttled"))
    };
    running.until(second, "throttled", throttled).await;
    let (_, third) = send(&running, "hurried", json!({"n": 6})).await;
    assert_ne!(third, second, "its window is over");
    clock.advance(seconds(50));
    assert_eq!(output(&running.settled(second).await), json!({"n": 5}));
}

async fn batches(park: Duration) {
    let (running, clock) = start(park).await;
    let mut of = Vec::new();
    for n in 0..4 {
        let (_, run) = send(&running, "batched", json!({"shop": "a", "n": n})).await;
        of.push(run);
    }
    assert_eq!([of[1], of[2]], [of[0]; 2]);
    assert_ne!(of[3], of[0]);
    running
        .until(of[0], "sleeping", |run| run.state.phase == Some(Phase::Sleeping))
        .await;
    clock.advance(seconds(1));
    let ended = running.settled(of[0]).await;
    assert_eq!(
        output(&ended),
        json!({"first": 0, "numbers": [0, 1, 2], "again": [0, 1, 2]})
    );
    // Half full, over a restart.
    let (_, joined) = send(&running, "batched", json!({"shop": "a", "n": 4})).await;
    assert_eq!(joined, of[3]);
    let running = running.restart(park, tuning(&clock)).await;
    clock.advance(seconds(20));
    running
        .until(of[3], "sleeping", |run| run.state.phase == Some(Phase::Sleeping))
        .await;
    // The journal is replayed with the same events.
    let running = running.restart(park, tuning(&clock)).await;
    clock.advance(seconds(1));
    let ended = running.settled(of[3]).await;
    assert_eq!(
        output(&ended),
        json!({"first": 3, "numbers": [3, 4], "again": [3, 4]})
    );
    // A rerun has them all, too.
    let rerun = running.server.app().rerun(of[3], None, None).await;
    let again = rerun.expect("it is done again").0;
    running
        .until(again, "sleeping", |run| run.state.phase == Some(Phase::Sleeping))
        .await;
    clock.advance(seconds(1));
    assert_eq!(output(&running.settled(again).await), output(&ended));
    // What its condition leaves out has a run of its own, as has what is invoked.
    let (_, alone) = send(&running, "batched", json!({"shop": "a", "n": -1})).await;
    let invoked = running
        .invoke("windows/batched", r#"{"shop": "a", "n": 7}"#)
        .await;
    for (run, n) in [(alone, -1), (invoked, 7)] {
        let sleeps = |run: &Run| run.state.phase == Some(Phase::Sleeping) || run.state.status.is_terminal();
        running.until(run, "sleeping", sleeps).await;
        clock.advance(seconds(1));
        assert_eq!(output(&running.settled(run).await)["numbers"], json!([n]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_starts_with_all_its_events_over_restarts() {
    batches(Duration::ZERO).await;
    batches(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_a_run_sends_fill_batches() {
    let (running, clock) = start(park_idle()).await;
    let (_, relay) = send(&running, "relay", json!({"n": 7})).await;
    running.settled(relay).await;
    let mut found = Vec::new();
    for _ in 0..2 {
        clock.advance(seconds(20));
        found = runs(&running, "batched").await;
        assert_eq!(found.len(), 3, "{found:?}");
        for run in &found {
            running
                .until(run.id, "begun", |run| run.state.phase != Some(Phase::Limited))
                .await;
        }
    }
    clock.advance(seconds(5));
    let mut numbers = Vec::new();
    for run in found {
        let ended = running.settled(run.id).await;
        assert_eq!(ended.state.status, Status::Completed);
        let output = output(&ended);
        numbers.extend(
            output["numbers"]
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(Value::as_u64),
        );
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6]);
}

/// A preflight gives a run what its own version gave it: all events of its batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_replays_a_batch_with_all_its_events() {
    let (running, clock) = start(park_idle()).await;
    let mut full = None;
    for n in 0..3 {
        full = Some(send(&running, "batched", json!({"shop": "a", "n": n})).await.1);
    }
    let full = full.expect("a run");
    running
        .until(full, "sleeping", |run| run.state.phase == Some(Phase::Sleeping))
        .await;
    let (_, open) = send(&running, "batched", json!({"shop": "b", "n": 1})).await;
    assert_eq!(running.run(open).await.state.phase, Some(Phase::Limited));
    // The same code under another digest: with a section that says nothing.
    let mut same = support::component("windows").to_vec();
    same.extend([0, 2, 1, b'x']);
    let candidate = Candidate::Component(same.into());
    let looked = running.server.app().preflight("windows", candidate, 10).await;
    let looked = looked.expect("looks");
    let tally = looked.report.tally();
    assert_eq!((tally.unchanged, tally.checked()), (2, 2), "{looked:#?}");
    // It began nothing: the window is still open, and the other run ends as it would have.
    assert_eq!(running.run(open).await.state.phase, Some(Phase::Limited));
    clock.advance(seconds(1));
    assert_eq!(output(&running.settled(full).await)["numbers"], json!([0, 1, 2]));
}
