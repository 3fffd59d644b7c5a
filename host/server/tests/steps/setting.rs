//! A server with the guest of these tests, in virtual time.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use super::support::{Running, verifying};
use dormouse_core::run::{Phase, Status};
use dormouse_core::{RunId, Timestamp};
use dormouse_server::Tuning;
use dormouse_server::clock::{Clock as _, SimClock};
use dormouse_store::read::{Run, RunFilter};
use serde_json::Value;

/// When each test begins.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
/// Instances are dropped at each wait, or parked.
pub(crate) const PARKING: [Duration; 2] = [Duration::ZERO, Duration::from_secs(5)];

/// A server with the guest, and its clock.
pub(crate) async fn start(park_idle: Duration) -> (Running, SimClock) {
    start_with("", park_idle).await
}

/// The same, with a configuration.
pub(crate) async fn start_with(config: &str, park_idle: Duration) -> (Running, SimClock) {
    let clock = SimClock::new(START);
    let running = Running::start(config, park_idle, tuning(&clock)).await;
    running.deploy("steps", "steps").await;
    (running, clock)
}

/// A server by this clock.
pub(crate) fn tuning(clock: &SimClock) -> Tuning {
    Tuning {
        clock: Arc::new(clock.clone()),
        // What is sent or waited for must be the same on every replay: each leg's suspension is verified.
        ..verifying(true)
    }
}

/// A run's output; it must have completed.
pub(crate) fn output(run: &Run) -> Value {
    assert_eq!(run.state.status, Status::Completed, "{run:#?}");
    let output = run.output.as_ref().expect("an output");
    serde_json::from_str(output.as_str()).expect("JSON")
}

/// All runs of a function.
pub(crate) async fn runs_of(running: &Running, function: &str) -> Vec<Run> {
    let filter = RunFilter {
        module: Some("steps".to_owned()),
        function: Some(function.to_owned()),
        limit: 100,
        ..RunFilter::default()
    };
    running.server.app().store().runs(filter).await.expect("lists")
}

/// Lets time pass from one timer to the next until a run has ended.
pub(crate) async fn run_out(running: &Running, clock: &SimClock, run: RunId) -> Run {
    let mut now = clock.now();
    loop {
        let found = running.run(run).await;
        if found.state.status.is_terminal() || found.state.phase == Some(Phase::Blocked) {
            return found;
        }
        let store = running.server.app().store();
        let upcoming = async || store.upcoming_timers(Timestamp::MAX, 1).await.expect("reads");
        // Read before and after: a run that was about to sleep may be the one that is to wake next.
        let soonest = upcoming().await;
        let counts = store.counts().await.expect("counts");
        let busy = counts.live[Phase::Executing as usize] + counts.live[Phase::Queued as usize];
        let at_rest = busy == 0 && upcoming().await == soonest;
        match soonest.first() {
            Some(due) if at_rest && *due > now => {
                clock.advance(due.since(now));
                now = *due;
            }
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
