//! Finds out whether a body made standard hash maps.
//!
//! `std`'s `RandomState` takes its keys from a counter of the thread, which each new map advances. A replay skips
//! recorded bodies, so a map that one of them made would leave the counter behind where it was, and every later map of
//! the function in another order. What is known of a counter that can't be set: reading it advances it too. So each
//! body that runs is measured before and after, each body that is skipped advances the counter by as much as the
//! measuring does, and a body that advanced it further says so to the host (`attempt.state-changed`), which replaces the
//! instance by a replayed one.
//!
//! The keys are read from the hasher's `Debug` text, which is safe code, if not a promise of the standard library: a
//! test here fails on a toolchain where it no longer holds.

use std::fmt::{self, Write};
use std::hash::{BuildHasher, RandomState};

/// The counter before a step.
#[derive(Debug)]
pub(crate) struct Before(RandomState);

/// Measures before a step with a body is begun.
///
/// Before, and not when the body is known to run: the thread draws its keys with its first map, and inside an open body
/// it would draw them from what is random there, which no replay can.
pub(crate) fn before() -> Before {
    Before(RandomState::new())
}

impl Before {
    /// Measures after the body: whether it made maps.
    pub(crate) fn advanced(self) -> bool {
        let after = RandomState::new();
        counter(&self.0)
            .zip(counter(&after))
            .is_some_and(|(before, after)| after != before.wrapping_add(1))
    }

    /// Advances the counter as [`Before::advanced`] does, for a body that is skipped.
    pub(crate) fn skip(self) {
        let _ = RandomState::new();
    }
}

/// The number that these keys were made with.
fn counter(keys: &RandomState) -> Option<u64> {
    let mut reader = Reader::default();
    // The reader ends the formatting as soon as it has what it wants, with an error that means nothing.
    let _ = write!(reader, "{:?}", keys.build_hasher());
    reader.number.filter(|_| reader.state == State::Done)
}

#[derive(Debug, Default, PartialEq, Clone, Copy)]
enum State {
    #[default]
    Name,
    Number,
    Done,
}

/// Reads the number behind the first `k0: ` that is written to it, across however many writes.
#[derive(Default)]
struct Reader {
    state: State,
    matched: usize,
    number: Option<u64>,
}

const NAME: &[u8] = b"k0: ";

impl Write for Reader {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            match self.state {
                State::Name if byte == NAME[self.matched] => {
                    self.matched += 1;
                    if self.matched == NAME.len() {
                        self.state = State::Number;
                    }
                }
                State::Name => self.matched = usize::from(byte == NAME[0]),
                State::Number if byte.is_ascii_digit() => {
                    let digit = u64::from(byte - b'0');
                    self.number = Some(self.number.unwrap_or(0).wrapping_mul(10).wrapping_add(digit));
                }
                State::Number => {
                    self.state = State::Done;
                    return Err(fmt::Error);
                }
                State::Done => return Err(fmt::Error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn next() -> u64 {
        counter(&RandomState::new()).expect("the hasher's Debug text names k0")
    }

    #[test]
    fn this_toolchains_counter_can_be_read_and_goes_up_by_one() {
        let first = next();
        assert_eq!(next(), first.wrapping_add(1));
    }

    #[test]
    fn a_map_made_in_between_is_noticed_and_nothing_else_is() {
        let quiet = before();
        let _fixed: crate::HashMap<u8, u8> = crate::HashMap::default();
        assert!(!quiet.advanced());

        let busy = before();
        let _map: HashMap<u8, u8> = HashMap::new();
        assert!(busy.advanced());
    }

    #[test]
    fn a_skipped_body_leaves_the_counter_where_a_quiet_one_does() {
        let start = next();
        assert!(!before().advanced());
        assert_eq!(next(), start.wrapping_add(3));
        before().skip();
        assert_eq!(next(), start.wrapping_add(6));
    }
}
