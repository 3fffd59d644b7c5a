//! One leg's answers to the guest: each call goes to the replay machine, and what that says is done here.

use std::collections::HashMap;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use dormouse_core::journal::OperationKind;
use dormouse_core::operation::{SendSignal, WaitForEvent, WaitForSignal};
use dormouse_core::replay::{Begun, Divergence, Replay};
use dormouse_core::run::RunError;
use dormouse_core::step::StepOptions;
use dormouse_core::{Digest, Failure, Json, Outcome, RunId, Seq, Timestamp, limit};
use dormouse_engine::{
    HttpPolicy, Interrupt, Leg, LegStats, LogLevel, Module, RunContext, RunHost, RunStart, StartCall, Stop,
};
use dormouse_store::execute::{Completion, LogLine};
use dormouse_store::schedule::ClaimedRun;
use dormouse_store::wait::NewWait;

use super::body::OpenBody;
use super::fetching;
use super::invoking::Invoking;
use super::operation::Performing;
use super::swapping::{Chosen, Trial};
use super::{Program, Worker};
use crate::config::ModuleGrants;
use crate::router::SentEvent;
use crate::scheduler::{Mail, Mailbox, Slot};
use crate::secret;

/// Why a leg was ended from this side.
#[derive(Debug)]
pub(super) enum Ending {
    /// The run waits; its lease is given up and the instance is not kept.
    Suspended,
    /// Another leg is due at once, on the journal as it is in memory.
    Again,
    /// Another leg is due, on the journal as it is in the store.
    Reload,
    /// The run was cancelled, its lease is gone, or the node stops: there is nothing more to do here.
    Gone,
    /// Code and journal disagree.
    Diverged(Divergence),
    /// The run must fail.
    Fail(RunError),
    /// The run must be blocked.
    Block(RunError),
}

/// The state of a leg, and between legs of the run.
pub(crate) struct LegHost {
    pub(super) worker: Worker,
    pub(super) program: Program,
    pub(super) run: ClaimedRun,
    /// The program is another version's than the run's own, and has done nothing that is durable.
    pub(super) trial: Option<Trial>,
    /// The run stays on its own version though it should go over to this one.
    pub(super) refused: Option<Digest>,
    /// The registry's generation that was looked at last.
    pub(super) generation: i64,
    /// All events that started it: an array.
    events: Json,
    /// Held while the run executes; given back while it is parked.
    pub(super) slot: Option<Slot>,
    pub(super) mailbox: Mailbox,
    pub(super) replay: Replay,
    pub(super) body: Option<OpenBody>,
    /// The options that operations were started with in this leg.
    pub(super) options: HashMap<Seq, Json>,
    /// Stored outcomes that are not delivered.
    pub(super) completions: Vec<Completion>,
    pub(super) performing: Performing,
    /// Events that entries of this leg send, until these are durable.
    pub(super) outgoing: Vec<SentEvent>,
    /// Signals that entries of this leg send, until these are durable.
    pub(super) signalling: Vec<(Seq, SendSignal)>,
    /// What entries of this leg invoke, until these are durable.
    pub(super) invoking: Vec<Invoking>,
    /// The leg has met an invoke: what it closes may leave an orphan.
    pub(super) has_invoked: bool,
    /// Waits that entries of this leg open, until these are durable.
    pub(super) waits: Vec<NewWait>,
    pub(super) logs: Vec<LogLine>,
    pub(super) log_lines: u32,
    /// Lines at the end of what was recorded were written by the leg before: it got as far as the next call.
    pub(super) repeats_lines: bool,
    pub(super) journal_bytes: u64,
    /// Since when the leg replays, until that is measured.
    replaying: Option<Instant>,
    pub(super) ending: Option<Ending>,
}

impl LegHost {
    pub(super) fn new(
        worker: Worker,
        chosen: Chosen,
        (run, events): (ClaimedRun, Json),
        slot: Slot,
        mailbox: Mailbox,
        replay: Replay,
    ) -> LegHost {
        LegHost {
            worker,
            program: chosen.program,
            trial: chosen.trial,
            refused: chosen.refused,
            generation: 0,
            log_lines: run.log_lines,
            repeats_lines: run.log_lines > 0,
            journal_bytes: run.journal_bytes,
            run,
            events,
            slot: Some(slot),
            mailbox,
            replay,
            body: None,
            options: HashMap::new(),
            completions: Vec::new(),
            performing: Performing::default(),
            outgoing: Vec::new(),
            signalling: Vec::new(),
            invoking: Vec::new(),
            has_invoked: false,
            waits: Vec::new(),
            logs: Vec::new(),
            replaying: None,
            ending: None,
        }
    }

    /// A leg begins: what is measured from here.
    pub(super) fn observe_begin(&mut self) {
        self.replaying = self.replay.is_replaying().then(Instant::now);
        // A run that went on in a fresh journal, or was put back by a crash, began before.
        let first = self.run.journal_next == 0 && self.run.epoch == 1;
        if first && self.replay.entries().is_empty() {
            let waited = self.worker.clock.now().since(self.run.queued_at);
            metrics::histogram!("dormouse_schedule_to_start_seconds").record(waited.as_secs_f64());
        }
    }

    /// The guest may have left what is recorded behind.
    pub(super) fn observe_replay(&mut self) {
        if let Some(began) = self.replaying
            && !self.replay.is_replaying()
        {
            self.replaying = None;
            metrics::histogram!("dormouse_replay_seconds").record(began.elapsed().as_secs_f64());
        }
    }

    /// What the engine is to execute.
    pub(super) fn leg(&self) -> Leg {
        let program = &self.program;
        let interrupt = self.mailbox.interrupt.clone();
        leg_of(
            (&self.run, self.events.clone()),
            &program.module,
            &program.grants,
            &program.http,
            interrupt,
        )
    }

    /// Goes back to the start of the journal for another leg. False when the run was blocked by what is in memory.
    pub(super) fn rewind(&mut self) -> bool {
        let entries = self.replay.entries().to_vec();
        match Replay::new(entries, self.run.journal_base, self.run.queued_at) {
            Ok(mut replay) => {
                replay.committed();
                self.replay = replay;
            }
            Err(error) => {
                tracing::error!(%error, "the journal in memory has a gap");
                return false;
            }
        }
        self.repeats_lines = false;
        self.body = None;
        self.options.clear();
        self.completions.clear();
        self.performing = Performing::default();
        self.outgoing.clear();
        self.invoking.clear();
        self.signalling.clear();
        self.waits.clear();
        self.logs.clear();
        self.ending = None;
        true
    }

    pub(super) fn into_mailbox(self) -> Mailbox {
        self.mailbox
    }

    pub(super) fn observe(&self, stats: &LegStats) {
        metrics::histogram!("dormouse_leg_cpu_seconds").record(stats.cpu.as_secs_f64());
    }

    /// Ends the leg from this side.
    pub(super) fn end(&mut self, ending: Ending) -> Stop {
        self.ending = Some(ending);
        Stop
    }

    /// Ends the leg, and with it the run.
    pub(super) fn fail(&mut self, error: RunError) -> Stop {
        self.end(Ending::Fail(error))
    }

    pub(super) fn diverged(&mut self, divergence: Divergence) -> Stop {
        self.end(Ending::Diverged(divergence))
    }

    /// Reads the mail that came while the guest was busy.
    pub(super) fn check_mail(&mut self) -> Result<(), Stop> {
        while let Ok(mail) = self.mailbox.receiver.try_recv() {
            if matches!(mail, Mail::Cancelled) {
                return Err(self.end(Ending::Gone));
            }
        }
        self.check_version()
    }

    /// Checks the limits on what a run may begin.
    fn check_limits(&mut self) -> Result<(), Stop> {
        if self.replay.is_replaying() {
            return Ok(());
        }
        self.observe_replay();
        self.repeats_lines = false;
        let (what, limit) = if self.replay.steps() >= limit::STEPS_MAX {
            ("begun more steps", limit::STEPS_MAX as usize)
        } else if self.replay.entries().len() >= limit::JOURNAL_ENTRIES_MAX {
            ("more journal entries", limit::JOURNAL_ENTRIES_MAX)
        } else if self.replay.open_count() >= limit::OPEN_OPERATIONS_MAX {
            ("more operations open at once", limit::OPEN_OPERATIONS_MAX)
        } else {
            return Ok(());
        };
        Err(self.fail(RunError::new(
            "too-many-steps",
            format!("the run has {what} than the limit of {limit}: split the work over runs, or go on with continue-with"),
        )))
    }

    /// The time now, never before what the run has seen.
    pub(super) fn time(&self) -> Timestamp {
        self.worker.clock.now().max(self.replay.now())
    }

    /// When a new operation comes due by itself. One that is not valid is answered when it is awaited.
    fn due_at(&self, kind: OperationKind, operation: Seq, input: &Json, now: Timestamp) -> Option<Timestamp> {
        #[derive(serde::Deserialize)]
        struct Sleep {
            #[serde(default)]
            duration_ms: u64,
            #[serde(default)]
            time_ms: u64,
        }
        let sleep = || input.read::<Sleep>().ok();
        match kind {
            OperationKind::Sleep => {
                let millis = sleep()?.duration_ms;
                (millis <= limit::SLEEP_MS_MAX).then(|| now.after(std::time::Duration::from_millis(millis)))
            }
            OperationKind::SleepUntil => {
                let millis = sleep()?.time_ms;
                (millis <= now.as_millis_u64() + limit::SLEEP_MS_MAX)
                    .then(|| Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)))
            }
            OperationKind::WaitForEvent => WaitForEvent::read(input, now, &self.run.event).ok()?.due_at,
            OperationKind::WaitForSignal => WaitForSignal::read(input, now).ok()?.due_at,
            OperationKind::Invoke => self.read_invoke(operation, input, now).ok()?.due_at,
            OperationKind::Sql
            | OperationKind::SendEvents
            | OperationKind::SendSignal
            | OperationKind::Fetch => None,
        }
    }
}

#[async_trait]
impl RunHost for LegHost {
    async fn begin_run(&mut self, name: String, options: Option<Json>) -> Result<RunStart, Stop> {
        self.check_limits()?;
        let options = match StepOptions::parse(options.as_ref().map(Json::as_str)) {
            Ok(options) => options,
            // The same answer on every replay, so there is nothing to record.
            Err(failure) => return Ok(RunStart::Recorded(Err(failure))),
        };
        match self
            .replay
            .begin(&name)
            .map_err(|divergence| self.diverged(divergence))?
        {
            Begun::Recorded(outcome) => Ok(RunStart::Recorded(outcome)),
            Begun::Deferred(operation) => Ok(RunStart::Deferred(operation)),
            Begun::Execute(attempt) => self.open_body(attempt, options).await.map(RunStart::Execute),
        }
    }

    async fn finish_run(
        &mut self,
        outcome: Outcome,
        state_changed: bool,
    ) -> Result<Result<(), Failure>, Stop> {
        self.check_mail()?;
        self.close_body(outcome, state_changed).await
    }

    async fn start(&mut self, call: StartCall) -> Result<Seq, Stop> {
        self.check_limits()?;
        self.keep_order(call.kind).await?;
        let at = self.time();
        let operation = self.replay.next_seq();
        let due = match self.replay.is_replaying() {
            true => None,
            false => self.due_at(call.kind, operation, &call.input, at),
        };
        let started = self
            .replay
            .start(call.kind, &call.name, &call.input, at, || due)
            .map_err(|divergence| self.diverged(divergence))?;
        self.has_invoked |= call.kind == OperationKind::Invoke;
        if started.new {
            match call.kind {
                OperationKind::Invoke => self.invoke(started.operation, &call.input, at),
                OperationKind::SendSignal => self.send_signal(started.operation, &call.input),
                OperationKind::SendEvents => self.send_events(started.operation, &call.input, at),
                OperationKind::WaitForEvent => self.wait_for_event(started.operation, &call.input, at),
                OperationKind::WaitForSignal => self.wait_for_signal(started.operation, &call.input, at),
                _ => {}
            }
        }
        if let Some(options) = call.options {
            self.options.insert(started.operation, options);
        }
        Ok(started.operation)
    }

    async fn await_any(&mut self, operations: &[Seq]) -> Result<u32, Stop> {
        self.wait_for(operations).await
    }

    fn outcome(&mut self, operation: Seq) -> Option<Outcome> {
        fetching::outcome(&self.replay, operation)
    }

    fn body(&mut self, operation: Seq) -> Option<Bytes> {
        fetching::body(&self.replay, operation)
    }

    async fn cancel(&mut self, operation: Seq) -> Result<(), Stop> {
        let at = self.time();
        self.replay
            .cancel(operation, at)
            .map_err(|divergence| self.diverged(divergence))?;
        self.performing.abort(operation);
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.replay.now()
    }

    fn log(&mut self, level: LogLevel, message: String, fields: Option<Json>, in_body: bool) {
        if !in_body && (self.replay.is_replaying() || self.repeats_lines) {
            return;
        }
        let level = match level {
            LogLevel::Trace => "trace",
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        };
        let message = match self.log_lines {
            limit::LOG_LINES_MAX.. => return,
            lines if lines == limit::LOG_LINES_MAX - 1 => {
                format!(
                    "the run has written {} lines: later ones are not kept",
                    limit::LOG_LINES_MAX
                )
            }
            _ => message,
        };
        let step = self
            .replay
            .attempt()
            .filter(|_| in_body)
            .map(|attempt| attempt.name.clone());
        self.logs.push(LogLine {
            number: self.log_lines,
            at: self.worker.clock.now(),
            level: level.to_owned(),
            step,
            message,
            fields,
        });
        self.log_lines += 1;
    }

    fn placeholder(&self, name: &str) -> Result<String, Failure> {
        let module = self.run.function.module();
        secret::placeholder(&self.program.grants.secrets, module, &self.run.seed, name)
    }

    fn config(&self, key: &str) -> Option<Json> {
        self.program.grants.config.get(key).cloned()
    }
}

/// What the engine is to execute for a run, on a version that may be another than the run's own.
pub(crate) fn leg_of(
    (run, events): (&ClaimedRun, Json),
    module: &Module,
    grants: &ModuleGrants,
    http: &HttpPolicy,
    interrupt: Interrupt,
) -> Leg {
    let continued = run.continued.as_ref().map_or("null", Json::as_str);
    let input = Json::trusted(format!(
        r#"{{"event":{},"events":{events},"continued":{continued}}}"#,
        run.event
    ));
    Leg {
        function: run.function.function().to_owned(),
        input,
        context: RunContext {
            run_id: run.id,
            function: run.function.clone(),
            version: module.digest(),
            event: run.event.clone(),
            events,
        },
        module: module.clone(),
        seed: run.seed,
        limits: grants.limits,
        http: http.clone(),
        interrupt,
    }
}

/// What is the same over all attempts of a step, and different for every other.
pub(super) fn idempotency_key(run: RunId, name: &str, occurrence: u32) -> String {
    let hash = dormouse_core::replay::input_hash(&Json::trusted(format!("{occurrence}:{name}")));
    format!("{run}-{hash:016x}")
}
