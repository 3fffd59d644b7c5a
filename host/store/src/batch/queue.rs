//! Where writes are handed in, and how the writer takes them: all that is queued, up to a bound, with no delay.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dormouse_core::RunId;

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::request::{Answer, Request};
use crate::error::{Error, Result};

/// At most this many requests share a commit,
const BATCH_REQUESTS: usize = 1024;
/// and about this many rows, so that no commit takes long.
const BATCH_ROWS: usize = 8192;

type Reply = oneshot::Sender<Result<Answer>>;

/// A write and who waits for it. None asks the writer to finish what is queued and end.
type Message = Option<(Request, Reply)>;

/// Where writes are handed in.
#[derive(Clone)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Message>,
    closed: Arc<AtomicBool>,
    fatal: Arc<OnceLock<Error>>,
    /// Told after each commit that has made waiting runs ready.
    woken: Arc<Notify>,
    /// Runs that commits have cancelled by events, until somebody asks.
    cancelled: Arc<Mutex<Vec<RunId>>>,
    cancels: Arc<Notify>,
    ended: watch::Receiver<bool>,
}

impl Queue {
    /// Hands in a write and waits for its commit. Dropping the future doesn't stop the write.
    pub(crate) async fn submit(&self, request: Request) -> Result<Answer> {
        if self.closed.load(Ordering::Acquire) {
            return Err(self.refusal());
        }
        let (reply, answer) = oneshot::channel();
        match self.sender.try_send(Some((request, reply))) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(Error::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(self.refusal()),
        }
        match answer.await {
            Ok(answer) => answer,
            // The writer ended without an answer: it got no further than the queue.
            Err(_) => Err(self.refusal()),
        }
    }

    /// Waits for a commit that has made waiting runs ready.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Waits for a commit that has cancelled runs by events.
    pub(crate) async fn cancelled(&self) -> Vec<RunId> {
        loop {
            let heard = self.cancels.notified();
            let runs = std::mem::take(&mut *self.cancelled.lock().unwrap_or_else(PoisonError::into_inner));
            if !runs.is_empty() {
                return runs;
            }
            heard.await;
        }
    }

    /// Writes that wait.
    pub(crate) fn len(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }

    fn refusal(&self) -> Error {
        match self.fatal.get() {
            Some(error) => error.clone(),
            None => Error::Unavailable("the store is closed".to_owned()),
        }
    }

    /// Lets the writer finish what is queued, and waits for its end.
    pub(crate) async fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            let _ = self.sender.send(None).await;
        }
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

/// A queue and its other end.
pub(crate) fn queue(capacity: usize) -> (Queue, Inbox) {
    let (sender, receiver) = mpsc::channel(capacity.max(1));
    let closed = Arc::new(AtomicBool::new(false));
    let fatal = Arc::new(OnceLock::new());
    let woken = Arc::new(Notify::new());
    let (cancelled, cancels) = (Arc::new(Mutex::default()), Arc::new(Notify::new()));
    let (end, ended) = watch::channel(false);
    let queue = Queue {
        sender,
        closed: Arc::clone(&closed),
        fatal: Arc::clone(&fatal),
        woken: Arc::clone(&woken),
        cancelled: Arc::clone(&cancelled),
        cancels: Arc::clone(&cancels),
        ended,
    };
    let inbox = Inbox {
        receiver,
        closed,
        fatal,
        woken,
        cancelled,
        cancels,
        end,
        closing: false,
    };
    (queue, inbox)
}

/// The writer's end of a queue.
pub(crate) struct Inbox {
    receiver: mpsc::Receiver<Message>,
    closed: Arc<AtomicBool>,
    fatal: Arc<OnceLock<Error>>,
    woken: Arc<Notify>,
    cancelled: Arc<Mutex<Vec<RunId>>>,
    cancels: Arc<Notify>,
    end: watch::Sender<bool>,
    closing: bool,
}

/// Requests that share a commit.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) requests: Vec<Request>,
    replies: Vec<Reply>,
    /// About how many rows they touch.
    pub(crate) rows: usize,
}

impl Batch {
    /// Tells each caller what came of its request. One that waits no more had its write made all the same.
    pub(crate) fn answer(self, answers: Vec<Result<Answer>>) {
        for (reply, answer) in self.replies.into_iter().zip(answers) {
            let _ = reply.send(answer);
        }
    }

    /// Tells every caller the same.
    pub(crate) fn refuse(self, error: &Error) {
        for reply in self.replies {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

impl Inbox {
    /// Waits for the next batch. None: the queue was closed and all of it is done. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Option<Batch> {
        while !self.closing {
            let mut next = Some(self.receiver.recv().await?);
            let mut batch = Batch::default();
            while let Some(message) = next {
                match message {
                    Some((request, reply)) => {
                        batch.rows += request.weight();
                        batch.requests.push(request);
                        batch.replies.push(reply);
                    }
                    None => {
                        self.closing = true;
                        self.receiver.close();
                    }
                }
                let full = batch.requests.len() >= BATCH_REQUESTS || batch.rows >= BATCH_ROWS;
                next = if full && !self.closing {
                    None
                } else {
                    self.receiver.try_recv().ok()
                };
            }
            if !batch.requests.is_empty() {
                return Some(batch);
            }
        }
        None
    }

    /// Says that a commit has made waiting runs ready.
    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Says that a commit has cancelled runs by events.
    pub(crate) fn cancel(&self, runs: Vec<RunId>) {
        if !runs.is_empty() {
            self.cancelled
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(runs);
            self.cancels.notify_one();
        }
    }

    /// The error after which nothing can be promised any more.
    pub(crate) fn fatal(&self) -> Option<&Error> {
        self.fatal.get()
    }

    /// Remembers such an error. The first one stays.
    pub(crate) fn set_fatal(&self, error: Error) {
        let _ = self.fatal.set(error);
    }

    /// Takes nothing more and refuses what is queued.
    pub(crate) fn stop(&mut self, error: &Error) {
        self.closed.store(true, Ordering::Release);
        self.receiver.close();
        while let Ok(message) = self.receiver.try_recv() {
            if let Some((_, reply)) = message {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }

    /// Says that the writer has ended.
    pub(crate) fn ended(self) {
        let _ = self.end.send(true);
    }
}
