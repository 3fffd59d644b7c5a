//! How runs end: what a function's definition says of it, and what the events carry that tell of it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
use crate::event::{self, Event};

/// What follows when a run of the function ends.
#[doc(hidden)]
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ends {
    /// The function that handles failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<&'static str>,
    /// Events that cancel runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cancel_on: Vec<CancelOn>,
    /// How long runs may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}

/// Events that cancel runs.
#[doc(hidden)]
#[derive(Clone, Debug, Serialize)]
pub struct CancelOn {
    /// Their name.
    pub event: &'static str,
    /// The path of a field that must be the same in the event that started the run.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub path: Option<&'static str>,
    /// A CEL expression over `event` and `async`.
    #[serde(rename = "if", skip_serializing_if = "Option::is_none")]
    pub condition: Option<&'static str>,
    /// For how many milliseconds after the run was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// How long runs may take, in milliseconds.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Timeouts {
    /// Until they begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<u64>,
    /// From there until they end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_ms: Option<u64>,
}

/// What the events `dormouse/function.finished`, `dormouse/function.failed` and `dormouse/function.cancelled` carry: a
/// function that one of them starts, or that handles failures (`on_failure`), takes an `Event<RunEnded>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunEnded {
    /// The function whose run has ended: `module/function`.
    pub function_id: String,
    /// The run.
    pub run_id: String,
    /// `Completed`, `Failed` or `Cancelled`.
    pub status: String,
    /// The event that started it.
    #[serde(default)]
    pub event: Option<Value>,
    /// Its output, when it has completed.
    #[serde(default)]
    pub result: Option<Value>,
    /// Its error, when it has failed, or why it was cancelled.
    #[serde(default)]
    pub error: Option<RunError>,
    /// Those of `event` and `result` that are left out because the event would be too big.
    #[serde(default)]
    pub omitted: Vec<String>,
}

/// Why a run has failed or was cancelled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunError {
    /// A stable word.
    pub code: String,
    /// For a person.
    pub message: String,
    /// The step it happened in.
    #[serde(default)]
    pub step: Option<String>,
    /// Anything else that the function gave with it.
    #[serde(default)]
    pub details: Option<Value>,
}

impl RunEnded {
    /// The event that started the run, with its data as a type; none when it is left out.
    ///
    /// # Errors
    /// `invalid-event-data` when the data does not fit.
    pub fn started_by<T: DeserializeOwned>(&self) -> Result<Option<Event<T>>> {
        match &self.event {
            Some(event) => event::parse(&event.to_string()).map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read_with_the_event_that_started_the_run() {
        let told = r#"{"function_id":"shop/order","run_id":"01J","status":"Failed","event":{"id":"a","name":"shop/ordered",
            "data":7,"ts":1},"error":{"code":"function-failed","message":"no","frames":["x"]},"_inngest":{"status":"Failed"}}"#;
        let ended: RunEnded = serde_json::from_str(told).expect("valid");
        let event: Event<u8> = ended.started_by().expect("it fits").expect("it is there");
        assert_eq!((event.name.as_str(), event.data), ("shop/ordered", 7));
        assert!(ended.started_by::<String>().is_err());
        assert_eq!(ended.error.expect("there").message, "no");
        let without = RunEnded {
            event: None,
            error: None,
            ..ended_again(told)
        };
        assert_eq!(without.started_by::<u8>().expect("nothing"), None);
    }

    fn ended_again(text: &str) -> RunEnded {
        serde_json::from_str(text).expect("valid")
    }
}
