//! Where the queues begin, as far as this node knows.
//!
//! A row that was deleted stays in Postgres' index until nothing that is older than the deletion runs any more: with a
//! backup running for an hour, whoever reads a queue from its beginning steps over an hour's dead rows each time. So a
//! read begins a little before the earliest row that was last seen, and now and then at the very beginning, for rows
//! that came in late.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dormouse_core::{RunId, Timestamp};

/// Rows may become visible this much later than their time says.
const SLACK: Duration = Duration::from_secs(5);
/// A read begins at the very beginning this often.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// The beginning of one queue.
#[derive(Debug)]
pub(super) struct Mark {
    low: AtomicI64,
    swept: Mutex<Option<Instant>>,
}

impl Mark {
    const fn new() -> Mark {
        Mark {
            low: AtomicI64::new(i64::MIN),
            swept: Mutex::new(None),
        }
    }

    /// From where to read.
    pub(super) fn low(&self) -> i64 {
        self.low.load(Ordering::Acquire)
    }

    /// From where to read, which is the very beginning when it is time for that.
    pub(super) fn low_or_sweep(&self) -> i64 {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY) {
            *swept = Some(Instant::now());
            self.low.store(i64::MIN, Ordering::Release);
        }
        self.low()
    }

    /// The earliest row that was seen, or the time at which none was: there is nothing long before it.
    ///
    /// `low` is where that read began: if a row was put before it meanwhile, the mark stays.
    pub(super) fn seen(&self, low: i64, at: Timestamp) {
        let next = at.before(SLACK).as_millis();
        let _ = self
            .low
            .compare_exchange(low, next, Ordering::AcqRel, Ordering::Acquire);
    }

    fn lower(&self, rows: &[(Timestamp, RunId)]) {
        if let Some(least) = rows.iter().map(|(at, _)| at.as_millis()).min() {
            self.low.fetch_min(least, Ordering::AcqRel);
        }
    }
}

/// The beginnings of both queues.
#[derive(Debug)]
pub(super) struct Marks {
    /// Of `ready`.
    pub(super) ready: Mark,
    /// Of `timers`.
    pub(super) timers: Mark,
}

impl Marks {
    pub(super) const fn new() -> Marks {
        Marks {
            ready: Mark::new(),
            timers: Mark::new(),
        }
    }

    /// This node puts rows there: it must find them, however early they are.
    pub(super) fn lower(&self, ready: &[(Timestamp, RunId)], timers: &[(Timestamp, RunId)]) {
        self.ready.lower(ready);
        self.timers.lower(timers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_moves_up_with_what_is_seen_and_down_with_what_is_put_there() {
        let mark = Mark::new();
        assert_eq!(mark.low_or_sweep(), i64::MIN);
        mark.seen(0, Timestamp::from_millis(90_000));
        assert_eq!(mark.low(), i64::MIN, "it moved meanwhile");
        mark.seen(i64::MIN, Timestamp::from_millis(60_000));
        assert_eq!(mark.low(), 55_000);
        assert_eq!(mark.low_or_sweep(), 55_000, "it was swept a moment ago");
        let run = RunId::from_bytes([1; 16]);
        mark.lower(&[(Timestamp::from_millis(70_000), run)]);
        assert_eq!(mark.low(), 55_000);
        mark.lower(&[
            (Timestamp::from_millis(70_000), run),
            (Timestamp::from_millis(9), run),
        ]);
        assert_eq!(mark.low(), 9);
    }
}
