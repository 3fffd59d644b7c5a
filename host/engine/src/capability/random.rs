//! Randomness: from the run's seed outside bodies, from the system inside.
//!
//! What a library draws from WASI inside a body may seed a generator that lives on; a replay, which skips the body,
//! would not have it. So drawing there marks the attempt, and the host replaces the instance by a replayed one.
//! `context.random` does not: whoever calls it asks for bytes to use, and knows where.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use wasmtime::Result;
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use crate::state::{HostState, Phase};
use crate::trap::GuestTrap;

/// The most bytes one call of WASI gives; its libraries ask for far less at a time.
const BYTES_MAX: u64 = 1 << 20;

/// Random bytes for where the guest is.
pub(super) fn draw(state: &mut HostState, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    if let Phase::Body(_) = &state.phase {
        getrandom::fill(&mut bytes).map_err(|error| {
            GuestTrap::of_host("engine-error", format!("the system gives no randomness: {error}"))
        })?;
    } else {
        let seed = state.seed;
        state
            .random
            .get_or_insert_with(|| ChaCha20Rng::from_seed(seed))
            .fill_bytes(&mut bytes);
    }
    Ok(bytes)
}

/// A library draws: inside a body it may keep what it gets.
fn by_library(state: &mut HostState, length: u64) -> Result<Vec<u8>> {
    if length > BYTES_MAX {
        let message = format!("the guest asked for {length} random bytes at once; {BYTES_MAX} are the most");
        return Err(GuestTrap::new("random-too-large", message).into());
    }
    if let Phase::Body(body) = &mut state.phase {
        body.state_changed = true;
    }
    draw(state, length as usize)
}

fn number(state: &mut HostState) -> Result<u64> {
    let bytes = by_library(state, 8)?;
    Ok(bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

impl random::Host for HostState {
    fn get_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        by_library(self, len)
    }

    fn get_random_u64(&mut self) -> Result<u64> {
        number(self)
    }
}

impl insecure::Host for HostState {
    fn get_insecure_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        by_library(self, len)
    }

    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        number(self)
    }
}

impl insecure_seed::Host for HostState {
    /// Always the run's own, also inside bodies: whenever a language first asks, its hash maps iterate alike on replay.
    /// So asking does not mark the attempt. That maps made in a body move Rust's keys on is the SDK's to notice.
    fn insecure_seed(&mut self) -> Result<(u64, u64)> {
        // Another stream than the bytes': knowing the one tells nothing of the other.
        let mut generator = ChaCha20Rng::from_seed(self.seed);
        generator.set_stream(1);
        Ok((generator.next_u64(), generator.next_u64()))
    }
}
