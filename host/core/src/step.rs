//! The options of one step, as the guest contract carries them: JSON that names what it means and is refused otherwise.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::limit;
use crate::retry::{Backoff, RetryPolicy};

/// The options of a body (`begin-run`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StepOptions {
    /// How many tries in total, from 1.
    pub attempts: Option<u32>,
    /// How the waits between tries grow.
    pub backoff: Option<Backoff>,
    /// Wall time of one try in milliseconds.
    pub timeout_ms: Option<u64>,
}

impl StepOptions {
    /// Reads the options of a call; none means defaults.
    ///
    /// # Errors
    /// `invalid-options`, naming what is wrong.
    pub fn parse(json: Option<&str>) -> Result<StepOptions, Failure> {
        let Some(json) = json else {
            return Ok(StepOptions::default());
        };
        // A struct would also be read from an array.
        if !json.trim_start().starts_with('{') {
            return Err(invalid("the step's options must be a JSON object"));
        }
        let options: StepOptions =
            serde_json::from_str(json).map_err(|error| invalid(&format!("the step's options: {error}")))?;
        if options
            .attempts
            .is_some_and(|n| n == 0 || n > limit::ATTEMPTS_MAX)
        {
            return Err(invalid(&format!("attempts must be 1 to {}", limit::ATTEMPTS_MAX)));
        }
        if options.timeout_ms == Some(0) {
            return Err(invalid("timeout_ms must be at least 1"));
        }
        if let Some(backoff) = options.backoff {
            backoff.check().map_err(|reason| invalid(&reason))?;
        }
        Ok(options)
    }

    /// The function's policy with what these options say in its place.
    pub fn policy(&self, function: RetryPolicy) -> RetryPolicy {
        RetryPolicy {
            attempts: self.attempts.unwrap_or(function.attempts),
            backoff: self.backoff.unwrap_or(function.backoff),
        }
    }

    /// The wall time of one try, if these options say.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.map(Duration::from_millis)
    }
}

fn invalid(reason: &str) -> Failure {
    Failure::terminal("invalid-options", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_knows_and_refuses_the_rest_by_name() {
        let options = StepOptions::parse(Some(r#"{"attempts":3,"timeout_ms":50}"#)).expect("valid");
        assert_eq!(options.attempts, Some(3));
        assert_eq!(options.timeout(), Some(Duration::from_millis(50)));
        for (bad, word) in [
            (r#"{"attempt":3}"#, "attempt"),
            (r#"{"attempts":0}"#, "attempts"),
            (r#"{"attempts":22}"#, "attempts"),
            (r#"{"timeout_ms":0}"#, "timeout_ms"),
            (
                r#"{"backoff":{"initial_ms":0,"factor":2,"max_ms":1}}"#,
                "initial_ms",
            ),
            ("[]", "options"),
        ] {
            let failure = StepOptions::parse(Some(bad)).expect_err(bad);
            assert!(failure.message.contains(word), "{bad}: {}", failure.message);
        }
    }
}
