//! The host that the harness plays: journal, virtual time, answers. One for each thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::journal::{Answer, Call, Entry, Performed, Retrying};
use super::{Reply, StepRecord, no_answer};
use crate::error::{Error, Failure, Result as Outcome, Retry};
use crate::host::{Attempt, Operation as Handle, RunStart};
use crate::http::{Request, Response};
use crate::log::Level;
use crate::step::{Backoff, Rows, Statement};

pub(crate) use super::journal::Operation as Kind;

/// When virtual time begins: 2026-01-01T00:00:00Z.
pub(super) const START_MS: u64 = 1_767_225_600_000;
/// The same as text.
pub(super) const START: &str = "2026-01-01T00:00:00Z";

/// How long a body may take when its step does not say: the host's own default.
const BODY_MS: u64 = 300_000;

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Thrown through the function when the harness ends a leg.
pub(super) struct Leave;

pub(crate) struct Setup {
    pub(crate) run_id: String,
    pub(crate) function: &'static str,
    pub(crate) attempts: u32,
    pub(crate) backoff: Backoff,
    pub(crate) events: Vec<Value>,
    pub(crate) config: BTreeMap<String, Value>,
    pub(crate) secrets: BTreeMap<String, String>,
    /// Replay after every body and every wait.
    pub(crate) replay: bool,
}

type SqlHandler = Box<dyn FnMut(&str, &[Statement]) -> Outcome<Vec<Rows>>>;
type HttpHandler = Box<dyn FnMut(&Request) -> Outcome<Response>>;
type OtherHandler = Box<dyn FnMut(&str, &Kind) -> Outcome<Reply>>;

#[derive(Default)]
pub(super) struct Handlers {
    pub(super) sql: Option<SqlHandler>,
    pub(super) http: Option<HttpHandler>,
    pub(super) other: Option<OtherHandler>,
}

/// An operation in the current leg.
struct Held {
    performed: Performed,
    delivered: bool,
    cancelled: bool,
    /// Set for the wait of a failed step: its name and state, until the step is asked for again.
    retrying: Option<(String, Retrying)>,
}

struct OpenBody {
    name: String,
    number: u32,
    attempts: u32,
    backoff: Backoff,
    record: usize,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BodyOptions {
    attempts: Option<u32>,
    backoff: Option<Backoff>,
    timeout_ms: Option<u64>,
}

pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(super) handlers: Handlers,
    pub(super) steps: Vec<StepRecord>,
    pub(super) legs: u32,
    pub(super) logs: Vec<(Level, String)>,
    pub(super) sent: Vec<Value>,
    journal: Vec<Entry>,
    /// How much of the journal this leg has gone through.
    cursor: usize,
    held: Vec<Held>,
    body: Option<OpenBody>,
    now: u64,
    random: u64,
    random_in_bodies: u64,
    leaving: bool,
    sealed: bool,
    diverged: Option<String>,
}

pub(super) fn install(world: World) {
    WORLD.with_borrow_mut(|slot| {
        assert!(slot.is_none(), "a harness runs inside of another one");
        *slot = Some(world);
    });
}

/// Ends the run on this thread.
pub(super) fn remove() -> World {
    match WORLD.take() {
        Some(world) => world,
        None => unreachable!("only the harness that installed it removes it"),
    }
}

pub(crate) fn with<T>(use_world: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(|world| match world {
        Some(world) => use_world(world),
        None => panic!("there is no run: natively, a function runs in a dormouse::testing::Harness"),
    })
}

/// JSON that the SDK has written itself.
pub(crate) fn value(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}

fn leave() -> ! {
    with(|world| world.leaving = true);
    resume_unwind(Box::new(Leave))
}

/// What the journal has for this call, or nothing when the function is past its end.
fn replayed(call: &Call) -> Option<Answer> {
    let next = with(|world| {
        if let Some(body) = &world.body {
            panic!(
                "nested step: the body of \"{}\" asked for {call}; steps don't nest",
                body.name
            );
        }
        match world.journal.get(world.cursor) {
            Some(entry) if entry.call == *call => {
                world.cursor += 1;
                Ok(Some(entry.answer.clone()))
            }
            Some(entry) => Err(format!(
                "entry {}: journal has {}, code asked for {call}",
                world.cursor, entry.call
            )),
            None if world.sealed => Err(format!("the run was done, on replay the code asked for {call}")),
            None => Ok(None),
        }
    });
    match next {
        Ok(answer) => answer,
        Err(reason) => {
            with(|world| world.diverged = Some(reason));
            leave()
        }
    }
}

pub(crate) fn begin_run(name: &str, options: Option<&str>) -> RunStart {
    let options: BodyOptions = match options.map(serde_json::from_str).transpose() {
        Ok(options) => options.unwrap_or_default(),
        Err(error) => panic!("the options of step \"{name}\": {error}"),
    };
    let call = Call::Run {
        name: name.to_owned(),
    };
    let answer = replayed(&call);
    with(|world| {
        let before = world.held.iter_mut().find(|held| {
            held.delivered && !held.cancelled && held.retrying.as_ref().is_some_and(|(step, _)| step == name)
        });
        let before = before
            .and_then(|held| held.retrying.take())
            .map(|(_, retrying)| retrying);
        match answer {
            Some(Answer::Recorded(outcome)) => RunStart::Recorded(outcome),
            Some(Answer::Deferred(retrying)) => RunStart::Deferred(world.hold_retry(name, retrying)),
            Some(other) => unreachable!("a run is never answered with {other:?}"),
            None => RunStart::Execute(world.open(name, &options, before)),
        }
    })
}

pub(crate) fn finish_run(outcome: Result<String, Failure>) -> Result<(), Failure> {
    let stay = with(|world| world.close(&outcome));
    if !stay {
        leave();
    }
    outcome.map(|_| ())
}

pub(crate) fn start(name: &str, operation: Kind, options: Option<&str>) -> Handle {
    let call = Call::Start {
        name: name.to_owned(),
        operation: operation.clone(),
    };
    let performed = match replayed(&call) {
        Some(Answer::Started(performed)) => performed,
        Some(other) => unreachable!("a start is never answered with {other:?}"),
        None => {
            let mut performed = perform(name, &operation, options);
            with(|world| {
                performed.record = world.record(name, operation.kind());
                let answer = Answer::Started(performed.clone());
                world.append(call, answer);
            });
            performed
        }
    };
    with(|world| world.hold(performed, None))
}

/// Performs an operation, once: its result stays in the journal.
fn perform(name: &str, operation: &Kind, options: Option<&str>) -> Performed {
    let now = with(|world| world.now);
    // Handlers are the test's code: they are taken out while they run, so that they may look at the world.
    let mut handlers = with(|world| std::mem::take(&mut world.handlers));
    let mut body = None;
    let reply: Outcome<Reply> = match operation {
        Kind::Sleep { millis } => Ok(Reply::After(Duration::from_millis(*millis), Value::Null)),
        Kind::SleepUntil { time } => Ok(Reply::After(
            Duration::from_millis(time.saturating_sub(now)),
            Value::Null,
        )),
        Kind::Sql { database, statements } => match &mut handlers.sql {
            Some(sql) => sql(database, statements).map(|rows| Reply::Now(json!(rows))),
            None => Err(Error::from_failure(no_answer(&format!(
                "the SQL of step \"{name}\""
            )))),
        },
        Kind::Fetch(request) => match &mut handlers.http {
            Some(http) => {
                let (waited, response) = fetch(&mut **http, request, options);
                response.map(|response| {
                    body = Some(response.body);
                    let head = json!({"status": response.status, "headers": response.headers});
                    Reply::After(Duration::from_millis(waited), head)
                })
            }
            None => Err(Error::from_failure(no_answer(&format!(
                "the request of step \"{name}\""
            )))),
        },
        _ => match (&mut handlers.other, operation) {
            (Some(other), _) => other(name, operation),
            (None, Kind::SendEvents { events }) => Ok(Reply::Now(with(|world| world.send(events)))),
            (None, Kind::SendSignal { .. }) => Ok(Reply::Now(Value::Null)),
            (None, _) => Err(Error::from_failure(no_answer(&format!(
                "{} \"{name}\"",
                operation.kind()
            )))),
        },
    };
    with(|world| world.handlers = handlers);

    // That of a request is for each try, and answers have no time of their own.
    let timeout = options
        .filter(|_| !matches!(operation, Kind::Fetch(_)))
        .map(value)
        .and_then(|options| options["timeout_ms"].as_u64());
    let (due, result) = match reply {
        Ok(Reply::Now(value)) => (Some(now), Ok(value.to_string())),
        Ok(Reply::After(wait, value)) => {
            let wait = crate::time::to_millis(wait);
            match timeout.filter(|timeout| *timeout < wait) {
                Some(timeout) => (now.checked_add(timeout), timed_out(operation)),
                None => (now.checked_add(wait), Ok(value.to_string())),
            }
        }
        Ok(Reply::Never) => (
            timeout.and_then(|timeout| now.checked_add(timeout)),
            timed_out(operation),
        ),
        Err(error) => (Some(now), Err(error.into_failure())),
    };
    Performed {
        due,
        result,
        body,
        record: 0,
    }
}

/// Sends a request of the host's, again as the server would. Answers with how long the waits between were in all.
fn fetch(
    http: &mut dyn FnMut(&Request) -> Outcome<Response>,
    request: &Request,
    options: Option<&str>,
) -> (u64, Outcome<Response>) {
    let options: BodyOptions = options
        .and_then(|options| serde_json::from_str(options).ok())
        .unwrap_or_default();
    let (attempts, backoff) = with(|world| (world.setup.attempts, world.setup.backoff));
    let attempts = options.attempts.unwrap_or(attempts);
    let backoff = options.backoff.unwrap_or(backoff);
    let mut waited = 0;
    for attempt in 1.. {
        let answer = http(request).and_then(|response| match response.status {
            501 => Ok(response),
            408 | 425 | 429 | 500..=599 => {
                let message = format!("the server answered with status {}", response.status);
                Err(Error::retryable(message)
                    .code("http-failed")
                    .details(json!({"status": response.status})))
            }
            _ => Ok(response),
        });
        match answer {
            Err(error) if !error.is_non_retriable() && attempt < attempts => {
                waited += backoff.wait_ms(attempt)
            }
            answer => return (waited, answer),
        }
    }
    unreachable!("the last attempt returns")
}

/// What an operation comes to whose time is over.
fn timed_out(operation: &Kind) -> Result<String, Failure> {
    match operation {
        Kind::Invoke { function, .. } => Err(Error::non_retriable(format!(
            "{function} had not ended when the step's timeout had passed"
        ))
        .code("invoke-timeout")
        .into_failure()),
        _ => Ok("null".to_owned()),
    }
}

/// A handle was dropped.
pub(crate) fn give_up(operation: usize) {
    let open = WORLD.with_borrow_mut(|world| {
        let Some(world) = world else { return false };
        if world.leaving || std::thread::panicking() {
            return false;
        }
        world
            .held
            .get(operation)
            .is_some_and(|held| !held.delivered && !held.cancelled)
    });
    if !open {
        return;
    }
    let call = Call::Cancel { operation };
    let live = replayed(&call).is_none();
    with(|world| {
        let held = &mut world.held[operation];
        held.cancelled = true;
        let record = held.performed.record;
        if live {
            world.steps[record].cancelled = true;
            world.append(call, Answer::Cancelled);
        }
    });
}

pub(crate) fn await_any(operations: &[usize]) -> usize {
    let call = Call::Await {
        operations: operations.to_vec(),
    };
    if let Some(answer) = replayed(&call) {
        let Answer::Delivered { index, now } = answer else {
            unreachable!("a wait is never answered with {answer:?}")
        };
        with(|world| world.deliver(operations[index], now));
        return index;
    }
    let (index, replay) = with(|world| {
        let due = |(index, operation): (usize, &usize)| {
            world.held[*operation].performed.due.map(|due| (due, index))
        };
        let Some((due, index)) = operations.iter().enumerate().filter_map(due).min() else {
            let names: Vec<&str> = operations
                .iter()
                .map(|operation| world.name(*operation))
                .collect();
            panic!("the run waits for what never comes: {}", names.join(", "));
        };
        let now = world.now.max(due);
        world.deliver(operations[index], now);
        world.append(call, Answer::Delivered { index, now });
        (index, world.setup.replay)
    });
    if replay {
        leave();
    }
    index
}

pub(crate) fn log(level: Level, message: &str, fields: Option<&str>) {
    with(|world| {
        if world.cursor == world.journal.len() && !world.sealed {
            let line = fields.map_or(message.to_owned(), |fields| format!("{message} {fields}"));
            world.logs.push((level, line));
        }
    });
}

/// A request of a body.
pub(crate) fn http(request: &Request) -> Outcome<Response> {
    let handler = with(|world| world.handlers.http.take());
    let Some(mut handler) = handler else {
        return Err(Error::from_failure(no_answer("HTTP requests")));
    };
    let answer = handler(request);
    with(|world| world.handlers.http = Some(handler));
    answer
}

impl World {
    pub(super) fn new(setup: Setup) -> World {
        World {
            setup,
            handlers: Handlers::default(),
            steps: Vec::new(),
            legs: 0,
            logs: Vec::new(),
            sent: Vec::new(),
            journal: Vec::new(),
            cursor: 0,
            held: Vec::new(),
            body: None,
            now: START_MS,
            random: 0,
            random_in_bodies: 1 << 32,
            leaving: false,
            sealed: false,
            diverged: None,
        }
    }

    pub(super) fn begin_leg(&mut self) {
        self.legs += 1;
        self.cursor = 0;
        self.held.clear();
        self.body = None;
        self.now = START_MS;
        self.random = 0;
        self.leaving = false;
    }

    /// Takes events that the function sends, and makes up ids for them.
    fn send(&mut self, events: &Value) -> Value {
        let events = events.as_array().cloned().unwrap_or_default();
        let first = self.sent.len();
        self.sent.extend(events);
        let ids: Vec<String> = (first..self.sent.len())
            .map(|number| format!("sent-{number}"))
            .collect();
        json!({ "ids": ids })
    }

    /// From now on there is nothing left to do but to replay.
    pub(super) fn seal(&mut self) {
        self.sealed = true;
    }

    pub(super) fn diverged(&self) -> Option<String> {
        self.diverged.clone()
    }

    /// The function has ended although the journal goes on.
    pub(super) fn left_over(&self) -> Option<String> {
        let entry = self.journal.get(self.cursor)?;
        Some(format!(
            "entry {}: journal has {}, the code has ended",
            self.cursor, entry.call
        ))
    }

    pub(super) fn elapsed(&self) -> Duration {
        Duration::from_millis(self.now - START_MS)
    }

    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Numbers of a generator (splitmix64) that begins again with each leg; those of bodies never repeat.
    pub(crate) fn random(&mut self, length: u32) -> Vec<u8> {
        let state = if self.body.is_some() {
            &mut self.random_in_bodies
        } else {
            &mut self.random
        };
        let mut bytes = Vec::with_capacity(length as usize + 8);
        while bytes.len() < length as usize {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = *state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        }
        bytes.truncate(length as usize);
        bytes
    }

    pub(crate) fn secret(&self, name: &str) -> Result<String, Failure> {
        let secret = self.setup.secrets.get(name).cloned();
        secret.ok_or_else(|| no_answer(&format!("the secret \"{name}\"")))
    }

    pub(crate) fn state_changed(&mut self) {
        if let Some(body) = &self.body {
            self.steps[body.record].state_changed = true;
        }
    }

    pub(crate) fn result(&self, operation: usize) -> Result<String, Failure> {
        let held = &self.held[operation];
        assert!(
            held.delivered,
            "the result of an operation that was not delivered"
        );
        held.performed.result.clone()
    }

    pub(crate) fn body(&self, operation: usize) -> Option<Vec<u8>> {
        self.held[operation].performed.body.clone()
    }

    fn name(&self, operation: usize) -> &str {
        &self.steps[self.held[operation].performed.record].name
    }

    fn append(&mut self, call: Call, answer: Answer) {
        self.journal.push(Entry { call, answer });
        self.cursor = self.journal.len();
    }

    fn record(&mut self, name: &str, kind: &'static str) -> usize {
        self.steps.push(StepRecord {
            name: name.to_owned(),
            kind,
            attempts: 1,
            cancelled: false,
            state_changed: false,
        });
        self.steps.len() - 1
    }

    fn hold(&mut self, performed: Performed, retrying: Option<(String, Retrying)>) -> Handle {
        self.held.push(Held {
            performed,
            delivered: false,
            cancelled: false,
            retrying,
        });
        Handle(self.held.len() - 1)
    }

    fn hold_retry(&mut self, name: &str, retrying: Retrying) -> Handle {
        let performed = Performed {
            due: Some(retrying.due),
            result: Ok("null".to_owned()),
            body: None,
            record: retrying.record,
        };
        self.hold(performed, Some((name.to_owned(), retrying)))
    }

    fn deliver(&mut self, operation: usize, now: u64) {
        self.now = now;
        self.held[operation].delivered = true;
    }

    fn open(&mut self, name: &str, options: &BodyOptions, before: Option<Retrying>) -> Attempt {
        let (number, record) = match before {
            Some(retrying) => (retrying.failures + 1, retrying.record),
            None => (1, self.record(name, "run")),
        };
        self.steps[record].attempts = number;
        self.body = Some(OpenBody {
            name: name.to_owned(),
            number,
            attempts: options.attempts.unwrap_or(self.setup.attempts),
            backoff: options.backoff.unwrap_or(self.setup.backoff),
            record,
        });
        Attempt {
            number,
            deadline: self.now + options.timeout_ms.unwrap_or(BODY_MS),
            idempotency_key: format!("{}-{record}", self.setup.run_id),
        }
    }

    /// Records a body's outcome. Whether the leg goes on.
    fn close(&mut self, outcome: &Result<String, Failure>) -> bool {
        let Some(body) = self.body.take() else {
            unreachable!("an attempt is only made with a body")
        };
        let call = Call::Run { name: body.name };
        let wait = match outcome {
            Err(failure) if body.number < body.attempts => match failure.retry {
                Retry::Default => Some(body.backoff.wait_ms(body.number)),
                Retry::After(millis) => Some(millis),
                Retry::Never => None,
            },
            _ => None,
        };
        if let Some(wait) = wait {
            let retrying = Retrying {
                failures: body.number,
                due: self.now + wait,
                record: body.record,
            };
            self.append(call, Answer::Deferred(retrying));
            return false;
        }
        let changed = self.steps[body.record].state_changed;
        self.append(call, Answer::Recorded(outcome.clone()));
        !self.setup.replay && !changed
    }
}
