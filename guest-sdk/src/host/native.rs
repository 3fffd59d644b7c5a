//! The contract where there is no host: the test harness of this thread answers.

use crate::error::{Error, Failure, Result as Answer};
use crate::host::RunStart;
use crate::http::{Request, Response};
use crate::log::Level;
use crate::testing::world::{self, Kind};

/// An open attempt of the harness.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) number: u32,
    pub(crate) deadline: u64,
    pub(crate) idempotency_key: String,
}

/// An operation of the harness, by its number.
#[derive(Debug)]
pub(crate) struct Operation(pub(crate) usize);

impl Drop for Operation {
    fn drop(&mut self) {
        world::give_up(self.0);
    }
}

pub(crate) fn begin_run(name: &str, options: Option<&str>) -> RunStart {
    world::begin_run(name, options)
}

pub(crate) fn finish_run(attempt: Attempt, outcome: Result<&str, Failure>) -> Result<(), Failure> {
    drop(attempt);
    world::finish_run(outcome.map(str::to_owned))
}

pub(crate) fn attempt_number(attempt: &Attempt) -> u32 {
    attempt.number
}

pub(crate) fn attempt_deadline(attempt: &Attempt) -> u64 {
    attempt.deadline
}

pub(crate) fn attempt_idempotency_key(attempt: &Attempt) -> String {
    attempt.idempotency_key.clone()
}

pub(crate) fn attempt_state_changed(_: &Attempt) {
    world::with(|world| world.state_changed());
}

pub(crate) fn await_any(operations: &[&Operation]) -> usize {
    let numbers: Vec<usize> = operations.iter().map(|operation| operation.0).collect();
    world::await_any(&numbers)
}

pub(crate) fn operation_result(operation: &Operation) -> Result<String, Failure> {
    world::with(|world| world.result(operation.0))
}

pub(crate) fn operation_body(operation: &Operation) -> Option<Vec<u8>> {
    world::with(|world| world.body(operation.0))
}

pub(crate) fn start_sleep(name: &str, millis: u64) -> Operation {
    world::start(name, Kind::Sleep { millis }, None)
}

pub(crate) fn start_sleep_until(name: &str, time: u64) -> Operation {
    world::start(name, Kind::SleepUntil { time }, None)
}

pub(crate) fn start_wait_for_event(name: &str, event: &str, options: Option<&str>) -> Operation {
    world::start(
        name,
        Kind::WaitForEvent {
            event: event.to_owned(),
        },
        options,
    )
}

pub(crate) fn start_wait_for_signal(name: &str, signal: &str, options: Option<&str>) -> Operation {
    world::start(
        name,
        Kind::WaitForSignal {
            signal: signal.to_owned(),
        },
        options,
    )
}

pub(crate) fn start_invoke(name: &str, function: &str, data: &str, options: Option<&str>) -> Operation {
    let function = function.to_owned();
    let data = world::value(data);
    world::start(name, Kind::Invoke { function, data }, options)
}

pub(crate) fn start_send_events(name: &str, events: &str) -> Operation {
    world::start(
        name,
        Kind::SendEvents {
            events: world::value(events),
        },
        None,
    )
}

pub(crate) fn start_send_signal(name: &str, signal: &str, data: &str) -> Operation {
    let signal = signal.to_owned();
    let data = world::value(data);
    world::start(name, Kind::SendSignal { signal, data }, None)
}

pub(crate) fn start_fetch(name: &str, request: &Request, options: Option<&str>) -> Operation {
    world::start(name, Kind::Fetch(request.clone()), options)
}

pub(crate) fn start_sql(name: &str, database: &str, statements: &str, options: Option<&str>) -> Operation {
    let database = database.to_owned();
    let statements = serde_json::from_str(statements).unwrap_or_default();
    world::start(name, Kind::Sql { database, statements }, options)
}

pub(crate) fn run_id() -> String {
    world::with(|world| world.setup.run_id.clone())
}

pub(crate) fn function() -> String {
    world::with(|world| format!("test/{}", world.setup.function))
}

pub(crate) fn version() -> String {
    "sha256:native".to_owned()
}

pub(crate) fn event() -> String {
    world::with(|world| {
        world
            .setup
            .events
            .first()
            .map(ToString::to_string)
            .unwrap_or_default()
    })
}

pub(crate) fn events() -> String {
    world::with(|world| serde_json::to_string(&world.setup.events).unwrap_or_default())
}

pub(crate) fn now() -> u64 {
    world::with(|world| world.now())
}

pub(crate) fn random(length: u32) -> Vec<u8> {
    world::with(|world| world.random(length))
}

pub(crate) fn config(key: &str) -> Option<String> {
    world::with(|world| world.setup.config.get(key).map(ToString::to_string))
}

pub(crate) fn secret_placeholder(name: &str) -> Result<String, Failure> {
    world::with(|world| world.secret(name).map(|_| format!("<secret {name}>")))
}

pub(crate) fn reveal_secret(name: &str) -> Result<String, Failure> {
    world::with(|world| world.secret(name))
}

pub(crate) fn hmac_sha256(_: &str, _: &[u8]) -> Result<Vec<u8>, Failure> {
    Err(Error::non_retriable("the test harness knows no HMAC")
        .code("not-supported")
        .into_failure())
}

pub(crate) fn log(level: Level, message: &str, fields: Option<&str>) {
    world::log(level, message, fields);
}

pub(crate) fn http_send(request: &Request) -> Answer<Response> {
    world::http(request)
}
