//! A leg with effects off: a guest is answered from a journal and from nothing else, up to the first call that is not
//! recorded there. Nothing is executed, written, logged or counted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dormouse_core::preflight::{Probe, Stand};
use dormouse_core::replay::{Begun, Replay};
use dormouse_core::run::RunError;
use dormouse_core::step::StepOptions;
use dormouse_core::{Failure, Json, Outcome, Seq, Timestamp};
use dormouse_engine::{Engine, Leg, LegEnd, LogLevel, RunHost, RunStart, StartCall, Stop};

use super::fetching;
use crate::config::ModuleGrants;
use crate::secret;

/// What a probe came to.
pub(crate) struct Probed {
    /// Where the version stands.
    pub(crate) stand: Stand,
    /// The guest's own functions where it was ended, innermost first.
    pub(crate) frames: Vec<String>,
    /// A trap that may not happen again elsewhere or later.
    pub(crate) host_dependent: bool,
    /// Processor time it took.
    pub(crate) cpu: Duration,
}

/// Replays a journal in an instance of its own.
pub(crate) async fn probe(engine: &Engine, leg: Leg, replay: Replay, grants: Arc<ModuleGrants>) -> Probed {
    let host = ProbeHost {
        probe: Probe::new(replay),
        grants,
        module: leg.context.function.module().to_owned(),
        seed: leg.seed,
        frames: Vec::new(),
    };
    let (end, mut host, stats) = Box::pin(engine.run_leg(leg, host)).await;
    let mut probed = Probed {
        stand: Stand::Trapped(RunError::new(
            "internal",
            "the guest was ended for no reason that is known",
        )),
        frames: Vec::new(),
        host_dependent: false,
        cpu: stats.cpu,
    };
    match end {
        LegEnd::Stopped => probed.frames = std::mem::take(&mut host.frames),
        LegEnd::Done(_) | LegEnd::ContinueWith(_) => host.probe.finish(false),
        LegEnd::Failed(_) => host.probe.finish(true),
        LegEnd::Trapped(trap) => {
            host.probe.trapped(trap.code, &trap.message);
            probed.frames = trap.frames;
            probed.host_dependent = trap.host_dependent;
        }
    }
    if let Some(stand) = host.probe.into_stand() {
        probed.stand = stand;
    }
    probed
}

struct ProbeHost {
    probe: Probe,
    grants: Arc<ModuleGrants>,
    module: String,
    seed: [u8; 32],
    /// Where the guest was when it asked for something else than what is recorded.
    frames: Vec<String>,
}

#[async_trait]
impl RunHost for ProbeHost {
    async fn begin_run(&mut self, name: String, options: Option<Json>) -> Result<RunStart, Stop> {
        // As a leg answers options that are not valid: the same on every replay, and without an entry.
        if let Err(failure) = StepOptions::parse(options.as_ref().map(Json::as_str)) {
            return Ok(RunStart::Recorded(Err(failure)));
        }
        match self.probe.begin(&name) {
            Some(Begun::Recorded(outcome)) => Ok(RunStart::Recorded(outcome)),
            Some(Begun::Deferred(operation)) => Ok(RunStart::Deferred(operation)),
            Some(Begun::Execute(_)) | None => Err(Stop),
        }
    }

    async fn finish_run(&mut self, _: Outcome, _: bool) -> Result<Result<(), Failure>, Stop> {
        Err(Stop)
    }

    async fn start(&mut self, call: StartCall) -> Result<Seq, Stop> {
        self.probe.start(call.kind, &call.name, &call.input).ok_or(Stop)
    }

    async fn await_any(&mut self, operations: &[Seq]) -> Result<u32, Stop> {
        self.probe.await_any(operations).ok_or(Stop)
    }

    fn outcome(&mut self, operation: Seq) -> Option<Outcome> {
        fetching::outcome(self.probe.replay(), operation)
    }

    fn body(&mut self, operation: Seq) -> Option<Bytes> {
        fetching::body(self.probe.replay(), operation)
    }

    async fn cancel(&mut self, operation: Seq) -> Result<(), Stop> {
        self.probe.cancel(operation).ok_or(Stop)
    }

    fn now(&self) -> Timestamp {
        self.probe.replay().now()
    }

    fn log(&mut self, _: LogLevel, _: String, _: Option<Json>, _: bool) {}

    fn placeholder(&self, name: &str) -> Result<String, Failure> {
        secret::placeholder(&self.grants.secrets, &self.module, &self.seed, name)
    }

    fn config(&self, key: &str) -> Option<Json> {
        self.grants.config.get(key).cloned()
    }

    fn stopped_at(&mut self, frames: &dyn Fn() -> Vec<String>) {
        if let Some(Stand::Diverged(_)) = self.probe.stand() {
            self.frames = frames();
        }
    }
}
