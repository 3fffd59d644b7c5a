//! What can go wrong in a store, and which of it is worth trying again.

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// More is queued than the writer can take. Nothing was written; try again after a moment.
    #[error("the store has more writes queued than it can take")]
    Busy,
    /// The disk is full. Nothing was written.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The database cannot be reached or written at the moment.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// Whether the write was committed is not known.
    #[error("the outcome of a commit is not known: {0}")]
    Unknown(String),
    /// This node was declared dead: its leases are gone, it must not go on under this incarnation.
    #[error("this node was declared dead")]
    DeclaredDead,
    /// The registry has moved on since the caller looked: look again and decide again.
    #[error("the registry has changed")]
    StaleRegistry,
    /// What a new run was to take over from another is not there (any more). Nothing was written.
    #[error("what the run was to begin with is not there any more")]
    SourceGone,
    /// The schema was written by a newer release.
    #[error(
        "the database has schema {found}, this release knows {known}: use the newer release, or restore a backup"
    )]
    NewerSchema {
        /// What the database has.
        found: i64,
        /// The newest this release knows.
        known: i64,
    },
    /// The database URL cannot be used.
    #[error("the database URL is not understood: {0}")]
    BadUrl(String),
    /// Another process uses the data directory.
    #[error("the data directory is in use by process {pid}")]
    InUse {
        /// The other process, 0 if it could not be found out.
        pid: u32,
    },
    /// What is stored does not make sense.
    #[error("the database holds something that cannot be: {0}")]
    Corrupt(String),
    /// Durability can no longer be promised; the process must end and recover from what is on disk.
    #[error("a write could not be made durable: {0}")]
    Fatal(String),
}

impl Error {
    /// Whether the same call may succeed later without anyone changing it.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Error::Busy | Error::Full(_) | Error::Unavailable(_) | Error::Unknown(_)
        )
    }
}

/// A store's answer.
pub type Result<T> = std::result::Result<T, Error>;
