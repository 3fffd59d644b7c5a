//! `context`: what the run knows of itself, the same on every replay.

use wasmtime::Result;

use crate::bindings::context::Host;
use crate::capability::random;
use crate::leg::RunContext;
use crate::state::HostState;
use crate::trap::GuestTrap;

/// The most random bytes one call gives.
const RANDOM_BYTES_MAX: u32 = 64 << 10;

fn of<'a>(state: &'a HostState, call: &str) -> Result<&'a RunContext> {
    state.needs_run(call)?;
    // Only `describe` has none, and it was turned away.
    state
        .context
        .as_ref()
        .ok_or_else(|| wasmtime::format_err!("`{call}` without a run"))
}

impl Host for HostState {
    fn run_id(&mut self) -> Result<String> {
        Ok(of(self, "context.run-id")?.run_id.to_string())
    }

    fn function(&mut self) -> Result<String> {
        Ok(of(self, "context.function")?.function.to_string())
    }

    fn version(&mut self) -> Result<String> {
        Ok(of(self, "context.version")?.version.to_string())
    }

    fn event(&mut self) -> Result<String> {
        Ok(of(self, "context.event")?.event.as_str().to_owned())
    }

    fn events(&mut self) -> Result<String> {
        Ok(of(self, "context.events")?.events.as_str().to_owned())
    }

    fn now(&mut self) -> Result<u64> {
        self.needs_run("context.now")?;
        Ok(self.now_nanos() / 1_000_000)
    }

    fn random(&mut self, length: u32) -> Result<Vec<u8>> {
        self.needs_run("context.random")?;
        if length > RANDOM_BYTES_MAX {
            let message =
                format!("`context.random` was asked for {length} bytes; {RANDOM_BYTES_MAX} are the most");
            return Err(GuestTrap::new("random-too-large", message).into());
        }
        random::draw(self, length as usize)
    }
}
