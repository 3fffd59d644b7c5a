//! Coming back to a run with a long journal, with no instance in memory.
//!
//! Many runs take their steps at the same time, as they do in life, so their entries lie between each other's on disk.
//! Then each sleeps until a moment of its own, and what happens from there to its end is all that happens.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use super::sample;
use super::sleeping::{all_asleep, now_millis};
use crate::Bench;
use crate::client::Client;
use crate::drive::Ended;
use crate::report::Samples;
use crate::server::Server;

/// A kind of journal to come back to.
struct Kind {
    steps: u32,
    runs: usize,
    /// Between one run's moment and the next's: so long that they do not meet.
    apart: Duration,
}

/// What coming back costs without a journal.
const SHORT: Kind = Kind {
    steps: 1,
    runs: 40,
    apart: Duration::from_millis(100),
};
/// Journals as the budget has them. A run may take 10,000 steps, and the sleep is one.
const LONG: [(Kind, &str); 2] = [
    (
        Kind {
            steps: 1_000,
            runs: 40,
            apart: Duration::from_millis(100),
        },
        "≤ 3 ms",
    ),
    (
        Kind {
            steps: 9_999,
            runs: 10,
            apart: Duration::from_millis(500),
        },
        "≤ 25 ms",
    ),
];
/// Steps per second at which runs come to their sleeps at first; each try gives them twice the time.
const STEPS_PER_SECOND: u64 = 3_000;
/// How often it is tried to have all of them asleep in time.
const TRIES: u32 = 4;

/// What coming back costs, per run.
struct Woken {
    /// Milliseconds from the moment to the run's durable end.
    elapsed: Samples,
    /// The server's processor time in milliseconds.
    cpu: f64,
}

/// W4.
pub(crate) async fn cold(bench: &mut Bench) -> Result<()> {
    let server = Server::with_bench(bench, &["--park-idle", "0"]).await?;
    let short = woken(&server, &SHORT).await?;
    for (kind, budget) in LONG {
        let long = woken(&server, &kind).await?;
        bench
            .report
            .row(&format!("W4 resume a run of {} steps, cold", kind.steps), budget);
        bench
            .report
            .number("more processor than with one step", long.cpu - short.cpu, "ms");
        bench.report.number(
            "later than with one step",
            long.elapsed.median() - short.elapsed.median(),
            "ms",
        );
        bench.report.number("due to end p50", long.elapsed.median(), "ms");
        bench.report.number("p99", long.elapsed.quantile(0.99), "ms");
        bench.report.number("resident", server.resident()?, "MiB");
    }
    Ok(())
}

async fn woken(server: &Server, kind: &Kind) -> Result<Woken> {
    let mut client = server.client().await?;
    let mut ended = Ended::new(server).await?;
    let apart = kind.apart.as_millis() as u64;
    for doubled in 0..TRIES {
        let before = ended.completed().await?;
        let patience =
            (3_000 + kind.runs as u64 * u64::from(kind.steps) * 1_000 / STEPS_PER_SECOND) << doubled;
        let first = now_millis() + patience;
        let moments: Vec<u64> = (0..kind.runs as u64)
            .map(|number| first + number * apart)
            .collect();
        let mut ids = Vec::new();
        for at in &moments {
            ids.push(
                client
                    .invoke("bench/resumed", json!({ "n": kind.steps, "at": at }).to_string())
                    .await?,
            );
        }
        let asleep = all_asleep(&mut client, Duration::from_millis(patience)).await?;
        tokio::time::sleep(Duration::from_millis(
            first.saturating_sub(now_millis()).saturating_sub(50),
        ))
        .await;
        let cpu = server.cpu()?;
        // Nobody looks before it is over: looking costs the server too.
        tokio::time::sleep(kind.apart * kind.runs as u32).await;
        ended.reach(before + kind.runs as u64).await?;
        let cpu = (server.cpu()? - cpu).as_secs_f64() * 1e3 / kind.runs as f64;
        if asleep {
            return Ok(Woken {
                elapsed: elapsed(&mut client, &ids, &moments).await?,
                cpu,
            });
        }
    }
    bail!(
        "{} runs of {} steps never sleep before they are due",
        kind.runs,
        kind.steps
    )
}

async fn elapsed(client: &mut Client, ids: &[String], moments: &[u64]) -> Result<Samples> {
    let mut elapsed = Samples::default();
    for (run, due) in ids.iter().zip(moments) {
        let view = client.data(&format!("/v1/runs/{run}")).await?;
        // The end is cut to milliseconds: half of one is what that takes away on average.
        elapsed
            .0
            .push(sample::millis(&view["ended_at"])? + 0.5 - *due as f64);
    }
    Ok(elapsed)
}
