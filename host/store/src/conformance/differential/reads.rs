//! Comparing what two stores hold.

use dormouse_core::run::{Phase, Status};
use dormouse_core::{RunId, Timestamp};

use super::{MODULES, Pair, RUNS_MAX};
use crate::read::{EventFilter, RunFilter};

impl Pair {
    /// Everything that can be read, by every way of reading it.
    pub(super) async fn compare(&mut self, sample: u64) {
        both!(self, counts()).expect("counts");
        self.compare_nodes().await;
        both!(self, registry()).expect("reads");
        both!(self, schedules()).expect("lists");
        both!(self, untold(10_000)).expect("lists");
        both!(self, next_deadline()).expect("reads");
        both!(self, upcoming_timers(Timestamp::MAX, 10_000)).expect("reads");
        both!(self, cancellations(1_000)).expect("lists");
        for module in MODULES {
            both!(self, versions(module)).expect("reads");
        }
        let all = RunFilter {
            limit: 10_000,
            ..RunFilter::default()
        };
        let runs = both!(self, runs(all.clone())).expect("lists");
        let ids: Vec<RunId> = runs.iter().rev().map(|run| run.id).collect();
        both!(self, glance(&ids)).expect("reads");
        both!(self, examine(&ids)).expect("reads");
        for module in MODULES {
            both!(self, in_flight(module, 3)).expect("reads");
            both!(self, in_flight(module, 10_000)).expect("reads");
        }
        let chance = (runs.len() as u64 / sample).max(1);
        for run in &runs {
            if !self.random.one_in(chance) {
                continue;
            }
            let id = run.id;
            both!(self, run(id)).expect("reads");
            both!(self, journal(id, 0)).expect("reads");
            both!(self, completions(id)).expect("reads");
            if both!(self, batch(id)).expect("reads").len() > 1 {
                self.succeeded("batch-read");
            }
            both!(self, logs(id, 0, 1000)).expect("reads");
            both!(self, swaps(id)).expect("reads");
        }
        let events = both!(
            self,
            events(EventFilter {
                limit: 10_000,
                ..EventFilter::default()
            })
        )
        .expect("lists");
        for event in &events {
            if self.random.one_in((events.len() as u64 / sample).max(1)) {
                both!(self, decisions(event.id)).expect("reads");
            }
        }
        let event = self
            .random
            .pick(&events)
            .map(|event| (event.id, event.received_at));
        let before = self.random.pick(&runs).map(|run| run.id);
        if runs.len() > RUNS_MAX {
            let now = self.time();
            for run in runs.iter().rev().take(RUNS_MAX / 2) {
                both!(self, cancel(run.id, now)).expect("answers");
            }
            both!(self, prune(Timestamp::MAX, RUNS_MAX as u32)).expect("prunes");
        }
        for number in 0..64 {
            let bit = |bit: u32| number >> bit & 1 == 1;
            let mut filter = RunFilter {
                limit: 1 + self.random.below(20) as u32,
                ..RunFilter::default()
            };
            filter.status = match number % 4 {
                0 => Vec::new(),
                1 => vec![Status::Failed, Status::Cancelled],
                2 => vec![Status::Completed],
                _ => vec![Status::Running, Status::Scheduled],
            };
            filter.phase = bit(2).then_some(Phase::Sleeping);
            filter.module = bit(3).then(|| "shop".to_owned());
            filter.function = (bit(3) && bit(4)).then(|| "f1".to_owned());
            filter.before = before.filter(|_| bit(5));
            filter.event = event.map(|(id, _)| id).filter(|_| self.random.one_in(8));
            both!(self, runs(filter.clone())).expect("lists");
        }
        for number in 0..8 {
            let filter = EventFilter {
                name: (number & 1 == 1).then(|| "event/1".to_owned()),
                received_after: event.map(|(_, at)| at).filter(|_| number & 2 == 2),
                received_before: None,
                before: event.map(|(id, _)| id).filter(|_| number & 4 == 4),
                limit: 10,
            };
            both!(self, events(filter.clone())).expect("lists");
        }
    }
}
