//! What may be said about a step: the JSON object that the contract calls options.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::time::to_millis;

/// How the waits between attempts grow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Backoff {
    initial_ms: u64,
    factor: f64,
    max_ms: u64,
}

impl Backoff {
    /// The first wait, doubling up to an hour. At least 1 ms.
    pub fn exponential(initial: Duration) -> Backoff {
        let initial_ms = to_millis(initial).max(1);
        Backoff {
            initial_ms,
            factor: 2.0,
            max_ms: initial_ms.max(3_600_000),
        }
    }

    /// The same wait every time.
    pub fn constant(wait: Duration) -> Backoff {
        let initial_ms = to_millis(wait).max(1);
        Backoff {
            initial_ms,
            factor: 1.0,
            max_ms: initial_ms,
        }
    }

    /// What each wait is multiplied by to give the next: 1 to 100.
    #[must_use]
    pub fn factor(self, factor: f64) -> Backoff {
        Backoff { factor, ..self }
    }

    /// The longest wait.
    #[must_use]
    pub fn max(self, max: Duration) -> Backoff {
        Backoff {
            max_ms: to_millis(max).max(self.initial_ms),
            ..self
        }
    }

    /// For the attribute macro, which has checked the numbers.
    #[doc(hidden)]
    pub const fn from_millis(initial_ms: u64, factor: f64, max_ms: u64) -> Backoff {
        Backoff {
            initial_ms,
            factor,
            max_ms,
        }
    }

    /// The wait after the `failures`th failure, without jitter.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn wait_ms(&self, failures: u32) -> u64 {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        (self.initial_ms as f64 * self.factor.powi(exponent)).min(self.max_ms as f64) as u64
    }
}

/// The options object, or nothing when nothing was said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options(serde_json::Map<String, Value>);

impl Options {
    pub(crate) fn set(&mut self, key: &str, value: impl Serialize) {
        // Numbers, texts and small objects of them: writing them can't fail.
        self.0
            .insert(key.to_owned(), serde_json::to_value(value).unwrap_or_default());
    }

    pub(crate) fn set_millis(&mut self, key: &str, duration: Duration) {
        self.set(key, to_millis(duration));
    }

    pub(crate) fn json(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| serde_json::to_string(&self.0).unwrap_or_default())
    }
}
