//! The one clock of the server: timers, retries and limits read it and wait on it, so that whole-server tests run in
//! virtual time.
//!
//! Leases between nodes alone use the database's clock. Measuring how long something took uses `Instant`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
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

/// A clock of this machine, corrected to the one that all nodes share: the database's.
///
/// Clocks of machines differ by minutes in life, and a timer that one node sets another fires. Where the store has no
/// clock of its own it echoes what it was given, and nothing is corrected.
#[derive(Clone)]
pub struct SharedClock {
    own: Arc<dyn Clock>,
    /// What is to be added to this machine's time, in milliseconds.
    ahead: Arc<AtomicI64>,
}

/// A question for the time, on its way to the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    own: Timestamp,
    given: Timestamp,
}

impl Asked {
    /// The time as this node has it.
    pub(crate) fn given(self) -> Timestamp {
        self.given
    }
}

/// Differences up to this are not worth correcting, in milliseconds.
const TOLERATED: i64 = 2;

impl SharedClock {
    /// A clock that is not corrected yet.
    pub fn new(own: Arc<dyn Clock>) -> SharedClock {
        SharedClock {
            own,
            ahead: Arc::default(),
        }
    }

    /// Begins a question for the shared time.
    pub(crate) fn ask(&self) -> Asked {
        Asked {
            own: self.own.now(),
            given: self.now(),
        }
    }

    /// Takes in the answer. The shared clock was read at some moment between the question and now: as long as what this
    /// clock says is possible, it stays.
    pub(crate) fn correct(&self, asked: Asked, shared: Timestamp) {
        if shared == asked.given {
            return;
        }
        let (shared, before, after) = (
            shared.as_millis(),
            asked.own.as_millis(),
            self.own.now().as_millis(),
        );
        let ahead = self.ahead.load(Ordering::Relaxed);
        let possible = (shared - after - TOLERATED)..=(shared - before + TOLERATED);
        if !possible.contains(&ahead) {
            let corrected = shared - (before + after) / 2;
            tracing::debug!(corrected, "this machine's clock differs from the database's");
            self.ahead.store(corrected, Ordering::Relaxed);
        }
    }
}

impl Clock for SharedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.own.now().as_millis() + self.ahead.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, time: Timestamp) -> BoxFuture<'static, ()> {
        let clock = self.clone();
        Box::pin(async move {
            // A correction made meanwhile may put the moment off.
            while clock.now() < time {
                let own = time
                    .as_millis()
                    .saturating_sub(clock.ahead.load(Ordering::Relaxed));
                clock.own.sleep_until(Timestamp::from_millis(own)).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[tokio::test]
    async fn a_clock_that_differs_is_corrected_and_sleeps_by_the_shared_time() {
        let own = SimClock::new(at(1_000_000));
        let clock = SharedClock::new(Arc::new(own.clone()));
        let asked = clock.ask();
        own.advance(Duration::from_millis(10));
        // The database is five minutes ahead.
        clock.correct(asked, at(1_300_005));
        assert_eq!(clock.now(), at(1_300_010));
        let sleep = clock.sleep_until(at(1_301_010));
        assert_eq!(own.next_wake(), None);
        let sleeping = tokio::spawn(sleep);
        while own.next_wake().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(own.next_wake(), Some(at(1_001_010)));
        own.advance(Duration::from_secs(1));
        sleeping.await.expect("wakes");
    }

    #[test]
    fn what_can_be_the_time_on_the_way_is_not_corrected_and_an_echo_never_is() {
        let own = SimClock::new(at(1_000_000));
        let clock = SharedClock::new(Arc::new(own.clone()));
        for answer in [999_999, 1_000_000, 1_000_006, 1_000_011] {
            let asked = Asked {
                own: at(1_000_000),
                given: at(1_000_000),
            };
            own.advance(at(1_000_010).since(own.now()));
            clock.correct(asked, at(answer));
            assert_eq!(clock.now(), own.now(), "{answer}");
        }
        let asked = clock.ask();
        own.advance(Duration::from_secs(60));
        clock.correct(asked, asked.given());
        assert_eq!(clock.now(), own.now());
    }
}
