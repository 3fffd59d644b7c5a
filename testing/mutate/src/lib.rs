//! Damaged input for tests of whatever reads what strangers write: seeded mutations of valid samples.
//!
//! Each input comes from a sample by a few cuts, repetitions, flips and splices, so that much of it is still valid and the
//! damage gets past the first check. A failure names the seed and the round, and `DORMOUSE_SEED` repeats them. How long it
//! goes on is `DORMOUSE_FUZZ_SECONDS` per target. Absent on purpose: coverage feedback, which needs an instrumented build.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// How long a target is tried when nothing says otherwise.
const SECONDS: u64 = 2;
/// And in the long form of the tests.
const SECONDS_LONG: u64 = 60;
/// No input is longer than this many times its sample.
const GROWTH_MAX: usize = 4;

/// Where damaged input comes from.
pub struct Mutations {
    seed: u64,
    state: u64,
    round: u64,
    samples: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    until: Instant,
}

impl Mutations {
    /// Mutations of these samples; `words` are pieces that mean something to what reads them.
    ///
    /// # Panics
    /// When there is no sample.
    pub fn of<S: AsRef<[u8]>>(samples: &[S], words: &[&str]) -> Mutations {
        assert!(!samples.is_empty(), "there is nothing to damage");
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let long = std::env::var_os("DORMOUSE_TEST_LONG").is_some();
        let seconds = number("DORMOUSE_FUZZ_SECONDS").unwrap_or(if long { SECONDS_LONG } else { SECONDS });
        let seed = number("DORMOUSE_SEED").unwrap_or_else(|| {
            // Another each time: what was never tried is what there is to find.
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |since| since.as_nanos() as u64)
        });
        Mutations {
            seed,
            state: seed,
            round: 0,
            samples: samples.iter().map(|sample| sample.as_ref().to_vec()).collect(),
            words: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
            until: Instant::now() + Duration::from_secs(seconds),
        }
    }

    /// Gives inputs to a reader until the time is over.
    ///
    /// # Panics
    /// When the reader does, naming the seed, the round and the input.
    pub fn each(mut self, mut reader: impl FnMut(&[u8])) {
        while let Some(input) = self.next_input() {
            if catch_unwind(AssertUnwindSafe(|| reader(&input))).is_err() {
                let shown: String = String::from_utf8_lossy(&input).chars().take(2_000).collect();
                panic!(
                    "the reader panicked with DORMOUSE_SEED={} in round {}, on {} bytes: {shown}",
                    self.seed,
                    self.round,
                    input.len()
                );
            }
        }
    }

    /// The next input; none when the time is over.
    pub fn next_input(&mut self) -> Option<Vec<u8>> {
        if Instant::now() >= self.until {
            return None;
        }
        self.round += 1;
        let which = self.below(self.samples.len());
        let mut input = self.samples[which].clone();
        let longest = input.len().max(64) * GROWTH_MAX;
        for _ in 0..1 + self.below(6) {
            self.damage(&mut input);
        }
        input.truncate(longest);
        Some(input)
    }

    fn damage(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let to = (at + 1 + self.below(16)).min(input.len()).max(at);
        match self.below(9) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..to)),
            2 => {
                let piece = input[at..to].to_vec();
                for _ in 0..1 + self.below(64) {
                    input.splice(at..at, piece.iter().copied());
                }
            }
            3 => {
                let byte = self.random() as u8;
                input.insert(at, byte);
            }
            4 | 5 => {
                let bit = 1_u8 << self.below(8);
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= bit;
                }
            }
            6 => {
                let which = self.below(self.samples.len());
                let other = &self.samples[which];
                let from = (self.state as usize >> 8) % (other.len() + 1);
                let piece = other[from..(from + 40).min(other.len())].to_vec();
                input.splice(at..to, piece);
            }
            7 => {
                const NUMBERS: [&[u8]; 8] = [
                    b"0",
                    b"-1",
                    b"1e999",
                    b"9223372036854775808",
                    b"0.1",
                    b"18446744073709551616",
                    b"null",
                    b"\"\"",
                ];
                let number = NUMBERS[self.below(NUMBERS.len())];
                input.splice(at..to, number.iter().copied());
            }
            _ => {
                if !self.words.is_empty() {
                    let which = self.below(self.words.len());
                    let word = self.words[which].clone();
                    input.splice(at..at, word);
                }
            }
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random() % bound.max(1) as u64) as usize
    }

    /// SplitMix64: every state is followed by another, and neighbours have nothing in common.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_differ_from_their_sample_stay_bounded_and_a_panic_is_passed_on_with_its_seed() {
        let mut mutations = Mutations::of(&["{\"name\":\"a\"}", "[1,2,3]"], &["true"]);
        let mut changed = 0;
        for _ in 0..500 {
            let Some(input) = mutations.next_input() else {
                break;
            };
            assert!(input.len() <= 64 * GROWTH_MAX);
            changed += usize::from(input != mutations.samples[0] && input != mutations.samples[1]);
        }
        assert!(changed > 400, "{changed}");
        let panicked = catch_unwind(|| Mutations::of(&["x"], &[]).each(|_| panic!("cannot read this")));
        let message = *panicked
            .expect_err("it panics")
            .downcast::<String>()
            .expect("a text");
        assert!(message.contains("DORMOUSE_SEED="), "{message}");
    }
}
