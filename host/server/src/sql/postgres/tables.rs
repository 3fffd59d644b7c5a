//! The host's own tables in an application database: in the schema that the role creates tables in (`current_schema()`,
//! mostly `public`), named in full ever after, whatever a step does to the search path.

use dormouse_core::{RunId, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Row as _, ValueRef as _};

use super::Job;
use super::connect::{Link, simple};
use super::fault::{Fault, code, own, words};

/// One node at a time creates tables or applies a migration; the same number for every database, which has its own.
pub(super) const LOCK: i64 = 0x646f_726d_6f75_7302;

pub(super) const OPERATIONS: (&str, &str) = (
    "_dormouse_operations",
    "run uuid NOT NULL, operation bigint NOT NULL, performed_at timestamptz NOT NULL DEFAULT clock_timestamp(), \
     answer text NOT NULL, PRIMARY KEY (run, operation)",
);
pub(super) const MIGRATIONS: (&str, &str) = (
    "_dormouse_migrations",
    "name text NOT NULL PRIMARY KEY, checksum text NOT NULL, \
     applied_at timestamptz NOT NULL DEFAULT clock_timestamp()",
);

/// The schema of the host's tables, quoted; [`OPERATIONS`] is there afterwards.
pub(super) async fn prepare(link: &mut Link) -> Result<String, Fault> {
    let schema = schema(link).await?;
    create(link, &schema, OPERATIONS).await?;
    Ok(schema)
}

async fn schema(link: &mut Link) -> Result<String, Fault> {
    let text = "SELECT pg_catalog.quote_ident(pg_catalog.current_schema()), current_user";
    let row = row(&mut link.pg, text.to_owned()).await.map_err(own)?;
    match row.as_ref().and_then(|row| cell(row, 0)) {
        Some(schema) => Ok(schema),
        None => {
            let role = row.and_then(|row| cell(&row, 1)).unwrap_or_default();
            Err(Fault::Lost(format!(
                "no schema of role {role}'s search_path exists: ALTER ROLE {role} SET search_path = …"
            )))
        }
    }
}

/// Creates a table unless it is there. Without writing when it is, so that a role that may not create tables can use
/// one that was made for it.
pub(super) async fn create(
    link: &mut Link,
    schema: &str,
    (name, columns): (&str, &str),
) -> Result<(), Fault> {
    let text = format!(
        "SELECT pg_catalog.to_regclass('{}.{name}') IS NOT NULL",
        schema.replace('\'', "''")
    );
    let there = row(&mut link.pg, text).await.map_err(own)?;
    if there.and_then(|row| cell(&row, 0)).as_deref() == Some("t") {
        return Ok(());
    }
    let text = format!(
        "BEGIN READ WRITE; SELECT pg_catalog.pg_advisory_xact_lock({LOCK}); \
         CREATE TABLE IF NOT EXISTS {schema}.{name} ({columns}); COMMIT"
    );
    simple(&mut link.pg, text).await.map_err(|error| {
        if code(&error).as_deref() != Some("42501") {
            return own(error);
        }
        Fault::Lost(format!(
            "the host's table {name} cannot be created in schema {schema}: {}. Either GRANT CREATE ON SCHEMA {schema} \
             to the role of the URL, or let an administrator create it: CREATE TABLE {schema}.{name} ({columns}), and \
             GRANT SELECT, INSERT, UPDATE, DELETE on it",
            words(&error)
        ))
    })
}

/// Asks for up to `limit` runs behind `after` that have rows from before `before`, in order of their ids.
pub(super) struct OldRuns {
    pub(super) after: Option<RunId>,
    pub(super) before: Timestamp,
    pub(super) limit: u32,
}

impl Job for OldRuns {
    type Done = Vec<RunId>;

    async fn run(&self, link: &mut Link, schema: &str) -> Result<Vec<RunId>, Fault> {
        // A run's id begins with its time, so that what is newer is not looked at.
        let text = format!(
            "SELECT DISTINCT run FROM {schema}.{} WHERE run > '{}' AND run < '{}' AND performed_at < {} \
             ORDER BY run LIMIT {}",
            OPERATIONS.0,
            uuid(self.after.unwrap_or(RunId::from_bytes([0; 16]))),
            uuid(RunId::from_parts(self.before, [0; 10])),
            time(self.before),
            self.limit,
        );
        let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(text))
            .fetch_all(&mut link.pg)
            .await
            .map_err(own)?;
        let run = |row: &PgRow| {
            let text = cell(row, 0)?.replace('-', "");
            let number = u128::from_str_radix(&text, 16).ok()?;
            Some(RunId::from_bytes(number.to_be_bytes()))
        };
        rows.iter()
            .map(|row| run(row).ok_or_else(|| Fault::Lost(format!("{} holds what is no run", OPERATIONS.0))))
            .collect()
    }
}

/// Deletes the rows of runs that are from before `before`.
pub(super) struct Forget {
    pub(super) runs: Vec<RunId>,
    pub(super) before: Timestamp,
}

impl Job for Forget {
    type Done = ();

    async fn run(&self, link: &mut Link, schema: &str) -> Result<(), Fault> {
        let runs: Vec<String> = self.runs.iter().map(|run| format!("'{}'", uuid(*run))).collect();
        let text = format!(
            "DELETE FROM {schema}.{} WHERE run = ANY (ARRAY[{}]::uuid[]) AND performed_at < {}",
            OPERATIONS.0,
            runs.join(", "),
            time(self.before),
        );
        simple(&mut link.pg, text).await.map_err(own)
    }
}

fn time(time: Timestamp) -> String {
    format!("pg_catalog.to_timestamp({}::float8 / 1000)", time.as_millis())
}

/// Sixteen bytes as a literal has them.
pub(super) fn uuid(run: RunId) -> String {
    format!("{:032x}", u128::from_be_bytes(run.to_bytes()))
}

/// The first row that statements without values answer with.
pub(super) async fn row(pg: &mut PgConnection, text: String) -> sqlx::Result<Option<PgRow>> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).fetch_optional(pg).await
}

/// A cell in the text format, in which statements without values answer.
pub(super) fn cell(row: &PgRow, index: usize) -> Option<String> {
    let value = row.try_get_raw(index).ok()?;
    match value.is_null() {
        true => None,
        false => value.as_str().ok().map(str::to_owned),
    }
}
