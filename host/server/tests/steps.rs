//! What steps ask of the host, in whole servers with a real guest and in virtual time: with instances that are dropped at
//! each wait, and with parked ones.

mod support;

#[path = "steps/commanding.rs"]
mod commanding;
#[path = "steps/fetching.rs"]
mod fetching;
#[path = "steps/invoking.rs"]
mod invoking;
#[path = "steps/sending.rs"]
mod sending;
#[path = "steps/signals.rs"]
mod signals;
#[path = "steps/triggers.rs"]
mod triggers;
#[path = "steps/waiting.rs"]
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::run::{Phase, Status};
use dormouse_core::{RunId, Timestamp};
use dormouse_server::Tuning;
use dormouse_server::clock::{Clock as _, SimClock};
use dormouse_store::read::{Run, RunFilter};
use serde_json::Value;
use support::{Running, verifying};

/// When each test begins.
const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
/// Instances are dropped at each wait, or parked.
const PARKING: [Duration; 2] = [Duration::ZERO, Duration::from_secs(5)];

/// A server with the guest, and its clock.
async fn start(park_idle: Duration) -> (Running, SimClock) {
    start_with("", park_idle).await
}

/// The same, with a configuration.
async fn start_with(config: &str, park_idle: Duration) -> (Running, SimClock) {
    let clock = SimClock::new(START);
    let tuning = Tuning {
        clock: Arc::new(clock.clone()),
        // What is sent or waited for must be the same on every replay: each leg's suspension is verified.
        ..verifying(true)
    };
    let running = Running::start(config, park_idle, tuning).await;
    running.deploy("steps", "steps").await;
    (running, clock)
}

/// A run's output; it must have completed.
fn output(run: &Run) -> Value {
    assert_eq!(run.state.status, Status::Completed, "{run:#?}");
    let output = run.output.as_ref().expect("an output");
    serde_json::from_str(output.as_str()).expect("JSON")
}

/// All runs of a function.
async fn runs_of(running: &Running, function: &str) -> Vec<Run> {
    let filter = RunFilter {
        module: Some("steps".to_owned()),
        function: Some(function.to_owned()),
        limit: 100,
        ..RunFilter::default()
    };
    running.server.app().store().runs(filter).await.expect("lists")
}

/// Lets time pass from one timer to the next until a run has ended.
async fn run_out(running: &Running, clock: &SimClock, run: RunId) -> Run {
    let mut now = clock.now();
    loop {
        let found = running.run(run).await;
        if found.state.status.is_terminal() || found.state.phase == Some(Phase::Blocked) {
            return found;
        }
        let store = running.server.app().store();
        let counts = store.counts().await.expect("counts");
        let busy = counts.live[Phase::Executing as usize] + counts.live[Phase::Queued as usize];
        let soonest = store.upcoming_timers(Timestamp::MAX, 1).await.expect("reads");
        match soonest.first() {
            Some(due) if busy == 0 && *due > now => {
                clock.advance(due.since(now));
                now = *due;
            }
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
