//! What an error of Postgres means: the statement's own fault, do it again, or the database's.

use dormouse_core::{Failure, Json};
use sqlx::postgres::PgDatabaseError;

/// Why a transaction did not come about. Whatever it is, the transaction is over, unless COMMIT had been sent.
#[derive(Debug)]
pub(super) enum Fault {
    /// The statements' own fault.
    Refused(Failure),
    /// Postgres asks for the transaction to be done again: a deadlock, a serialization failure.
    Again(String),
    /// The database's fault, or the way's. The connection is not used again.
    Lost(String),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Fault {
        Fault::Refused(failure)
    }
}

/// An error of the host's own statements is never a guest's fault.
pub(super) fn own(error: sqlx::Error) -> Fault {
    match code(&error).as_deref() {
        Some("40001" | "40P01") => Fault::Again(words(&error)),
        _ => Fault::Lost(words(&error)),
    }
}

/// What an error of foreign statements means. The classes: the appendix "PostgreSQL Error Codes" of its manual.
pub(super) fn foreign(error: sqlx::Error) -> Fault {
    let sqlx::Error::Database(database) = &error else {
        return Fault::Lost(words(&error));
    };
    let code = database.code().unwrap_or_default();
    let message = database.message();
    match &*code {
        // serialization_failure, deadlock_detected.
        "40001" | "40P01" => Fault::Again(message.to_owned()),
        // admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped, idle_session_timeout, and the
        // transaction's own; disk_full, out_of_memory, too_many_connections; damage.
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "53100" | "53200" | "53300" | "XX001"
        | "XX002" => Fault::Lost(message.to_owned()),
        // The connection, the system (a disk that cannot be written), the server's configuration.
        code if code.starts_with("08") || code.starts_with("58") || code.starts_with("F0") => {
            Fault::Lost(message.to_owned())
        }
        // invalid_transaction_termination.
        "2D000" => Failure::terminal(
            "sql-not-allowed",
            format!("{message}: the statements are one transaction"),
        )
        .into(),
        _ => {
            let mut failure = Failure::terminal("sql-error", message);
            failure.details = database
                .try_downcast_ref::<PgDatabaseError>()
                .and_then(|error| details(error).ok());
            failure.into()
        }
    }
}

/// For a program: the SQLSTATE, and what the server says beyond its message.
fn details(error: &PgDatabaseError) -> Result<Json, dormouse_core::json::InvalidJson> {
    #[derive(serde::Serialize)]
    struct Details<'e> {
        sqlstate: &'e str,
        #[serde(skip_serializing_if = "Option::is_none")]
        constraint: Option<&'e str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'e str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<&'e str>,
    }
    Json::from_value(&Details {
        sqlstate: error.code(),
        constraint: error.constraint(),
        detail: error.detail(),
        hint: error.hint(),
    })
}

/// The SQLSTATE, when the server has answered.
pub(super) fn code(error: &sqlx::Error) -> Option<String> {
    let database = error.as_database_error()?;
    database.code().map(|code| code.into_owned())
}

/// An error as a part of a sentence.
pub(super) fn words(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => database.message().to_owned(),
        sqlx::Error::Tls(error) => format!("TLS: {error}"),
        error => format!("the connection is lost: {error}"),
    }
}
