//! What the engine's tests share: guests, an engine, and a run's host that keeps its journal in memory.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]

use std::collections::HashMap;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use dormouse_core::journal::{Event, OperationKind};
use dormouse_core::limit::ModuleLimits;
use dormouse_core::replay::{Awaited, Begun, Replay};
use dormouse_core::step::StepOptions;
use dormouse_core::{Digest, Entry, Failure, FunctionName, Json, Outcome, Retry, RunId, Seq, Timestamp};
use dormouse_engine::{
    AttemptTicket, Engine, EngineOptions, HttpPolicy, Interrupt, Leg, LegEnd, LegStats, LogLevel, Module,
    RunContext, RunHost, RunStart, StartCall, Stop,
};
use tempfile::TempDir;

/// When every run begins.
pub const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// The bytes of a guest of testing/guests.
///
/// # Panics
/// When it has not been built, saying how to.
pub fn guest(name: &str) -> Bytes {
    let directory = std::env::var_os("DORMOUSE_GUESTS").map_or_else(
        || {
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../../testing/guests/target/wasm32-wasip2/release")
        },
        PathBuf::from,
    );
    let path = directory.join(format!("{name}.wasm"));
    match std::fs::read(&path) {
        Ok(bytes) => bytes.into(),
        Err(error) => panic!(
            "the guest {} is missing ({error}); build the guests with: cd testing/guests && \
             cargo $(../../scripts/wasm-target) build --release --target wasm32-wasip2",
            path.display()
        ),
    }
}

/// An engine with a cache of its own.
pub fn engine() -> (Engine, TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    (engine_in(&directory, |_| {}), directory)
}

/// An engine with its cache there, its options changed.
pub fn engine_in(directory: &TempDir, change: impl FnOnce(&mut EngineOptions)) -> Engine {
    let mut options = EngineOptions::new(directory.path().join("cache"));
    options.instances_max = 20;
    change(&mut options);
    Engine::new(options).expect("an engine")
}

/// A module of testing/guests.
pub async fn module(engine: &Engine, name: &str) -> Module {
    match engine.load(guest(name)).await {
        Ok((module, _)) => module,
        Err(error) => panic!("{name} does not load: {error}"),
    }
}

/// A leg of a function, with an event `{"data": …}` and limits that make tests quick.
pub fn leg(module: &Module, function: &str, data: &str) -> Leg {
    let event =
        format!("{{\"name\":\"test/{function}\",\"data\":{data},\"id\":\"01\",\"ts\":1790000000000}}");
    let event = Json::parse(&event).expect("an event");
    Leg {
        module: module.clone(),
        function: function.to_owned(),
        input: Json::parse(&format!(
            "{{\"event\":{event},\"events\":[{event}],\"continued\":null}}"
        ))
        .expect("an input"),
        context: RunContext {
            run_id: RunId::from_parts(START, [7; 10]),
            function: FunctionName::new("test", function).expect("a name"),
            version: Digest::of(b"test"),
            event: event.clone(),
            events: Json::parse(&format!("[{event}]")).expect("a list"),
        },
        seed: [42; 32],
        limits: ModuleLimits {
            cpu_ms: 200,
            stretch_ms: 2_000,
            body_cpu_ms: 400,
            ..ModuleLimits::default()
        },
        http: HttpPolicy::none(),
        interrupt: Interrupt::new(),
    }
}

/// A host whose journal lies in memory and whose operations come due at once, in virtual time.
pub struct Host {
    replay: Replay,
    /// Whether each wait and each outcome ends the leg, so that everything is replayed.
    eager: bool,
    clock: Timestamp,
    started_at: Timestamp,
    retry_attempts: u32,
    /// How many bodies were begun, over all legs.
    pub bodies: u32,
    /// What the guest has logged: level, text, in a body.
    pub logs: Vec<(LogLevel, String, bool)>,
    /// Of each finished body, whether the engine said that the instance has changed.
    pub state_changed: Vec<bool>,
    /// Operations given up.
    pub cancelled: Vec<Seq>,
    /// Configuration values.
    pub config: HashMap<String, Json>,
    /// Where code and journal disagree.
    pub divergence: Option<String>,
    /// Never answers a wait.
    pub park: bool,
    /// How long a body may take when its step does not say.
    pub body_timeout_ms: u64,
}

impl Host {
    /// A host of a new run.
    pub fn new(eager: bool) -> Host {
        Host {
            replay: Replay::new(Vec::new(), 0, START).expect("no gaps in nothing"),
            eager,
            clock: START,
            started_at: START,
            retry_attempts: 1,
            bodies: 0,
            logs: Vec::new(),
            state_changed: Vec::new(),
            cancelled: Vec::new(),
            config: HashMap::new(),
            divergence: None,
            park: false,
            body_timeout_ms: 60_000,
        }
    }

    /// The same run, at the start of what is recorded.
    pub fn rewind(&mut self) {
        let entries = self.replay.entries().to_vec();
        self.replay = Replay::new(entries, 0, START).expect("no gaps");
    }

    /// What is recorded.
    pub fn entries(&self) -> &[Entry] {
        self.replay.entries()
    }

    /// The names of the steps that are recorded, in order.
    pub fn names(&self) -> Vec<String> {
        let name = |entry: &Entry| match &entry.event {
            Event::Step { name, .. } | Event::Started { name, .. } => Some(name.clone()),
            _ => None,
        };
        self.entries().iter().filter_map(name).collect()
    }

    /// Time goes on when something happens, not when it is replayed.
    fn tick(&mut self) -> Timestamp {
        if self.replay.is_replaying() {
            return self.clock;
        }
        self.clock = Timestamp::from_millis(self.clock.as_millis() + 1);
        self.clock
    }

    fn diverged<T>(&mut self, divergence: impl ToString) -> Result<T, Stop> {
        self.divergence = Some(divergence.to_string());
        Err(Stop)
    }
}

#[async_trait]
impl RunHost for Host {
    async fn begin_run(&mut self, name: String, options: Option<Json>) -> Result<RunStart, Stop> {
        let options = StepOptions::parse(options.as_ref().map(Json::as_str)).expect("valid options");
        self.retry_attempts = options.attempts.unwrap_or(1);
        match self.replay.begin(&name) {
            Err(divergence) => self.diverged(divergence),
            Ok(Begun::Recorded(outcome)) => Ok(RunStart::Recorded(outcome)),
            Ok(Begun::Deferred(operation)) => Ok(RunStart::Deferred(operation)),
            Ok(Begun::Execute(attempt)) => {
                self.bodies += 1;
                self.started_at = self.tick();
                let timeout = options
                    .timeout()
                    .unwrap_or(std::time::Duration::from_millis(self.body_timeout_ms));
                Ok(RunStart::Execute(AttemptTicket {
                    step: name,
                    number: attempt.number,
                    deadline: self.started_at.after(timeout),
                    started_at: self.started_at,
                    idempotency_key: format!("key-{}", attempt.position),
                }))
            }
        }
    }

    async fn finish_run(
        &mut self,
        outcome: Outcome,
        state_changed: bool,
    ) -> Result<Result<(), Failure>, Stop> {
        self.state_changed.push(state_changed);
        let at = self.tick();
        let number = self.replay.attempt().map_or(1, |attempt| attempt.number);
        match &outcome {
            Err(failure) if failure.retry != Retry::Never && number < self.retry_attempts => {
                self.replay.defer(failure.clone(), self.started_at, at, at);
                return Err(Stop);
            }
            _ => self.replay.complete(outcome.clone(), self.started_at, at),
        }
        if self.eager || state_changed {
            return Err(Stop);
        }
        Ok(outcome.map(|_| ()))
    }

    async fn start(&mut self, call: StartCall) -> Result<Seq, Stop> {
        let at = self.tick();
        let input: serde_json::Value = call.input.read().expect("an input is JSON");
        let due = match call.kind {
            OperationKind::Sleep => at.after(std::time::Duration::from_millis(
                input["duration_ms"].as_u64().expect("a duration"),
            )),
            _ => at,
        };
        match self
            .replay
            .start(call.kind, &call.name, &call.input, at, || Some(due))
        {
            Ok(started) => Ok(started.operation),
            Err(divergence) => self.diverged(divergence),
        }
    }

    async fn await_any(&mut self, operations: &[Seq]) -> Result<u32, Stop> {
        if self.park {
            std::future::pending::<()>().await;
        }
        match self.replay.await_any(operations) {
            Err(divergence) => return self.diverged(divergence),
            Ok(Awaited::Ready(index)) => return Ok(index),
            Ok(Awaited::Pending) => {}
        }
        let due = |seq: &Seq| {
            self.replay
                .open()
                .find(|open| open.operation == *seq)
                .and_then(|open| open.due_at)
                .unwrap_or(START)
        };
        let (index, operation) = operations
            .iter()
            .copied()
            .enumerate()
            .min_by_key(|(_, seq)| due(seq))
            .expect("never empty");
        let at = due(&operation).max(self.tick());
        self.clock = at;
        self.replay.deliver(operation, Ok(Json::null()), at);
        if self.eager {
            return Err(Stop);
        }
        Ok(index as u32)
    }

    fn outcome(&mut self, operation: Seq) -> Option<Outcome> {
        self.replay.outcome(operation).cloned()
    }

    async fn cancel(&mut self, operation: Seq) -> Result<(), Stop> {
        self.cancelled.push(operation);
        let at = self.tick();
        match self.replay.cancel(operation, at) {
            Ok(()) => Ok(()),
            Err(divergence) => self.diverged(divergence),
        }
    }

    fn now(&self) -> Timestamp {
        self.replay.now()
    }

    fn log(&mut self, level: LogLevel, message: String, _: Option<Json>, in_body: bool) {
        self.logs.push((level, message, in_body));
    }

    fn placeholder(&self, name: &str) -> Result<String, Failure> {
        Err(Failure::terminal(
            "grant-missing",
            format!("there is no secret \"{name}\""),
        ))
    }

    fn config(&self, key: &str) -> Option<Json> {
        self.config.get(key).cloned()
    }
}

/// Runs legs until one ends otherwise than by the host's stop, or the run diverges.
pub async fn run(engine: &Engine, leg: &Leg, mut host: Host) -> (LegEnd, Host, LegStats) {
    loop {
        let (end, mut back, stats) = engine.run_leg(leg.clone(), host).await;
        if end != LegEnd::Stopped || back.divergence.is_some() {
            return (end, back, stats);
        }
        back.rewind();
        host = back;
    }
}

/// One run of a function, in one leg unless something is to be tried again.
pub async fn once(engine: &Engine, module: &Module, function: &str, data: &str) -> (LegEnd, Host, LegStats) {
    run(engine, &leg(module, function, data), Host::new(false)).await
}

/// The trap a leg ended with.
///
/// # Panics
/// When it ended otherwise.
pub fn trap(end: LegEnd) -> dormouse_engine::Trap {
    match end {
        LegEnd::Trapped(trap) => trap,
        other => panic!("no trap: {other:?}"),
    }
}

/// The output of a leg.
///
/// # Panics
/// When it ended otherwise.
pub fn output(end: LegEnd) -> serde_json::Value {
    match end {
        LegEnd::Done(json) => json.read().expect("JSON"),
        other => panic!("no output: {other:?}"),
    }
}

impl Host {
    /// The guest's time at the end.
    pub fn now_at_end(&self) -> Timestamp {
        self.replay.now()
    }
}
