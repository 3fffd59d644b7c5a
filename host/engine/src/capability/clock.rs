//! WASI's clocks: outside bodies both stand at the last recorded answer, inside they run.
//!
//! The monotonic clock counts Unix nanoseconds too, so that it does not jump back at a body's edge.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};

use crate::shared::Shared;
use crate::state::HostState;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// What the virtual clock is told in.
const RESOLUTION: u64 = 1_000_000;

impl wall_clock::Host for HostState {
    fn now(&mut self) -> Result<wall_clock::Datetime> {
        let nanos = self.now_nanos();
        Ok(wall_clock::Datetime {
            seconds: nanos / NANOS_PER_SECOND,
            nanoseconds: (nanos % NANOS_PER_SECOND) as u32,
        })
    }

    fn resolution(&mut self) -> Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime {
            seconds: 0,
            nanoseconds: RESOLUTION as u32,
        })
    }
}

impl monotonic_clock::Host for HostState {
    fn now(&mut self) -> Result<u64> {
        Ok(self.now_nanos())
    }

    fn resolution(&mut self) -> Result<u64> {
        Ok(RESOLUTION)
    }

    fn subscribe_instant(&mut self, when: u64) -> Result<Resource<DynPollable>> {
        let shared = self.shared.clone();
        let deadline = self.table.push(Deadline { shared, when })?;
        subscribe(&mut self.table, deadline)
    }

    fn subscribe_duration(&mut self, duration: u64) -> Result<Resource<DynPollable>> {
        let when = self.now_nanos().saturating_add(duration);
        self.subscribe_instant(when)
    }
}

/// A time on the guest's clock.
struct Deadline {
    shared: Arc<Shared>,
    when: u64,
}

#[async_trait]
impl Pollable for Deadline {
    async fn ready(&mut self) {
        if let Some(body) = self.shared.body() {
            let left = self.when.saturating_sub(body.now());
            if left > 0 {
                tokio::time::sleep(Duration::from_nanos(left)).await;
            }
        } else if self.shared.virtual_now.load(Ordering::Relaxed) < self.when {
            // The virtual clock stands still while the guest waits.
            std::future::pending::<()>().await;
        }
    }
}
