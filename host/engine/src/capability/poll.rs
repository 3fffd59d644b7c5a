//! `wasi:io/poll`: outside bodies a guest may look, never wait; inside it waits like any program.

use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi_io::bindings::wasi::io::poll::{Host, HostPollable};
use wasmtime_wasi_io::poll::DynPollable;

use crate::state::{HostState, Phase};
use crate::trap::GuestTrap;

fn blocking_wait() -> GuestTrap {
    GuestTrap::new(
        "blocking-wait",
        "the guest waits outside a step's body, where time stands still; use step.sleep, or do it in a body",
    )
}

impl HostState {
    /// The virtual clock moves between calls: pollables look at where it stood last.
    fn sync_clock(&self) {
        self.now_nanos();
    }
}

impl Host for HostState {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> Result<Vec<u32>> {
        if pollables.is_empty() {
            return Err(GuestTrap::new("bad-call", "`poll` was called with nothing to wait for").into());
        }
        if matches!(self.phase, Phase::Body(_)) {
            return Host::poll(&mut self.table, pollables).await;
        }
        self.sync_clock();
        let mut ready = Vec::new();
        for (index, pollable) in (0..).zip(&pollables) {
            if HostPollable::ready(&mut self.table, Resource::new_borrow(pollable.rep())).await? {
                ready.push(index);
            }
        }
        if ready.is_empty() {
            return Err(blocking_wait().into());
        }
        Ok(ready)
    }
}

impl HostPollable for HostState {
    async fn ready(&mut self, pollable: Resource<DynPollable>) -> Result<bool> {
        self.sync_clock();
        HostPollable::ready(&mut self.table, pollable).await
    }

    async fn block(&mut self, pollable: Resource<DynPollable>) -> Result<()> {
        if matches!(self.phase, Phase::Body(_)) {
            return HostPollable::block(&mut self.table, pollable).await;
        }
        self.sync_clock();
        if HostPollable::ready(&mut self.table, pollable).await? {
            return Ok(());
        }
        Err(blocking_wait().into())
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> Result<()> {
        HostPollable::drop(&mut self.table, pollable)
    }
}
