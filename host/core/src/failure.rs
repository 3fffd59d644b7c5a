//! Failures as data: what a body, an operation or a function answers in place of a result.

use serde::{Deserialize, Deserializer, Serialize};

use crate::json::Json;

/// What a failure says about trying again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retry {
    /// As the policy says.
    #[default]
    Default,
    /// Not again.
    Never,
    /// Again after this many milliseconds, in place of the back-off.
    After(u64),
}

impl Retry {
    fn is_default(&self) -> bool {
        *self == Retry::Default
    }
}

/// Why something failed. The same in the guest contract, the journal and the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For a person: what happened, and where it helps, what to do.
    pub message: String,
    /// For a program: a stable word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// For a program: anything else.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub details: Option<Json>,
    /// Whether to try again.
    #[serde(default, skip_serializing_if = "Retry::is_default")]
    pub retry: Retry,
}

/// Details that are `null` are not the same as none: a replay must see what the first run saw.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

impl Failure {
    /// A failure with a code, retried as the policy says.
    pub fn new(code: &str, message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            code: Some(code.to_owned()),
            details: None,
            retry: Retry::Default,
        }
    }

    /// The same, not to be retried.
    pub fn terminal(code: &str, message: impl Into<String>) -> Failure {
        Failure {
            retry: Retry::Never,
            ..Failure::new(code, message)
        }
    }
}

/// A result, or why there is none.
pub type Outcome = Result<Json, Failure>;
