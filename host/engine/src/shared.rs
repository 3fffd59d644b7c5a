//! What a leg's pieces share: the guest's state, the future that bounds it, and the streams and pollables it holds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::stdio::Stdio;

/// The clock of an open body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyClock {
    /// When the body began, on a clock that cannot be set.
    pub(crate) started: Instant,
    /// When it began, in Unix nanoseconds of the host's clock.
    pub(crate) base: u64,
    /// When it is ended.
    pub(crate) deadline: Instant,
    /// How long that is after its start.
    pub(crate) timeout: Duration,
}

impl BodyClock {
    /// Unix nanoseconds now, as the body sees it.
    pub(crate) fn now(&self) -> u64 {
        let elapsed = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.base.saturating_add(elapsed)
    }
}

/// Shared by the pieces of one leg.
#[derive(Default)]
pub(crate) struct Shared {
    /// Set while a body is open.
    body: Mutex<Option<BodyClock>>,
    /// Whether `body` is worth a look.
    body_open: AtomicBool,
    /// Counts bodies: what was made in one must not be used in the next.
    pub(crate) body_number: AtomicU32,
    /// Unix nanoseconds as the guest saw them last outside bodies.
    pub(crate) virtual_now: AtomicU64,
    /// What the guest has written to its standard streams.
    pub(crate) stdio: Mutex<Stdio>,
    /// Whether there is something to take from `stdio`.
    pub(crate) stdio_dirty: AtomicBool,
    /// Processor time of this leg's finished polls, in nanoseconds.
    cpu_done: AtomicU64,
    /// The thread's processor time when the poll that runs now began.
    cpu_mark: AtomicU64,
    /// How often the guest was made to yield.
    pub(crate) yields: AtomicU64,
}

impl Shared {
    pub(crate) fn body(&self) -> Option<BodyClock> {
        if !self.body_open.load(Ordering::Acquire) {
            return None;
        }
        *lock(&self.body)
    }

    pub(crate) fn open_body(&self, clock: BodyClock) {
        *lock(&self.body) = Some(clock);
        self.body_number.fetch_add(1, Ordering::AcqRel);
        self.body_open.store(true, Ordering::Release);
    }

    pub(crate) fn close_body(&self) {
        self.body_open.store(false, Ordering::Release);
        *lock(&self.body) = None;
    }

    /// Whether the body of this number is open.
    pub(crate) fn in_body(&self, number: u32) -> bool {
        self.body_open.load(Ordering::Acquire) && self.body_number.load(Ordering::Acquire) == number
    }

    /// A poll of the leg begins on this thread.
    pub(crate) fn poll_begins(&self) {
        self.cpu_mark.store(thread_cpu(), Ordering::Relaxed);
    }

    /// It ends.
    pub(crate) fn poll_ends(&self) {
        self.cpu_done.store(self.cpu(), Ordering::Relaxed);
        self.cpu_mark.store(u64::MAX, Ordering::Relaxed);
    }

    /// Processor time of the leg until now, in nanoseconds; within a poll.
    pub(crate) fn cpu(&self) -> u64 {
        let running = thread_cpu().saturating_sub(self.cpu_mark.load(Ordering::Relaxed));
        self.cpu_done.load(Ordering::Relaxed) + running
    }

    /// Processor time of the polls that have ended.
    pub(crate) fn cpu_total(&self) -> Duration {
        Duration::from_nanos(self.cpu_done.load(Ordering::Relaxed))
    }
}

/// A panic while one of these locks is held leaves nothing half-done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Processor time of the calling thread in nanoseconds.
fn thread_cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
