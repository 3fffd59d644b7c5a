//! What one node learns of what another does.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::{sample, sleeping};
use crate::Bench;
use crate::report::Samples;
use crate::server::Server;

/// How many runs are followed, one after the other.
const RUNS: usize = 300;
/// How long each sleeps, so that it is followed before it ends: where it was accepted or where its timer is looked at.
const SLEEP_MS: u64 = 150;

/// How much later than a run's end a client knows of it that waits at another node than the one that ended it; and what
/// nodes ask of the database while they have nothing to do.
pub(crate) async fn followed(bench: &mut Bench) -> Result<()> {
    if bench.nodes < 2 {
        eprintln!("there is no other node: --postgres --nodes 2");
        return Ok(());
    }
    let server = Server::with_bench(bench, &[]).await?;
    // Every node has loaded the module, and knows that it is not alone.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (mut late, mut own) = (Samples::default(), Samples::default());
    let mut clients = server.clients().await?;
    let body = json!({ "ms": SLEEP_MS }).to_string();
    for number in 0..RUNS {
        let run = clients[0].invoke("bench/sleeper", body.clone()).await?;
        // The node that accepted it has its instance parked, and so is the one that ends it.
        let elsewhere = number % 2 == 0;
        let asked = if elsewhere { 1 } else { 0 };
        let path = format!("/v1/runs/{run}?wait=30s");
        let answer = clients[asked].send(Method::GET, &path, Bytes::new()).await?;
        let known = sleeping::now_millis() as f64;
        let answer: Value = serde_json::from_slice(&answer)?;
        let ended = sample::millis(&answer["data"]["ended_at"])?;
        let lateness = if elsewhere { &mut late } else { &mut own };
        lateness.0.push((known - ended).max(0.0));
    }
    bench
        .report
        .row("a run's end, known at another node", "≤ 100 ms at p99");
    for (of, late) in [("at another node", &late), ("at its own", &own)] {
        bench.report.number(&format!("{of} p50"), late.median(), "ms");
        bench
            .report
            .number(&format!("{of} p99"), late.quantile(0.99), "ms");
    }
    Ok(())
}
