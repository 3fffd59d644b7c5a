//! What an error of Postgres means: the connection is lost, do it again, or an answer to the caller.

use super::connect::SAY_POOLER;
use crate::error::Error;

/// Why an attempt at a transaction or a read did not come to its end.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection is lost. Nothing was committed, unless COMMIT had been sent.
    Lost(String),
    /// Postgres asks for the transaction to be done again: a deadlock, a serialization failure, somebody was faster.
    Again(String),
    /// The caller's answer.
    Refused(Error),
}

/// What came of an attempt.
pub(super) type Attempt<T> = std::result::Result<T, Fault>;

impl Fault {
    /// As the caller is told when it is not tried again.
    pub(super) fn into_error(self) -> Error {
        match self {
            Fault::Lost(message) => Error::Unavailable(message),
            Fault::Again(message) => Error::Unavailable(format!("too much contention: {message}")),
            Fault::Refused(error) => error,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Refused(error)
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Fault {
        let sqlx::Error::Database(database) = &error else {
            return match error {
                sqlx::Error::Encode(error) => Fault::Refused(Error::Corrupt(error.to_string())),
                sqlx::Error::Io(error) => Fault::Lost(format!("the connection is lost: {error}")),
                // What is no answer in the protocol leaves the connection in a state that nobody knows.
                other => Fault::Lost(format!("the connection is lost: {other}")),
            };
        };
        let code = database.code().unwrap_or_default().into_owned();
        of_code(&code, database.message())
    }
}

/// What an SQLSTATE means. The classes: https://www.postgresql.org/docs/current/errcodes-appendix.html.
fn of_code(code: &str, message: &str) -> Fault {
    let unavailable = |text: String| Fault::Refused(Error::Unavailable(text));
    match code {
        // serialization_failure, deadlock_detected, lock_not_available.
        "40001" | "40P01" | "55P03" => Fault::Again(message.to_owned()),
        // admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped, idle_in_transaction_session_timeout.
        "57P01" | "57P02" | "57P03" | "57P04" | "25P03" => Fault::Lost(message.to_owned()),
        // read_only_sql_transaction, and what a standby says to READ WRITE (feature_not_supported): the next connection may
        // reach the new primary. The latter is also said of a prepared statement whose columns a migration has changed,
        // which a new connection prepares anew.
        "25006" | "0A000" => Fault::Lost(format!("the server may be a standby: {message}")),
        // duplicate_prepared_statement, invalid_sql_statement_name.
        "42P05" | "26000" => Fault::Lost(format!("{message}: {SAY_POOLER}")),
        // unique_violation.
        "23505" => Fault::Refused(Error::Corrupt(format!("something is stored twice: {message}"))),
        // disk_full.
        "53100" => Fault::Refused(Error::Full(message.to_owned())),
        // query_canceled: a timeout of the server's.
        "57014" => unavailable(message.to_owned()),
        // undefined_table, undefined_column, insufficient_privilege.
        "42P01" | "42703" | "42501" => unavailable(message.to_owned()),
        _ => match code.get(..2).unwrap_or_default() {
            // connection exceptions.
            "08" => Fault::Lost(message.to_owned()),
            // insufficient resources, program limits.
            "53" => unavailable(message.to_owned()),
            // data exceptions, integrity constraints.
            "22" | "23" => Fault::Refused(Error::Corrupt(message.to_owned())),
            // data_corrupted, index_corrupted.
            "XX" if code != "XX000" => Fault::Refused(Error::Corrupt(message.to_owned())),
            _ => unavailable(format!("{message} (SQLSTATE {code})")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_again_what_reconnects_and_what_is_answered() {
        assert!(matches!(of_code("40P01", "m"), Fault::Again(_)));
        assert!(matches!(of_code("40001", "m"), Fault::Again(_)));
        assert!(matches!(of_code("57P01", "m"), Fault::Lost(_)));
        assert!(matches!(of_code("08006", "m"), Fault::Lost(_)));
        assert!(matches!(of_code("25006", "m"), Fault::Lost(_)));
        assert!(matches!(of_code("0A000", "m"), Fault::Lost(_)));
        assert!(matches!(of_code("53100", "m"), Fault::Refused(Error::Full(_))));
        assert!(matches!(
            of_code("53300", "m"),
            Fault::Refused(Error::Unavailable(_))
        ));
        assert!(matches!(of_code("23505", "m"), Fault::Refused(Error::Corrupt(_))));
        let Fault::Lost(text) = of_code("26000", "prepared statement \"s\" does not exist") else {
            panic!("it is done again on a new connection")
        };
        assert!(text.contains("pgbouncer=true"));
    }
}
