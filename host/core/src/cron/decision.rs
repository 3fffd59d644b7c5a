//! What becomes of a schedule's ticks.
//!
//! A schedule stands at its next tick. Each decision moves it on, past the tick that is started and those that are left
//! out; as long as nothing is to be done it stands where it is, over restarts, pauses and the whole life of a run that its
//! next tick waits for. So nothing that is not stored has to be remembered, and a server that was away decides by the same
//! rule as one that was not.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::schedule::{CatchUp, Overlap, Schedule};
use crate::limit;
use crate::time::Timestamp;

/// Where a schedule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its next tick: the first that was neither started nor left out.
    pub next: Timestamp,
    /// What became of the run of the last tick that was started.
    pub previous: Previous,
    /// Its function is paused.
    pub paused: bool,
}

/// What became of the run of the tick before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Previous {
    /// There is none that is known.
    None,
    /// It goes on.
    Live,
    /// It ended then.
    Ended(Timestamp),
}

/// What to do with a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing before this time.
    Later(Timestamp),
    /// Nothing before the run of the tick before has ended.
    AfterPrevious,
    /// Nothing before the function is resumed.
    Paused,
    /// Move it on.
    Move(Move),
}

/// A step of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The tick to start.
    pub start: Option<Timestamp>,
    /// The latest of the ticks that are left out.
    pub skipped: Option<Skipped>,
    /// Where it stands afterwards.
    pub next: Timestamp,
}

/// A tick that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The tick.
    pub tick: Timestamp,
    /// Why.
    pub reason: Reason,
}

/// Why a tick is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The run of the tick before had not ended, and `overlap` is `skip`.
    Overlap,
    /// It was missed, and `catch_up` is `none`.
    Missed,
    /// A later one takes its place, since `catch_up` is not `all`.
    Superseded,
    /// More were missed than are done afterwards.
    TooMany,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Overlap => f.write_str("the run of the tick before had not ended"),
            Reason::Missed => f.write_str("it came due while no server was there or the function was paused"),
            Reason::Superseded => f.write_str("a later tick took its place"),
            Reason::TooMany => write!(
                f,
                "more than {} ticks were missed, of which the latest are done",
                limit::CRON_CATCH_UP_MAX
            ),
        }
    }
}

/// Spans of time in which the latest tick is looked for, shortest first.
const WINDOWS: [Duration; 4] = [
    Duration::from_secs(3_600),
    Duration::from_secs(26 * 3_600),
    Duration::from_secs(32 * 86_400),
    Duration::from_secs(400 * 86_400),
];

impl Schedule {
    /// Decides.
    pub fn decide(&self, standing: &Standing, now: Timestamp) -> Decision {
        if standing.paused {
            return Decision::Paused;
        }
        let first = standing.next;
        let due = self.due(first);
        if due > now {
            // It has been moved by a clock that was wrong: without this it would stand still until that time comes.
            if first > self.next(now.after(limit::CRON_AHEAD_MAX)) {
                return Decision::Move(Move {
                    start: None,
                    skipped: None,
                    next: self.next(now),
                });
            }
            return Decision::Later(due);
        }
        match (self.overlap, standing.previous) {
            (Overlap::Queue, Previous::Live) => return Decision::AfterPrevious,
            (Overlap::Skip, Previous::Live) => {
                let latest = self.latest(first, now);
                return self.past(None, Some((latest, Reason::Overlap)), latest);
            }
            _ => {}
        }
        if self.catch_up == CatchUp::All {
            let oldest = self.oldest_to_catch_up(first, now);
            let skipped = (oldest > first).then(|| (self.latest_before(first, oldest), Reason::TooMany));
            return self.past(Some(oldest), skipped, oldest);
        }
        let latest = self.latest(first, now);
        if self.catch_up == CatchUp::None && self.late(latest, standing, now) > limit::CRON_GRACE {
            return self.past(None, Some((latest, Reason::Missed)), latest);
        }
        let skipped = (latest > first).then(|| (self.latest_before(first, latest), Reason::Superseded));
        self.past(Some(latest), skipped, latest)
    }

    /// A move past a tick.
    fn past(
        &self,
        start: Option<Timestamp>,
        skipped: Option<(Timestamp, Reason)>,
        tick: Timestamp,
    ) -> Decision {
        Decision::Move(Move {
            start,
            skipped: skipped.map(|(tick, reason)| Skipped { tick, reason }),
            next: self.next(tick),
        })
    }

    /// For how long a tick could have begun. One that waits for a run to end is not late as long as that goes on.
    fn late(&self, tick: Timestamp, standing: &Standing, now: Timestamp) -> Duration {
        let due = self.due(tick);
        match (self.overlap, standing.previous) {
            (Overlap::Queue, Previous::Ended(at)) => now.since(due.max(at)),
            _ => now.since(due),
        }
    }

    /// The latest tick that is due, from one on that is.
    fn latest(&self, first: Timestamp, now: Timestamp) -> Timestamp {
        let within = |window: &Duration| self.latest_since(first, now.before(*window), now);
        WINDOWS
            .iter()
            .find_map(within)
            .unwrap_or_else(|| self.latest_since(first, first, now).unwrap_or(first))
    }

    /// The latest tick that is due, of those after `since`, if any is. `first`, which is due, counts although it may be no tick
    /// any more: the rules of its zone may have changed.
    fn latest_since(&self, first: Timestamp, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let mut latest = (first >= since).then_some(first);
        let mut tick = self.next(since.max(first));
        while tick <= now && self.due(tick) <= now {
            latest = Some(tick);
            tick = self.next(tick);
        }
        latest
    }

    /// The latest tick before another, from `first` on, which is before it too.
    fn latest_before(&self, first: Timestamp, tick: Timestamp) -> Timestamp {
        let since = |window: &Duration| {
            let from = tick.before(*window);
            let mut latest = (first >= from).then_some(first);
            let mut next = self.next(from.max(first));
            while next < tick {
                latest = Some(next);
                next = self.next(next);
            }
            latest
        };
        WINDOWS.iter().find_map(since).unwrap_or(first)
    }

    /// The oldest tick that is still done, of those that are due from `first` on.
    fn oldest_to_catch_up(&self, first: Timestamp, now: Timestamp) -> Timestamp {
        let most = limit::CRON_CATCH_UP_MAX;
        let mut tick = first;
        for _ in 0..most {
            tick = self.next(tick);
            if tick > now || self.due(tick) > now {
                return first;
            }
        }
        // More than that many: the latest ones are in some stretch of time before now.
        let mut window = Duration::from_secs(60 * most as u64);
        loop {
            let since = now.before(window).max(first);
            let mut kept = VecDeque::with_capacity(most);
            let mut tick = if since > first { self.next(since) } else { first };
            while tick <= now && self.due(tick) <= now {
                if kept.len() == most {
                    kept.pop_front();
                }
                kept.push_back(tick);
                tick = self.next(tick);
            }
            if kept.len() == most || since == first {
                return kept.front().copied().unwrap_or(first);
            }
            window *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trigger::OnCron;
    use proptest::prelude::*;

    fn schedule(cron: &str, jitter_ms: Option<u64>, overlap: Overlap, catch_up: CatchUp) -> Schedule {
        let trigger = OnCron {
            cron: cron.to_owned(),
            jitter_ms,
            overlap: Some(overlap),
            catch_up: Some(catch_up),
        };
        Schedule::compile(&"shop/report".parse().expect("a name"), &trigger).expect("valid")
    }

    fn time(text: &str) -> Timestamp {
        Timestamp::parse(&format!("2026-11-25T{text}Z")).expect("a time")
    }

    fn standing(next: &str, previous: Previous) -> Standing {
        Standing {
            next: time(next),
            previous,
            paused: false,
        }
    }

    fn moved(start: Option<&str>, skipped: Option<(&str, Reason)>, next: &str) -> Decision {
        Decision::Move(Move {
            start: start.map(time),
            skipped: skipped.map(|(tick, reason)| Skipped {
                tick: time(tick),
                reason,
            }),
            next: time(next),
        })
    }

    const HOURLY: &str = "0 * * * *";

    #[test]
    fn a_tick_begins_when_it_is_due_and_not_while_the_function_is_paused() {
        let hourly = schedule(HOURLY, None, Overlap::Skip, CatchUp::Last);
        let at = standing("09:00:00", Previous::None);
        assert_eq!(
            hourly.decide(&at, time("08:59:59.999")),
            Decision::Later(time("09:00:00"))
        );
        assert_eq!(
            hourly.decide(&at, time("09:00:00")),
            moved(Some("09:00:00"), None, "10:00:00")
        );
        let paused = Standing { paused: true, ..at };
        assert_eq!(hourly.decide(&paused, time("09:00:00")), Decision::Paused);
    }

    #[test]
    fn what_overlaps_is_left_out_waits_or_begins_all_the_same() {
        let at = standing("09:00:00", Previous::Live);
        let decide =
            |overlap, now: &str| schedule(HOURLY, None, overlap, CatchUp::Last).decide(&at, time(now));
        assert_eq!(
            decide(Overlap::Skip, "11:30:00"),
            moved(None, Some(("11:00:00", Reason::Overlap)), "12:00:00")
        );
        assert_eq!(decide(Overlap::Queue, "11:30:00"), Decision::AfterPrevious);
        assert_eq!(
            decide(Overlap::Allow, "09:00:00"),
            moved(Some("09:00:00"), None, "10:00:00")
        );
    }

    #[test]
    fn what_was_missed_is_done_as_the_trigger_says() {
        let at = standing("09:00:00", Previous::None);
        let decide =
            |catch_up, now: &str| schedule(HOURLY, None, Overlap::Allow, catch_up).decide(&at, time(now));
        assert_eq!(
            decide(CatchUp::None, "11:30:00"),
            moved(None, Some(("11:00:00", Reason::Missed)), "12:00:00")
        );
        // Within a minute it is not missed.
        assert_eq!(
            decide(CatchUp::None, "11:01:00"),
            moved(
                Some("11:00:00"),
                Some(("10:00:00", Reason::Superseded)),
                "12:00:00"
            )
        );
        assert_eq!(
            decide(CatchUp::Last, "11:30:00"),
            moved(
                Some("11:00:00"),
                Some(("10:00:00", Reason::Superseded)),
                "12:00:00"
            )
        );
        assert_eq!(
            decide(CatchUp::All, "11:30:00"),
            moved(Some("09:00:00"), None, "10:00:00")
        );
    }

    #[test]
    fn a_tick_that_waited_for_a_run_was_not_missed() {
        let at = standing("09:00:00", Previous::Ended(time("11:30:00")));
        let decide =
            |catch_up, now: &str| schedule(HOURLY, None, Overlap::Queue, catch_up).decide(&at, time(now));
        assert_eq!(
            decide(CatchUp::None, "11:30:30"),
            moved(
                Some("11:00:00"),
                Some(("10:00:00", Reason::Superseded)),
                "12:00:00"
            )
        );
        // Here nobody was there when the run had ended.
        assert_eq!(
            decide(CatchUp::None, "11:40:00"),
            moved(None, Some(("11:00:00", Reason::Missed)), "12:00:00")
        );
        assert_eq!(
            decide(CatchUp::All, "11:30:30"),
            moved(Some("09:00:00"), None, "10:00:00")
        );
    }

    #[test]
    fn a_schedule_that_a_wrong_clock_has_moved_comes_back() {
        let hourly = schedule(HOURLY, None, Overlap::Skip, CatchUp::Last);
        let now = time("08:30:00");
        let stands = |next: &str| Standing {
            next: Timestamp::parse(next).expect("a time"),
            previous: Previous::None,
            paused: false,
        };
        assert_eq!(
            hourly.decide(&stands("2099-01-01T00:00:00Z"), now),
            moved(None, None, "09:00:00")
        );
        // Clocks of nodes differ by less: what one of them has ticked is not ticked again by another.
        let ahead = "2026-11-26T09:00:00Z";
        let later = Decision::Later(Timestamp::parse(ahead).expect("a time"));
        assert_eq!(hourly.decide(&stands(ahead), now), later);
        // The next tick of a rare cron may be far off.
        let rare = schedule("0 0 29 2 *", None, Overlap::Skip, CatchUp::Last);
        let leap_day = "2028-02-29T00:00:00Z";
        let later = Decision::Later(Timestamp::parse(leap_day).expect("a time"));
        assert_eq!(rare.decide(&stands(leap_day), now), later);
    }

    #[test]
    fn of_very_many_the_latest_are_done() {
        let every_minute = schedule("* * * * *", None, Overlap::Allow, CatchUp::All);
        let now = time("12:00:30");
        let years_ago = Timestamp::parse("2020-01-01T00:00:00Z").expect("a time");
        let mut at = Standing {
            next: years_ago,
            previous: Previous::None,
            paused: false,
        };
        let mut started = Vec::new();
        let mut left_out = Vec::new();
        while let Decision::Move(step) = every_minute.decide(&at, now) {
            started.extend(step.start);
            left_out.extend(step.skipped);
            at.next = step.next;
        }
        assert_eq!(started.len(), limit::CRON_CATCH_UP_MAX);
        assert_eq!(started.last(), Some(&time("12:00:00")));
        assert_eq!(
            left_out,
            [Skipped {
                tick: started[0].before(Duration::from_secs(60)),
                reason: Reason::TooMany
            }]
        );
        assert_eq!(at.next, time("12:01:00"));
    }

    /// Every tick from `first` on that is due, one by one.
    fn due(schedule: &Schedule, first: Timestamp, now: Timestamp) -> Vec<Timestamp> {
        let mut ticks = Vec::new();
        let mut tick = first;
        while schedule.due(tick) <= now {
            ticks.push(tick);
            tick = schedule.next(tick);
        }
        ticks
    }

    proptest! {
        /// Against the plain statement: of the ticks that are due, listed one by one, the policies name those that begin, and
        /// the schedule then stands after them. Whatever is decided, a tick that is not due is never touched, and nothing
        /// begins twice or out of order.
        #[test]
        fn decisions_are_what_the_policies_say(
            cron in prop_oneof![
                Just("* * * * *"), Just("*/7 * * * *"), Just(HOURLY), Just("TZ=America/New_York 30 1 * * *"),
                Just("TZ=Europe/Paris 0 9 * * 1-5"), Just("0 0 1 * *"),
            ],
            jitter_ms in prop::option::of(1_000_u64..=300_000),
            overlap in prop_oneof![Just(Overlap::Skip), Just(Overlap::Queue), Just(Overlap::Allow)],
            catch_up in prop_oneof![Just(CatchUp::None), Just(CatchUp::Last), Just(CatchUp::All)],
            begin in 1_735_689_600_000_i64..1_800_000_000_000,
            away in prop_oneof![0_i64..120_000, 0_i64..10_000_000, 0_i64..200_000_000],
            previous in prop_oneof![Just(None), Just(Some(None)), (0_i64..10_000_000).prop_map(|ago| Some(Some(ago)))],
        ) {
            prop_assume!(catch_up != CatchUp::All || overlap != Overlap::Skip);
            let schedule = schedule(cron, jitter_ms, overlap, catch_up);
            let first = schedule.next(Timestamp::from_millis(begin));
            let now = Timestamp::from_millis(first.as_millis() + away);
            let previous = match previous {
                None => Previous::None,
                Some(None) => Previous::Live,
                Some(Some(ago)) => Previous::Ended(Timestamp::from_millis(now.as_millis() - ago)),
            };
            let at = Standing { next: first, previous, paused: false };
            let ticks = due(&schedule, first, now);
            let decision = schedule.decide(&at, now);
            let Some(latest) = ticks.last().copied() else {
                prop_assert_eq!(decision, Decision::Later(schedule.due(first)));
                return Ok(());
            };
            let live = previous == Previous::Live;
            if live && overlap == Overlap::Queue {
                prop_assert_eq!(decision, Decision::AfterPrevious);
                return Ok(());
            }
            let Decision::Move(step) = decision else {
                return Err(TestCaseError::fail(format!("{decision:?}")));
            };
            let waited_until = match (overlap, previous) {
                (Overlap::Queue, Previous::Ended(at)) => at.max(schedule.due(latest)),
                _ => schedule.due(latest),
            };
            let kept = &ticks[ticks.len().saturating_sub(limit::CRON_CATCH_UP_MAX)..];
            let expected = if live && overlap == Overlap::Skip {
                None
            } else {
                match catch_up {
                    CatchUp::None => (now.since(waited_until) <= limit::CRON_GRACE).then_some(latest),
                    CatchUp::Last => Some(latest),
                    CatchUp::All => kept.first().copied(),
                }
            };
            prop_assert_eq!(step.start, expected);
            let last_touched = expected.unwrap_or(latest);
            prop_assert_eq!(step.next, schedule.next(last_touched));
            let left_out = ticks.iter().copied().rfind(|tick| Some(*tick) != expected && *tick <= last_touched);
            prop_assert_eq!(step.skipped.map(|skipped| skipped.tick), left_out);
        }
    }
}
