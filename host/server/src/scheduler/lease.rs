//! This node's proof that it owns what it drives, on a clock that counts while the process or the machine stands still.
//!
//! A write is fenced by the store. A body or a request is not: so before one begins, the node makes sure that its last
//! sign of life is recent enough for nobody to have taken its runs over. Absent on purpose: the database's side, which
//! judges the silence of nodes by its own clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What of a lease is kept in hand: the time between a check here and the start of what it was made for.
const MARGIN: u32 = 4;

/// When the node last proved that it lives.
#[derive(Debug)]
pub(super) struct Lease {
    /// After how long without a sign of life others take over. None: there are no others.
    expiry: Option<Duration>,
    /// When the last sign of life that succeeded was sent, in nanoseconds since the machine started.
    proven: AtomicU64,
}

impl Lease {
    /// A lease that was proven just now, by joining.
    pub(super) fn new(expiry: Option<Duration>) -> Lease {
        Lease {
            expiry,
            proven: AtomicU64::new(awake()),
        }
    }

    /// Whether there may be other nodes.
    pub(super) fn is_shared(&self) -> bool {
        self.expiry.is_some()
    }

    /// A sign of life that was sent at `sent` ([`awake`]) has reached the store.
    pub(super) fn prove(&self, sent: u64) {
        self.proven.fetch_max(sent, Ordering::Relaxed);
    }

    /// Whether nobody can have taken this node's runs over, and won't for a moment.
    pub(super) fn holds(&self) -> bool {
        self.holds_at(awake())
    }

    fn holds_at(&self, now: u64) -> bool {
        let Some(expiry) = self.expiry else { return true };
        let silent = now.saturating_sub(self.proven.load(Ordering::Relaxed));
        Duration::from_nanos(silent) < expiry - expiry / MARGIN
    }
}

/// Nanoseconds since the machine started, those included in which it or this process stood still.
pub(super) fn awake() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    // Neither is ever negative on this clock.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_until_a_margin_before_it_expires_and_again_after_a_sign_of_life() {
        let second = 1_000_000_000;
        let lease = Lease::new(Some(Duration::from_secs(10)));
        let joined = lease.proven.load(Ordering::Relaxed);
        assert!(lease.holds());
        assert!(lease.holds_at(joined + 7 * second));
        assert!(!lease.holds_at(joined + 8 * second));
        assert!(!lease.holds_at(joined + 3_600 * second));
        lease.prove(joined + 6 * second);
        assert!(lease.holds_at(joined + 13 * second));
        // An answer that comes late proves nothing newer than its question.
        lease.prove(joined + second);
        assert!(lease.holds_at(joined + 13 * second));
    }

    #[test]
    fn alone_there_is_nothing_to_prove() {
        let lease = Lease::new(None);
        assert!(lease.holds_at(u64::MAX));
        assert!(!lease.is_shared());
    }
}
