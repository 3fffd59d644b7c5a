//! How many in what time: the generic cell rate algorithm (GCRA).
//!
//! A limit's whole memory is one number, the time until which its allowance is used up. Each start pushes it on by the
//! interval (period / limit), and a start is possible as long as it is no more than `burst` intervals ahead of now. What
//! follows, whatever the clocks of those who ask: of the starts granted, in any stretch of time as long as the period
//! lie at most `limit + burst - 1`.
//!
//! Counted in microseconds, so that an interval that is no whole number of milliseconds is rounded up by little.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// So many in so long, and so many of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// How many in a period: at least 1.
    pub limit: u32,
    /// The period in milliseconds.
    pub period_ms: u64,
    /// How many may start at once after a rest: 1 to `limit`.
    pub burst: u32,
}

/// What a limit answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The earliest time for the next start; not before it was asked for.
    pub at: Timestamp,
    /// What the limit has to remember if that start is granted, in microseconds since the epoch.
    pub used_until: i64,
}

impl Rate {
    /// Microseconds from one start to the next when they come evenly.
    fn interval(&self) -> i64 {
        let period = i64::try_from(self.period_ms).unwrap_or(i64::MAX / 2_000) * 1_000;
        let limit = i64::from(self.limit.max(1));
        period / limit + i64::from(period % limit != 0)
    }

    /// By how many microseconds starts may be ahead of their time.
    fn ahead(&self) -> i64 {
        self.interval().saturating_mul(i64::from(self.burst) - 1)
    }

    /// When the next one may start, of a limit that remembers `used_until` (0: nothing).
    pub fn next(&self, used_until: i64, now: Timestamp) -> Turn {
        let asked = micros(now);
        Turn {
            at: whole(used_until.saturating_sub(self.ahead()).max(asked)),
            used_until: used_until.max(asked).saturating_add(self.interval()),
        }
    }

    /// When the next one may start at the earliest after one at `at`, while others wait and nothing is unused.
    pub fn after(&self, at: Timestamp) -> Timestamp {
        whole(micros(at).saturating_add(self.interval()))
    }

    /// What a limit that remembers `used_until` would remember without the last start that it granted.
    pub fn without_last(&self, used_until: i64) -> i64 {
        used_until.saturating_sub(self.interval())
    }

    /// What a limit remembers whose next start may be at `at` and not before.
    pub fn used_up_to(&self, at: Timestamp) -> i64 {
        micros(at).saturating_add(self.ahead())
    }

    /// In words: `10 per 1m`.
    pub fn describe(&self) -> String {
        format!(
            "{} per {}",
            self.limit,
            describe(Duration::from_millis(self.period_ms))
        )
    }
}

fn micros(at: Timestamp) -> i64 {
    at.as_millis().saturating_mul(1_000)
}

/// The next whole millisecond, so that it is never too early.
fn whole(micros: i64) -> Timestamp {
    Timestamp::from_millis(micros / 1_000 + i64::from(micros % 1_000 != 0))
}

/// A duration in the largest unit that says it exactly.
pub(super) fn describe(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000 + millis)
    }

    #[test]
    fn evenly_or_some_at_once() {
        let rate = |burst| Rate {
            limit: 3,
            period_ms: 1_000,
            burst,
        };
        let granted = |rate: Rate| {
            let mut used = 0;
            let mut starts = Vec::new();
            for millis in 0..1_000 {
                let turn = rate.next(used, at(millis));
                if turn.at == at(millis) {
                    used = turn.used_until;
                    starts.push(millis);
                }
            }
            starts
        };
        assert_eq!(granted(rate(1)), [0, 334, 668]);
        assert_eq!(granted(rate(3)), [0, 1, 2, 334, 667]);
        assert_eq!(rate(1).describe(), "3 per 1s");
        assert_eq!(describe(Duration::from_millis(90_000)), "90s");
    }

    proptest! {
        /// Against the plain statement of what a limit promises, for askers whose clocks disagree, who drop what has to
        /// wait or queue it.
        #[test]
        fn no_period_has_more_than_limit_and_burst(
            limit in 1_u32..20,
            period_ms in 1_000_u64..5_000,
            burst in 1_u32..20,
            asked in prop::collection::vec((0_i64..400, -50_i64..50), 1..200),
            queues in any::<bool>(),
        ) {
            let rate = Rate { limit, period_ms, burst: burst.min(limit) };
            let (mut used, mut now) = (0, 0);
            let mut starts = Vec::new();
            for (passed, skew) in asked {
                now += passed;
                let turn = rate.next(used, at(now + skew));
                prop_assert!(turn.at >= at(now + skew));
                prop_assert!(turn.used_until > used);
                if queues || turn.at == at(now + skew) {
                    used = turn.used_until;
                    starts.push(turn.at.as_millis());
                }
            }
            starts.sort_unstable();
            for (index, start) in starts.iter().enumerate() {
                let end = start + period_ms as i64;
                let within = starts[index..].iter().filter(|other| **other < end).count();
                prop_assert!(within <= (limit + rate.burst - 1) as usize, "{within} from {start}: {starts:?}");
            }
        }

        /// Nobody is refused without need: who asks as rarely as the limit says always starts at once, and after a rest
        /// a whole burst does.
        #[test]
        fn who_keeps_to_it_never_waits(limit in 1_u32..50, period_ms in 1_000_u64..100_000, burst in 1_u32..50) {
            let rate = Rate { limit, period_ms, burst: burst.min(limit) };
            let apart = period_ms.div_ceil(u64::from(limit)) as i64;
            let mut used = 0;
            for number in 0..100 {
                let turn = rate.next(used, at(number * apart));
                prop_assert_eq!(turn.at, at(number * apart));
                used = turn.used_until;
            }
            let rested = at(100 * apart + 2 * period_ms as i64);
            for _ in 0..rate.burst {
                let turn = rate.next(used, rested);
                prop_assert_eq!(turn.at, rested);
                used = turn.used_until;
            }
            prop_assert!(rate.next(used, rested).at > rested);
        }
    }
}
