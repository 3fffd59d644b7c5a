//! Invoking another function: what the step asks for, and what the other function's end is to the step.
//!
//! The run that an invoke creates, the *child*, and its event have ids that follow from the entry which opens the step, so
//! whoever reads the entry knows them. Absent on purpose: whether the function exists, which the registry says in the
//! moment of the commit.

use serde::Deserialize;

use crate::event::{self, Accepted};
use crate::failure::{Failure, Retry};
use crate::id::{EventId, RunId};
use crate::journal::Seq;
use crate::json::Json;
use crate::limit;
use crate::name::FunctionName;
use crate::operation::{read, timeout};
use crate::run::RunError;
use crate::time::Timestamp;

/// The name of the event that an invoked function is started with.
pub const EVENT: &str = "dormouse/function.invoked";

/// Who invokes.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The run.
    pub run: RunId,
    /// Its function: one of the same module is meant where no module is named.
    pub function: &'a FunctionName,
    /// How many invokes lead to it: 0 for a run that an event has started.
    pub depth: u32,
}

/// What becomes of the child when its caller gives it up: by its own end, a timeout, or by dropping the step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCancel {
    /// It is cancelled too.
    #[default]
    Cancel,
    /// It goes on.
    Abandon,
}

/// An invoke, as a step asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Invoke {
    /// The function.
    pub function: FunctionName,
    /// The child's id.
    pub child: RunId,
    /// Its event's id.
    pub event_id: EventId,
    /// Its event.
    pub event: Accepted,
    /// What becomes of the child when it is given up.
    pub on_cancel: OnCancel,
    /// When the step gives up by itself.
    pub due_at: Option<Timestamp>,
}

impl Invoke {
    /// Reads the input of the entry `operation`, started `at`.
    ///
    /// # Errors
    /// `invalid-name` for the function, `invalid-event` and `event-too-big` for the data, `invalid-duration`,
    /// `invalid-options`, `invoke-too-deep`.
    pub fn read(input: &Json, caller: Caller<'_>, operation: Seq, at: Timestamp) -> Result<Invoke, Failure> {
        #[derive(Deserialize)]
        struct Input {
            function: String,
            data: Json,
            #[serde(default)]
            options: Options,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, deny_unknown_fields)]
        struct Options {
            timeout_ms: Option<u64>,
            on_cancel: OnCancel,
        }
        let Input {
            function,
            data,
            options,
        } = read(input)?;
        let function = match function.contains('/') {
            true => function.parse(),
            false => FunctionName::new(caller.function.module(), &function),
        }
        .map_err(|error| Failure::terminal("invalid-name", error.to_string()))?;
        if caller.depth >= limit::INVOKE_DEPTH_MAX {
            return Err(Failure::terminal(
                "invoke-too-deep",
                format!(
                    "{function} would be invoked by a run that {} invokes lead to, more than the limit of {}: send an \
                     event instead, or go on with continue-with",
                    caller.depth,
                    limit::INVOKE_DEPTH_MAX
                ),
            ));
        }
        let bytes = data.len();
        if bytes > limit::EVENT_BYTES_MAX {
            let error = event::Invalid::TooBig { bytes };
            return Err(Failure::terminal(error.code(), error.to_string()));
        }
        let event_id = EventId::derived(at, &[b"invoke", &caller.run.to_bytes(), &operation.to_be_bytes()]);
        let event = event::invoked(&function, data, event_id, at)
            .map_err(|error| Failure::terminal(error.code(), error.to_string()))?;
        Ok(Invoke {
            function,
            child: child(caller.run, operation, at),
            event_id,
            event,
            on_cancel: options.on_cancel,
            due_at: timeout(options.timeout_ms, at)?,
        })
    }
}

/// The id of the child that the entry `operation` of a run, started `at`, creates.
pub fn child(run: RunId, operation: Seq, at: Timestamp) -> RunId {
    RunId::derived(at, &[b"invoke", &run.to_bytes(), &operation.to_be_bytes()])
}

/// What an invoke comes to whose function is not deployed.
pub fn not_found(function: &FunctionName) -> Failure {
    Failure::terminal(
        "function-not-found",
        format!("there is no function {function}: deploy its module, or mend the name"),
    )
}

/// What an invoke comes to whose time is over.
pub fn timed_out(child: RunId) -> Failure {
    Failure::terminal(
        "invoke-timeout",
        format!("run {child} had not ended when the step's timeout had passed"),
    )
}

/// What an invoke comes to whose child was cancelled.
pub fn cancelled(child: RunId) -> Failure {
    Failure::terminal("invoke-cancelled", format!("run {child} was cancelled"))
}

/// What an invoke comes to whose child has failed: the child's own failure.
pub fn failed(error: &RunError) -> Failure {
    Failure {
        message: error.message.clone(),
        code: Some(error.code.clone()),
        details: error.details.clone(),
        retry: Retry::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn invoke(input: &str, depth: u32) -> Result<Invoke, Failure> {
        let function = FunctionName::new("shop", "order").expect("a name");
        let caller = Caller {
            run: RunId::from_parts(AT, [7; 10]),
            function: &function,
            depth,
        };
        Invoke::read(&Json::trusted(input), caller, 3, AT)
    }

    #[test]
    fn an_invoke_is_read_the_same_again() {
        let input = r#"{"function":"ship","data":{"n":1},"options":{"timeout_ms":5,"on_cancel":"abandon"}}"#;
        let asked = invoke(input, 0).expect("valid");
        assert_eq!(invoke(input, 0).expect("valid"), asked);
        assert_eq!(asked.function.to_string(), "shop/ship");
        assert_eq!(asked.child, child(RunId::from_parts(AT, [7; 10]), 3, AT));
        assert_eq!(asked.on_cancel, OnCancel::Abandon);
        assert_eq!(asked.due_at, Some(Timestamp::from_millis(AT.as_millis() + 5)));
        assert!(asked.event.payload.as_str().contains(r#""data":{"n":1}"#));
        let elsewhere = invoke(r#"{"function":"stock/count","data":null}"#, 0).expect("valid");
        assert_eq!(elsewhere.function.to_string(), "stock/count");
        assert_eq!((elsewhere.on_cancel, elsewhere.due_at), (OnCancel::Cancel, None));
    }

    #[test]
    fn what_is_wrong_with_an_invoke_is_a_failure() {
        let big = format!(
            r#"{{"function":"a","data":{{"x":"{}"}}}}"#,
            "x".repeat(limit::EVENT_BYTES_MAX)
        );
        for (input, depth, code) in [
            (r#"{"function":"","data":{}}"#, 0, "invalid-name"),
            (r#"{"function":"a/b/c","data":{}}"#, 0, "invalid-name"),
            (r#"{"function":"A","data":{}}"#, 0, "invalid-name"),
            (r#"{"function":"a","data":[]}"#, 0, "invalid-event"),
            (big.as_str(), 0, "event-too-big"),
            (
                r#"{"function":"a","data":{},"options":{"on_cancel":"ask"}}"#,
                0,
                "invalid-options",
            ),
            (
                r#"{"function":"a","data":{},"options":{"timeout_ms":99999999999}}"#,
                0,
                "invalid-duration",
            ),
            (
                r#"{"function":"a","data":{}}"#,
                limit::INVOKE_DEPTH_MAX,
                "invoke-too-deep",
            ),
        ] {
            let failure = invoke(input, depth).expect_err(code);
            assert_eq!(failure.code.as_deref(), Some(code), "{failure:?}");
        }
    }
}
