//! Programs from dice.

use super::program::{Loser, Program, Task, Wait};
use crate::support::Dice;

/// How deep programs nest.
const DEPTH_MAX: u32 = 3;
/// How many generations of runs a program may send for.
const GENERATIONS_MAX: u32 = 2;
/// An output that is stored apart from its entry's row.
const LARGE: u32 = 70 << 10;

/// What programs are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// How many counters there are.
    pub(crate) counters: u32,
    /// The longest sleep in milliseconds. Most are far shorter.
    pub(crate) longest_sleep: u64,
}

impl Shape {
    /// What one run does.
    pub(crate) fn task(&self, dice: &mut Dice) -> Task {
        self.of_generation(dice, 0, None)
    }

    fn of_generation(&self, dice: &mut Dice, generation: u32, tells: Option<u64>) -> Task {
        let tag = dice.below(1 << 53);
        let chapters = if dice.one_in(6) { dice.within((2, 3)) } else { 1 };
        let parts = if generation == 0 { (2, 5) } else { (1, 3) };
        let of = Of { tag, generation };
        let mut chapter = || Program::Sequence(self.several(dice, parts, 0, of));
        Task {
            tag,
            tells,
            chapters: (0..chapters).map(|_| chapter()).collect(),
        }
    }

    fn several(&self, dice: &mut Dice, number: (u64, u64), depth: u32, of: Of) -> Vec<Program> {
        let number = dice.within(number);
        (0..number).map(|_| self.program(dice, depth + 1, of)).collect()
    }

    fn program(&self, dice: &mut Dice, depth: u32, of: Of) -> Program {
        // The kinds that nest come last, and are left out where it is deep enough.
        let kinds = if depth < DEPTH_MAX { 31 } else { 24 };
        match dice.below(kinds) {
            0..=3 => Program::Sleep { ms: self.sleep(dice) },
            4..=7 => Program::Run {
                fails: if dice.one_in(3) {
                    dice.within((1, 3)) as u32
                } else {
                    0
                },
                pad: if dice.one_in(12) { LARGE } else { 0 },
            },
            8..=9 => Program::Fail {
                attempts: dice.within((1, 3)) as u32,
            },
            10..=14 => Program::Sql {
                counter: dice.below(u64::from(self.counters)) as u32,
                by: dice.within((1, 9)) as i64,
            },
            15 => Program::Refused {
                counter: dice.below(u64::from(self.counters)) as u32,
            },
            16 => Program::Lonely { ms: self.sleep(dice) },
            17..=18 if of.may_send() => Program::Send {
                tasks: self.tasks(dice, of),
            },
            19..=21 if of.may_send() => Program::Call {
                task: Box::new(self.of_generation(dice, of.generation + 1, Some(of.tag))),
                how: [Wait::Look, Wait::Match, Wait::Back][dice.below(3) as usize],
            },
            22..=23 if of.may_send() => Program::Invoke {
                task: Box::new(self.of_generation(dice, of.generation + 1, None)),
            },
            17..=23 => Program::Sleep { ms: 0 },
            24..=26 => Program::Join(self.several(dice, (2, 4), depth, of)),
            27..=28 => Program::Sequence(self.several(dice, (2, 3), depth, of)),
            _ => self.race(dice, depth, of),
        }
    }

    fn race(&self, dice: &mut Dice, depth: u32, of: Of) -> Program {
        let winner = Box::new(self.program(dice, depth + 1, of));
        let loser = match dice.below(6) {
            0 => Loser::Sleep,
            1 => Loser::Body,
            2 if of.may_send() => Loser::Send {
                tasks: self.tasks(dice, of),
            },
            3 if of.may_send() => Loser::Invoke { task: endless(dice) },
            4 if of.may_send() => Loser::Abandon {
                task: self.of_generation(dice, of.generation + 1, None),
            },
            _ => Loser::Wait,
        };
        let acts_whatever_becomes_of_it = matches!(loser, Loser::Send { .. } | Loser::Abandon { .. });
        Program::Race {
            winner,
            // Whether a loser that is asked second gets to act depends on when the winner is done.
            loser_first: acts_whatever_becomes_of_it || dice.one_in(2),
            loser,
        }
    }

    fn tasks(&self, dice: &mut Dice, of: Of) -> Vec<Task> {
        let number = dice.within((1, 2));
        let mut task = || self.of_generation(dice, of.generation + 1, None);
        (0..number).map(|_| task()).collect()
    }

    fn sleep(&self, dice: &mut Dice) -> u64 {
        let longest = if dice.one_in(4) {
            self.longest_sleep
        } else {
            60.min(self.longest_sleep)
        };
        dice.within((0, longest))
    }
}

/// A task that only sleeps, for longer than any test waits.
fn endless(dice: &mut Dice) -> Task {
    Task {
        tag: dice.below(1 << 53),
        tells: None,
        chapters: vec![Program::Sleep { ms: 3_600_000 }],
    }
}

/// The task that a program is a part of.
#[derive(Clone, Copy)]
struct Of {
    tag: u64,
    generation: u32,
}

impl Of {
    fn may_send(self) -> bool {
        self.generation < GENERATIONS_MAX
    }
}
