//! What a run sends: events that wait for the commit of the entry which sends them.
//!
//! Exactly once: the entry, the events and the runs that they start are one commit, so whoever finds the entry finds
//! the events too. Their ids follow from the entry, so the result is known before it is durable, and the same on every
//! replay.

use dormouse_core::operation::{SendEvents, SendSignal};
use dormouse_core::{Json, Outcome, Seq, Timestamp};
use dormouse_store::ingest::{Ingest, NewRun};
use dormouse_store::wait::{NewSignal, NewWait};

use super::leg::LegHost;
use crate::router::{self, SentEvent};

impl LegHost {
    /// A new entry sends events: they are kept for its commit. What is wrong with them is its result.
    pub(super) fn send_events(&mut self, operation: Seq, input: &Json, at: Timestamp) {
        let Ok(sent) = SendEvents::read(input, self.run.id, operation, at) else {
            return;
        };
        self.outgoing
            .extend(sent.events.into_iter().map(|(id, accepted)| SentEvent {
                id,
                dedupe: accepted.external_id.clone(),
                accepted,
            }));
    }

    /// A new entry sends a signal: it is kept for its commit. What is wrong with it is its result.
    pub(super) fn send_signal(&mut self, operation: Seq, input: &Json) {
        if let Ok(sent) = SendSignal::read(input) {
            self.signalling.push((operation, sent));
        }
    }

    /// The signals that the next commit sends.
    pub(super) fn new_signals(&self) -> Vec<NewSignal> {
        let signals = self.signalling.iter().map(|(operation, sent)| NewSignal {
            operation: self.replay.is_open(*operation).then_some(*operation),
            signal: sent.signal.clone(),
            data: sent.data.clone(),
        });
        signals.collect()
    }

    /// What sending came to: a function of the entry, so it is the same whether this leg sent or one before it.
    pub(super) fn sent(&self, operation: Seq, input: &Json, at: Timestamp) -> Outcome {
        SendEvents::read(input, self.run.id, operation, at).map(|sent| sent.result())
    }

    /// What the next commit has to carry, and the waits that it opens, decided on the registry as it is.
    pub(super) fn carried(&self, now: Timestamp) -> (Option<Ingest>, Vec<NewWait>) {
        let mut waits = self.new_waits();
        if self.outgoing.is_empty() && self.invoking.is_empty() {
            return (None, waits);
        }
        let registry = &self.worker.registry;
        let snapshot = registry.snapshot();
        let mut ingest = router::sent_by_run(registry, &snapshot, &self.outgoing, now);
        self.carry_children(&mut ingest, &mut waits, &snapshot);
        (Some(ingest), waits)
    }

    /// What was carried is durable: somebody has to begin it.
    pub(super) fn carried_out(&mut self, ingest: &Ingest) {
        self.outgoing.clear();
        self.invoking.clear();
        let scheduler = &self.worker.scheduler;
        for run in &ingest.runs {
            if run.start_at > ingest.now {
                scheduler.timer(run.start_at);
            }
            scheduler.deadline(router::first_deadline(run));
            self.worker.feed.run(run.id);
        }
        // When a throttle lets them begin, or a window closes, was decided in the commit.
        let limited = |run: &NewRun| run.admission.throttle.is_some() || run.admission.gathering.is_some();
        if ingest.runs.iter().any(limited) {
            scheduler.look_ahead();
        }
        if !ingest.runs.is_empty() {
            scheduler.nudge();
        }
    }
}
