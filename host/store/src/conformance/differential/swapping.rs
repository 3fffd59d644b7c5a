//! Runs that go over to other versions, at random.

use dormouse_core::run::{Phase, RunError};
use dormouse_core::swap::Policy;

use super::{MODULES, Pair, digest};
use crate::command::Commanded;
use crate::read::Run;
use crate::swap::{Asked, NewSwap, ToRestart};

impl Pair {
    /// What becomes of runs in flight, if that is said.
    pub(super) fn policy(&mut self) -> Option<Policy> {
        let said = self.random.one_in(2);
        said.then(|| Policy::ALL[self.random.below(3) as usize])
    }

    /// A person says which version a run is to be on, or takes it back.
    pub(super) async fn ask_version(&mut self) {
        let phase = self.random.one_in(2).then_some(Phase::Blocked);
        let Some(run) = self.some_run(phase).await else {
            return;
        };
        let version = digest(self.random.below(5));
        let asked = (!self.random.one_in(3)).then(|| Asked {
            module: run.function.module().to_owned(),
            version,
        });
        let now = self.time();
        if let Ok(Commanded::Done(_)) = both!(self, ask_version(run.id, asked.clone(), now)) {
            self.succeeded("ask-version");
        }
    }

    /// All that rest on other versions are made ready.
    pub(super) async fn wake_to_restart(&mut self) {
        // Otherwise hardly anything rests.
        if !self.random.one_in(8) {
            return;
        }
        let restart = ToRestart {
            module: MODULES[self.random.below(2) as usize].to_owned(),
            to: digest(self.random.below(5)),
            functions: (0..3)
                .filter(|_| self.random.one_in(2))
                .map(|number| format!("f{number}"))
                .collect(),
            limit: 10_000,
            now: self.time(),
        };
        if both!(self, wake_to_restart(restart.clone())).expect("answers") > 0 {
            self.succeeded("wake-to-restart");
        }
    }

    /// Now and then, another version that a run goes over to or cannot, some of which are not there.
    pub(super) fn swap(&mut self, run: &Run) -> Option<NewSwap> {
        if !self.random.one_in(6) {
            return None;
        }
        let stale = i64::from(self.random.one_in(15));
        let stays = self.random.one_in(3);
        // Seldom to those that are deleted now and then: what runs are on is not.
        let versions = if self.random.one_in(12) { 5 } else { 2 };
        Some(NewSwap {
            module: run.function.module().to_owned(),
            to: digest(self.random.below(versions)),
            stays: stays.then(|| RunError::new("diverged", format!("at {}", self.step))),
            generation: self.generation - stale,
        })
    }
}
