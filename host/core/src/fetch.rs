//! Requests that the host performs for a step: what is asked for, and what an answer means.
//!
//! A step's tries are entries of its own; when the next is due follows from the run's seed. Absent on purpose: the network,
//! and which hosts are granted.

use std::time::Duration;

use serde::Deserialize;

use crate::failure::{Failure, Retry};
use crate::json::Json;
use crate::limit;
use crate::operation::read;
use crate::retry::RetryPolicy;
use crate::step::StepOptions;

/// A request, as a step asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetch {
    /// `GET`, `POST`, …
    pub method: String,
    /// An absolute URL.
    pub url: String,
    /// Header fields, in order.
    pub headers: Vec<(String, String)>,
    /// The body in base 64, if there is one.
    pub body: Option<String>,
    options: StepOptions,
}

impl Fetch {
    /// Reads the input of an entry.
    ///
    /// # Errors
    /// `invalid-options`.
    pub fn read(input: &Json) -> Result<Fetch, Failure> {
        #[derive(Deserialize)]
        struct Input {
            method: String,
            url: String,
            headers: Vec<(String, String)>,
            body: Option<String>,
            options: Option<Json>,
        }
        let Input {
            method,
            url,
            headers,
            body,
            options,
        } = read(input)?;
        Ok(Fetch {
            method,
            url,
            headers,
            body,
            options: StepOptions::parse(options.as_ref().map(Json::as_str))?,
        })
    }

    /// How often to try: as the step says, else the function.
    pub fn policy(&self, function: RetryPolicy) -> RetryPolicy {
        self.options.policy(function)
    }

    /// The wall time of one try.
    pub fn timeout(&self) -> Duration {
        self.options
            .timeout()
            .unwrap_or(limit::FETCH_TIMEOUT)
            .min(limit::FETCH_TIMEOUT_MAX)
    }
}

/// Why an answer with this status is tried again, if it is: the server could not answer now. `retry_after` is the header of
/// that name, in seconds.
pub fn refused_for_now(status: u16, retry_after: Option<&str>) -> Option<Failure> {
    if !matches!(status, 408 | 425 | 429 | 500..=599) || status == 501 {
        return None;
    }
    let after = retry_after.and_then(|text| text.trim().parse::<u64>().ok());
    Some(Failure {
        retry: after.map_or(Retry::Default, |seconds| {
            Retry::After(seconds.saturating_mul(1_000).min(limit::SLEEP_MS_MAX))
        }),
        details: Some(Json::trusted(format!("{{\"status\":{status}}}"))),
        ..Failure::new("http-failed", format!("the server answered with status {status}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_with_its_options() {
        let input = r#"{"method":"POST","url":"http://a/","headers":[["a","b"]],"body":"YQ==",
            "options":{"attempts":2,"timeout_ms":50}}"#;
        let fetch = Fetch::read(&Json::trusted(input)).expect("valid");
        assert_eq!(fetch.policy(RetryPolicy::default()).attempts, 2);
        assert_eq!(fetch.timeout(), Duration::from_millis(50));
        assert_eq!(fetch.headers, [("a".to_owned(), "b".to_owned())]);
        let plain = r#"{"method":"GET","url":"http://a/","headers":[],"body":null}"#;
        let fetch = Fetch::read(&Json::trusted(plain)).expect("valid");
        assert_eq!(
            (fetch.timeout(), fetch.body.as_deref()),
            (limit::FETCH_TIMEOUT, None)
        );
        let bad = r#"{"method":"GET","url":"http://a/","headers":[],"body":null,"options":{"retries":1}}"#;
        let failure = Fetch::read(&Json::trusted(bad)).expect_err("unknown");
        assert_eq!(failure.code.as_deref(), Some("invalid-options"));
    }

    #[test]
    fn what_the_server_cannot_do_now_is_tried_again_when_it_says() {
        for status in [200, 204, 301, 304, 400, 401, 404, 409, 422, 501] {
            assert_eq!(refused_for_now(status, None), None, "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504] {
            let failure = refused_for_now(status, None).expect("tried again");
            assert_eq!(failure.retry, Retry::Default);
        }
        let asked = |after| refused_for_now(503, Some(after)).expect("tried again").retry;
        assert_eq!(asked(" 7 "), Retry::After(7_000));
        assert_eq!(asked("Wed, 21 Oct 2026 07:28:00 GMT"), Retry::Default);
        assert_eq!(asked("99999999999999999"), Retry::After(limit::SLEEP_MS_MAX));
    }
}
