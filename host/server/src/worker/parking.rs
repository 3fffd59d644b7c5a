//! How many waiting instances may stay in memory. Everything behaves the same with none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dormouse_engine::Engine;

/// The budget of time and memory.
pub(crate) struct Parking {
    idle: Duration,
    memory: u64,
    used: Arc<AtomicU64>,
}

/// A parked instance's share of it, given back when dropped.
pub(super) struct Place {
    bytes: u64,
    used: Arc<AtomicU64>,
}

impl Parking {
    pub(crate) fn new(idle: Duration, memory: u64) -> Parking {
        Parking {
            idle,
            memory,
            used: Arc::default(),
        }
    }

    /// For how long an instance may stay.
    pub(super) fn idle(&self) -> Duration {
        self.idle
    }

    /// A place for one more instance, if the budget has it and nobody waits for an instance.
    pub(super) fn place(&self, engine: &Engine) -> Option<Place> {
        if self.idle.is_zero() {
            return None;
        }
        let instances = engine.instances();
        if instances.waiting > 0 {
            return None;
        }
        // One instance's memory is not known here; the average is, and the budget is one of the whole.
        let bytes = instances.memory_bytes as u64 / u64::from(instances.live).max(1);
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let place = Place {
            bytes,
            used: Arc::clone(&self.used),
        };
        metrics::gauge!("dormouse_instances_parked").increment(1.0);
        (used <= self.memory).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
        metrics::gauge!("dormouse_instances_parked").decrement(1.0);
    }
}
