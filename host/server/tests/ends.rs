//! How runs end: who is told, who handles failures, what ends them from outside; in whole servers with a real guest and in virtual time, with instances
//! that are dropped at each wait and with parked ones.

mod support;

#[path = "ends/cancelling.rs"]
mod cancelling;
#[path = "ends/expiring.rs"]
mod expiring;
#[path = "ends/telling.rs"]
mod telling;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dormouse_core::run::Status;
use dormouse_core::{RunId, Timestamp};
use dormouse_server::Tuning;
use dormouse_server::clock::SimClock;
use dormouse_store::read::{Run, RunFilter};
use serde_json::Value;
use support::{Running, verifying};

/// When each test begins.
const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
/// Instances are dropped at each wait, or parked.
const PARKING: [Duration; 2] = [Duration::ZERO, Duration::from_secs(5)];
const DEADLINE: Duration = Duration::from_secs(60);

fn tuning(clock: &SimClock) -> Tuning {
    Tuning {
        clock: Arc::new(clock.clone()),
        ..verifying(true)
    }
}

/// A server with the guest, and its clock.
async fn start(park_idle: Duration) -> (Running, SimClock) {
    let clock = SimClock::new(START);
    let running = Running::start("", park_idle, tuning(&clock)).await;
    running.deploy("ends", "ends").await;
    (running, clock)
}

/// Sends an event; the runs it started.
async fn send(running: &Running, name: &str, data: Value) -> Vec<RunId> {
    let event = serde_json::json!({ "name": name, "data": data }).to_string();
    let sent = running.server.app().send_events(&[&event], None).await;
    sent.expect("sent").runs
}

/// Sends an event that starts one run.
async fn begin(running: &Running, name: &str, data: Value) -> RunId {
    let runs = send(running, name, data).await;
    assert_eq!(runs.len(), 1, "{name}");
    runs[0]
}

/// The runs of a function, oldest first.
async fn runs_of(running: &Running, function: &str) -> Vec<Run> {
    let filter = RunFilter {
        module: Some("ends".to_owned()),
        function: Some(function.to_owned()),
        limit: 1_000,
        ..RunFilter::default()
    };
    let store = running.server.app().store();
    let mut found = store.runs(filter).await.expect("lists");
    found.reverse();
    found
}

/// Waits until a function has so many runs that have all ended, with their outputs.
async fn ended_runs_of(running: &Running, function: &str, count: usize) -> Vec<Run> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let found = runs_of(running, function).await;
        assert!(found.len() <= count, "{function} has too many runs: {found:#?}");
        if found.len() == count && found.iter().all(|run| run.state.status.is_terminal()) {
            let mut whole = Vec::with_capacity(count);
            for run in found {
                whole.push(running.run(run.id).await);
            }
            return whole;
        }
        assert!(
            Instant::now() < deadline,
            "{function} never had {count} runs that ended: {found:#?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until nothing is left to be told and no run goes on.
async fn quiet(running: &Running) {
    let store = running.server.app().store();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let live: u64 = store.counts().await.expect("counts").live.iter().sum();
        if live == 0 && store.untold(1).await.expect("reads").is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{live} runs never ended");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A run's output; it must have completed.
fn output(run: &Run) -> Value {
    assert_eq!(run.state.status, Status::Completed, "{run:#?}");
    let output = run.output.as_ref().expect("an output");
    serde_json::from_str(output.as_str()).expect("JSON")
}
