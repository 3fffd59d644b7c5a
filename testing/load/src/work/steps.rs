//! Runs that only take steps.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use dormouse_testing_postgres::Cluster;
use http::Method;
use serde_json::json;

use super::{ceiling, sample};
use crate::Bench;
use crate::drive::{self, Closed, Ended, Until};
use crate::report::Samples;
use crate::server::Server;

/// How many runs one client starts, one after the other.
const ONE_BY_ONE: usize = 200;
/// How many runs are looked at afterwards.
const SAMPLE: usize = 1_000;

/// A closed loop of runs with one trivial step.
pub(crate) fn one_step(bench: &Bench) -> Closed {
    Closed {
        clients: 256,
        window: 256,
        per_request: 1,
        body: drive::events("bench/one", &json!({}), 1),
        until: Until::Elapsed(Duration::from_secs_f64(bench.seconds)),
    }
}

/// W1 with 256 clients.
pub(crate) async fn many_clients(bench: &mut Bench) -> Result<()> {
    let server = Server::with_bench(bench, &[]).await?;
    warm(&server, bench).await?;
    let looking = looking(&server).await?;
    let (mut cpu, mut rate, mut share) = (Samples::default(), Samples::default(), Samples::default());
    let (mut answered, mut whole, mut database) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..bench.rounds {
        let before = bench.postgres.as_ref().map(Cluster::cpu);
        let outcome = drive::closed(&server, one_step(bench)).await?;
        if let Some((cluster, before)) = bench.postgres.as_ref().zip(before) {
            let cpu = cluster.cpu().saturating_sub(before);
            database.0.push(cpu.as_secs_f64() * 1e3 / outcome.runs as f64);
        }
        cpu.0.push(outcome.cpu_per_run());
        rate.0.push(outcome.rate());
        let looks = outcome.elapsed.as_secs_f64() / drive::LOOK_EVERY.as_secs_f64();
        share.0.push(looks * looking / outcome.runs as f64);
        answered.0.extend(outcome.answered.0);
        whole
            .0
            .extend(sample::durations(&sample::completed(&server, "bench/one", SAMPLE).await?)?.0);
    }
    bench.report.row(
        "W1 one trivial step, 256 clients",
        "≤ 0.14 ms of processor per run; ≥ 12,000 runs/s, five times what the design has of Restate",
    );
    bench.report.rounds("processor per run", &cpu, "ms");
    bench.report.rounds("of which for being watched", &share, "ms");
    if !database.0.is_empty() {
        bench
            .report
            .rounds("Postgres' processor per run", &database, "ms");
    }
    bench.report.rounds("rate", &rate, "runs/s");
    bench.report.number("answered p50", answered.median(), "ms");
    bench.report.number("answered p99", answered.quantile(0.99), "ms");
    bench.report.number("queued to ended p50", whole.median(), "ms");
    bench
        .report
        .number("queued to ended p99", whole.quantile(0.99), "ms");
    bench.report.number("resident", server.resident()?, "MiB");
    Ok(())
}

/// The first runs fill caches and compile nothing that counts.
pub(crate) async fn warm(server: &Server, bench: &Bench) -> Result<()> {
    drive::closed(
        server,
        Closed {
            until: Until::Runs(1_000),
            ..one_step(bench)
        },
    )
    .await
    .map(drop)
}

/// What one look at the server's counter costs the server, in milliseconds of processor.
async fn looking(server: &Server) -> Result<f64> {
    const LOOKS: u32 = 400;
    let mut ended = Ended::new(server).await?;
    let before = server.cpu()?;
    for _ in 0..LOOKS {
        ended.completed().await?;
    }
    Ok((server.cpu()? - before).as_secs_f64() * 1e3 / f64::from(LOOKS))
}

/// W1 with one client that waits for each run's end.
pub(crate) async fn one_client(bench: &mut Bench) -> Result<()> {
    let server = Server::with_bench(bench, &[]).await?;
    warm(&server, bench).await?;
    let sync = ceiling::fdatasync(&bench.dir, Duration::from_secs_f64(bench.seconds / 2.0))?;
    let (times, accepted) = one_by_one(&server).await?;
    bench
        .report
        .row("W1, 1 client, submitted to completed", "p50 ≤ 2 × fsync + 1 ms");
    bench.report.number("fsync p50", sync.median(), "ms");
    bench
        .report
        .number("so the budget", sync.median() * 2.0 + 1.0, "ms");
    bench.report.number("p50", times.median(), "ms");
    bench.report.number("p99", times.quantile(0.99), "ms");
    bench
        .report
        .number("of it until accepted p50", accepted.median(), "ms");
    bench.report.number("resident", server.resident()?, "MiB");
    Ok(())
}

/// How long runs took, one after the other, from the request that starts one to the answer that it has ended; and how
/// much of it went by until the run was accepted. Milliseconds.
pub(crate) async fn one_by_one(server: &Server) -> Result<(Samples, Samples)> {
    let mut client = server.client().await?;
    let (mut times, mut accepted) = (Samples::default(), Samples::default());
    for _ in 0..ONE_BY_ONE {
        let began = Instant::now();
        let run = client.invoke("bench/one", "{}".to_owned()).await?;
        accepted.0.push(began.elapsed().as_secs_f64() * 1e3);
        client
            .send(Method::GET, &format!("/v1/runs/{run}?wait=30s"), Bytes::new())
            .await?;
        times.0.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok((times, accepted))
}

/// W2: ten steps, 64 clients.
pub(crate) async fn ten_steps(bench: &mut Bench) -> Result<()> {
    let server = Server::with_bench(bench, &[]).await?;
    let load = Closed {
        clients: 64,
        window: 64,
        body: drive::events("bench/ten", &json!({}), 1),
        ..one_step(bench)
    };
    drive::closed(
        &server,
        Closed {
            until: Until::Runs(500),
            ..load.clone()
        },
    )
    .await?;
    let (mut rate, mut ceiling, mut share) = (Samples::default(), Samples::default(), Samples::default());
    let (mut cpu, mut whole) = (Samples::default(), Samples::default());
    for round in 0..bench.rounds {
        let path = bench.dir.join(format!("beside-{round}.db"));
        let rows = ceiling::inserts(&path, 64, Duration::from_secs_f64(bench.seconds / 2.0))?;
        let outcome = drive::closed(&server, load.clone()).await?;
        rate.0.push(outcome.rate() * 10.0);
        ceiling.0.push(rows);
        share.0.push(outcome.rate() * 1_000.0 / rows);
        cpu.0.push(outcome.cpu_per_run() / 10.0);
        whole
            .0
            .extend(sample::durations(&sample::completed(&server, "bench/ten", SAMPLE).await?)?.0);
    }
    bench.report.row(
        "W2 ten steps, 64 clients",
        "≥ 50 % of the inserts per second that SQLite alone does; ≥ 21,000 steps/s, five times what the design has of Restate",
    );
    bench.report.rounds("rate", &rate, "steps/s");
    bench.report.rounds("SQLite alone", &ceiling, "rows/s");
    bench.report.rounds("share", &share, "%");
    bench.report.rounds("processor per step", &cpu, "ms");
    bench.report.number("queued to ended p50", whole.median(), "ms");
    bench
        .report
        .number("queued to ended p99", whole.quantile(0.99), "ms");
    bench.report.number("resident", server.resident()?, "MiB");
    Ok(())
}
