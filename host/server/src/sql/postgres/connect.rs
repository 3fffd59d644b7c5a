//! From a URL to connections.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::fault::words;
use super::wire::{Place, Wire};

/// The parameter of the URL that says that a pooler in transaction mode is in between. It is ours: sqlx is not shown it.
const POOLER: &str = "pgbouncer";
/// Connecting, with TLS and password, takes no longer than this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// Cleaning a connection takes no longer than this, or it is closed.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(5);
/// What ends a server's process whose host is gone without a word: bounds of one statement and of waiting for one.
const SETTINGS: [(&str, &str); 3] = [
    ("statement_timeout", "60s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("client_min_messages", "error"),
];

/// How to reach one database.
#[derive(Debug, Clone)]
pub(super) struct Address {
    options: PgConnectOptions,
    place: Place,
    /// Whether a pooler in transaction mode is in between: nothing of a session is ours after a transaction.
    pub(super) pooled: bool,
    /// Host, port and database, for people.
    pub(super) shown: String,
}

impl Address {
    /// Understands a URL.
    ///
    /// # Errors
    /// A sentence without the URL, which may have a password.
    pub(super) fn of(url: &str) -> Result<Address, String> {
        let scheme = url.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("postgres" | "postgresql")) {
            return Err(
                "it must begin with postgres://, as in postgres://user@host:5432/database".to_owned(),
            );
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut pooled = false;
        let mut left = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').unwrap_or((parameter, "true")) {
                (POOLER, "true") => pooled = true,
                (POOLER, "false") => {}
                (POOLER, other) => return Err(format!("{POOLER}={other}: it is either true or false")),
                _ => left.push(parameter),
            }
        }
        let url = match left.is_empty() {
            true => base.to_owned(),
            false => format!("{base}?{}", left.join("&")),
        };
        let options = PgConnectOptions::from_str(&url).map_err(|error| match error {
            sqlx::Error::Configuration(error) => error.to_string(),
            other => other.to_string(),
        })?;
        let mut options = options.disable_statement_logging();
        if options.get_application_name().is_none() {
            options = options.application_name("dormouse-sql");
        }
        options = match pooled {
            // A pooler refuses what it does not know at the start of a connection.
            true => options.extra_float_digits(None),
            false => options.options(SETTINGS),
        };
        let port = options.get_port();
        let in_directory = |directory: &std::path::Path| directory.join(format!(".s.PGSQL.{port}"));
        let place = match options.get_socket() {
            Some(directory) => Place::Unix(in_directory(directory)),
            None if options.get_host().starts_with('/') => {
                Place::Unix(in_directory(options.get_host().as_ref()))
            }
            None => Place::Tcp(options.get_host().to_owned(), port),
        };
        let shown = match &place {
            Place::Tcp(host, port) => format!("{host}:{port}"),
            Place::Unix(path) => path.display().to_string(),
        };
        let database = options.get_database().unwrap_or(options.get_username());
        Ok(Address {
            shown: format!("{shown}/{database}"),
            options,
            place,
            pooled,
        })
    }

    /// A new connection.
    ///
    /// # Errors
    /// A sentence.
    pub(super) async fn connect(&self) -> Result<Link, String> {
        let wire =
            Wire::to(self.place.clone(), self.options.get_port()).map_err(|error| error.to_string())?;
        let options = self.options.clone().socket(wire.directory());
        match tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await {
            Ok(Ok(pg)) => Ok(Link {
                pg,
                wire,
                pooled: self.pooled,
                broken: false,
            }),
            Ok(Err(error)) => Err(match (&error, wire.trouble()) {
                (sqlx::Error::Database(_) | sqlx::Error::Tls(_), _) | (_, None) => words(&error),
                (_, Some(trouble)) => trouble,
            }),
            Err(_) => Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())),
        }
    }
}

/// A connection.
pub(super) struct Link {
    pub(super) pg: PgConnection,
    pub(super) wire: Wire,
    pub(super) pooled: bool,
    /// Nobody knows in which state it is: it is not used again.
    pub(super) broken: bool,
}

impl Link {
    /// Forgets the prepared statements. Behind a pooler this must be done before the transaction ends: the next one may
    /// be on another of its connections.
    pub(super) async fn forget_statements(&mut self) -> sqlx::Result<()> {
        self.pg.clear_cached_statements().await
    }

    /// Makes the connection as new, whatever a step's functions have set, locked or created in the session.
    pub(super) async fn cleaned(mut self) -> Option<Link> {
        if self.broken {
            return None;
        }
        let clean = async {
            self.wire.allow(u64::MAX);
            if !self.pooled {
                self.forget_statements().await?;
                simple(&mut self.pg, "DISCARD ALL".to_owned()).await?;
            }
            Ok::<(), sqlx::Error>(())
        };
        match tokio::time::timeout(CLEAN_TIMEOUT, clean).await {
            Ok(Ok(())) => Some(self),
            _ => None,
        }
    }
}

/// Executes statements without values in one trip.
pub(super) async fn simple(pg: &mut PgConnection, text: String) -> sqlx::Result<()> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(text))
        .execute(pg)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_understood_or_named() {
        for (url, shown, pooled) in [
            (
                "postgres://u:secret@db.example:6432/app",
                "db.example:6432/app",
                false,
            ),
            (
                "postgresql://u@[::1]/app?pgbouncer=true&sslmode=disable",
                "[::1]:5432/app",
                true,
            ),
            (
                "postgres://u@h/app?sslmode=disable&pgbouncer=false",
                "h:5432/app",
                false,
            ),
            (
                "postgres:///app?host=/run/postgresql&user=u",
                "/run/postgresql/.s.PGSQL.5432/app",
                false,
            ),
        ] {
            let address = Address::of(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((address.shown.as_str(), address.pooled), (shown, pooled), "{url}");
        }
        for (url, why) in [
            ("mysql://u@h/app", "postgres://"),
            ("h:5432", "postgres://"),
            ("postgres://u:secret@h:port/app", "port"),
            ("postgres://u:secret@h/app?pgbouncer=perhaps", "true or false"),
            ("postgres://u:secret@h/app?sslmode=sometimes", "sometimes"),
        ] {
            let reason = Address::of(url).expect_err(url);
            assert!(reason.contains(why), "{url}: {reason}");
            assert!(!reason.contains("secret"), "{reason}");
        }
    }
}
