//! A real server process and what tests do to it: start, ask, kill with -9, start again.
//!
//! Guests are the components of `testing/guests`, built by `scripts/build-guests`.
// Every test file compiles its own copy and uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod fleet;
pub mod nemesis;
pub mod network;
pub mod proxy;
pub mod server;
pub mod witness;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up: far more than it takes, so that only what never comes is late.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Whether the long forms run.
pub fn long() -> bool {
    std::env::var_os("DORMOUSE_TEST_LONG").is_some_and(|value| value == "1")
}

/// Whether what is done both with and without parked instances is to be done so now. The long form runs everything twice,
/// once for each.
pub fn is_turn(parks: bool) -> bool {
    let turn = std::env::var("DORMOUSE_TEST_PARK");
    turn.map_or(true, |turn| turn == if parks { "1" } else { "0" })
}

/// The bytes of a test guest.
pub fn guest(name: &str) -> Vec<u8> {
    let path = guests_dir().join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "the guest {} cannot be read ({error}): run `scripts/build-guests`",
            path.display()
        )
    })
}

fn guests_dir() -> PathBuf {
    match std::env::var_os("DORMOUSE_GUESTS") {
        Some(dir) => dir.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../testing/guests/target/wasm32-wasip2/release"),
    }
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none by the deadline; says what was waited for.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Numbers that look random and are the same for the same seed, which is printed so that a failure can be repeated.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From `DORMOUSE_SEED`, or the clock.
    pub fn new() -> Dice {
        let seed = std::env::var("DORMOUSE_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| {
                std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(1, |time| time.as_nanos() as u64)
            });
        println!("DORMOUSE_SEED={seed}");
        Dice::of(seed)
    }

    /// From a seed.
    pub fn of(seed: u64) -> Dice {
        Dice(seed)
    }

    /// A number below `n`, which is not 0. SplitMix64, so that neighbouring seeds have nothing in common.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % n
    }

    /// A number from the first up to and with the second.
    pub fn within(&mut self, (least, most): (u64, u64)) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
