//! The thread that advances the engines' epochs, which is what makes a computing guest stop and look at its budget.
//!
//! It rests while no guest has computed for a second: an idle server has nothing to wake up for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::EngineWeak;

/// Ticks without a computing guest before the thread rests.
const IDLE_TICKS: u32 = 200;
/// The longest rest: how long the thread may outlive its engine.
const REST: Duration = Duration::from_secs(5);

/// A handle on the thread. Dropping it ends the thread.
pub(crate) struct Ticker {
    gauge: Arc<Gauge>,
    thread: Thread,
}

#[derive(Default)]
struct Gauge {
    computing: AtomicUsize,
    resting: AtomicBool,
    ended: AtomicBool,
}

/// Says that a guest computes, until it is dropped.
pub(crate) struct Computing<'a>(&'a Gauge);

impl Ticker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(engines: [EngineWeak; 2], tick: Duration) -> std::io::Result<Ticker> {
        let gauge = Arc::new(Gauge::default());
        let seen = gauge.clone();
        let handle = thread::Builder::new()
            .name("dormouse-epoch".to_owned())
            .spawn(move || run(&seen, &engines, tick))?;
        Ok(Ticker {
            gauge,
            thread: handle.thread().clone(),
        })
    }

    /// To be held while a guest computes.
    pub(crate) fn computing(&self) -> Computing<'_> {
        self.gauge.computing.fetch_add(1, Ordering::SeqCst);
        if self.gauge.resting.load(Ordering::SeqCst) && self.gauge.resting.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
        Computing(&self.gauge)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.gauge.ended.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        self.0.computing.fetch_sub(1, Ordering::Release);
    }
}

fn run(gauge: &Gauge, engines: &[EngineWeak], tick: Duration) {
    let mut idle = 0;
    while !gauge.ended.load(Ordering::SeqCst) {
        thread::sleep(tick);
        for engine in engines {
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
        }
        idle = if gauge.computing.load(Ordering::SeqCst) > 0 {
            0
        } else {
            idle + 1
        };
        if idle < IDLE_TICKS {
            continue;
        }
        idle = 0;
        gauge.resting.store(true, Ordering::SeqCst);
        // Both sides write before they look, so one of them sees the other.
        while gauge.computing.load(Ordering::SeqCst) == 0
            && gauge.resting.load(Ordering::SeqCst)
            && !gauge.ended.load(Ordering::SeqCst)
        {
            thread::park_timeout(REST);
        }
        gauge.resting.store(false, Ordering::SeqCst);
    }
}
