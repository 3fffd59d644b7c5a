//! `steps`: bodies and operations.
//!
//! What can be decided without the journal is decided here, the same on every replay: names and texts that are
//! refused, handles used against their rules, results that were delivered before. Everything else is asked of the
//! run's host, in the order of the guest's calls.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use dormouse_core::journal::OperationKind;
use dormouse_core::{Failure, Json, Outcome, Seq, limit};
use serde_json::json;
use wasmtime::Result;
use wasmtime::component::Resource;

use crate::bindings::steps::{Host, HostAttempt, HostOperation, Request, RunStart};
use crate::bindings::types;
use crate::guest_json::{failure, failure_to_guest, outcome_to_guest, payload, step_name, within};
use crate::host::{self, StartCall};
use crate::state::{Body, HostState, Phase};
use crate::trap::{GuestTrap, StopLeg};

/// The guest's handle on an operation.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Operation(Standing);

enum Standing {
    /// The host performs it.
    Open(Seq),
    /// Its result may be read.
    Delivered(Seq),
    /// Given up.
    Cancelled,
    /// Never reached the host: this is its result.
    Refused(Failure),
}

/// The guest's handle on the open attempt.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Attempt;

fn bad_call(message: impl Into<String>) -> wasmtime::Error {
    GuestTrap::new("bad-call", message).into()
}

fn stop(_: host::Stop) -> wasmtime::Error {
    StopLeg.into()
}

impl HostState {
    /// Refuses a call of this interface from `describe` and from bodies.
    fn outside_bodies(&mut self, call: &str) -> Result<()> {
        self.flush_stdio(false);
        match &self.phase {
            Phase::Outside => Ok(()),
            Phase::Describe => self.needs_run(call),
            Phase::Body(body) => Err(GuestTrap::new(
                "nested-step",
                format!(
                    "`{call}` was called inside the body of step \"{}\"; a body may not begin or wait for another \
                     step: return its result and go on outside",
                    body.ticket.step
                ),
            )
            .into()),
        }
    }

    fn open_operation(&mut self, operation: Seq) -> Result<Resource<Operation>> {
        if self.open_operations >= limit::OPEN_OPERATIONS_MAX {
            let message = format!(
                "more than {} operations are open at once",
                limit::OPEN_OPERATIONS_MAX
            );
            return Err(GuestTrap::new("too-many-operations", message).into());
        }
        self.open_operations += 1;
        // The host has counted it: it is none of the handles that a guest may make as it likes.
        self.table.set_max_capacity(self.table.max_capacity() + 1);
        Ok(self.table.push(Operation(Standing::Open(operation)))?)
    }

    async fn start(
        &mut self,
        kind: OperationKind,
        name: String,
        input: Result<Json, Failure>,
        options: Option<String>,
    ) -> Result<Resource<Operation>> {
        let checked = step_name(&name)
            .and(input)
            .and_then(|input| Ok((input, read_options(options)?)));
        let (mut input, mut options) = match checked {
            Ok(checked) => checked,
            Err(failure) => return Ok(self.table.push(Operation(Standing::Refused(failure)))?),
        };
        if kind.options_are_input()
            && let Some(options) = options.take()
        {
            input = with_options(&input, &options);
        }
        let call = StartCall {
            kind,
            name,
            input,
            options,
        };
        let operation = self.host.start(call).await.map_err(stop)?;
        self.answered();
        self.open_operation(operation)
    }

    /// Gives an operation up that is open.
    async fn give_up(&mut self, operation: Seq) -> Result<()> {
        self.open_operations = self.open_operations.saturating_sub(1);
        self.host.cancel(operation).await.map_err(stop)?;
        self.answered();
        Ok(())
    }

    fn open_attempt(&self, call: &str) -> Result<&Body> {
        match &self.phase {
            Phase::Body(body) => Ok(body),
            _ => Err(bad_call(format!(
                "`{call}` was called on an attempt that is over"
            ))),
        }
    }
}

fn read_options(options: Option<String>) -> Result<Option<Json>, Failure> {
    options.map(|text| payload(&text, "the options")).transpose()
}

/// Makes an input of values that always have a JSON form.
fn object(value: &serde_json::Value) -> Result<Json, Failure> {
    Json::from_value(value).map_err(|error| Failure::terminal("invalid-json", error.to_string()))
}

/// Puts a checked text into an object without reading it.
fn with_text(mut fields: Vec<(&str, String)>, key: &str, text: &str, what: &str) -> Result<Json, Failure> {
    let checked = payload(text, what)?;
    let mut object = String::with_capacity(checked.len() + 64);
    object.push('{');
    for (name, value) in fields.drain(..) {
        let value = serde_json::Value::String(value);
        object.push_str(&format!("\"{name}\":{value},"));
    }
    object.push_str(&format!("\"{key}\":{checked}}}"));
    Ok(Json::trusted(object))
}

/// An input, which is an object with at least one member, with the call's options as one more.
fn with_options(input: &Json, options: &Json) -> Json {
    let members = &input.as_str()[..input.len() - 1];
    Json::trusted(format!("{members},\"options\":{options}}}"))
}

impl Host for HostState {
    async fn begin_run(&mut self, name: String, options: Option<String>) -> Result<RunStart> {
        self.outside_bodies("steps.begin-run")?;
        let options = match step_name(&name).and_then(|()| read_options(options)) {
            Ok(options) => options,
            Err(failure) => return Ok(RunStart::Recorded(Err(failure_to_guest(failure)))),
        };
        // Only a body can be long: what is printed before it must not count as its.
        self.flush_stdio(true);
        let answer = self.host.begin_run(name, options).await.map_err(stop)?;
        self.answered();
        match answer {
            host::RunStart::Recorded(outcome) => Ok(RunStart::Recorded(outcome_to_guest(outcome))),
            host::RunStart::Deferred(operation) => Ok(RunStart::Deferred(self.open_operation(operation)?)),
            host::RunStart::Execute(ticket) => {
                self.open_body(ticket);
                Ok(RunStart::Execute(self.table.push(Attempt)?))
            }
        }
    }

    async fn finish_run(
        &mut self,
        attempt: Resource<Attempt>,
        outcome: Result<String, types::Failure>,
    ) -> Result<Result<(), types::Failure>> {
        self.table.delete(attempt)?;
        self.flush_stdio(true);
        let Phase::Body(body) = std::mem::replace(&mut self.phase, Phase::Outside) else {
            return Err(bad_call("`steps.finish-run` was called without an open body"));
        };
        self.shared.close_body();
        let (outcome, refused) = match outcome {
            Ok(text) => match payload(&text, "the step's output") {
                Ok(json) => (Ok(json), None),
                Err(failure) => (Err(failure.clone()), Some(failure)),
            },
            Err(reason) => (Err(failure(reason)), None),
        };
        let recorded = self
            .host
            .finish_run(outcome, body.state_changed)
            .await
            .map_err(stop)?;
        self.answered();
        Ok(match (recorded, refused) {
            (Err(failure), _) | (Ok(()), Some(failure)) => Err(failure_to_guest(failure)),
            (Ok(()), None) => Ok(()),
        })
    }

    async fn start_sleep(
        &mut self,
        name: String,
        duration_ms: u64,
        options: Option<String>,
    ) -> Result<Resource<Operation>> {
        self.outside_bodies("steps.start-sleep")?;
        let input = Ok(Json::trusted(format!("{{\"duration_ms\":{duration_ms}}}")));
        self.start(OperationKind::Sleep, name, input, options).await
    }

    async fn start_sleep_until(
        &mut self,
        name: String,
        time_ms: u64,
        options: Option<String>,
    ) -> Result<Resource<Operation>> {
        self.outside_bodies("steps.start-sleep-until")?;
        let input = Ok(Json::trusted(format!("{{\"time_ms\":{time_ms}}}")));
        self.start(OperationKind::SleepUntil, name, input, options).await
    }

    async fn start_wait_for_event(
        &mut self,
        name: String,
        event: String,
        options: Option<String>,
    ) -> Result<Resource<Operation>> {
        self.outside_bodies("steps.start-wait-for-event")?;
        let input = object(&json!({ "event": event }));
        self.start(OperationKind::WaitForEvent, name, input, options)
            .await
    }

    async fn start_wait_for_signal(
        &mut self,
        name: String,
        signal: String,
        options: Option<String>,
    ) -> Result<Resource<Operation>> {
        self.outside_bodies("steps.start-wait-for-signal")?;
        let input = object(&json!({ "signal": signal }));
        self.start(OperationKind::WaitForSignal, name, input, options)
            .await
    }

    async fn start_invoke(
        &mut self,
        name: String,
        function: String,
        data: String,
        options: Option<String>,
    ) -> Result<Resource<Operation>> {
        self.outside_bodies("steps.start-invoke")?;
        let input = with_text(vec![("function", function)], "data", &data, "the data");
        self.start(OperationKind::Invoke, name, input, options).await
    }

    async fn start_send_events(
        &mut self,
        name: String,
        events: String,
        options: Option<String>,
    ) -> Result<Resource<Operation>> {
        self.outside_bodies("steps.start-send-events")?;
        let input = with_text(Vec::new(), "events", &events, "the list of events");
        self.start(OperationKind::SendEvents, name, input, options).await
    }

    async fn start_send_signal(
        &mut self,
        name: String,
        signal: String,
        data: String,
        options: Option<String>,
    ) -> Result<Resource<Operation>> {
        self.outside_bodies("steps.start-send-signal")?;
        let input = with_text(vec![("signal", signal)], "data", &data, "the data");
        self.start(OperationKind::SendSignal, name, input, options).await
    }

    async fn start_fetch(
        &mut self,
        name: String,
        request: Request,
        options: Option<String>,
    ) -> Result<Resource<Operation>> {
        self.outside_bodies("steps.start-fetch")?;
        let headers: usize = request
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let body = request.body.as_ref().map_or(0, Vec::len);
        let input = within(request.url.len() + headers + body, "the request").and_then(|()| {
            object(&json!({
                "method": request.method,
                "url": request.url,
                "headers": request.headers,
                "body": request.body.as_deref().map(|body| BASE64_STANDARD.encode(body)),
            }))
        });
        self.start(OperationKind::Fetch, name, input, options).await
    }

    async fn start_sql(
        &mut self,
        name: String,
        database: String,
        statements: String,
        options: Option<String>,
    ) -> Result<Resource<Operation>> {
        self.outside_bodies("steps.start-sql")?;
        let input = with_text(
            vec![("database", database)],
            "statements",
            &statements,
            "the list of statements",
        );
        self.start(OperationKind::Sql, name, input, options).await
    }

    async fn await_any(&mut self, operations: Vec<Resource<Operation>>) -> Result<u32> {
        self.outside_bodies("steps.await-any")?;
        if operations.is_empty() {
            return Err(bad_call(
                "`steps.await-any` was called with nothing to wait for: it would never end",
            ));
        }
        let mut open = Vec::with_capacity(operations.len());
        let mut ready = None;
        for (index, handle) in (0..).zip(&operations) {
            match &self.table.get(handle)?.0 {
                Standing::Open(operation) => open.push(*operation),
                Standing::Cancelled => {
                    return Err(bad_call(
                        "`steps.await-any` was called with an operation that was cancelled",
                    ));
                }
                Standing::Delivered(_) | Standing::Refused(_) => ready = ready.or(Some(index)),
            }
        }
        if let Some(index) = ready {
            return Ok(index);
        }
        let index = self.host.await_any(&open).await.map_err(stop)?;
        self.answered();
        let (Some(handle), Some(operation)) = (operations.get(index as usize), open.get(index as usize))
        else {
            return Err(wasmtime::format_err!(
                "the host answered await-any with {index} of {}",
                open.len()
            ));
        };
        self.table.get_mut(handle)?.0 = Standing::Delivered(*operation);
        self.open_operations = self.open_operations.saturating_sub(1);
        Ok(index)
    }
}

impl HostAttempt for HostState {
    fn number(&mut self, _: Resource<Attempt>) -> Result<u32> {
        Ok(self.open_attempt("attempt.number")?.ticket.number)
    }

    fn deadline(&mut self, _: Resource<Attempt>) -> Result<u64> {
        Ok(self
            .open_attempt("attempt.deadline")?
            .ticket
            .deadline
            .as_millis_u64())
    }

    fn idempotency_key(&mut self, _: Resource<Attempt>) -> Result<String> {
        Ok(self
            .open_attempt("attempt.idempotency-key")?
            .ticket
            .idempotency_key
            .clone())
    }

    fn state_changed(&mut self, _: Resource<Attempt>) -> Result<()> {
        match &mut self.phase {
            Phase::Body(body) => {
                body.state_changed = true;
                Ok(())
            }
            _ => Err(bad_call(
                "`attempt.state-changed` was called on an attempt that is over",
            )),
        }
    }

    fn drop(&mut self, attempt: Resource<Attempt>) -> Result<()> {
        self.table.delete(attempt)?;
        match &self.phase {
            Phase::Body(body) => Err(bad_call(format!(
                "the attempt of step \"{}\" was dropped without `finish-run`",
                body.ticket.step
            ))),
            _ => Ok(()),
        }
    }
}

impl HostOperation for HostState {
    fn result(&mut self, handle: Resource<Operation>) -> Result<Result<String, types::Failure>> {
        self.outside_bodies("operation.result")?;
        match &self.table.get(&handle)?.0 {
            Standing::Refused(failure) => Ok(Err(failure_to_guest(failure.clone()))),
            Standing::Delivered(operation) => {
                let operation = *operation;
                let outcome: Option<Outcome> = self.host.outcome(operation);
                outcome.map(outcome_to_guest).ok_or_else(|| {
                    wasmtime::format_err!("operation {operation} was delivered and has no outcome")
                })
            }
            Standing::Open(_) | Standing::Cancelled => Err(bad_call(
                "`operation.result` was called before `await-any` has answered with the operation",
            )),
        }
    }

    fn body(&mut self, handle: Resource<Operation>) -> Result<Option<Vec<u8>>> {
        self.outside_bodies("operation.body")?;
        match &self.table.get(&handle)?.0 {
            Standing::Refused(_) => Ok(None),
            Standing::Delivered(operation) => {
                let operation = *operation;
                Ok(self.host.body(operation).map(Vec::from))
            }
            Standing::Open(_) | Standing::Cancelled => Err(bad_call(
                "`operation.body` was called before `await-any` has answered with the operation",
            )),
        }
    }

    async fn cancel(&mut self, handle: Resource<Operation>) -> Result<()> {
        self.outside_bodies("operation.cancel")?;
        let operation = self.table.get_mut(&handle)?;
        if let Standing::Open(number) = operation.0 {
            operation.0 = Standing::Cancelled;
            self.give_up(number).await?;
        }
        Ok(())
    }

    async fn drop(&mut self, handle: Resource<Operation>) -> Result<()> {
        if let Standing::Open(number) = self.table.get(&handle)?.0 {
            self.outside_bodies("operation's drop")?;
            self.give_up(number).await?;
        }
        self.table.delete(handle)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_keep_the_guests_text() {
        let input = with_text(
            vec![("database", "a\"b".to_owned())],
            "statements",
            "[ 1.0 ]",
            "it",
        )
        .expect("valid");
        assert_eq!(input.as_str(), r#"{"database":"a\"b","statements":[ 1.0 ]}"#);
        assert!(Json::parse(input.as_str()).is_ok());
        assert!(with_text(Vec::new(), "events", "[1}", "it").is_err());
    }

    #[test]
    fn options_that_say_what_is_asked_for_are_part_of_the_input() {
        let input = Json::trusted(r#"{"a":{"b":{}}}"#);
        let input = with_options(&input, &Json::trusted(r#"{"if":"}"}"#));
        assert_eq!(input.as_str(), r#"{"a":{"b":{}},"options":{"if":"}"}}"#);
    }
}
