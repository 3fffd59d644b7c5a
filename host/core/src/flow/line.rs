//! The line of runs that one throttle holds back: who begins when, and who moves up.
//!
//! A run that has to wait takes a turn behind all that have one, in the time that its rate leaves free, and waits with a
//! timer of its own: nobody's end holds up the others. When a run leaves the line without beginning, its turn is free; then
//! the first in line takes it, and each run that begins lets the next follow as soon as the rate allows. So no turn is lost,
//! only two rows are touched at a time, and the order stays. One that is late, because no node was up, begins when there is
//! room for it right then; otherwise it takes another turn, so that what was held up together does not begin together. That starts keep to the rate follows: each takes a turn that the
//! rate has granted to it or to one before it, or comes an interval after the one before.
//!
//! A [`Line`] is one line in one commit: what the limit remembers, and who is first of those that the commit does not touch.

use super::admission::{Held, Limited};
use super::rate::Rate;
use crate::id::RunId;
use crate::limit;
use crate::time::Timestamp;

/// One throttle's line, while a commit lets runs begin or leave.
#[derive(Clone, Debug)]
pub struct Line {
    used_until: i64,
    changed: bool,
    /// The turn and the run of the first in line.
    first: Option<(Timestamp, RunId)>,
    /// What is free by what has begun or left.
    free: Option<Free>,
}

/// What those leave that begin, or that leave the line.
#[derive(Clone, Copy, Debug)]
struct Free {
    /// From when on the first in line may begin.
    at: Timestamp,
    /// From when on anybody may, if nobody is in line. None: that is not known.
    unless_waited_for: Option<Timestamp>,
    rate: Rate,
}

/// What a line's commit comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What the limit has to remember, if that has changed.
    pub used_until: Option<i64>,
    /// The run that moves up, and its turn from now on.
    pub moved: Option<(RunId, Timestamp)>,
}

impl Line {
    /// A line whose limit remembers `used_until` (0: nothing), with the turn and the id of the first run in it that
    /// neither begins nor leaves.
    pub fn new(used_until: i64, first: Option<(Timestamp, RunId)>) -> Line {
        Line {
            used_until,
            changed: false,
            first,
            free: None,
        }
    }

    /// A run's timer is due. None: it begins. Otherwise it is held back until its turn, which comes later.
    ///
    /// `has_turn`: it is in line, with its turn at `due`; otherwise it takes its turn now.
    pub fn due(
        &mut self,
        run: RunId,
        throttle: &Limited,
        due: Timestamp,
        has_turn: bool,
        now: Timestamp,
    ) -> Option<Held> {
        let late = now.since(due).as_millis() > u128::from(limit::THROTTLE_LATE_MS_MAX);
        let rate = throttle.rate;
        if has_turn && late && self.may_begin_late(rate, due, now) {
            // It had this turn; now it is used from now on.
            self.used_until = rate.next(rate.without_last(self.used_until), now).used_until;
            self.changed = true;
            self.free_from(rate.after(now), rate);
            return None;
        }
        if has_turn && !late {
            // Whoever came when the turn was over and room was left has begun at once: at an interval after it, or later.
            let next = Some(rate.after(due)).filter(|next| *next > now);
            self.free_from(next.unwrap_or_else(|| rate.after(now)), rate);
            return None;
        }
        let next = rate.next(self.used_until, now);
        (self.used_until, self.changed) = (next.used_until, true);
        if next.at <= now || has_turn {
            // Whatever has begun by now: an interval later, one more may.
            self.free_from(rate.after(now), rate);
        }
        if next.at <= now {
            return None;
        }
        let turn = (next.at, run);
        self.first = Some(self.first.map_or(turn, |first| first.min(turn)));
        Some(throttle.held(next.at))
    }

    /// Whether one whose turn was at `due`, which is too late, may begin nevertheless. Up to an interval after its turn nobody
    /// else can have begun: all others have theirs later than that. So there is room if the next one's is far enough from now.
    fn may_begin_late(&self, rate: Rate, due: Timestamp, now: Timestamp) -> bool {
        self.free.is_none()
            && now < rate.after(due)
            && self.first.is_none_or(|(turn, _)| turn >= rate.after(now))
    }

    /// A run leaves the line, and its turn to others. `now`: the time, if it is known.
    pub fn leaves(&mut self, throttle: &Limited, turn: Timestamp, now: Option<Timestamp>) {
        if self.free.is_some_and(|free| free.at <= turn) {
            return;
        }
        let rate = throttle.rate;
        let ahead = |now| if turn > now { turn } else { rate.after(now) };
        self.free = Some(Free {
            at: turn,
            unless_waited_for: now.map(ahead),
            rate,
        });
    }

    /// Of several that begin, the last counts.
    fn free_from(&mut self, at: Timestamp, rate: Rate) {
        if self.free.is_none_or(|free| free.at < at) {
            self.free = Some(Free {
                at,
                unless_waited_for: Some(at),
                rate,
            });
        }
    }

    /// The end of the commit: who moves up.
    pub fn settle(self) -> Settled {
        let mut settled = Settled {
            used_until: self.changed.then_some(self.used_until),
            moved: None,
        };
        let Some(free) = self.free else {
            return settled;
        };
        match (self.first, free.unless_waited_for) {
            (Some((turn, run)), _) if free.at < turn => settled.moved = Some((run, free.at)),
            // Nobody has a turn any more: those that were left are for whoever comes next.
            (None, Some(at)) if free.rate.used_up_to(at) < self.used_until => {
                settled.used_until = Some(free.rate.used_up_to(at));
            }
            _ => {}
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000 + millis)
    }

    fn run(number: usize) -> RunId {
        RunId::from_parts(
            at(0),
            [&[0; 2], &(number as u64).to_be_bytes()[..]]
                .concat()
                .try_into()
                .expect("ten bytes"),
        )
    }

    fn throttle(limit: u32, period_ms: u64, burst: u32) -> Limited {
        Limited {
            rate: Rate {
                limit,
                period_ms,
                burst: burst.min(limit),
            },
            key: String::new(),
        }
    }

    #[test]
    fn a_turn_that_is_left_goes_to_the_first_in_line() {
        let one = throttle(60, 60_000, 1);
        // Turns at 1, 2 and 3 s; the first leaves.
        let used = at(4_000).as_millis() * 1_000;
        let mut line = Line::new(used, Some((at(2_000), run(2))));
        line.leaves(&one, at(1_000), Some(at(0)));
        let moved = |at| Settled {
            used_until: None,
            moved: Some((run(2), at)),
        };
        assert_eq!(line.settle(), moved(at(1_000)));
        // It begins: the third follows an interval later and not with its old turn.
        let mut line = Line::new(used, Some((at(3_000), run(2))));
        assert_eq!(line.due(run(1), &one, at(1_000), true, at(1_000)), None);
        assert_eq!(line.settle(), moved(at(2_000)));
        // One in the middle leaves: nobody moves before somebody begins.
        let mut line = Line::new(used, Some((at(1_000), run(1))));
        line.leaves(&one, at(2_000), Some(at(0)));
        assert_eq!(
            line.settle(),
            Settled {
                used_until: None,
                moved: None
            }
        );
        // The last one leaves: whoever comes then may begin when it would have.
        let mut line = Line::new(used, None);
        line.leaves(&one, at(3_000), Some(at(0)));
        line.leaves(&one, at(1_500), Some(at(0)));
        let settled = line.settle();
        assert_eq!(settled.moved, None);
        let used = settled.used_until.expect("changes");
        assert_eq!(one.rate.next(used, at(0)).at, at(1_500));
    }

    #[test]
    fn who_is_too_late_begins_where_there_is_room_and_takes_another_turn_where_there_is_none() {
        let one = throttle(60, 60_000, 1);
        let used = |at: Timestamp| at.as_millis() * 1_000;
        let mut line = Line::new(used(at(9_000)), Some((at(3_000), run(2))));
        let due = line.due(run(1), &one, at(1_000), true, at(2_000));
        assert_eq!(due, None, "not too late");

        // Nobody is behind it: an hour late is no reason to wait for as long as the rate says once more.
        let hour = throttle(1, 3_600_000, 1);
        let mut line = Line::new(used(at(7_200_000)), None);
        assert_eq!(line.due(run(1), &hour, at(3_600_000), true, at(5_400_000)), None);
        let settled = line.settle();
        assert_eq!(settled.moved, None);
        let used_until = settled.used_until.expect("changes");
        assert_eq!(hour.rate.next(used_until, at(5_400_001)).at, at(9_000_000));

        // The next has its turn too soon after now: it keeps that.
        let mut line = Line::new(used(at(9_000)), Some((at(3_000), run(2))));
        let held = line
            .due(run(1), &one, at(1_000), true, at(2_001))
            .expect("held back");
        assert_eq!((held.until, held.turn), (at(9_000), true));
        let settled = line.settle();
        assert_eq!(settled.moved, None);
        assert_eq!(settled.used_until, Some(used(at(10_000))));
    }

    /// What happens to a throttled run in the property test.
    #[derive(Clone, Copy, Debug)]
    enum Act {
        Come,
        ComeLater(i64),
        Leave(usize, bool),
        /// Timers fire, all or a few, so long after the time.
        Fire(usize),
    }

    fn acts() -> impl Strategy<Value = Vec<(i64, Act)>> {
        let act = prop_oneof![
            5 => Just(Act::Come),
            1 => (0_i64..5_000).prop_map(Act::ComeLater),
            3 => (0_usize..8, any::<bool>()).prop_map(|(place, known)| Act::Leave(place, known)),
            4 => (1_usize..6).prop_map(Act::Fire),
        ];
        prop::collection::vec((prop_oneof![4 => 0_i64..400, 1 => 0_i64..4_000], act), 1..200)
    }

    proptest! {
        /// However runs come, leave and are held up: no more begin than the rate says, and each that does not leave begins.
        #[test]
        fn a_line_keeps_to_its_rate_and_loses_nobody(
            limit in 1_u32..6,
            period_ms in 1_000_u64..6_000,
            burst in 1_u32..4,
            acts in acts(),
        ) {
            let throttle = throttle(limit, period_ms, burst);
            let rate = throttle.rate;
            let (mut used, mut now) = (0, 0);
            // Due, whether it is a turn, and who.
            let mut waiting: Vec<(Timestamp, bool, usize)> = Vec::new();
            let mut begun: Vec<(i64, usize)> = Vec::new();
            let (mut come, mut left) = (0, 0);
            let end = std::iter::repeat_n((0, Act::Fire(100)), 4_000);
            for (passed, act) in acts.into_iter().chain(end) {
                now += passed;
                let at_end = matches!(act, Act::Fire(100));
                if at_end {
                    // Nobody acts any more: from timer to timer.
                    let Some((due, ..)) = waiting.iter().min() else { break };
                    now = now.max(due.as_millis() - at(0).as_millis());
                }
                let first = |waiting: &Vec<(Timestamp, bool, usize)>| {
                    waiting.iter().filter(|(_, turn, _)| *turn).map(|(due, _, who)| (*due, run(*who))).min()
                };
                let mut line = None;
                match act {
                    Act::Come => {
                        let next = rate.next(used, at(now));
                        used = next.used_until;
                        if next.at <= at(now) {
                            begun.push((now, come));
                        } else {
                            waiting.push((next.at, true, come));
                        }
                        come += 1;
                    }
                    Act::ComeLater(by) => {
                        waiting.push((at(now + by), false, come));
                        come += 1;
                    }
                    Act::Leave(place, known) if place < waiting.len() => {
                        waiting.sort();
                        let (due, turn, _) = waiting.remove(place);
                        left += 1;
                        if turn {
                            let mut of = Line::new(used, first(&waiting));
                            of.leaves(&throttle, due, known.then_some(at(now)));
                            line = Some(of);
                        }
                    }
                    Act::Leave(..) => {}
                    Act::Fire(few) => {
                        waiting.sort();
                        let ready = waiting.iter().take_while(|(due, ..)| *due <= at(now)).count().min(few);
                        let fired: Vec<_> = waiting.drain(..ready).collect();
                        let mut of = Line::new(used, first(&waiting));
                        for (due, turn, who) in fired {
                            match of.due(run(who), &throttle, due, turn, at(now)) {
                                None => {
                                    let on_time = turn && now - (due.as_millis() - at(0).as_millis()) <= 1_000;
                                    begun.push((if on_time { due.as_millis() - at(0).as_millis() } else { now }, who));
                                }
                                Some(held) => {
                                    prop_assert!(held.until > at(now));
                                    waiting.push((held.until, true, who));
                                }
                            }
                        }
                        line = Some(of);
                    }
                }
                if let Some(line) = line {
                    let settled = line.settle();
                    used = settled.used_until.unwrap_or(used);
                    if let Some((moved, turn)) = settled.moved {
                        let place = waiting.iter().position(|(_, _, who)| run(*who) == moved).expect("waits");
                        prop_assert!(turn < waiting[place].0);
                        waiting[place].0 = turn;
                    }
                }
            }
            prop_assert_eq!(waiting.len(), 0);
            prop_assert_eq!(begun.len() + left, come);
            let mut starts: Vec<i64> = begun.iter().map(|(start, _)| *start).collect();
            starts.sort_unstable();
            for (index, start) in starts.iter().enumerate() {
                let end = start + period_ms as i64;
                let within = starts[index..].iter().filter(|other| **other < end).count();
                prop_assert!(within <= (limit + rate.burst - 1) as usize, "{} from {}: {:?}", within, start, starts);
            }
        }

        /// However many leave, in whatever order: those that stay begin as if nobody else had come.
        #[test]
        fn what_many_leave_is_not_lost(
            left in prop::collection::vec(any::<bool>(), 2..60),
            order in any::<prop::sample::Index>(),
        ) {
            let throttle = throttle(60, 60_000, 1);
            let mut used = throttle.rate.next(0, at(0)).used_until;
            let mut waiting: Vec<(Timestamp, usize)> = Vec::new();
            for who in 0..left.len() {
                let next = throttle.rate.next(used, at(0));
                used = next.used_until;
                waiting.push((next.at, who));
            }
            let mut leaving: Vec<usize> = (0..left.len()).filter(|who| left[*who]).collect();
            let turned = if leaving.is_empty() { 0 } else { order.index(leaving.len()) };
            leaving.rotate_left(turned);
            for who in leaving {
                let place = waiting.iter().position(|(_, other)| *other == who).expect("waits");
                let (turn, _) = waiting.remove(place);
                let first = waiting.iter().map(|(turn, who)| (*turn, run(*who))).min();
                let mut line = Line::new(used, first);
                line.leaves(&throttle, turn, Some(at(0)));
                let settled = line.settle();
                used = settled.used_until.unwrap_or(used);
                if let Some((moved, turn)) = settled.moved {
                    for (due, _) in waiting.iter_mut().filter(|(_, who)| run(*who) == moved) {
                        *due = turn;
                    }
                }
            }
            let stay: Vec<usize> = waiting.iter().map(|(_, who)| *who).collect();
            let mut begun = Vec::new();
            while let Some((due, who)) = waiting.iter().min().copied() {
                waiting.retain(|(_, other)| *other != who);
                let first = waiting.iter().map(|(turn, who)| (*turn, run(*who))).min();
                let mut line = Line::new(used, first);
                prop_assert_eq!(line.due(run(who), &throttle, due, true, due), None);
                let settled = line.settle();
                used = settled.used_until.unwrap_or(used);
                if let Some((moved, turn)) = settled.moved {
                    for (due, _) in waiting.iter_mut().filter(|(_, who)| run(*who) == moved) {
                        *due = turn;
                    }
                }
                begun.push((due, who));
            }
            let expected: Vec<(Timestamp, usize)> =
                (1..).map(|second| at(second * 1_000)).zip(stay).collect();
            prop_assert_eq!(&begun, &expected);
            // And whoever comes next is right behind them.
            let last = expected.last().map_or(at(0), |(due, _)| *due);
            prop_assert_eq!(throttle.rate.next(used, at(0)).at, throttle.rate.after(last));
        }
    }
}
