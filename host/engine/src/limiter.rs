//! What an instance may take of memory and tables, and what all of them may take together.
//!
//! Growing past a cap traps, always: a guest that could see the growth fail would depend on the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::ResourceLimiter;
use wasmtime::component::Component;

use crate::trap::GuestTrap;

/// The most elements a table may have: function pointers of a large language runtime are some 15,000.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 20_000;

/// What an instance of a large language runtime is made of, at most: Python's is 14 core instances, and so on.
const CORE_INSTANCES_MAX: usize = 64;
/// Linear memories; what is in them counts together.
const MEMORIES_MAX: usize = 4;
/// Tables.
const TABLES_MAX: usize = 16;

/// Refuses a component that asks for more before anything runs. What has a pool's slots asks for less.
///
/// # Errors
/// What it asks for.
pub(crate) fn check(component: &Component) -> Result<(), String> {
    let Some(needed) = component.resources_required() else {
        return Err("it imports components, or modules, so nothing says how large an instance is".to_owned());
    };
    for (what, count, max) in [
        ("linear memories", needed.num_memories as usize, MEMORIES_MAX),
        ("tables", needed.num_tables as usize, TABLES_MAX),
    ] {
        if count > max {
            return Err(format!("it has {count} {what}, more than the limit of {max}"));
        }
    }
    Ok(())
}

/// Linear memory of all instances of the node, against its cap.
#[derive(Debug)]
pub(crate) struct NodeMemory {
    used: AtomicUsize,
    max: usize,
}

impl NodeMemory {
    pub(crate) fn new(max: usize) -> NodeMemory {
        NodeMemory {
            used: AtomicUsize::new(0),
            max,
        }
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.max;
        if !fits {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

/// One instance's share.
#[derive(Debug)]
pub(crate) struct Limiter {
    max: usize,
    used: usize,
    node: Arc<NodeMemory>,
}

impl Limiter {
    pub(crate) fn new(max: usize, node: Arc<NodeMemory>) -> Limiter {
        Limiter { max, used: 0, node }
    }

    /// Linear memory now, in bytes. Wasm memory never shrinks, so this is also the most it ever was.
    pub(crate) fn used(&self) -> usize {
        self.used
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.node.used.fetch_sub(self.used, Ordering::Relaxed);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let total = self.used.saturating_add(more);
        if total > self.max {
            return Err(GuestTrap::new(
                "memory-limit",
                format!(
                    "the guest wants {} of memory and may have {}; keep less in memory, or ask an operator to raise \
                     the module's memory_bytes",
                    mebibytes(total),
                    mebibytes(self.max)
                ),
            )
            .into());
        }
        if !self.node.take(more) {
            return Err(GuestTrap::of_host(
                "node-memory-limit",
                format!(
                    "this node's instances use {} of {} together, and the guest wants {} more",
                    mebibytes(self.node.used()),
                    mebibytes(self.node.max),
                    mebibytes(more)
                ),
            )
            .into());
        }
        self.used = total;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(GuestTrap::new(
            "memory-limit",
            format!("the guest's memory could not grow: {error:#}"),
        )
        .into())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            let message =
                format!("the guest wants a table of {desired} elements and may have {TABLE_ELEMENTS_MAX}");
            return Err(GuestTrap::new("memory-limit", message).into());
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(GuestTrap::new(
            "memory-limit",
            format!("the guest's table could not grow: {error:#}"),
        )
        .into())
    }
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
