//! A Postgres that nodes share: what its own statistics say.
//!
//! Asked through `psql`, so that the driver has no client of its own. Absent on purpose: processor time, which only the
//! machine of the server knows ([`dormouse_testing_postgres::Cluster::cpu`]).

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use dormouse_testing_postgres::Held;

/// The database at a URL.
pub(crate) struct Database {
    url: String,
}

/// What a table has come to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    /// Rows that are dead and not yet removed, by the statistics.
    pub(crate) dead: u64,
    /// With its indexes and what is stored beside it, in bytes.
    pub(crate) bytes: u64,
}

impl Database {
    pub(crate) fn at(url: String) -> Database {
        Database { url }
    }

    fn psql(&self) -> Command {
        let mut psql = Command::new("psql");
        psql.args([
            "--no-psqlrc",
            "--no-align",
            "--tuples-only",
            "--quiet",
            "-v",
            "ON_ERROR_STOP=1",
        ])
        .args(["--dbname", &self.url]);
        psql
    }

    /// The one number that a query answers with.
    pub(crate) fn number(&self, sql: &str) -> Result<u64> {
        let output = self.psql().args(["--command", sql]).output().context("psql")?;
        ensure!(
            output.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout)?;
        text.trim().parse().with_context(|| format!("{sql}: {text}"))
    }

    /// Transactions so far: a single statement is one. Those of autovacuum, and the one that asks, are among them.
    pub(crate) fn transactions(&self) -> Result<u64> {
        self.number(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()",
        )
    }

    /// Connections, without the one that asks.
    pub(crate) fn connections(&self) -> Result<u64> {
        self.number(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )
    }

    /// How a table stands.
    pub(crate) fn table(&self, name: &str) -> Result<Table> {
        Ok(Table {
            dead: self.number(&format!(
                "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = '{name}'"
            ))?,
            bytes: self.number(&format!("SELECT pg_total_relation_size('{name}')"))?,
        })
    }

    /// Opens a snapshot and keeps it: no row that is deleted from now on can be removed before it is dropped.
    pub(crate) fn snapshot(&self) -> Held {
        Held::at(&self.url, "SELECT 1")
    }
}
