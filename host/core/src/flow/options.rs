//! What a definition may say of flow control.

use serde::{Deserialize, Serialize};

use super::rate::Rate;
use crate::limit;

/// So many in so long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateOptions {
    /// How many runs may start in a period.
    pub limit: u32,
    /// The period in milliseconds.
    pub period_ms: u64,
    /// How many of them may start at once after a rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// A CEL expression over `event`: each value has a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl RateOptions {
    /// As `rate_limit`. Without a burst a tenth of the limit, and one more, may start at once, as Inngest has it.
    ///
    /// # Errors
    /// A sentence that names the member.
    pub fn rate_limit(&self) -> Result<Rate, String> {
        self.rate("rate_limit", limit::RATE_LIMIT_PERIOD_MS_MAX, self.limit / 10 + 1)
    }

    /// As `throttle`. Without a burst, starts come evenly.
    ///
    /// # Errors
    /// A sentence that names the member.
    pub fn throttle(&self) -> Result<Rate, String> {
        self.rate("throttle", limit::THROTTLE_PERIOD_MS_MAX, 1)
    }

    fn rate(&self, what: &str, period_ms_max: u64, burst: u32) -> Result<Rate, String> {
        if !(1..=limit::RATE_MAX).contains(&self.limit) {
            return Err(format!("{what}: limit must be 1 to {}", limit::RATE_MAX));
        }
        if !(limit::RATE_PERIOD_MS_MIN..=period_ms_max).contains(&self.period_ms) {
            return Err(format!(
                "{what}: period_ms must be {} to {period_ms_max}",
                limit::RATE_PERIOD_MS_MIN
            ));
        }
        let burst = self.burst.unwrap_or(burst.min(self.limit));
        if !(1..=self.limit).contains(&burst) {
            return Err(format!("{what}: burst must be 1 to the limit, {}", self.limit));
        }
        Ok(Rate {
            limit: self.limit,
            period_ms: self.period_ms,
            burst,
        })
    }
}
