//! From a database URL to connections, and the schema.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};

use super::fault::{Attempt, Fault};
use super::sql::{Cells, Conn};
use super::wire::Wire;
use crate::error::{Error, Result};

/// The parameter of the URL that says that a pooler in transaction mode is in between. It is ours: sqlx is not shown it.
const POOLER: &str = "pgbouncer";
/// What to do when a pooler in transaction mode is in between and the URL does not say so.
pub(super) const SAY_POOLER: &str =
    "is there a pooler in transaction mode? Then add pgbouncer=true to the database URL";
/// Connecting, with TLS and password, takes no longer than this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// The oldest Postgres that has what is used.
const VERSION_MIN: i64 = 130_000;
/// A migration waits so long for a table that others use: whoever comes after it waits, too.
const MIGRATION_LOCK_TIMEOUT: &str = "5s";
/// One migration at a time, however many nodes start at once.
const MIGRATION_LOCK: i64 = 0x646f_726d_6f75_7301;

/// A change of the schema: its number, its name, its statements.
pub type Migration = (i64, &'static str, &'static str);

/// Schema changes, oldest first. The text is part of the binary; once released, it is never edited.
const MIGRATIONS: [Migration; 14] = [
    (
        1,
        "initial",
        include_str!("../../../../migrations/postgres/0001_initial.sql"),
    ),
    (
        2,
        "flow",
        include_str!("../../../../migrations/postgres/0002_flow.sql"),
    ),
    (
        3,
        "pausing",
        include_str!("../../../../migrations/postgres/0003_pausing.sql"),
    ),
    (
        4,
        "reruns",
        include_str!("../../../../migrations/postgres/0004_reruns.sql"),
    ),
    (
        5,
        "cancellations",
        include_str!("../../../../migrations/postgres/0005_cancellations.sql"),
    ),
    (
        6,
        "invoke",
        include_str!("../../../../migrations/postgres/0006_invoke.sql"),
    ),
    (
        7,
        "schedules",
        include_str!("../../../../migrations/postgres/0007_schedules.sql"),
    ),
    (
        8,
        "throttle",
        include_str!("../../../../migrations/postgres/0008_throttle.sql"),
    ),
    (
        9,
        "ends",
        include_str!("../../../../migrations/postgres/0009_ends.sql"),
    ),
    (
        10,
        "endings",
        include_str!("../../../../migrations/postgres/0010_endings.sql"),
    ),
    (
        11,
        "concurrency",
        include_str!("../../../../migrations/postgres/0011_concurrency.sql"),
    ),
    (
        12,
        "batches",
        include_str!("../../../../migrations/postgres/0012_batches.sql"),
    ),
    (
        13,
        "swaps",
        include_str!("../../../../migrations/postgres/0013_swaps.sql"),
    ),
    (
        14,
        "asked",
        include_str!("../../../../migrations/postgres/0014_asked.sql"),
    ),
];

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Transactions of the writer. Everything it reads is found by an index, so plans that read whole tables, which
    /// would be made while a table is small and kept while it grows, are ruled out.
    Write,
    /// Single statements.
    Read,
}

impl Purpose {
    /// Settings of a connection, by name.
    pub(super) fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Purpose::Write => &[
                ("statement_timeout", "30s"),
                ("lock_timeout", "5s"),
                // As long as a lease: what the transaction of a node that was cut off has locked is free when others take
                // its runs over. The server itself would notice the cut much later.
                ("idle_in_transaction_session_timeout", "10s"),
                ("enable_seqscan", "off"),
                ("enable_hashjoin", "off"),
                ("enable_mergejoin", "off"),
                ("plan_cache_mode", "force_generic_plan"),
                ("jit", "off"),
            ],
            Purpose::Read => &[("statement_timeout", "20s"), ("jit", "off")],
        }
    }
}

/// How to reach one database.
pub(super) struct Address {
    options: PgConnectOptions,
    wire: Option<Wire>,
    /// Whether a pooler in transaction mode is in between: no session state, no prepared statements, no LISTEN.
    pub(super) pooled: bool,
    /// Host, port and database, for people.
    pub(super) shown: String,
}

impl Address {
    /// Understands a URL. Must be called in a tokio runtime.
    pub(super) fn of(url: &str) -> Result<Address> {
        let bad = |why: String| Error::BadUrl(why);
        let scheme = url.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("postgres" | "postgresql")) {
            return Err(bad(
                "it must begin with postgres://, as in postgres://user:password@host:5432/database"
                    .to_owned(),
            ));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut pooled = false;
        let mut left = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').unwrap_or((parameter, "true")) {
                (POOLER, "true") => pooled = true,
                (POOLER, "false") => {}
                (POOLER, other) => {
                    return Err(bad(format!("{POOLER}={other}: it is either true or false")));
                }
                _ => left.push(parameter),
            }
        }
        let url = match left.is_empty() {
            true => base.to_owned(),
            false => format!("{base}?{}", left.join("&")),
        };
        let options = PgConnectOptions::from_str(&url).map_err(|error| {
            let text = match error {
                // Its own words would say that the configuration is wrong; whose, is known here.
                sqlx::Error::Configuration(error) => error.to_string(),
                other => other.to_string(),
            };
            bad(text)
        })?;
        let mut options = options.disable_statement_logging();
        if options.get_application_name().is_none() {
            options = options.application_name("dormouse");
        }
        if pooled {
            // A pooler refuses what it does not know at the start of a connection.
            options = options.extra_float_digits(None).statement_cache_capacity(0);
        }
        let direct = options.get_socket().is_some() || options.get_host().starts_with('/');
        let place = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let database = options.get_database().unwrap_or(options.get_username());
        let shown = format!("{place}/{database}");
        let wire = match direct {
            true => None,
            false => {
                let wire = Wire::to(options.get_host(), options.get_port());
                Some(wire.map_err(|error| Error::Unavailable(format!("{shown}: {error}")))?)
            }
        };
        if let Some(wire) = &wire {
            options = options.socket(wire.directory());
        }
        Ok(Address {
            options,
            wire,
            pooled,
            shown,
        })
    }

    fn options(&self, purpose: Purpose) -> PgConnectOptions {
        match self.pooled {
            true => self.options.clone(),
            false => self.options.clone().options(purpose.settings().iter().copied()),
        }
    }

    /// What begins a transaction.
    pub(super) fn begin(&self, purpose: Purpose) -> String {
        // Whatever the role's defaults are: fence and takeover are written for this level.
        let mut text = match purpose {
            Purpose::Write => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE".to_owned(),
            // A standby refuses it, and may not be asked: what it knows may be old.
            Purpose::Read => "BEGIN READ WRITE".to_owned(),
        };
        if self.pooled {
            for (name, value) in purpose.settings() {
                text += &format!("; SET LOCAL {name} = '{value}'");
            }
        }
        text
    }

    /// A new connection, to a server that takes writes.
    pub(super) async fn connect(&self, purpose: Purpose) -> Attempt<Conn> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.try_connect(purpose)).await;
        connected.unwrap_or_else(|_| {
            let seconds = CONNECT_TIMEOUT.as_secs();
            Err(Fault::Lost(format!(
                "{}: no answer within {seconds} s",
                self.shown
            )))
        })
    }

    async fn try_connect(&self, purpose: Purpose) -> Attempt<Conn> {
        let connected = self.options(purpose).connect().await;
        let pg: PgConnection = connected.map_err(|error| self.in_words(error))?;
        let mut conn = Conn {
            pg,
            prepare: !self.pooled,
            wrote: false,
        };
        // A standby refuses this, and is not kept, also for reads: what it knows may be old, and a node that goes by it does
        // again what is done. In one trip, which a pooler gives to one server.
        match conn.simple("BEGIN READ WRITE; ROLLBACK").await {
            Ok(()) => {}
            Err(Fault::Lost(why)) => return Err(Fault::Lost(format!("{}: {why}", self.shown))),
            Err(fault) => return Err(fault),
        }
        Ok(conn)
    }

    /// A pool of one connection, for the listener: sqlx has it no other way.
    pub(super) fn pool_of_one(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_lazy_with(self.options(Purpose::Read))
    }

    /// An error while connecting: what happened, and where.
    fn in_words(&self, error: sqlx::Error) -> Fault {
        let text = match &error {
            // A pooler that is asked for settings of the session.
            sqlx::Error::Database(database) if database.message().contains("startup parameter") => {
                format!("{}: {SAY_POOLER}", database.message())
            }
            sqlx::Error::Database(database) => database.message().to_owned(),
            sqlx::Error::Tls(error) => format!("TLS: {error}"),
            other => match self.wire.as_ref().and_then(Wire::trouble) {
                Some(trouble) => trouble,
                None => other.to_string(),
            },
        };
        Fault::Lost(format!("{}: {text}", self.shown))
    }
}

/// Brings the schema up to date: with this release's changes, and `later` ones. Several nodes may do so at once.
pub(super) async fn migrate(conn: &mut Conn, later: &[Migration]) -> Attempt<()> {
    let migrations = || MIGRATIONS.iter().chain(later);
    let known = migrations().map(|(version, ..)| *version).max().unwrap_or(0);
    let text = "SELECT current_setting('server_version_num')::int8, current_setting('server_version'), \
         current_setting('synchronous_commit'), current_setting('server_encoding')";
    // An index on a large table takes longer than a statement of the writer's ever should.
    conn.simple("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = 0")
        .await?;
    let rows = conn.fetch(text, |_| {}).await?;
    if let Some(row) = rows.first() {
        let mut cells = Cells::of(row);
        let (number, version) = (cells.int()?, cells.text()?);
        if number < VERSION_MIN {
            return Err(
                Error::Unavailable(format!("Postgres {version} is too old: 13 or newer is needed")).into(),
            );
        }
        if cells.text()? == "off" {
            tracing::warn!(
                "the database is set to synchronous_commit = off: what was answered may be lost when its server crashes"
            );
        }
        let encoding = cells.text()?;
        if encoding != "UTF8" {
            return Err(Error::Unavailable(format!(
                "the database's encoding is {encoding}, it must be UTF8: create it with ENCODING 'UTF8'"
            ))
            .into());
        }
    }
    // Without writing, so that a role that may not create tables can start on a schema that is there.
    let mut found = found_version(conn).await?;
    if found < known {
        wait_for_turn(conn).await?;
        conn.simple(
            "CREATE TABLE IF NOT EXISTS dormouse_migrations \
             (version bigint NOT NULL PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL)",
        )
        .await?;
        // Another node may have been faster.
        found = found_version(conn).await?;
        for (version, name, text) in migrations().filter(|(version, ..)| *version > found) {
            conn.simple(*text).await?;
            conn.execute(
                "INSERT INTO dormouse_migrations (version, name, applied_at) VALUES ($1, $2, clock_timestamp())",
                |args| {
                    args.int(*version).text(name);
                },
            )
            .await?;
            tracing::info!(version, name, "the schema was brought forward");
        }
    }
    if found > known {
        return Err(Error::NewerSchema { found, known }.into());
    }
    conn.simple("COMMIT").await
}

/// Waits, however long it takes, until no other node brings the schema forward.
async fn wait_for_turn(conn: &mut Conn) -> Attempt<()> {
    let rows = conn
        .fetch("SELECT pg_try_advisory_xact_lock($1)", |args| {
            args.int(MIGRATION_LOCK);
        })
        .await?;
    if !rows.first().map_or(Ok(false), |row| Cells::of(row).flag())? {
        tracing::info!("another node brings the schema forward: waiting for it");
        conn.simple(format!(
            "SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
        ))
        .await?;
    }
    conn.simple(format!("SET LOCAL lock_timeout = '{MIGRATION_LOCK_TIMEOUT}'"))
        .await
}

async fn found_version(conn: &mut Conn) -> Attempt<i64> {
    let rows = conn
        .fetch("SELECT to_regclass('dormouse_migrations') IS NOT NULL", |_| {})
        .await?;
    let there = rows.first().map_or(Ok(false), |row| Cells::of(row).flag())?;
    if !there {
        return Ok(0);
    }
    let rows = conn
        .fetch(
            "SELECT coalesce(max(version), 0) FROM dormouse_migrations",
            |_| {},
        )
        .await?;
    Ok(rows.first().map_or(Ok(0), |row| Cells::of(row).int())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urls_are_understood_or_named() {
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
                "/run/postgresql/app",
                false,
            ),
        ] {
            let address = Address::of(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((address.shown.as_str(), address.pooled), (shown, pooled), "{url}");
            assert!(!address.shown.contains("secret"));
        }
        for (url, why) in [
            ("mysql://u@h/app", "postgres://"),
            ("h:5432", "postgres://"),
            ("postgres://u@h:port/app", "port"),
            ("postgres://u@h/app?pgbouncer=perhaps", "true or false"),
            ("postgres://u@h/app?sslmode=sometimes", "sometimes"),
        ] {
            let Err(Error::BadUrl(message)) = Address::of(url) else {
                panic!("{url} was understood")
            };
            assert!(message.contains(why), "{url}: {message}");
        }
    }
}
