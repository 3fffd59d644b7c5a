//! What people do to runs and functions, in whole servers with real guests and in virtual time: with instances that are
//! dropped at each wait, and with parked ones.

mod support;

#[path = "lifecycle/cancelling.rs"]
mod cancelling;
#[path = "lifecycle/pausing.rs"]
mod pausing;
#[path = "lifecycle/reruns.rs"]
mod reruns;

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::run::Status;
use dormouse_core::{RunId, Timestamp};
use dormouse_server::Tuning;
use dormouse_server::clock::SimClock;
use dormouse_store::read::Run;
use serde_json::Value;
use support::{Running, verifying};

/// When each test begins.
const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
/// Instances are dropped at each wait, or parked.
const PARKING: [Duration; 2] = [Duration::ZERO, Duration::from_secs(5)];

fn tuning(clock: &SimClock) -> Tuning {
    Tuning {
        clock: Arc::new(clock.clone()),
        ..verifying(true)
    }
}

/// A server with two guests, and its clock.
async fn start(park_idle: Duration) -> (Running, SimClock) {
    let clock = SimClock::new(START);
    let running = Running::start("", park_idle, tuning(&clock)).await;
    running.deploy("steps", "steps").await;
    running.deploy("bench", "bench").await;
    (running, clock)
}

/// Sends an event; the runs it started.
async fn send(running: &Running, event: &str) -> Vec<RunId> {
    let sent = running.server.app().send_events(&[event], None).await;
    sent.expect("sent").runs
}

/// A run's output; it must have completed.
fn output(run: &Run) -> Value {
    assert_eq!(run.state.status, Status::Completed, "{run:#?}");
    let output = run.output.as_ref().expect("an output");
    serde_json::from_str(output.as_str()).expect("JSON")
}
