//! Functions that start by the clock, on whole servers with a real guest and in virtual time: ticks that overlap, ticks that
//! are missed, pauses, deploys and restarts.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dormouse_core::run::Status;
use dormouse_core::{FunctionName, Timestamp};
use dormouse_server::app::ScheduleState;
use dormouse_server::clock::{Clock as _, SimClock};
use dormouse_server::{Options, Server, Tuning};
use dormouse_store::read::{Run, RunFilter};
use serde_json::{Value, json};
use support::Running;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn time(text: &str) -> Timestamp {
    Timestamp::parse(&format!("2026-11-25T{text}Z")).expect("a time")
}

fn tuning(clock: &SimClock) -> Tuning {
    Tuning {
        clock: Arc::new(clock.clone()),
        ..Tuning::default()
    }
}

/// A server with the guest, at twenty past eight, and its clock.
async fn start() -> (Running, SimClock) {
    let clock = SimClock::new(time("08:20:00"));
    let running = Running::start("", Duration::ZERO, tuning(&clock)).await;
    running.deploy("cron", "cron").await;
    (running, clock)
}

async fn stop(running: Running) -> TempDir {
    let Running { server, dir } = running;
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    server.run(shutdown).await.expect("it ends");
    dir
}

async fn start_again(dir: TempDir, clock: &SimClock) -> Running {
    let options = Options {
        park_idle: Duration::ZERO,
        ..Options::new(dir.path().join("data"))
    };
    let server = Server::start(options, tuning(clock))
        .await
        .expect("it starts again");
    Running { server, dir }
}

fn move_to(clock: &SimClock, at: &str) {
    clock.advance(time(at).since(clock.now()));
}

async fn schedules(running: &Running, function: &str) -> Vec<ScheduleState> {
    let name: FunctionName = format!("cron/{function}").parse().expect("a name");
    let mut found = running.server.app().schedules().await.expect("lists");
    found.retain(|state| state.active.function == name);
    found
}

async fn schedule(running: &Running, function: &str) -> ScheduleState {
    let mut found = schedules(running, function).await;
    assert_eq!(found.len(), 1, "{function}");
    found.remove(0)
}

/// Waits until a function's one schedule is so.
async fn until(
    running: &Running,
    function: &str,
    what: &str,
    holds: impl Fn(&ScheduleState) -> bool,
) -> ScheduleState {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let found = schedule(running, function).await;
        if holds(&found) {
            return found;
        }
        let ScheduleState {
            next_at,
            waits_for,
            last,
            skipped,
            ..
        } = &found;
        assert!(
            Instant::now() < deadline,
            "{function} never {what}: {next_at:?} {waits_for:?} {last:?} {skipped:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a function's next tick begins at a time.
async fn until_next(running: &Running, function: &str, next: &str) -> ScheduleState {
    let what = format!("stood at {next}");
    until(running, function, &what, |state| {
        state.next_at == Some(time(next))
    })
    .await
}

/// All runs of a function with their ticks, in order of these.
async fn runs(running: &Running, function: &str) -> Vec<(Timestamp, Run)> {
    let store = running.server.app().store();
    let filter = RunFilter {
        module: Some("cron".to_owned()),
        function: Some(function.to_owned()),
        limit: 100,
        ..RunFilter::default()
    };
    let mut found = Vec::new();
    for run in store.runs(filter).await.expect("lists") {
        let event = store.event(run.event_id).await.expect("reads").expect("is there");
        assert_eq!(event.name, "dormouse/scheduled.timer");
        let payload: Value = event.payload.read().expect("JSON");
        let tick = payload["data"]["scheduled_at"].as_str().expect("a text");
        let tick = Timestamp::parse(tick).expect("a time");
        assert_eq!((event.ts, run.event_id.time()), (tick, tick));
        found.push((tick, run));
    }
    // Of one millisecond of virtual time, runs come in any order.
    found.sort_by_key(|(tick, _)| *tick);
    found
}

async fn ticks(running: &Running, function: &str) -> Vec<Timestamp> {
    let runs = runs(running, function).await;
    runs.into_iter().map(|(tick, _)| tick).collect()
}

fn times<const N: usize>(times: [&str; N]) -> Vec<Timestamp> {
    times.into_iter().map(time).collect()
}

fn skipped(state: &ScheduleState) -> Option<(Timestamp, &str)> {
    let skipped = state.skipped.as_ref()?;
    Some((skipped.tick, skipped.reason.as_str()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_starts_at_its_ticks_and_is_told_which() {
    let (running, clock) = start().await;
    let before = schedule(&running, "hourly").await;
    assert_eq!(before.next_at, Some(time("09:00:00")));
    assert_eq!(before.active.schedule.zone(), "Europe/Paris");
    move_to(&clock, "08:59:59.999");
    move_to(&clock, "09:00:00");
    let after = until_next(&running, "hourly", "10:00:00").await;
    let last = after.last.expect("it has ticked");
    assert_eq!(last.tick, time("09:00:00"));
    let run = running.settled(last.run).await;
    assert_eq!(run.state.status, Status::Completed, "{run:#?}");
    let output: Value = run.output.as_ref().expect("an output").read().expect("JSON");
    assert_eq!(
        output,
        json!({
            "timer": {"cron": "TZ=Europe/Paris 0 * * * *", "scheduled_at": "2026-11-25T09:00:00.000Z"},
            "ts": time("09:00:00").as_millis(),
            "name": "dormouse/scheduled.timer",
        })
    );
    for hour in 10..15 {
        move_to(&clock, &format!("{hour}:00:00"));
        let ticked = until_next(&running, "hourly", &format!("{}:00:00", hour + 1)).await;
        running.settled(ticked.last.expect("it has ticked").run).await;
    }
    let expected: Vec<Timestamp> = (9..15).map(|hour| time(&format!("{hour:02}:00:00"))).collect();
    assert_eq!(ticks(&running, "hourly").await, expected);
    // A run of it is done once more like any other.
    let again = running.server.app().rerun(last.run, None, None).await;
    let (again, _) = again.expect("it is done once more");
    let again = running.settled(again).await;
    assert_eq!(again.output, run.output);
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_that_overlap_are_left_out_wait_or_begin_all_the_same() {
    let (running, clock) = start().await;
    move_to(&clock, "09:00:00");
    for function in ["skips", "queues", "allows"] {
        let first = until_next(&running, function, "10:00:00").await.last;
        let run = first.expect("it has ticked").run;
        running
            .until(run, "asleep", |run| run.wake_at == Some(time("10:30:00")))
            .await;
    }
    move_to(&clock, "10:00:00");
    let skips = until_next(&running, "skips", "11:00:00").await;
    let reason = "the run of the tick before had not ended";
    assert_eq!(skipped(&skips), Some((time("10:00:00"), reason)));
    assert_eq!(skips.last.map(|last| last.tick), Some(time("09:00:00")));
    until_next(&running, "allows", "11:00:00").await;
    let waits = until(&running, "queues", "waited", |state| state.waits_for.is_some()).await;
    assert_eq!(waits.waits_for, waits.last.map(|last| last.run));
    assert_eq!(waits.next_at, Some(time("10:00:00")), "it is past");
    // The run that it waits for ends. It has waited, so it was not missed.
    move_to(&clock, "10:30:00");
    let begun = until_next(&running, "queues", "11:00:00").await;
    assert_eq!(begun.last.map(|last| last.tick), Some(time("10:00:00")));
    assert_eq!(begun.waits_for, None);
    let second = begun.last.expect("it has ticked").run;
    running
        .until(second, "asleep", |run| run.wake_at == Some(time("12:00:00")))
        .await;
    move_to(&clock, "11:00:00");
    until_next(&running, "skips", "12:00:00").await;
    until(&running, "queues", "waited", |state| state.waits_for.is_some()).await;
    // That one is cancelled: the next begins.
    running.server.app().cancel(second).await.expect("cancelled");
    until_next(&running, "queues", "12:00:00").await;
    until_next(&running, "allows", "12:00:00").await;
    assert_eq!(ticks(&running, "skips").await, times(["09:00:00", "11:00:00"]));
    let all = times(["09:00:00", "10:00:00", "11:00:00"]);
    assert_eq!(ticks(&running, "queues").await, all);
    assert_eq!(ticks(&running, "allows").await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missed_while_the_server_is_down_is_done_as_the_trigger_says() {
    let (running, clock) = start().await;
    move_to(&clock, "09:00:00");
    for function in ["hourly", "catches-up", "forgets", "skips"] {
        until_next(&running, function, "10:00:00").await;
    }
    let dir = stop(running).await;
    move_to(&clock, "13:20:00");
    let running = start_again(dir, &clock).await;
    let last = until_next(&running, "hourly", "14:00:00").await;
    assert_eq!(
        skipped(&last),
        Some((time("12:00:00"), "a later tick took its place"))
    );
    assert_eq!(ticks(&running, "hourly").await, times(["09:00:00", "13:00:00"]));
    let none = until_next(&running, "forgets", "14:00:00").await;
    let reason = "it came due while no server was there or the function was paused";
    assert_eq!(skipped(&none), Some((time("13:00:00"), reason)));
    assert_eq!(ticks(&running, "forgets").await, times(["09:00:00"]));
    until_next(&running, "catches-up", "14:00:00").await;
    assert_eq!(
        ticks(&running, "catches-up").await,
        times(["09:00:00", "10:00:00", "11:00:00", "12:00:00", "13:00:00"])
    );
    // On time again, and a short absence misses nothing.
    let dir = stop(running).await;
    move_to(&clock, "14:00:50");
    let running = start_again(dir, &clock).await;
    until_next(&running, "forgets", "15:00:00").await;
    assert_eq!(ticks(&running, "forgets").await, times(["09:00:00", "14:00:00"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_that_waits_for_a_run_outlives_the_server() {
    let (running, clock) = start().await;
    move_to(&clock, "09:00:00");
    let first = until_next(&running, "queues", "10:00:00").await;
    let run = first.last.expect("it has ticked").run;
    running
        .until(run, "asleep", |run| run.wake_at == Some(time("10:30:00")))
        .await;
    move_to(&clock, "10:00:00");
    until(&running, "queues", "waited", |state| state.waits_for == Some(run)).await;
    let dir = stop(running).await;
    let running = start_again(dir, &clock).await;
    until(&running, "queues", "waited", |state| state.waits_for == Some(run)).await;
    move_to(&clock, "10:30:00");
    let begun = until_next(&running, "queues", "11:00:00").await;
    assert_eq!(begun.last.map(|last| last.tick), Some(time("10:00:00")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_function_does_not_tick_and_catches_up_when_it_is_resumed() {
    let (running, clock) = start().await;
    let app = running.server.app();
    let paused: Vec<FunctionName> = ["cron/hourly", "cron/forgets", "cron/catches-up"]
        .map(|name| name.parse().expect("a name"))
        .to_vec();
    for function in &paused {
        assert!(app.pause_function(function).await.expect("paused"));
    }
    move_to(&clock, "11:30:00");
    // What is not paused has ticked.
    until_next(&running, "allows", "12:00:00").await;
    for function in ["hourly", "forgets", "catches-up"] {
        let state = schedule(&running, function).await;
        assert!(
            state.paused && state.next_at.is_none() && state.last.is_none(),
            "{state:#?}"
        );
        assert_eq!(ticks(&running, function).await, []);
    }
    for function in &paused {
        assert!(app.resume_function(function).await.expect("resumed"));
    }
    for function in ["hourly", "forgets", "catches-up"] {
        until_next(&running, function, "12:00:00").await;
    }
    assert_eq!(ticks(&running, "hourly").await, times(["11:00:00"]));
    assert_eq!(ticks(&running, "forgets").await, []);
    assert_eq!(
        ticks(&running, "catches-up").await,
        times(["09:00:00", "10:00:00", "11:00:00"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_follow_what_is_active() {
    let (running, clock) = start().await;
    move_to(&clock, "09:10:00");
    let before = until_next(&running, "hourly", "10:00:00").await;
    let first = running.server.app().registry().snapshot().modules["cron"]
        .version
        .digest;
    running.deploy("cron", "cron_v2").await;
    // One is as it was and keeps its place and its past; one begins anew; the others are gone.
    let after = schedule(&running, "hourly").await;
    assert_eq!((after.next_at, after.last), (before.next_at, before.last));
    assert_eq!(
        schedule(&running, "renamed").await.next_at,
        Some(time("09:45:00"))
    );
    assert_eq!(schedules(&running, "skips").await.len(), 0);
    move_to(&clock, "09:45:00");
    until_next(&running, "renamed", "10:45:00").await;
    move_to(&clock, "10:00:00");
    let ticked = until_next(&running, "hourly", "11:00:00").await;
    let run = running.settled(ticked.last.expect("it has ticked").run).await;
    let output: Value = run.output.expect("an output").read().expect("JSON");
    assert_eq!(output["version"], 2, "on the version that is active");
    assert_eq!(ticks(&running, "skips").await, times(["09:00:00"]));

    // Back to the first: what comes back begins when it does, and makes up for nothing.
    move_to(&clock, "12:20:00");
    until_next(&running, "hourly", "13:00:00").await;
    running
        .server
        .app()
        .activate("cron", first, None)
        .await
        .expect("activated");
    for function in ["skips", "catches-up", "hourly"] {
        until_next(&running, function, "13:00:00").await;
    }
    assert_eq!(
        schedule(&running, "renamed").await.next_at,
        Some(time("12:30:00"))
    );
    // The rows are there after a restart, also if somebody had lost them.
    let lost = dormouse_store::cron::NewSchedules {
        modules: vec!["cron".to_owned()],
        schedules: vec![],
        generation: running.server.app().registry().snapshot().generation,
    };
    running
        .server
        .app()
        .store()
        .put_schedules(lost)
        .await
        .expect("they are lost");
    let dir = stop(running).await;
    let running = start_again(dir, &clock).await;
    move_to(&clock, "13:00:00");
    for function in ["skips", "catches-up", "hourly"] {
        until_next(&running, function, "14:00:00").await;
    }
    assert_eq!(
        ticks(&running, "catches-up").await,
        times(["09:00:00", "13:00:00"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn flow_control_and_jitter_hold_for_ticks() {
    let (running, clock) = start().await;
    move_to(&clock, "09:00:00");
    let first = until_next(&running, "limited", "10:00:00").await.last;
    running.settled(first.expect("it has ticked").run).await;
    move_to(&clock, "10:00:00");
    let limited = until_next(&running, "limited", "11:00:00").await;
    let (tick, reason) = skipped(&limited).expect("it is limited");
    assert_eq!(tick, time("10:00:00"));
    assert!(reason.contains("rate-limited"), "{reason}");
    move_to(&clock, "11:00:00");
    until_next(&running, "limited", "12:00:00").await;
    assert_eq!(ticks(&running, "limited").await, times(["09:00:00", "11:00:00"]));

    let ahead = until(&running, "jittered", "looked ahead", |state| {
        state.next_at > Some(time("11:00:00"))
    })
    .await;
    let next = ahead.next_at.expect("a time");
    let tick = Timestamp::from_millis(next.as_millis() / 3_600_000 * 3_600_000);
    assert!(
        next > tick && next.since(tick) <= Duration::from_secs(300),
        "{next}"
    );
    let before = ticks(&running, "jittered").await;
    assert!(!before.contains(&tick));
    clock.advance(next.since(clock.now()).saturating_sub(Duration::from_millis(1)));
    assert_eq!(schedule(&running, "jittered").await.next_at, Some(next));
    clock.advance(Duration::from_millis(1));
    let ticked = until(&running, "jittered", "ticked", |state| {
        state.last.is_some_and(|last| last.tick == tick)
    })
    .await;
    let run = running.settled(ticked.last.expect("it has ticked").run).await;
    assert_eq!(run.queued_at, next);
    assert!(ticked.next_at.is_some_and(|at| at >= tick.after(HOUR)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_wrong_does_not_stop_a_schedule() {
    let (running, clock) = start().await;
    clock.advance(40 * 365 * 24 * HOUR);
    let far = until(&running, "hourly", "ticked", |state| {
        state.last.is_some() && state.next_at > Some(clock.now())
    })
    .await;
    running.settled(far.last.expect("it has ticked").run).await;
    let dir = stop(running).await;
    let clock = SimClock::new(time("08:30:00"));
    let running = start_again(dir, &clock).await;
    let back = until_next(&running, "hourly", "09:00:00").await;
    assert_eq!(back.last, far.last);
    move_to(&clock, "09:00:00");
    let ticked = until_next(&running, "hourly", "10:00:00").await;
    assert_eq!(ticked.last.map(|last| last.tick), Some(time("09:00:00")));
}
