//! What changes, told to whoever listens: pages, streams, long polls. A hint, never the truth: listeners read anew.

use dormouse_core::RunId;
use tokio::sync::broadcast;

/// How many changes a slow listener may lag behind before it misses some.
const LAG_MAX: usize = 4_096;

/// Something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A run, in any way.
    Run(RunId),
    /// Modules or what is active.
    Registry,
}

/// The sending side.
#[derive(Clone)]
pub(crate) struct Feed(broadcast::Sender<Change>);

impl Feed {
    pub(crate) fn new() -> Feed {
        Feed(broadcast::Sender::new(LAG_MAX))
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.0.subscribe()
    }

    pub(crate) fn run(&self, run: RunId) {
        self.send(Change::Run(run));
    }

    pub(crate) fn registry(&self) {
        self.send(Change::Registry);
    }

    fn send(&self, change: Change) {
        // No listener is the usual case, and costs next to nothing.
        if self.0.receiver_count() > 0 {
            let _ = self.0.send(change);
        }
    }
}
