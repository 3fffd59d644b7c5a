//! What an error of SQLite means to callers: try again, give way, or stop.

use sqlx::error::ErrorKind;

use crate::error::Error;

// Primary result codes of SQLite, https://sqlite.org/rescode.html.
const PERM: i32 = 3;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const NOMEM: i32 = 7;
const READONLY: i32 = 8;
const INTERRUPT: i32 = 9;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const CONSTRAINT: i32 = 19;
const NOTADB: i32 = 26;

impl From<sqlx::Error> for Error {
    /// What an error of the write connection means. A device that fails is final: after a failed fsync nobody knows
    /// what is on disk, so the process must end and read it again.
    fn from(error: sqlx::Error) -> Error {
        let sqlx::Error::Database(database) = &error else {
            return match error {
                sqlx::Error::Io(error) => Error::Unavailable(error.to_string()),
                // The connection's thread is gone: whether it wrote is not known, and it does not come back.
                sqlx::Error::WorkerCrashed => {
                    Error::Fatal("the database connection's thread ended".to_owned())
                }
                other => Error::Unavailable(other.to_string()),
            };
        };
        let code: i32 = database.code().and_then(|code| code.parse().ok()).unwrap_or(0);
        let message = database.message().to_owned();
        if database.kind() == ErrorKind::UniqueViolation {
            return Error::Corrupt(format!("something is stored twice: {message}"));
        }
        match code & 0xff {
            FULL => Error::Full(message),
            IOERR | CORRUPT | NOTADB => Error::Fatal(format!("{message} (SQLite code {code})")),
            CONSTRAINT => Error::Corrupt(message),
            PERM | BUSY | LOCKED | NOMEM | READONLY | INTERRUPT | CANTOPEN => Error::Unavailable(message),
            _ => Error::Unavailable(format!("{message} (SQLite code {code})")),
        }
    }
}

/// What an error of a read means: a read that fails ends nothing.
pub(super) fn of_read(error: Error) -> Error {
    match error {
        Error::Fatal(message) => Error::Unavailable(message),
        other => other,
    }
}
