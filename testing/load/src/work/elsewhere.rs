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
    woken(bench, &server).await
}

/// How long it takes from asking one node to wake a run that another has suspended until the run has ended: a hint, a claim, a
/// leg and a commit.
async fn woken(bench: &mut Bench, server: &Server) -> Result<()> {
    let mut late = Samples::default();
    let mut clients = server.clients().await?;
    for _ in 0..RUNS {
        let body = json!({ "ms": 3_600_000 }).to_string();
        let run = clients[0].invoke("bench/sleeper", body).await?;
        let path = format!("/v1/runs/{run}");
        loop {
            let answer = clients[0].send(Method::GET, &path, Bytes::new()).await?;
            let answer: Value = serde_json::from_slice(&answer)?;
            if answer["data"]["phase"] == "sleeping" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let asked = sleeping::now_millis() as f64;
        clients[1]
            .send(Method::POST, &format!("{path}/wake"), Bytes::new())
            .await?;
        let path = format!("{path}?wait=30s");
        let answer = clients[0].send(Method::GET, &path, Bytes::new()).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        late.0
            .push((sample::millis(&answer["data"]["ended_at"])? - asked).max(0.0));
    }
    bench.report.row(
        "a run woken at another node, until it has ended",
        "≤ 100 ms at p99",
    );
    bench.report.number("p50", late.median(), "ms");
    bench.report.number("p99", late.quantile(0.99), "ms");
    Ok(())
}
