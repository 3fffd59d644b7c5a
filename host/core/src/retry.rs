//! Whether and when a failed attempt is followed by another.
//!
//! The schedule is a function of the run's seed: asked again after a crash, it gives the same answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Retry};
use crate::limit;

/// How the waits between tries grow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// The wait after the first failure, in milliseconds.
    pub initial_ms: u64,
    /// What each wait is multiplied by to give the next.
    pub factor: f64,
    /// The longest wait, in milliseconds.
    pub max_ms: u64,
}

impl Default for Backoff {
    /// 1 s, doubling, up to 1 h.
    fn default() -> Backoff {
        Backoff {
            initial_ms: 1_000,
            factor: 2.0,
            max_ms: 3_600_000,
        }
    }
}

impl Backoff {
    /// Checks that it makes sense.
    ///
    /// # Errors
    /// A sentence that names the member.
    pub fn check(&self) -> Result<(), String> {
        if self.initial_ms == 0 {
            return Err("initial_ms must be at least 1".to_owned());
        }
        if !(1.0..=100.0).contains(&self.factor) {
            return Err("factor must be 1 to 100".to_owned());
        }
        if self.max_ms < self.initial_ms || self.max_ms > limit::SLEEP_MS_MAX {
            return Err("max_ms must be at least initial_ms and at most 366 days".to_owned());
        }
        Ok(())
    }

    /// The wait after the `failures`th failure (from 1), before jitter.
    pub fn base(&self, failures: u32) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let millis = (self.initial_ms as f64 * self.factor.powi(exponent)).min(self.max_ms as f64);
        Duration::from_millis(millis as u64)
    }
}

/// How often to try, and with what waits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Tries in total: `retries + 1`.
    pub attempts: u32,
    /// The waits between them.
    pub backoff: Backoff,
}

impl Default for RetryPolicy {
    /// Four retries: five attempts.
    fn default() -> RetryPolicy {
        RetryPolicy {
            attempts: 5,
            backoff: Backoff::default(),
        }
    }
}

/// Jitter spreads a wait over this share of it to either side, so that runs that failed together don't return together.
const JITTER: f64 = 0.25;

impl RetryPolicy {
    /// How long to wait before the attempt that follows the failed `attempt` (from 1); none when there is none.
    ///
    /// `seed` is the run's; `position` tells the run's steps apart.
    pub fn next(&self, attempt: u32, failure: &Failure, seed: &[u8; 32], position: u32) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        match failure.retry {
            Retry::Never => None,
            Retry::After(millis) => Some(Duration::from_millis(millis.min(limit::SLEEP_MS_MAX))),
            Retry::Default => {
                let base = self.backoff.base(attempt);
                let spread = 1.0 - JITTER + 2.0 * JITTER * fraction(seed, position, attempt);
                Some(base.mul_f64(spread))
            }
        }
    }
}

/// A number in 0..1 that depends on nothing but the arguments.
fn fraction(seed: &[u8; 32], position: u32, attempt: u32) -> f64 {
    let hash = Sha256::new()
        .chain_update(b"retry")
        .chain_update(seed)
        .chain_update(position.to_le_bytes())
        .chain_update(attempt.to_le_bytes())
        .finalize();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    // 53 bits are what a double holds exactly.
    (u64::from_le_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failure(retry: Retry) -> Failure {
        Failure {
            retry,
            ..Failure::new("x", "x")
        }
    }

    #[test]
    fn retries_n_means_n_plus_one_attempts() {
        let policy = RetryPolicy {
            attempts: 3,
            ..RetryPolicy::default()
        };
        let next = |attempt| policy.next(attempt, &failure(Retry::Default), &[7; 32], 0);
        assert!(next(1).is_some());
        assert!(next(2).is_some());
        assert_eq!(next(3), None);
    }

    #[test]
    fn the_failure_has_the_last_word_but_not_on_the_count() {
        let policy = RetryPolicy {
            attempts: 2,
            ..RetryPolicy::default()
        };
        let after = failure(Retry::After(77));
        assert_eq!(
            policy.next(1, &after, &[0; 32], 0),
            Some(Duration::from_millis(77))
        );
        assert_eq!(policy.next(2, &after, &[0; 32], 0), None);
        assert_eq!(policy.next(1, &failure(Retry::Never), &[0; 32], 0), None);
    }

    proptest! {
        #[test]
        fn waits_grow_stay_near_their_base_and_are_the_same_when_asked_again(
            seed in any::<[u8; 32]>(), position in 0u32..1000, attempt in 1u32..20,
        ) {
            let policy = RetryPolicy { attempts: 21, ..RetryPolicy::default() };
            let wait = policy.next(attempt, &failure(Retry::Default), &seed, position);
            prop_assert_eq!(wait, policy.next(attempt, &failure(Retry::Default), &seed, position));
            let (wait, base) = (wait.expect("attempts are left").as_secs_f64(), policy.backoff.base(attempt).as_secs_f64());
            prop_assert!(wait >= base * 0.75 - 0.001 && wait <= base * 1.25 + 0.001);
            prop_assert!(policy.backoff.base(attempt + 1) >= policy.backoff.base(attempt));
            prop_assert!(base <= 3600.0);
        }
    }
}
