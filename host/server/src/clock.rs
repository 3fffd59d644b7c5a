//! The one clock of the server: timers, retries and limits read it and wait on it, so that whole-server tests run in
//! virtual time.
//!
//! Leases between nodes alone use the database's clock. Measuring how long something took uses `Instant`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dormouse_core::Timestamp;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The time.
    fn now(&self) -> Timestamp;

    /// Returns when that time has come; at once if it has passed.
    fn sleep_until(&self, time: Timestamp) -> BoxFuture<'static, ()>;
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn sleep_until(&self, time: Timestamp) -> BoxFuture<'static, ()> {
        /// A clock that is set while we wait is noticed after this long at the latest.
        const LOOK_AGAIN: Duration = Duration::from_secs(10);
        Box::pin(async move {
            loop {
                let left = time.since(SystemClock.now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(LOOK_AGAIN)).await;
            }
        })
    }
}

/// A clock that tests move.
#[derive(Clone)]
pub struct SimClock {
    state: Arc<Mutex<Sim>>,
}

struct Sim {
    now: Timestamp,
    next: u64,
    sleepers: BTreeMap<(Timestamp, u64), oneshot::Sender<()>>,
}

impl SimClock {
    /// A clock that stands at a time.
    pub fn new(now: Timestamp) -> SimClock {
        SimClock {
            state: Arc::new(Mutex::new(Sim {
                now,
                next: 0,
                sleepers: BTreeMap::new(),
            })),
        }
    }

    /// Moves it on and wakes whoever waited for a time up to then.
    pub fn advance(&self, by: Duration) {
        let mut sim = self.lock();
        sim.now = sim.now.after(by);
        let after = Timestamp::from_millis(sim.now.as_millis() + 1);
        let later = sim.sleepers.split_off(&(after, 0));
        let due = std::mem::replace(&mut sim.sleepers, later);
        drop(sim);
        for sender in due.into_values() {
            // Nobody waits any more when the receiver is gone.
            let _ = sender.send(());
        }
    }

    /// The soonest time somebody waits for.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let mut sim = self.lock();
        sim.sleepers.retain(|_, sender| !sender.is_closed());
        sim.sleepers.keys().next().map(|(time, _)| *time)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sim> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.lock().now
    }

    fn sleep_until(&self, time: Timestamp) -> BoxFuture<'static, ()> {
        let mut sim = self.lock();
        if time <= sim.now {
            return Box::pin(async {});
        }
        let (sender, receiver) = oneshot::channel();
        let key = (time, sim.next);
        sim.next += 1;
        sim.sleepers.insert(key, sender);
        Box::pin(async move {
            // The sender is only dropped with the clock; then nothing will ever wake this.
            if receiver.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}
