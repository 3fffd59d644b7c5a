//! Replay verification: a second instance replays what is recorded so far and must ask for the same.
//!
//! Finds what the sandbox cannot prevent: a body that leaves something behind in the guest's memory which a replay,
//! that skips the body, does not have. No effect is executed; a difference blocks the run before it goes on.

use std::sync::Arc;

use dormouse_core::preflight::Stand;
use dormouse_core::replay::Replay;
use dormouse_core::run::RunError;
use dormouse_core::{RunId, Seq};
use dormouse_engine::{Interrupt, Stop};

use super::leg::{Ending, LegHost};
use super::probe::probe;

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

impl LegHost {
    /// Replays what is recorded so far in another instance. Ends the leg when that asks for something else.
    pub(super) async fn verify(&mut self) -> Result<(), Stop> {
        let entries = self.replay.entries().to_vec();
        let Ok(replay) = Replay::new(entries, self.run.journal_base, self.run.queued_at) else {
            return Ok(());
        };
        let leg = dormouse_engine::Leg {
            interrupt: Interrupt::new(),
            ..self.leg()
        };
        let probed = probe(&self.worker.engine, leg, replay, Arc::clone(&self.program.grants)).await;
        let difference = match probed.stand {
            Stand::Next(_) => return Ok(()),
            Stand::Trapped(_) if probed.host_dependent => return Ok(()),
            Stand::Diverged(divergence) => divergence.to_string(),
            Stand::Trapped(error) => format!("the replay trapped: {}", error.message),
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
