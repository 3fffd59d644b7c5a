//! Connections for single statements: reads, heartbeats. A statement runs in a task of its own, so that a caller that
//! goes away leaves no connection half way through an answer.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::connect::{Address, Purpose};
use super::fault::{Attempt, Fault};
use super::sql::Conn;
use super::writer::{TRIES, repeated};
use crate::error::{Error, Result};

/// Nobody waits longer than this for a connection, nor for an answer.
const PATIENCE: Duration = Duration::from_secs(25);

/// A small pool.
#[derive(Clone)]
pub(super) struct Readers {
    inner: Arc<Inner>,
}

struct Inner {
    address: Arc<Address>,
    free: Arc<Semaphore>,
    idle: Mutex<Vec<Conn>>,
    /// Whether statements write, so that a pooler's transaction must allow it.
    writes: bool,
}

impl Readers {
    pub(super) fn new(address: Arc<Address>, connections: usize, writes: bool) -> Readers {
        Readers {
            inner: Arc::new(Inner {
                address,
                free: Arc::new(Semaphore::new(connections)),
                idle: Mutex::new(Vec::new()),
                writes,
            }),
        }
    }

    /// Runs statements on a connection. They must be ones that may run twice: after a lost connection they do.
    pub(super) async fn run<T, F, R>(&self, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(Conn) -> R + Send + Sync + 'static,
        R: Future<Output = (Conn, Attempt<T>)> + Send + 'static,
    {
        let permit = tokio::time::timeout(PATIENCE, Arc::clone(&self.inner.free).acquire_owned());
        let permit = match permit.await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(Error::Unavailable("the store is closed".to_owned())),
            Err(_) => return Err(Error::Busy),
        };
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move {
            let answer = inner.answer(read).await;
            drop(permit);
            answer
        });
        match task.await {
            Ok(answer) => answer.map_err(Fault::into_error),
            Err(error) => Err(Error::Unavailable(format!("a read ended early: {error}"))),
        }
    }

    /// Closes what is idle and gives out nothing more.
    pub(super) fn close(&self) {
        self.inner.free.close();
        self.inner
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Inner {
    async fn answer<T, F, R>(&self, read: F) -> Attempt<T>
    where
        F: Fn(Conn) -> R + Sync,
        R: Future<Output = (Conn, Attempt<T>)> + Send,
    {
        let (mut again, mut tries, began) = (true, 0, Instant::now());
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            // An idle connection may have ended since; a new one that fails says how things are.
            let was_idle = idle.is_some();
            let conn = match idle {
                Some(conn) => conn,
                None => self.address.connect(Purpose::Read).await?,
            };
            let done = tokio::time::timeout(PATIENCE, self.once(conn, &read)).await;
            match done {
                Ok((conn, Err(Fault::Lost(message)))) => {
                    drop(conn);
                    if !was_idle && !std::mem::take(&mut again) {
                        return Err(Fault::Lost(message));
                    }
                }
                Ok((conn, answer)) => {
                    self.idle
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(conn);
                    match answer {
                        Err(Fault::Again(why)) if tries < TRIES && began.elapsed() < PATIENCE => {
                            tries += 1;
                            tracing::debug!(why, tries, "a statement is done again");
                            repeated(tries).await;
                        }
                        answer => return answer,
                    }
                }
                Err(_) => return Err(Fault::Lost("the database does not answer".to_owned())),
            }
        }
    }

    async fn once<T, F, R>(&self, mut conn: Conn, read: &F) -> (Conn, Attempt<T>)
    where
        F: Fn(Conn) -> R + Sync,
        R: Future<Output = (Conn, Attempt<T>)> + Send,
    {
        if !self.address.pooled {
            return read(conn).await;
        }
        // Preparing and executing are two trips, and only a transaction keeps the pooler from giving them to two servers.
        let purpose = if self.writes {
            Purpose::Write
        } else {
            Purpose::Read
        };
        if let Err(fault) = conn.simple(self.address.begin(purpose)).await {
            return (conn, Err(fault));
        }
        let (mut conn, answer) = read(conn).await;
        let end = if answer.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = conn.simple(end).await;
        match (answer, ended) {
            (Ok(answer), Ok(())) => (conn, Ok(answer)),
            // A connection whose transaction did not end is not used again.
            (_, Err(fault)) => (conn, Err(Fault::Lost(fault.into_error().to_string()))),
            (Err(fault), Ok(())) => (conn, Err(fault)),
        }
    }
}
