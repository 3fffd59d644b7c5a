//! Coming back to a run with a long journal, with no instance in memory.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::sample;
use crate::Bench;
use crate::client::Client;
use crate::report::Samples;
use crate::server::Server;

/// Journals to come back to, and how many runs of each. One step is what waking costs without a journal. A run may
/// take 10,000 steps, and the sleep is one.
const LONG: [(u32, usize); 3] = [(1, 60), (1_000, 60), (9_999, 20)];
/// How long one run may take to come to its sleep or to its end.
const PATIENCE: Duration = Duration::from_secs(120);

/// What waking costs, one run after the other.
struct Woken {
    /// Milliseconds from the request to wake to the run's end, which is durable.
    elapsed: Samples,
    /// The server's processor time per run, in milliseconds.
    cpu: f64,
}

/// W4.
pub(crate) async fn cold(bench: &mut Bench) -> Result<()> {
    let server = Server::with_bench(bench, &["--park-idle", "0"]).await?;
    let mut client = server.client().await?;
    let base = woken(&server, &mut client, LONG[0].0, LONG[0].1).await?;
    for ((steps, runs), budget) in LONG.into_iter().skip(1).zip(["≤ 3 ms", "≤ 25 ms"]) {
        let woken = woken(&server, &mut client, steps, runs).await?;
        bench
            .report
            .row(&format!("W4 resume a run of {steps} steps, cold"), budget);
        bench
            .report
            .number("more processor than with one step", woken.cpu - base.cpu, "ms");
        bench.report.number(
            "later than with one step",
            woken.elapsed.median() - base.elapsed.median(),
            "ms",
        );
        bench
            .report
            .number("wake to end p50", woken.elapsed.median(), "ms");
        bench.report.number("p99", woken.elapsed.quantile(0.99), "ms");
    }
    Ok(())
}

async fn woken(server: &Server, client: &mut Client, steps: u32, runs: usize) -> Result<Woken> {
    let mut ids = Vec::new();
    for _ in 0..runs {
        let run = client
            .invoke(
                "bench/resumed",
                json!({ "n": steps, "ms": 86_400_000 }).to_string(),
            )
            .await?;
        ids.push(run);
    }
    // All of them sleep, none is parked, and nothing else happens.
    quiet(client, "queued").await?;
    quiet(client, "executing").await?;
    let cpu = server.cpu()?;
    let mut asked = Vec::new();
    for run in &ids {
        asked.push(jiff::Timestamp::now().as_microsecond() as f64 / 1e3);
        client
            .send(Method::POST, &format!("/v1/runs/{run}/wake"), Bytes::new())
            .await?;
        // Nothing sleeps but the runs still to be woken, so the list says when this one is over without reading it.
        quiet(client, "queued").await?;
        quiet(client, "executing").await?;
    }
    let cpu = (server.cpu()? - cpu).as_secs_f64() * 1e3 / runs as f64;
    let mut elapsed = Samples::default();
    for (run, asked) in ids.iter().zip(asked) {
        let view = client.data(&format!("/v1/runs/{run}?wait=30s")).await?;
        // The end is cut to milliseconds: half of one is what that takes away on average.
        elapsed.0.push(sample::millis(&view["ended_at"])? + 0.5 - asked);
    }
    Ok(Woken { elapsed, cpu })
}

/// Waits until no run is in a phase.
async fn quiet(client: &mut Client, phase: &str) -> Result<()> {
    let began = Instant::now();
    while client.data(&format!("/v1/runs?phase={phase}&limit=1")).await? != Value::Array(Vec::new()) {
        if began.elapsed() > PATIENCE {
            bail!("a run never stops being {phase}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
