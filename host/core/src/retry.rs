//! Whether and when a failed attempt is followed by another.
//!
//! The schedule is a function of the run's seed: asked again after a crash, it gives the same answer.

use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Retry};
use crate::limit;

/// How the waits between tries grow. As JSON an object, [`Exponential`], or the name of a table, `"inngest"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Backoff {
    /// Each wait is the one before it, multiplied.
    Exponential(Exponential),
    /// Inngest's waits: 15 s, 30 s, 1, 2, 5, 10, 20 and 40 min, 1 h, then 2 h each, and up to 30 s more at random.
    Inngest,
}

/// Waits that are multiplied from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exponential {
    /// The wait after the first failure, in milliseconds.
    pub initial_ms: u64,
    /// What each wait is multiplied by to give the next.
    pub factor: f64,
    /// The longest wait, in milliseconds.
    pub max_ms: u64,
}

/// Seconds that Inngest waits after the first, second, … failure, and after all that follow the last of them
/// (its server's `pkg/backoff`).
const INNGEST: [u64; 10] = [15, 30, 60, 120, 300, 600, 1_200, 2_400, 3_600, 7_200];
/// What Inngest adds to each at the most, at random.
const INNGEST_JITTER: Duration = Duration::from_secs(30);

impl Default for Backoff {
    /// 1 s, doubling, up to 1 h.
    fn default() -> Backoff {
        Backoff::Exponential(Exponential {
            initial_ms: 1_000,
            factor: 2.0,
            max_ms: 3_600_000,
        })
    }
}

impl Backoff {
    /// Checks that it makes sense.
    ///
    /// # Errors
    /// A sentence that names the member.
    pub fn check(&self) -> Result<(), String> {
        let Backoff::Exponential(exponential) = self else {
            return Ok(());
        };
        if exponential.initial_ms == 0 {
            return Err("initial_ms must be at least 1".to_owned());
        }
        if !(1.0..=100.0).contains(&exponential.factor) {
            return Err("factor must be 1 to 100".to_owned());
        }
        if exponential.max_ms < exponential.initial_ms || exponential.max_ms > limit::SLEEP_MS_MAX {
            return Err("max_ms must be at least initial_ms and at most 366 days".to_owned());
        }
        Ok(())
    }

    /// The wait after the `failures`th failure (from 1), before jitter.
    pub fn base(&self, failures: u32) -> Duration {
        match self {
            Backoff::Exponential(exponential) => {
                let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
                let millis = exponential.initial_ms as f64 * exponential.factor.powi(exponent);
                Duration::from_millis(millis.min(exponential.max_ms as f64) as u64)
            }
            Backoff::Inngest => {
                let place = (failures.max(1) as usize - 1).min(INNGEST.len() - 1);
                Duration::from_secs(INNGEST[place])
            }
        }
    }

    /// The wait after the `failures`th failure, where `fraction` (0..1) is chance.
    fn jittered(&self, failures: u32, fraction: f64) -> Duration {
        let base = self.base(failures);
        match self {
            Backoff::Exponential(_) => base.mul_f64(1.0 - JITTER + 2.0 * JITTER * fraction),
            Backoff::Inngest => base + INNGEST_JITTER.mul_f64(fraction),
        }
    }
}

impl Serialize for Backoff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Backoff::Exponential(exponential) => exponential.serialize(serializer),
            Backoff::Inngest => serializer.serialize_str("inngest"),
        }
    }
}

impl<'de> Deserialize<'de> for Backoff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Backoff, D::Error> {
        // By hand, because an untagged enum would not say which member of the object is wrong.
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Backoff;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("{\"initial_ms\", \"factor\", \"max_ms\"} or \"inngest\"")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Backoff, E> {
                match name {
                    "inngest" => Ok(Backoff::Inngest),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Backoff, A::Error> {
                Exponential::deserialize(MapAccessDeserializer::new(map)).map(Backoff::Exponential)
            }
        }
        deserializer.deserialize_any(Form)
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

/// Jitter spreads an exponential wait over this share of it to either side, so that runs that failed together don't return together.
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
            Retry::Default => Some(self.backoff.jittered(attempt, fraction(seed, position, attempt))),
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

    #[test]
    fn a_backoff_is_an_object_or_the_name_of_a_table() {
        let read = serde_json::from_str::<Backoff>;
        for text in [r#"{"initial_ms":5,"factor":1.5,"max_ms":9}"#, r#""inngest""#] {
            let backoff = read(text).expect(text);
            assert_eq!(serde_json::to_string(&backoff).expect("JSON"), text);
            assert_eq!(backoff.check(), Ok(()));
        }
        for (text, word) in [
            (r#""fibonacci""#, "inngest"),
            (r#"{"initial":5}"#, "`initial`"),
            (r#"{"initial_ms":5}"#, "`factor`"),
            ("7", "initial_ms"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn inngests_table_is_as_its_server_has_it() {
        let policy = RetryPolicy {
            attempts: 21,
            backoff: Backoff::Inngest,
        };
        let minutes = |minutes: u64| minutes * 60;
        let table = [
            15,
            30,
            60,
            minutes(2),
            minutes(5),
            minutes(10),
            minutes(20),
            minutes(40),
            3_600,
            7_200,
            7_200,
            7_200,
        ];
        for (attempt, seconds) in (1..).zip(table) {
            assert_eq!(policy.backoff.base(attempt).as_secs(), seconds);
            let wait = policy.next(attempt, &failure(Retry::Default), &[3; 32], 1);
            let wait = wait.expect("attempts are left").as_secs_f64();
            assert!(
                (seconds as f64..=seconds as f64 + 30.0).contains(&wait),
                "{attempt}: {wait}"
            );
        }
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
