//! Functions of which one run is there at a time, on a whole server in virtual time: whatever starts them, and over restarts.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dormouse_core::flow::Decision;
use dormouse_core::run::{Phase, Status};
use dormouse_core::{EventId, FunctionName, Json, RunId, Timestamp};
use dormouse_server::Tuning;
use dormouse_server::clock::{Clock as _, SimClock};
use dormouse_store::read::{Run, RunFilter};
use serde_json::{Value, json};
use support::{Running, park_idle};

/// On the hour.
const START: Timestamp = Timestamp::from_millis(1_789_999_200_000);

fn tuning(clock: &SimClock) -> Tuning {
    Tuning {
        clock: Arc::new(clock.clone()),
        ..Tuning::default()
    }
}

async fn start(park: Duration) -> (Running, SimClock) {
    // One millisecond after a tick: the next is an hour away.
    let clock = SimClock::new(START.after(Duration::from_millis(1)));
    let running = Running::start("", park, tuning(&clock)).await;
    running.deploy("alone", "alone").await;
    (running, clock)
}

/// Sends an event. Answers with its id, and its run if it has started one.
async fn send(running: &Running, name: &str, data: Value) -> (EventId, Option<RunId>) {
    let event = json!({ "name": format!("alone/{name}"), "data": data }).to_string();
    let sent = running.server.app().send_events(&[&event], None).await;
    let sent = sent.expect("sent");
    (sent.ids[0], sent.runs.first().copied())
}

/// Sends an event that starts a run.
async fn starts(running: &Running, name: &str, data: Value) -> RunId {
    send(running, name, data).await.1.expect("it starts a run")
}

/// Sends an event that starts none, since a run lives.
async fn is_skipped(running: &Running, name: &str, data: Value, living: RunId) {
    let (event, run) = send(running, name, data).await;
    assert_eq!(run, None);
    let decisions = running
        .server
        .app()
        .store()
        .decisions(event)
        .await
        .expect("reads");
    let [decided] = &decisions[..] else {
        panic!("{decisions:?}");
    };
    assert_eq!((decided.decision, decided.run), (Decision::Skipped, Some(living)));
}

async fn sleeps(running: &Running, run: RunId) {
    running
        .until(run, "sleeping", |run| run.state.phase == Some(Phase::Sleeping))
        .await;
}

async fn is_cancelled(running: &Running, run: RunId, by: RunId) {
    let found = running.settled(run).await;
    assert_eq!(found.state.status, Status::Cancelled);
    let reason = found.reason.expect("a reason");
    assert!(reason.contains(&format!("by run {by}")), "{reason}");
}

fn output(run: &Run) -> Value {
    assert_eq!(run.state.status, Status::Completed, "{run:#?}");
    run.output.as_ref().expect("an output").read().expect("JSON")
}

/// The runs of a function, newest first.
async fn runs(running: &Running, function: &str) -> Vec<Run> {
    let filter = RunFilter {
        module: Some("alone".to_owned()),
        function: Some(function.to_owned()),
        limit: 100,
        ..RunFilter::default()
    };
    running.server.app().store().runs(filter).await.expect("reads")
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn skips(park: Duration) {
    let (running, clock) = start(park).await;
    let ann = || json!({"user": "ann"});
    let first = starts(&running, "skipping", ann()).await;
    is_skipped(&running, "skipping", ann(), first).await;
    sleeps(&running, first).await;
    is_skipped(&running, "skipping", ann(), first).await;
    let bobs = starts(&running, "skipping", json!({"user": "bob"})).await;
    // Over a restart, and while it is paused.
    let running = running.restart(park, tuning(&clock)).await;
    is_skipped(&running, "skipping", ann(), first).await;
    running.server.app().pause(first).await.expect("paused");
    clock.advance(seconds(60));
    assert_eq!(output(&running.settled(bobs).await), json!({"user": "bob"}));
    is_skipped(&running, "skipping", ann(), first).await;
    running.server.app().resume(first).await.expect("resumed");
    running.settled(first).await;
    let second = starts(&running, "skipping", ann()).await;
    // One that is meant for later is there from its creation on.
    running.server.app().cancel(second).await.expect("cancelled");
    let ts = clock.now().after(seconds(3_000)).as_millis();
    let event = json!({"name": "alone/skipping", "data": {"user": "ann"}, "ts": ts}).to_string();
    let sent = running
        .server
        .app()
        .send_events(&[&event], None)
        .await
        .expect("sent");
    is_skipped(&running, "skipping", ann(), sent.runs[0]).await;
    assert_eq!(running.run(sent.runs[0]).await.state.status, Status::Scheduled);
    assert_eq!(runs(&running, "skipping").await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_starts_nothing_while_a_run_of_its_key_lives() {
    skips(Duration::ZERO).await;
    skips(Duration::from_secs(5)).await;
}

async fn replaces(park: Duration) {
    let (running, clock) = start(park).await;
    let event = |n: u32| json!({"user": "ann", "n": n});
    let first = starts(&running, "latest", event(1)).await;
    sleeps(&running, first).await;
    let second = starts(&running, "latest", event(2)).await;
    is_cancelled(&running, first, second).await;
    sleeps(&running, second).await;
    let bobs = starts(&running, "latest", json!({"user": "bob"})).await;
    let running = running.restart(park, tuning(&clock)).await;
    let third = starts(&running, "latest", event(3)).await;
    is_cancelled(&running, second, third).await;
    sleeps(&running, third).await;
    sleeps(&running, bobs).await;
    clock.advance(seconds(10));
    assert_eq!(output(&running.settled(third).await), event(3));
    assert_eq!(output(&running.settled(bobs).await), json!({"user": "bob"}));
    // Many at once, in one request: the last is left, and the others were never begun.
    let many: Vec<String> = (4..24)
        .map(|n| json!({"name": "alone/latest", "data": event(n)}).to_string())
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let sent = running.server.app().send_events(&many, None).await.expect("sent");
    assert_eq!(sent.runs.len(), 20);
    for (place, run) in sent.runs[..19].iter().enumerate() {
        is_cancelled(&running, *run, sent.runs[place + 1]).await;
        assert_eq!(running.run(*run).await.started_at, None);
    }
    sleeps(&running, sent.runs[19]).await;
    clock.advance(seconds(10));
    assert_eq!(output(&running.settled(sent.runs[19]).await), event(23));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_takes_the_place_of_the_run_before() {
    replaces(Duration::ZERO).await;
    replaces(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_debounce_what_runs_is_cancelled_when_the_next_window_opens() {
    let (running, clock) = start(park_idle()).await;
    let event = |n: u32| json!({"user": "ann", "n": n});
    let first = starts(&running, "settled", event(1)).await;
    clock.advance(seconds(4));
    assert_eq!(starts(&running, "settled", event(2)).await, first);
    clock.advance(seconds(5));
    sleeps(&running, first).await;
    let second = starts(&running, "settled", event(3)).await;
    is_cancelled(&running, first, second).await;
    assert_eq!(starts(&running, "settled", event(4)).await, second);
    clock.advance(seconds(5));
    sleeps(&running, second).await;
    clock.advance(seconds(10));
    assert_eq!(output(&running.settled(second).await), event(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_is_left_out_while_a_run_lives_and_says_so() {
    let (running, clock) = start(park_idle()).await;
    clock.advance(seconds(3_000));
    let by_event = starts(&running, "only", json!({})).await;
    sleeps(&running, by_event).await;
    clock.advance(seconds(600));
    let name: FunctionName = "alone/only".parse().expect("a name");
    let deadline = Instant::now() + Duration::from_secs(60);
    let skipped = loop {
        let schedules = running.server.app().schedules().await.expect("lists");
        let mut of = schedules
            .into_iter()
            .filter(|state| state.active.function == name);
        if let Some(skipped) = of.next().and_then(|state| state.skipped) {
            break skipped;
        }
        assert!(Instant::now() < deadline, "the tick was never left out");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(skipped.tick, START.after(seconds(3_600)));
    assert_eq!(
        skipped.reason,
        format!("its run was not started (skipped); run {by_event} has not ended")
    );
    clock.advance(seconds(1_200));
    running.settled(by_event).await;
    clock.advance(seconds(2_400));
    let deadline = Instant::now() + Duration::from_secs(60);
    while runs(&running, "only").await.len() < 2 {
        assert!(Instant::now() < deadline, "the next tick never began");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn called(running: &Running, function: &str, data: Value) -> RunId {
    let data = json!({"function": function, "data": data});
    starts(running, "caller", data).await
}

async fn invokes(park: Duration) {
    let (running, clock) = start(park).await;
    let ann = || json!({"user": "ann"});
    let living = starts(&running, "skipping", ann()).await;
    let caller = called(&running, "skipping", ann()).await;
    assert_eq!(
        output(&running.settled(caller).await),
        json!({"code": "invoke-skipped"})
    );
    let free = called(&running, "skipping", json!({"user": "bob"})).await;
    sleeps(&running, living).await;
    let bobs = running
        .until(free, "waiting", |run| run.state.phase == Some(Phase::Waiting))
        .await;
    let mut children = runs(&running, "skipping").await;
    children.retain(|run| run.parent == Some(bobs.id));
    let child = children.pop().expect("it was invoked");
    is_skipped(&running, "skipping", json!({"user": "bob"}), child.id).await;
    sleeps(&running, child.id).await;
    clock.advance(seconds(10));
    assert_eq!(
        output(&running.settled(free).await),
        json!({"output": {"user": "bob"}})
    );
    // Who waits for one that makes room is told so.
    let caller = called(&running, "latest", ann()).await;
    running
        .until(caller, "waiting", |run| run.state.phase == Some(Phase::Waiting))
        .await;
    let child = runs(&running, "latest").await.remove(0).id;
    let next = starts(&running, "latest", ann()).await;
    is_cancelled(&running, child, next).await;
    assert_eq!(
        output(&running.settled(caller).await),
        json!({"code": "invoke-cancelled"})
    );
    let inward = starts(&running, "inward", json!({})).await;
    assert_eq!(
        output(&running.settled(inward).await),
        json!({"code": "invoke-skipped"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_invokes_one_has_the_answer_and_never_waits_in_vain() {
    invokes(Duration::ZERO).await;
    invokes(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_one_by_name_is_told_that_another_lives() {
    let (running, clock) = start(park_idle()).await;
    let app = running.server.app();
    let living = running.invoke("alone/skipping", r#"{"user":"ann"}"#).await;
    let name: FunctionName = "alone/skipping".parse().expect("a name");
    let data = || Json::parse(r#"{"user":"ann"}"#).expect("JSON");
    let refused = app.invoke(&name, data()).await.expect_err("another lives");
    assert_eq!(
        (refused.status, refused.code),
        (409, "already-running"),
        "{refused:?}"
    );
    assert!(refused.message.contains(&living.to_string()), "{refused:?}");
    let refused = app.rerun(living, None, None).await.expect_err("it lives");
    assert_eq!(
        (refused.status, refused.code),
        (409, "already-running"),
        "{refused:?}"
    );
    sleeps(&running, living).await;
    clock.advance(seconds(10));
    running.settled(living).await;
    let (again, _) = app.rerun(living, None, None).await.expect("it is done once more");
    is_skipped(&running, "skipping", json!({"user": "ann"}), again).await;
    // Where the last one stays, a rerun is the last.
    let first = starts(&running, "latest", json!({"user": "ann"})).await;
    let (again, _) = app.rerun(first, None, None).await.expect("it is done once more");
    is_cancelled(&running, first, again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_events_that_a_run_sends_the_first_or_the_last_has_a_run() {
    let (running, clock) = start(park_idle()).await;
    let sender = starts(&running, "sender", json!({"n": 5})).await;
    assert_eq!(output(&running.settled(sender).await), json!(5));
    let first = runs(&running, "skipping").await;
    assert_eq!(first.len(), 1);
    sleeps(&running, first[0].id).await;
    let sender = starts(&running, "sender", json!({"n": 5, "name": "alone/latest"})).await;
    assert_eq!(output(&running.settled(sender).await), json!(5));
    let latest = runs(&running, "latest").await;
    let cancelled = latest.iter().filter(|run| run.state.status == Status::Cancelled);
    assert_eq!((latest.len(), cancelled.count()), (5, 4));
    let last = latest
        .iter()
        .find(|run| run.state.status != Status::Cancelled)
        .expect("one lives")
        .id;
    sleeps(&running, last).await;
    clock.advance(seconds(10));
    assert_eq!(
        output(&running.settled(first[0].id).await),
        json!({"user": "sent", "n": 0})
    );
    assert_eq!(
        output(&running.settled(last).await),
        json!({"user": "sent", "n": 4})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_paused_function_holds_counts() {
    let (running, clock) = start(park_idle()).await;
    let app = running.server.app();
    let name: FunctionName = "alone/latest".parse().expect("a name");
    app.pause_function(&name).await.expect("paused");
    let event = |n: u32| json!({"user": "ann", "n": n});
    let mut last = starts(&running, "latest", event(0)).await;
    for n in 1..4 {
        let next = starts(&running, "latest", event(n)).await;
        is_cancelled(&running, last, next).await;
        last = next;
    }
    app.resume_function(&name).await.expect("resumed");
    sleeps(&running, last).await;
    clock.advance(seconds(10));
    assert_eq!(output(&running.settled(last).await), event(3));
}
