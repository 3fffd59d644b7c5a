//! What changes, told to whoever listens: pages, streams, long polls. A hint, never the truth: listeners read anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Something that another node did: what, nobody knows.
    Elsewhere,
}

/// The sending side.
#[derive(Clone)]
pub(crate) struct Feed {
    sender: broadcast::Sender<Change>,
    followed: Arc<Mutex<HashMap<RunId, usize>>>,
}

/// Somebody follows a run, until this is dropped.
pub(crate) struct Following {
    run: RunId,
    followed: Arc<Mutex<HashMap<RunId, usize>>>,
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = followed.get_mut(&self.run) {
            *count -= 1;
            if *count == 0 {
                followed.remove(&self.run);
            }
        }
    }
}

impl Feed {
    pub(crate) fn new() -> Feed {
        Feed {
            sender: broadcast::Sender::new(LAG_MAX),
            followed: Arc::default(),
        }
    }

    /// Says that somebody wants to know of a run, whoever drives it.
    pub(crate) fn follow(&self, run: RunId) -> Following {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        *followed.entry(run).or_default() += 1;
        Following {
            run,
            followed: Arc::clone(&self.followed),
        }
    }

    /// The runs that somebody follows.
    pub(crate) fn followed(&self) -> Vec<RunId> {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.keys().copied().collect()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.sender.subscribe()
    }

    pub(crate) fn run(&self, run: RunId) {
        self.send(Change::Run(run));
    }

    pub(crate) fn registry(&self) {
        self.send(Change::Registry);
    }

    pub(crate) fn elsewhere(&self) {
        self.send(Change::Elsewhere);
    }

    fn send(&self, change: Change) {
        // No listener is the usual case, and costs next to nothing.
        if self.sender.receiver_count() > 0 {
            let _ = self.sender.send(change);
        }
    }
}
