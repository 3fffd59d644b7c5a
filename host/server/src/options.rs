//! What the server is started with, and why it does not start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dormouse_store as store;

/// How the server is to run. The command line and the environment fill this in.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen. Loopback addresses only, while there are no API keys.
    pub listen: Vec<SocketAddr>,
    /// Where the database, the modules and the caches are.
    pub data_dir: PathBuf,
    /// Another database than the one in the data directory.
    pub database_url: Option<String>,
    /// The configuration file (TOML): grants, limits, retention.
    pub config: Option<PathBuf>,
    /// For how long a waiting instance stays in memory. Zero drops it at each suspension.
    pub park_idle: Duration,
    /// How much memory waiting instances may take in all, in bytes.
    pub park_memory: u64,
    /// How long executing legs may take to come to a place where they can be left, at shutdown.
    pub drain_timeout: Duration,
}

impl Options {
    /// The defaults on a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Options {
        Options {
            listen: Vec::new(),
            data_dir: data_dir.into(),
            database_url: None,
            config: None,
            park_idle: Duration::from_secs(5),
            park_memory: 32 << 20,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Why the server did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something in the options or the configuration file is wrong.
    #[error("{0}")]
    Configuration(String),
    /// The database was written by a newer release.
    #[error(transparent)]
    NewerSchema(store::Error),
    /// An address is taken.
    #[error(
        "{address} cannot be listened on: {reason}. Another server may be running there: stop it, or choose another \
         address with --listen"
    )]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        reason: String,
    },
    /// The data directory or the database cannot be used.
    #[error("{0}")]
    Unavailable(String),
    /// It had to stop: durability or ownership was lost.
    #[error("the server had to stop: {0}")]
    Stopped(String),
}

impl StartError {
    /// The process's exit code: 2 for what must be changed, 5 for what is not available.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Configuration(_) | StartError::NewerSchema(_) => 2,
            StartError::Address { .. } | StartError::Unavailable(_) | StartError::Stopped(_) => 5,
        }
    }
}

impl From<store::Error> for StartError {
    fn from(error: store::Error) -> StartError {
        match error {
            store::Error::NewerSchema { .. } => StartError::NewerSchema(error),
            store::Error::BadUrl(_) => StartError::Configuration(error.to_string()),
            store::Error::InUse { pid } => StartError::Unavailable(format!(
                "the data directory is in use by process {pid}: stop that server, or choose another directory with \
                 --data-dir"
            )),
            error => StartError::Unavailable(error.to_string()),
        }
    }
}
