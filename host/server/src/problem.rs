//! What goes wrong, for people: what happened, and what to do, under a stable code that has a page in docs/errors/.

use dormouse_store as store;

/// Something a caller is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The HTTP status it answers with.
    pub status: u16,
    /// The stable word.
    pub code: &'static str,
    /// What happened.
    pub message: String,
    /// What to do, when there is something.
    pub help: Option<String>,
    /// After how many seconds to try again, when that may help.
    pub retry_after: Option<u32>,
}

impl Problem {
    /// A problem.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Problem {
        Problem {
            status,
            code,
            message: message.into(),
            help: None,
            retry_after: None,
        }
    }

    /// The same, with what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// There is no such thing.
    pub fn not_found(what: &str, name: impl std::fmt::Display) -> Problem {
        Problem::new(404, "not-found", format!("there is no {what} {name}"))
    }

    /// A mistake of ours.
    pub fn internal() -> Problem {
        Problem::new(
            500,
            "internal",
            "something went wrong inside the server; its log says what",
        )
        .help("this is a bug of ours: please report it with the log")
    }

    /// Something that a later release brings.
    pub fn not_supported(what: &str) -> Problem {
        Problem::new(501, "not-supported", format!("{what} is not supported yet"))
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Problem {
        let message = error.to_string();
        let (status, code, retry_after) = match &error {
            store::Error::Busy => (503, "busy", Some(1)),
            store::Error::Full(_) => (503, "disk-full", Some(5)),
            store::Error::Unavailable(_) | store::Error::Unknown(_) => (503, "store-unavailable", Some(2)),
            store::Error::DeclaredDead | store::Error::Fatal(_) => (503, "node-stopping", Some(2)),
            store::Error::StaleRegistry => (503, "busy", Some(1)),
            store::Error::NewerSchema { .. } | store::Error::InUse { .. } | store::Error::BadUrl(_) => {
                (503, "store-unavailable", None)
            }
            store::Error::SourceGone => (404, "not-found", None),
            store::Error::Corrupt(_) => (500, "store-corrupt", None),
        };
        Problem {
            status,
            code,
            message,
            help: None,
            retry_after,
        }
    }
}
