//! Runs that come and go for minutes on Postgres: what that does to its tables, with and without an old snapshot.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::sample;
use crate::Bench;
use crate::database::{Database, Table};
use crate::drive::{self, Ended};
use crate::report::Samples;
use crate::server::Server;

/// The tables whose rows come and go.
const TABLES: [&str; 3] = ["timers", "ready", "runs"];
/// How long a run sleeps: a timer is set and taken away for each.
const SLEEP_MS: u64 = 200;
/// Runs in one request.
const PER_REQUEST: u32 = 10;
/// How many runs are looked at, at the beginning and at the end.
const SAMPLE: usize = 300;
/// After this, at the latest, autovacuum has been around.
const VACUUMED: Duration = Duration::from_secs(20);

/// What a part of the time was like.
struct Part {
    late: Samples,
    node: f64,
    database: Option<f64>,
}

/// A steady load; its first and its last part compared.
pub(crate) async fn sustained(bench: &mut Bench) -> Result<()> {
    let server = Server::with_bench(bench, &[]).await?;
    let Some(database) = server.database() else {
        eprintln!("SQLite keeps no dead rows: --postgres");
        return Ok(());
    };
    let part = (bench.churn / 5).max(Duration::from_secs(5));
    let snapshot = bench.pin_xmin.then(|| database.snapshot());
    let first = load(bench, &server, part).await?;
    let middle = bench.churn.saturating_sub(part * 2);
    let mut failed = 0;
    if !middle.is_zero() {
        failed = load(bench, &server, middle).await?.1;
    }
    let last = load(bench, &server, part).await?;
    let full = tables(database)?;
    drop(snapshot);
    tokio::time::sleep(VACUUMED).await;
    let vacuumed = tables(database)?;

    let pinned = if bench.pin_xmin {
        ", an old snapshot open"
    } else {
        ""
    };
    let work = format!(
        "{} runs/s for {} s, each with a timer{pinned}",
        bench.churn_rate,
        bench.churn.as_secs()
    );
    bench
        .report
        .row(&work, "no slower at the end than at the beginning");
    for (when, part) in [("first", &first.0), ("last", &last.0)] {
        bench
            .report
            .number(&format!("{when} part late p50"), part.late.median(), "ms");
        bench
            .report
            .number(&format!("{when} part late p99"), part.late.quantile(0.99), "ms");
        bench
            .report
            .number(&format!("{when} part nodes' processor per run"), part.node, "ms");
        if let Some(cpu) = part.database {
            bench
                .report
                .number(&format!("{when} part Postgres' processor per run"), cpu, "ms");
        }
    }
    bench
        .report
        .number("requests failed", (first.1 + failed + last.1) as f64, "");
    for (name, (full, after)) in TABLES.iter().zip(full.iter().zip(&vacuumed)) {
        bench
            .report
            .number(&format!("dead rows of {name} at the end"), full.dead as f64, "");
        bench.report.number(
            &format!("{name} at the end"),
            full.bytes as f64 / 1_048_576.0,
            "MiB",
        );
        bench.report.number("dead after a vacuum", after.dead as f64, "");
    }
    Ok(())
}

fn tables(database: &Database) -> Result<Vec<Table>> {
    TABLES.iter().map(|name| database.table(name)).collect()
}

/// The load for a while, and how many requests failed.
async fn load(bench: &Bench, server: &Server, time: Duration) -> Result<(Part, u64)> {
    let mut ended = Ended::new(server).await?;
    let before = ended.completed().await?;
    let (node, database) = (
        server.cpu()?,
        bench.postgres.as_ref().map(|cluster| cluster.cpu()),
    );
    let body = drive::events("bench/sleeper", &json!({ "ms": SLEEP_MS }), PER_REQUEST as usize);
    let every = Duration::from_secs(1) * PER_REQUEST / bench.churn_rate;
    let began = Instant::now();
    let (answered, failed) = drive::paced(server, 16, every, time, body).await?;
    let runs = (answered.0.len() as u64 - failed) * u64::from(PER_REQUEST);
    ended.reach(before + runs).await?;
    eprintln!("{runs} runs in {:.0} s", began.elapsed().as_secs_f64());
    let per_run = |cpu: Duration| cpu.as_secs_f64() * 1e3 / runs as f64;
    let node = per_run(server.cpu()? - node);
    let database = bench
        .postgres
        .as_ref()
        .zip(database)
        .map(|(cluster, before)| per_run(cluster.cpu().saturating_sub(before)));
    let newest = sample::completed(server, "bench/sleeper", SAMPLE).await?;
    let late = sample::lateness(server, &newest).await?.0;
    Ok((Part { late, node, database }, failed))
}
