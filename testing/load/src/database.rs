//! A Postgres that nodes share: what its own statistics say.
//!
//! Asked through `psql`, so that the driver has no client of its own. Absent on purpose: processor time, which only the
//! machine of the server knows ([`dormouse_testing_postgres::Cluster::cpu`]).

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use dormouse_testing_postgres::Held;

use crate::work::sleeping;

/// The database at a URL.
pub(crate) struct Database {
    url: String,
    /// It was created for one work, by way of the database at this URL, and goes with it.
    made_by: Option<String>,
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
        Database { url, made_by: None }
    }

    /// A database of its own beside the one at a URL, empty: whatever was measured before, a work finds nothing of it.
    pub(crate) fn beside(url: &str) -> Result<Database> {
        let name = format!("dormouse_bench_{}_{}", std::process::id(), sleeping::now_millis());
        statement(url, &format!("CREATE DATABASE \"{name}\"")).context("a database for each work")?;
        Ok(Database {
            url: named(url, &name)?,
            made_by: Some(url.to_owned()),
        })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The one number that a query answers with.
    pub(crate) fn number(&self, sql: &str) -> Result<u64> {
        let text = statement(&self.url, sql)?;
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

impl Drop for Database {
    fn drop(&mut self) {
        let Some(by) = &self.made_by else { return };
        let name = self.url.rsplit('/').next().unwrap_or_default();
        let name = name.split('?').next().unwrap_or_default();
        // Nodes that were stopped a moment ago may not be gone yet.
        if let Err(error) = statement(by, &format!("DROP DATABASE \"{name}\" WITH (FORCE)")) {
            eprintln!("error: the database {name} is left behind: {error:#}");
        }
    }
}

/// Executes a statement on the database at a URL; what it prints.
fn statement(url: &str, sql: &str) -> Result<String> {
    let mut psql = Command::new("psql");
    psql.args([
        "--no-psqlrc",
        "--no-align",
        "--tuples-only",
        "--quiet",
        "-v",
        "ON_ERROR_STOP=1",
    ])
    .args(["--dbname", url, "--command", sql]);
    let output = psql.output().context("psql")?;
    ensure!(
        output.status.success(),
        "{sql}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// A URL with another database's name.
fn named(url: &str, name: &str) -> Result<String> {
    let (base, query) = url
        .split_once('?')
        .map_or((url, None), |(base, query)| (base, Some(query)));
    let (scheme, rest) = base.split_once("://").context("a URL of Postgres")?;
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{scheme}://{authority}/{name}{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gets_another_database_and_keeps_the_rest() {
        for (url, expected) in [
            (
                "postgres://u:p@h:5432/app?sslmode=disable",
                "postgres://u:p@h:5432/bench?sslmode=disable",
            ),
            ("postgres://u@h/app", "postgres://u@h/bench"),
            ("postgres://u@h", "postgres://u@h/bench"),
            (
                "postgres:///app?host=/run/postgresql",
                "postgres:///bench?host=/run/postgresql",
            ),
        ] {
            assert_eq!(named(url, "bench").expect("a URL"), expected);
        }
    }

    #[test]
    fn a_database_for_a_work_is_empty_and_goes_with_it() {
        let cluster = dormouse_testing_postgres::Cluster::shared();
        let given = cluster.database();
        let made = Database::beside(&given).expect("it is created");
        assert_ne!(made.url(), given);
        assert_eq!(
            made.number("SELECT count(*) FROM pg_stat_user_tables")
                .expect("answers"),
            0
        );
        let count = "SELECT count(*) FROM pg_database WHERE datname LIKE 'dormouse_bench_%'";
        assert_eq!(Database::at(given.clone()).number(count).expect("answers"), 1);
        drop(made);
        assert_eq!(Database::at(given).number(count).expect("answers"), 0);
    }
}
