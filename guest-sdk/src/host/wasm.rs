//! The imports of the contract, and what a component's exports are made with.

use crate::error::{Failure, Retry};
use crate::host::RunStart;
use crate::http::Request;
use crate::log::Level;

#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "module",
        pub_export_macro: true,
        default_bindings_module: "::dormouse::__private::bindings",
        export_macro_name: "export",
    });
}

use bindings::dormouse::function::{config, context, log, secrets, steps, types};
pub(crate) use steps::{Attempt, Operation};

impl From<types::Failure> for Failure {
    fn from(failure: types::Failure) -> Failure {
        Failure {
            message: failure.message,
            code: failure.code,
            details: failure.details.and_then(|json| serde_json::from_str(&json).ok()),
            retry: match failure.retry {
                types::Retry::Default => Retry::Default,
                types::Retry::Never => Retry::Never,
                types::Retry::After(millis) => Retry::After(millis),
            },
        }
    }
}

impl From<Failure> for types::Failure {
    fn from(failure: Failure) -> types::Failure {
        types::Failure {
            message: failure.message,
            code: failure.code,
            details: failure.details.map(|details| details.to_string()),
            retry: match failure.retry {
                Retry::Default => types::Retry::Default,
                Retry::Never => types::Retry::Never,
                Retry::After(millis) => types::Retry::After(millis),
            },
        }
    }
}

pub(crate) fn begin_run(name: &str, options: Option<&str>) -> RunStart {
    match steps::begin_run(name, options) {
        steps::RunStart::Recorded(outcome) => RunStart::Recorded(outcome.map_err(Failure::from)),
        steps::RunStart::Execute(attempt) => RunStart::Execute(attempt),
        steps::RunStart::Deferred(operation) => RunStart::Deferred(operation),
    }
}

pub(crate) fn finish_run(attempt: Attempt, outcome: Result<&str, Failure>) -> Result<(), Failure> {
    let failure;
    let outcome = match outcome {
        Ok(json) => Ok(json),
        Err(error) => {
            failure = types::Failure::from(error);
            Err(&failure)
        }
    };
    steps::finish_run(attempt, outcome).map_err(Failure::from)
}

pub(crate) fn attempt_number(attempt: &Attempt) -> u32 {
    attempt.number()
}

pub(crate) fn attempt_deadline(attempt: &Attempt) -> u64 {
    attempt.deadline()
}

pub(crate) fn attempt_idempotency_key(attempt: &Attempt) -> String {
    attempt.idempotency_key()
}

pub(crate) fn attempt_state_changed(attempt: &Attempt) {
    attempt.state_changed();
}

pub(crate) fn await_any(operations: &[&Operation]) -> usize {
    steps::await_any(operations) as usize
}

pub(crate) fn operation_result(operation: &Operation) -> Result<String, Failure> {
    operation.result().map_err(Failure::from)
}

pub(crate) fn operation_body(operation: &Operation) -> Option<Vec<u8>> {
    operation.body()
}

// One function for each import: a component imports only those that its functions reach.

pub(crate) fn start_sleep(name: &str, millis: u64) -> Operation {
    steps::start_sleep(name, millis, None)
}

pub(crate) fn start_sleep_until(name: &str, time: u64) -> Operation {
    steps::start_sleep_until(name, time, None)
}

pub(crate) fn start_wait_for_event(name: &str, event: &str, options: Option<&str>) -> Operation {
    steps::start_wait_for_event(name, event, options)
}

pub(crate) fn start_wait_for_signal(name: &str, signal: &str, options: Option<&str>) -> Operation {
    steps::start_wait_for_signal(name, signal, options)
}

pub(crate) fn start_invoke(name: &str, function: &str, data: &str, options: Option<&str>) -> Operation {
    steps::start_invoke(name, function, data, options)
}

pub(crate) fn start_send_events(name: &str, events: &str) -> Operation {
    steps::start_send_events(name, events, None)
}

pub(crate) fn start_send_signal(name: &str, signal: &str, data: &str) -> Operation {
    steps::start_send_signal(name, signal, data, None)
}

pub(crate) fn start_fetch(name: &str, request: &Request, options: Option<&str>) -> Operation {
    let request = steps::Request {
        method: request.method.clone(),
        url: request.url.clone(),
        headers: request.headers.clone(),
        body: request.body.clone(),
    };
    steps::start_fetch(name, &request, options)
}

pub(crate) fn start_sql(name: &str, database: &str, statements: &str, options: Option<&str>) -> Operation {
    steps::start_sql(name, database, statements, options)
}

pub(crate) fn run_id() -> String {
    context::run_id()
}

pub(crate) fn function() -> String {
    context::function()
}

pub(crate) fn version() -> String {
    context::version()
}

pub(crate) fn event() -> String {
    context::event()
}

pub(crate) fn events() -> String {
    context::events()
}

pub(crate) fn now() -> u64 {
    context::now()
}

pub(crate) fn random(length: u32) -> Vec<u8> {
    context::random(length)
}

pub(crate) fn config(key: &str) -> Option<String> {
    config::get(key)
}

pub(crate) fn secret_placeholder(name: &str) -> Result<String, Failure> {
    secrets::placeholder(name).map_err(Failure::from)
}

pub(crate) fn reveal_secret(name: &str) -> Result<String, Failure> {
    secrets::reveal(name).map_err(Failure::from)
}

pub(crate) fn hmac_sha256(name: &str, data: &[u8]) -> Result<Vec<u8>, Failure> {
    secrets::hmac_sha256(name, data).map_err(Failure::from)
}

pub(crate) fn log(level: Level, message: &str, fields: Option<&str>) {
    let level = match level {
        Level::Trace => log::Level::Trace,
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    };
    log::write(level, message, fields);
}

/// What `dormouse::module!` exports a component with.
#[allow(missing_docs, unreachable_pub)]
pub mod exports {
    pub use super::bindings;
    pub use super::bindings::export;
    pub use super::bindings::exports::dormouse::function::functions::{
        Completion as WitCompletion, Failure as WitFailure, Guest,
    };
    use crate::function::{self, Completion, Entry};

    /// The export `run`.
    pub fn guest_run(entries: &[Entry], name: &str, input: &str) -> Result<WitCompletion, WitFailure> {
        match function::run(entries, name, input) {
            Ok(Completion::Done(json)) => Ok(WitCompletion::Done(json)),
            Ok(Completion::ContinueWith(json)) => Ok(WitCompletion::ContinueWith(json)),
            Err(error) => Err(WitFailure::from(error.into_failure())),
        }
    }
}
