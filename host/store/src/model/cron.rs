//! Schedules in the model.

use dormouse_core::cron::Previous;
use dormouse_core::{FunctionName, Timestamp};

use super::World;
use crate::cron::{LastTick, NewSchedules, Schedule, SkippedTick, Tick, Ticked};
use crate::error::{Error, Result};
use crate::ingest::Created;

/// Where a schedule stands, by function and expression.
#[derive(Clone)]
pub(super) struct ModelSchedule {
    next: Timestamp,
    last: Option<LastTick>,
    skipped: Option<SkippedTick>,
}

impl World {
    pub(super) fn put_schedules(&mut self, new: NewSchedules) -> Result<()> {
        if new.generation != self.generation() {
            return Err(Error::StaleRegistry);
        }
        let stays = |function: &FunctionName, cron: &String| {
            !new.modules.iter().any(|module| module == function.module())
                || new
                    .schedules
                    .iter()
                    .any(|schedule| schedule.function == *function && schedule.cron == *cron)
        };
        self.schedules.retain(|(function, cron), _| stays(function, cron));
        for schedule in new.schedules {
            let fresh = ModelSchedule {
                next: schedule.next,
                last: None,
                skipped: None,
            };
            let key = (schedule.function, schedule.cron);
            self.schedules.entry(key).or_insert(fresh);
        }
        Ok(())
    }

    pub(super) fn tick(&mut self, tick: Tick) -> Result<Ticked> {
        if tick.generation != self.generation() {
            return Err(Error::StaleRegistry);
        }
        let key = (tick.function, tick.cron);
        let stands = self.schedules.get(&key).is_some_and(|at| at.next == tick.from);
        if !stands {
            return Ok(Ticked::Lost);
        }
        let mut created = None;
        let (mut last, mut skipped) = (None, tick.skipped);
        if let Some(start) = tick.start {
            let run = start.ingest.runs.first().map(|run| run.id);
            created = self.ingest(start.ingest)?.pop();
            match created {
                Some(Created::Dropped {
                    decision, until, run, ..
                }) => {
                    let decision = decision.as_str();
                    let next = match (until, run) {
                        (Some(until), _) => format!("the next one may start at {until}"),
                        (None, Some(run)) => format!("run {run} has not ended"),
                        (None, None) => "another may start later".to_owned(),
                    };
                    let reason = format!("its run was not started ({decision}); {next}");
                    skipped = Some((start.tick, reason));
                }
                Some(Created::Duplicate(run)) => {
                    skipped = Some((start.tick, format!("run {run} was started for it before")));
                }
                Some(Created::New { .. } | Created::Held { .. } | Created::Gathered { .. }) | None => {
                    last = run.map(|run| LastTick {
                        tick: start.tick,
                        run,
                    });
                }
            }
        }
        if let Some(schedule) = self.schedules.get_mut(&key) {
            schedule.next = tick.to;
            schedule.last = last.or(schedule.last);
            let at = tick.now;
            let skipped = skipped.map(|(tick, reason)| SkippedTick { tick, at, reason });
            schedule.skipped = skipped.or(schedule.skipped.take());
        }
        Ok(Ticked::Done(created))
    }

    pub(super) fn list_schedules(&self) -> Vec<Schedule> {
        let previous = |last: LastTick| {
            let run = &self.runs.get(&last.run)?.shown;
            Some(match run.state.status.is_terminal() {
                true => Previous::Ended(run.ended_at?),
                false => Previous::Live,
            })
        };
        let listed = self.schedules.iter().map(|((function, cron), at)| Schedule {
            function: function.clone(),
            cron: cron.clone(),
            next: at.next,
            last: at.last,
            skipped: at.skipped.clone(),
            previous: at.last.and_then(previous).unwrap_or(Previous::None),
        });
        listed.collect()
    }
}
