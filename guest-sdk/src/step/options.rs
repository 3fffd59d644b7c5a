//! What may be said about a step: the JSON object that the contract calls options.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::time::to_millis;

/// How the waits between attempts grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff(Growth);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Growth {
    Exponential(Exponential),
    Inngest,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exponential {
    initial_ms: u64,
    factor: f64,
    max_ms: u64,
}

impl Backoff {
    /// The first wait, doubling up to an hour. At least 1 ms.
    pub fn exponential(initial: Duration) -> Backoff {
        let initial_ms = to_millis(initial).max(1);
        Backoff::from_millis(initial_ms, 2.0, initial_ms.max(3_600_000))
    }

    /// The same wait every time.
    pub fn constant(wait: Duration) -> Backoff {
        let initial_ms = to_millis(wait).max(1);
        Backoff::from_millis(initial_ms, 1.0, initial_ms)
    }

    /// Inngest's waits: 15 s, 30 s, 1, 2, 5, 10, 20 and 40 min, 1 h, then 2 h each, and up to 30 s more at random.
    pub const fn inngest() -> Backoff {
        Backoff(Growth::Inngest)
    }

    /// What each wait is multiplied by to give the next: 1 to 100. Changes nothing in a table of waits.
    #[must_use]
    pub fn factor(self, factor: f64) -> Backoff {
        match self.0 {
            Growth::Exponential(waits) => Backoff::from_millis(waits.initial_ms, factor, waits.max_ms),
            Growth::Inngest => self,
        }
    }

    /// The longest wait. Changes nothing in a table of waits.
    #[must_use]
    pub fn max(self, max: Duration) -> Backoff {
        match self.0 {
            Growth::Exponential(waits) => {
                let max_ms = to_millis(max).max(waits.initial_ms);
                Backoff::from_millis(waits.initial_ms, waits.factor, max_ms)
            }
            Growth::Inngest => self,
        }
    }

    /// For the attribute macro, which has checked the numbers.
    #[doc(hidden)]
    pub const fn from_millis(initial_ms: u64, factor: f64, max_ms: u64) -> Backoff {
        Backoff(Growth::Exponential(Exponential {
            initial_ms,
            factor,
            max_ms,
        }))
    }

    /// The wait after the `failures`th failure, without jitter.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn wait_ms(&self, failures: u32) -> u64 {
        /// Seconds, and the last for all failures that follow.
        const INNGEST: [u64; 10] = [15, 30, 60, 120, 300, 600, 1_200, 2_400, 3_600, 7_200];
        let before = failures.saturating_sub(1);
        match self.0 {
            Growth::Exponential(waits) => {
                let exponent = i32::try_from(before).unwrap_or(i32::MAX);
                (waits.initial_ms as f64 * waits.factor.powi(exponent)).min(waits.max_ms as f64) as u64
            }
            Growth::Inngest => 1_000 * INNGEST[(before as usize).min(INNGEST.len() - 1)],
        }
    }
}

impl Serialize for Backoff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Growth::Exponential(waits) => waits.serialize(serializer),
            Growth::Inngest => serializer.serialize_str("inngest"),
        }
    }
}

impl<'de> Deserialize<'de> for Backoff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Backoff, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Name(String),
            Waits(Exponential),
        }
        match Form::deserialize(deserializer)? {
            Form::Waits(waits) => Ok(Backoff(Growth::Exponential(waits))),
            Form::Name(name) if name == "inngest" => Ok(Backoff::inngest()),
            Form::Name(name) => Err(D::Error::custom(format!("there is no backoff \"{name}\""))),
        }
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
