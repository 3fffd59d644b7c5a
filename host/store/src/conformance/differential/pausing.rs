//! Pausing and resuming, of runs and of functions.

use dormouse_core::run::Phase;

use super::{MODULES, Pair};
use crate::command::Commanded;
use crate::conformance::fixture::function;
use crate::registry::Changed;

impl Pair {
    pub(super) async fn pausing(&mut self) {
        match self.random.below(4) {
            0 => self.pause().await,
            1 => self.resume().await,
            2 => self.pause_function().await,
            _ => self.release_held().await,
        }
    }

    async fn pause(&mut self) {
        let phases = [
            None,
            Some(Phase::Executing),
            Some(Phase::Sleeping),
            Some(Phase::Paused),
            Some(Phase::Limited),
        ];
        let phase = phases[self.random.below(5) as usize];
        for _ in 0..6 {
            let Some(run) = self.some_run(phase).await else {
                return;
            };
            if let Ok(Commanded::Done(_)) = both!(self, pause(run.id)) {
                self.succeeded("pause");
                self.left(&run);
            }
        }
    }

    async fn resume(&mut self) {
        let phases = [
            None,
            Some(Phase::Executing),
            Some(Phase::Paused),
            Some(Phase::Paused),
        ];
        let phase = phases[self.random.below(4) as usize];
        let Some(run) = self.some_run(phase).await else {
            return;
        };
        let now = self.time();
        if let Ok(Commanded::Done(state)) = both!(self, resume(run.id, now)) {
            self.succeeded("resume");
            if state.phase == Some(Phase::Limited) {
                self.succeeded("throttle-resumed");
            }
        }
    }

    async fn pause_function(&mut self) {
        let module = MODULES[self.random.below(2) as usize];
        let name = function(&format!("{module}/f{}", self.random.below(3)));
        let now = self.time();
        let changed = match self.random.one_in(2) {
            true => ("pause-function", both!(self, pause_function(&name, now))),
            false => ("resume-function", both!(self, resume_function(&name))),
        };
        if let (kind, Ok(Changed::Done(_))) = changed {
            self.succeeded(kind);
        }
        self.generation = both!(self, registry()).expect("reads").generation;
    }

    /// All that can be let on: which runs a limit takes first is not promised.
    async fn release_held(&mut self) {
        let now = self.time();
        if both!(self, release_held(10_000, now)).expect("releases") > 0 {
            self.succeeded("release-held");
        }
    }
}
