//! Schedules: which there are, and their ticks.

use super::{MODULES, Pair};
use crate::conformance::fixture::{at, function};
use crate::cron::{NewSchedule, NewSchedules, StartTick, Tick, Ticked};
use crate::error::Error;
use crate::ingest::Ingest;

const CRONS: [&str; 2] = ["0 * * * *", "TZ=Europe/Paris 0 9 * * *"];

impl Pair {
    pub(super) async fn ticking(&mut self) {
        match self.random.below(5) {
            0 => self.put_schedules().await,
            _ => self.tick().await,
        }
    }

    async fn put_schedules(&mut self) {
        let mut schedules = Vec::new();
        let mut modules: Vec<String> = Vec::new();
        for module in MODULES {
            if self.random.one_in(3) {
                continue;
            }
            modules.push(module.to_owned());
            for number in 0..3 {
                for cron in CRONS {
                    if !self.random.one_in(4) {
                        schedules.push(NewSchedule {
                            function: function(&format!("{module}/f{number}")),
                            cron: cron.to_owned(),
                            next: at(self.random.below(100) as i64),
                        });
                    }
                }
            }
        }
        let new = NewSchedules {
            modules,
            schedules,
            generation: self.generation - i64::from(self.random.one_in(8)),
        };
        if both!(self, put_schedules(new.clone())).is_ok() {
            self.succeeded("put-schedules");
        }
    }

    async fn tick(&mut self) {
        let schedules = both!(self, schedules()).expect("lists");
        let Some(stands) = self.random.pick(&schedules).cloned() else {
            return;
        };
        let now = self.time();
        let event = self.event();
        let mut run = self.run(event.id);
        // Of the schedule's function, and of the version that this module has here.
        while run.function.module() != stands.function.module() {
            run = self.run(event.id);
        }
        run.function = stands.function.clone();
        run.held = false;
        let generation = self.generation - i64::from(self.random.one_in(12));
        let ingest = Ingest {
            events: vec![event],
            runs: vec![run],
            generation,
            now,
        };
        let started = !self.random.one_in(3);
        let tick = Tick {
            function: stands.function,
            cron: stands.cron,
            from: match self.random.one_in(5) {
                true => at(-1),
                false => stands.next,
            },
            to: at(self.now + 1 + self.random.below(50) as i64),
            start: started.then_some(StartTick {
                tick: stands.next,
                ingest,
            }),
            skipped: (!started || self.random.one_in(3)).then(|| (now, format!("reason {}", self.step))),
            generation,
            now,
        };
        match both!(self, tick(tick.clone())) {
            Ok(Ticked::Done(_)) => self.succeeded("tick"),
            Ok(Ticked::Lost) => self.succeeded("tick-lost"),
            Err(Error::StaleRegistry) => self.succeeded("tick-stale"),
            Err(_) => {}
        }
    }
}
