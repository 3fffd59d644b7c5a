//! Runs that go over to other versions, at random.

use dormouse_core::run::RunError;
use dormouse_core::swap::Policy;

use super::{Pair, digest};
use crate::read::Run;
use crate::swap::NewSwap;

impl Pair {
    /// What becomes of runs in flight, if that is said.
    pub(super) fn policy(&mut self) -> Option<Policy> {
        let said = self.random.one_in(2);
        said.then(|| Policy::ALL[self.random.below(3) as usize])
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
