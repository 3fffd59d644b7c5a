//! Cancelling many runs with one command, and components.

use dormouse_core::{Digest, EventId};

use super::{MODULES, Pair};
use crate::cancellation::{CancellationFilter, Examined, NewCancellation};
use crate::conformance::fixture::function;

impl Pair {
    pub(super) async fn cancelling(&mut self) {
        match self.random.below(5) {
            0 => self.put_cancellation().await,
            1 => self.delete_cancellation().await,
            _ => self.examine().await,
        }
    }

    async fn put_cancellation(&mut self) {
        let now = self.time();
        let module = MODULES[self.random.below(2) as usize];
        let new = NewCancellation {
            id: EventId::from_parts(now, self.id()),
            function: function(&format!("{module}/f{}", self.random.below(4))),
            started_after: self.random.one_in(3).then(|| self.earlier()),
            started_before: self.random.one_in(3).then(|| self.earlier()),
            condition: self.random.one_in(2).then(|| "true".to_owned()),
            now,
        };
        both!(self, put_cancellation(new.clone())).expect("stores");
        self.succeeded("put-cancellation");
    }

    async fn delete_cancellation(&mut self) {
        let listed = both!(self, cancellations(CancellationFilter::newest(8))).expect("lists");
        let Some(id) = self.random.pick(&listed).map(|cancellation| cancellation.id) else {
            return;
        };
        if both!(self, delete_cancellation(id)).expect("answers") {
            self.succeeded("delete-cancellation");
        }
    }

    /// Works off some of the oldest cancellation. Only some runs are meant: there have to be others left.
    async fn examine(&mut self) {
        for _ in 0..4 {
            let limit = 1 + self.random.below(30) as u32;
            let Some(batch) = both!(self, next_cancellation(limit)).expect("reads") else {
                return;
            };
            let mut runs: Vec<_> = batch.candidates.iter().map(|candidate| candidate.run).collect();
            runs.retain(|_| self.random.one_in(4));
            let examined = Examined {
                id: batch.cancellation.id,
                runs,
                last: batch.last,
                now: self.time(),
            };
            // As by two nodes, now and then.
            for _ in 0..1 + self.random.below(2) {
                let cancelled = both!(self, cancel_examined(examined.clone())).expect("cancels");
                if !cancelled.is_empty() {
                    self.succeeded("cancel-examined");
                }
            }
            if batch.last.is_none() {
                self.succeeded("cancellation-done");
            }
        }
    }

    /// Components, stored and read.
    pub(super) async fn components(&mut self) {
        for _ in 0..4 {
            self.component().await;
        }
    }

    /// The bytes of some version, or others.
    async fn component(&mut self) {
        let bytes = self.random.below(5).to_le_bytes();
        let digest = Digest::of(&bytes);
        match self.random.below(4) {
            0 => {
                both!(self, put_component(digest, b"other bytes")).expect_err("they are not these");
            }
            1 | 2 => both!(self, put_component(digest, &bytes)).expect("stores"),
            _ => {
                let found = both!(self, component(digest)).expect("reads");
                if let Some(found) = found {
                    assert_eq!(found, bytes);
                    self.succeeded("component");
                }
            }
        }
    }
}
