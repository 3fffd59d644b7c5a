//! The same work with very many finished runs stored.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::{ingest, steps};
use crate::Bench;
use crate::drive::{self, Closed, Until};
use crate::report::Samples;
use crate::server::Server;

/// W1, one client and ingest, before and after.
#[derive(Default)]
struct Figures {
    rate: Samples,
    cpu: Samples,
    one: Samples,
    ingest: Samples,
}

/// Measures on a nearly empty store, fills it, and measures again.
pub(crate) async fn finished(bench: &mut Bench) -> Result<()> {
    let server = Server::with_bench(bench, &[]).await?;
    steps::warm(&server, bench).await?;
    let empty = figures(&server, bench).await?;
    let filled = fill(&server, bench.finished).await?;
    let full = figures(&server, bench).await?;
    bench.report.row(
        &format!("the same with {filled} finished runs stored"),
        "within 10 % of the empty store",
    );
    let mut both = |metric: &str, unit: &str, (empty, full): (&Samples, &Samples)| {
        bench
            .report
            .number(&format!("{metric}, empty"), empty.median(), unit);
        bench
            .report
            .number(&format!("{metric}, full"), full.median(), unit);
        bench
            .report
            .number("so", (full.median() / empty.median() - 1.0) * 100.0, "%");
    };
    both("W1 rate", "runs/s", (&empty.rate, &full.rate));
    both("W1 processor per run", "ms", (&empty.cpu, &full.cpu));
    both("W1 1 client p50", "ms", (&empty.one, &full.one));
    both("ingest", "events/s", (&empty.ingest, &full.ingest));
    Ok(())
}

/// Stores finished runs; how many there are.
async fn fill(server: &Server, runs: u64) -> Result<u64> {
    // In arrays, which costs less: how they came to be stored makes no difference.
    let fill = Closed {
        clients: 8,
        window: 2_000,
        per_request: 100,
        body: drive::events("bench/one", &serde_json::json!({}), 100),
        until: Until::Runs(runs),
    };
    Ok(drive::closed(server, fill).await?.runs)
}

/// A data directory with so many finished runs, for servers to begin with a copy of it.
pub(crate) async fn template(bench: &Bench, runs: u64) -> Result<PathBuf> {
    eprintln!("# a store with {runs} finished runs");
    let mut server = Server::with_bench(bench, &[]).await?;
    fill(&server, runs).await?;
    server.stop().await?;
    let template = bench.dir.join("template");
    std::fs::rename(server.data_dir(), &template)?;
    Ok(template)
}

async fn figures(server: &Server, bench: &Bench) -> Result<Figures> {
    let mut figures = Figures::default();
    for _ in 0..bench.rounds {
        let outcome = drive::closed(server, steps::one_step(bench)).await?;
        figures.rate.0.push(outcome.rate());
        figures.cpu.0.push(outcome.cpu_per_run());
        figures.one.0.extend(steps::one_by_one(server).await?.0.0);
        figures
            .ingest
            .0
            .push(ingest::rate(server, Duration::from_secs_f64(bench.seconds / 4.0)).await?);
    }
    Ok(figures)
}
