//! Replay verification: a second instance replays what is recorded so far and must ask for the same.
//!
//! Finds what the sandbox cannot prevent: a body that leaves something behind in the guest's memory which a replay,
//! that skips the body, does not have. No effect is executed; a difference blocks the run before it goes on.

use async_trait::async_trait;
use bytes::Bytes;
use dormouse_core::replay::{Awaited, Begun, Divergence, Replay};
use dormouse_core::run::RunError;
use dormouse_core::{Failure, Json, Outcome, RunId, Seq, Timestamp};
use dormouse_engine::{Interrupt, LegEnd, LogLevel, RunHost, RunStart, StartCall, Stop};

use super::fetching;
use super::leg::{Ending, LegHost};
use crate::secret;

/// When to verify.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Verify {
    /// After every body.
    pub(crate) bodies: bool,
    /// The share of suspensions, 0 to 1.
    pub(crate) share: f64,
}

impl Verify {
    /// Whether to verify this suspension: decided by the run and the place, so that it spreads evenly.
    pub(super) fn samples(self, run: &RunId, seq: Seq) -> bool {
        let bytes = run.to_bytes();
        let mix = bytes[10..]
            .iter()
            .fold(u64::from(seq).wrapping_mul(0x9e37_79b9_7f4a_7c15), |mix, byte| {
                (mix ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        ((mix >> 11) as f64 / (1u64 << 53) as f64) < self.share
    }
}

/// Answers from a journal and from nothing else.
struct Verifier {
    replay: Replay,
    divergence: Option<Divergence>,
    config: std::sync::Arc<crate::config::ModuleGrants>,
    module: String,
    seed: [u8; 32],
}

impl Verifier {
    fn diverged(&mut self, divergence: Divergence) -> Stop {
        self.divergence = Some(divergence);
        Stop
    }
}

#[async_trait]
impl RunHost for Verifier {
    async fn begin_run(&mut self, name: String, _: Option<Json>) -> Result<RunStart, Stop> {
        match self.replay.begin(&name) {
            Ok(Begun::Recorded(outcome)) => Ok(RunStart::Recorded(outcome)),
            Ok(Begun::Deferred(operation)) => Ok(RunStart::Deferred(operation)),
            // As far as it is recorded: everything matched.
            Ok(Begun::Execute(_)) => Err(Stop),
            Err(divergence) => Err(self.diverged(divergence)),
        }
    }

    async fn finish_run(&mut self, _: Outcome, _: bool) -> Result<Result<(), Failure>, Stop> {
        Err(Stop)
    }

    async fn start(&mut self, call: StartCall) -> Result<Seq, Stop> {
        if !self.replay.is_replaying() {
            return Err(Stop);
        }
        let now = self.replay.now();
        match self
            .replay
            .start(call.kind, &call.name, &call.input, now, || None)
        {
            Ok(started) => Ok(started.operation),
            Err(divergence) => Err(self.diverged(divergence)),
        }
    }

    async fn await_any(&mut self, operations: &[Seq]) -> Result<u32, Stop> {
        match self.replay.await_any(operations) {
            Ok(Awaited::Ready(index)) => Ok(index),
            Ok(Awaited::Pending) => Err(Stop),
            Err(divergence) => Err(self.diverged(divergence)),
        }
    }

    fn outcome(&mut self, operation: Seq) -> Option<Outcome> {
        fetching::outcome(&self.replay, operation)
    }

    fn body(&mut self, operation: Seq) -> Option<Bytes> {
        fetching::body(&self.replay, operation)
    }

    async fn cancel(&mut self, operation: Seq) -> Result<(), Stop> {
        if !self.replay.is_replaying() {
            return Err(Stop);
        }
        let now = self.replay.now();
        self.replay
            .cancel(operation, now)
            .map_err(|divergence| self.diverged(divergence))
    }

    fn now(&self) -> Timestamp {
        self.replay.now()
    }

    fn log(&mut self, _: LogLevel, _: String, _: Option<Json>, _: bool) {}

    fn placeholder(&self, name: &str) -> Result<String, Failure> {
        secret::placeholder(&self.config.secrets, &self.module, &self.seed, name)
    }

    fn config(&self, key: &str) -> Option<Json> {
        self.config.config.get(key).cloned()
    }
}

impl LegHost {
    /// Replays what is recorded so far in another instance. Ends the leg when that asks for something else.
    pub(super) async fn verify(&mut self) -> Result<(), Stop> {
        let entries = self.replay.entries().to_vec();
        let Ok(replay) = Replay::new(entries, self.run.journal_base, self.run.queued_at) else {
            return Ok(());
        };
        let verifier = Verifier {
            replay,
            divergence: None,
            config: std::sync::Arc::clone(&self.program.grants),
            module: self.run.function.module().to_owned(),
            seed: self.run.seed,
        };
        let leg = dormouse_engine::Leg {
            interrupt: Interrupt::new(),
            ..self.leg()
        };
        let (end, mut verifier, _) = Box::pin(self.worker.engine.run_leg(leg, verifier)).await;
        let difference = match (verifier.divergence.take(), end) {
            (Some(divergence), _) => divergence.to_string(),
            (None, LegEnd::Stopped) => return Ok(()),
            (None, LegEnd::Trapped(trap)) if trap.host_dependent => return Ok(()),
            (None, LegEnd::Trapped(trap)) => format!("the replay trapped: {}", trap.message),
            (None, LegEnd::Done(_) | LegEnd::ContinueWith(_) | LegEnd::Failed(_)) => {
                match verifier.replay.finish(false) {
                    Err(divergence) => divergence.to_string(),
                    Ok(()) => return Ok(()),
                }
            }
        };
        metrics::counter!("dormouse_divergences_total").increment(1);
        Err(self.end(Ending::Block(RunError::new(
            "impure-body",
            format!(
                "replaying the run on the same version asked for something else: {difference}. A step's body has \
                 changed something outside itself that code outside bodies depends on (a static, a thread-local, a \
                 cache); return what is needed from the body instead"
            ),
        ))))
    }
}
