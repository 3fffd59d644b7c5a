//! Drives one function. The only place that waits is `await-any`.
//!
//! A future waits by registering its operation here. When the function can do nothing more, all registered operations,
//! in the order they were registered, are put to the host; the one it answers with is delivered and the function polled
//! again *before* the host is asked for another. So what follows from one delivery comes before the next delivery, live
//! and on replay.
//!
//! Absent: tasks. `join!`, `join_all` and `select!` poll their branches in the order they are written.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::host::{self, Operation};

thread_local! {
    static REACTOR: RefCell<Reactor> = RefCell::new(Reactor::default());
}

#[derive(Default)]
struct Reactor {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
}

struct Waiting {
    operation: Rc<Operation>,
    waker: Option<Waker>,
    delivered: bool,
}

/// An operation that the function waits for. Dropping it gives the operation up.
#[derive(Debug)]
pub(crate) struct Wait {
    key: u64,
    operation: Rc<Operation>,
}

impl Wait {
    pub(crate) fn new(operation: Operation) -> Wait {
        let operation = Rc::new(operation);
        REACTOR.with_borrow_mut(|reactor| {
            let key = reactor.next;
            reactor.next += 1;
            let waiting = Waiting {
                operation: operation.clone(),
                waker: None,
                delivered: false,
            };
            reactor.waiting.insert(key, waiting);
            Wait { key, operation }
        })
    }

    /// Ready once the operation was delivered.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<&Operation> {
        REACTOR.with_borrow_mut(|reactor| match reactor.waiting.get_mut(&self.key) {
            Some(waiting) if !waiting.delivered => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(&*self.operation),
        })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        // The handle itself goes with the field, after the reactor has let go of it.
        let waiting = REACTOR.with_borrow_mut(|reactor| reactor.waiting.remove(&self.key));
        drop(waiting);
    }
}

/// Says that the function has become able to go on without the host, by a future that is not of this crate.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a future to its end.
///
/// # Panics
/// When the future waits for something that is none of its steps: nothing would ever wake it.
pub(crate) fn block_on<T>(mut future: Pin<Box<dyn Future<Output = T>>>) -> T {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    loop {
        woken.0.store(false, Ordering::Relaxed);
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        if !woken.0.load(Ordering::Relaxed) {
            deliver_one();
        }
    }
}

fn deliver_one() {
    let open: Vec<(u64, Rc<Operation>)> = REACTOR.with_borrow(|reactor| {
        let waiting = reactor.waiting.iter().filter(|(_, waiting)| !waiting.delivered);
        waiting
            .map(|(key, waiting)| (*key, waiting.operation.clone()))
            .collect()
    });
    assert!(
        !open.is_empty(),
        "the function awaits something that is not a step and would never come: in a Dormouse function only futures \
         of `step`, and join!, select! and the like over them, can be awaited. Do other work inside step.run"
    );
    let operations: Vec<&Operation> = open.iter().map(|(_, operation)| &**operation).collect();
    let index = host::await_any(&operations);
    let key = open[index].0;
    let waker = REACTOR.with_borrow_mut(|reactor| {
        let waiting = reactor.waiting.get_mut(&key)?;
        waiting.delivered = true;
        waiting.waker.take()
    });
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Forgets what a leg that was broken off has left behind.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn reset() {
    let reactor = REACTOR.take();
    drop(reactor);
}
