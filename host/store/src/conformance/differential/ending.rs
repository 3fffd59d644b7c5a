//! What may end runs from outside by itself.

use std::time::Duration;

use dormouse_core::ending::{Cancels, Clock, Deadline, Ends};
use dormouse_core::run::Status;
use dormouse_core::{system, wait};
use serde_json::json;

use super::Pair;
use crate::read::RunFilter;

impl Pair {
    /// What may end a new run: mostly nothing.
    pub(super) fn ends(&mut self) -> Ends {
        let mut ends = Ends::default();
        if self.random.one_in(6) {
            for _ in 0..1 + self.random.below(2) {
                let cancels = self.cancels();
                ends.cancel_on.push(cancels);
            }
        }
        if self.random.one_in(6) {
            for clock in [Clock::Start, Clock::Finish] {
                if self.random.one_in(2) {
                    let period = Duration::from_millis(1 + self.random.below(20_000));
                    ends.deadlines.push(Deadline {
                        clock,
                        period,
                        due: self.time().after(period),
                    });
                }
            }
        }
        ends
    }

    /// The events' payloads are `[number, step]`, which have no fields: a key finds none.
    fn cancels(&mut self) -> Cancels {
        let keyed = self.random.one_in(4);
        let key = wait::key(&json!({"data": {"id": 7}}), "data.id").unwrap_or_default();
        let condition = match self.random.below(4) {
            0 => Some("event[0] == async[0]"),
            1 => Some("async[0] > 30"),
            _ => None,
        };
        let window = Duration::from_millis(self.random.below(30_000));
        Cancels {
            event: match self.random.one_in(10) {
                true => system::FINISHED.to_owned(),
                false => format!("event/{}", self.random.below(3)),
            },
            path: if keyed {
                "data.id".to_owned()
            } else {
                String::new()
            },
            key: if keyed { key } else { String::new() },
            condition: condition.map(str::to_owned),
            until: self.random.one_in(2).then(|| self.time().after(window)),
        }
    }

    /// How many runs events have cancelled, and how many have made room for others.
    pub(super) async fn cancelled_by_events(&self) -> (usize, usize) {
        let filter = RunFilter {
            status: vec![Status::Cancelled],
            limit: 10_000,
            ..RunFilter::default()
        };
        let runs = self.model.runs(filter).await.expect("lists");
        let by = |whom: &str| {
            let reasons = runs.iter().filter_map(|run| run.reason.as_deref());
            reasons.filter(|reason| reason.starts_with(whom)).count()
        };
        (by("cancelled by event"), by("cancelled by run"))
    }

    pub(super) async fn expire(&mut self) {
        let due = both!(self, next_deadline()).expect("reads");
        let (limit, now) = (1 + self.random.below(5) as u32, self.time());
        let expired = both!(self, expire(limit, now)).expect("looks");
        assert_eq!(expired.looked > 0, due.is_some_and(|due| due <= now));
        if !expired.cancelled.is_empty() {
            self.succeeded("expire");
        }
        if expired.looked > expired.cancelled.len() as u32 {
            self.succeeded("expire-kept");
        }
    }
}
