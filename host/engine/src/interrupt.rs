//! How whoever holds a run ends its leg from outside, also while the guest computes or waits in a body.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::task::AtomicWaker;

/// Ends a leg with the trap `cancelled`. Clone it and keep one; the default never fires by itself.
#[derive(Clone, Default, Debug)]
pub struct Interrupt(Arc<Inner>);

#[derive(Default, Debug)]
struct Inner {
    fired: AtomicBool,
    waker: AtomicWaker,
}

impl Interrupt {
    /// One that has not fired.
    pub fn new() -> Interrupt {
        Interrupt::default()
    }

    /// Ends the leg now: a guest that computes is trapped at the next tick, one that waits at once.
    pub fn trap_now(&self) {
        self.0.fired.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    pub(crate) fn fired(&self) -> bool {
        self.0.fired.load(Ordering::Acquire)
    }

    /// Whether it has fired; if not, the waker is woken when it does.
    pub(crate) fn poll_fired(&self, waker: &std::task::Waker) -> bool {
        self.0.waker.register(waker);
        self.fired()
    }
}
