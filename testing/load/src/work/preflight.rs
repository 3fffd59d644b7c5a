//! What a version would do to very many runs in flight, and what asking costs those that go on meanwhile.

use std::time::Instant;

use anyhow::{Result, ensure};
use http::Method;
use serde_json::{Value, json};

use super::sleeping::{all_asleep, now_millis};
use super::{steps, swap};
use crate::Bench;
use crate::drive;
use crate::report::Samples;
use crate::server::Server;

/// Runs in flight, each with ten recorded steps.
const RUNS: u64 = 10_000;
const STEPS: u32 = 10;
/// How far off the end of their sleep is, in milliseconds.
const LONG_MS: u64 = 24 * 60 * 60 * 1000;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);
/// How many pairs of calls by one client are compared.
const PAIRS: usize = 3;

/// Ten thousand sleeping runs, replayed on another version with nothing else to do; then beside paced runs.
pub(crate) async fn replayed(bench: &mut Bench) -> Result<()> {
    let server = Server::with_bench(bench, &[]).await?;
    steps::warm(&server, bench).await?;
    let mut client = server.client().await?;
    let at = now_millis() + LONG_MS;
    let body = drive::events("bench/resumed", &json!({ "n": STEPS, "at": at }), 500);
    for _ in 0..RUNS / 500 {
        client.event(body.clone()).await?;
    }
    ensure!(all_asleep(&mut client, PATIENCE).await?, "the runs never sleep");
    let version = swap::distinct(&bench.guest("bench")?, 1);

    let (mut rate, mut cpu) = (Samples::default(), Samples::default());
    for _ in 0..bench.rounds {
        let (began, before) = (Instant::now(), server.cpu()?);
        asked(&server, &version).await?;
        rate.0.push(RUNS as f64 / began.elapsed().as_secs_f64() * 60.0);
        cpu.0
            .push((server.cpu()? - before).as_secs_f64() * 1e3 / RUNS as f64);
    }
    let (mut alone, mut beside) = (Samples::default(), Samples::default());
    for _ in 0..PAIRS {
        alone.0.push(swap::round(&server, bench).await?.0);
        let asking = tokio::spawn({
            let (mut client, version) = (server.client().await?, version.clone());
            async move { ask(&mut client, &version).await }
        });
        beside.0.push(swap::round(&server, bench).await?.0);
        asking.await??;
    }
    bench.report.row(
        "preflight of 10,000 runs with ten steps each",
        "≥ 5,000 runs a minute, at most half a processor",
    );
    bench.report.rounds("rate", &rate, "runs/min");
    bench.report.rounds("processor per run", &cpu, "ms");
    bench
        .report
        .rounds("p99 of 250 other runs/s without", &alone, "ms");
    bench.report.rounds("beside one", &beside, "ms");
    Ok(())
}

async fn asked(server: &Server, version: &[u8]) -> Result<()> {
    ask(&mut server.client().await?, version).await
}

/// Asks, and checks that every run was looked at and would go on.
async fn ask(client: &mut crate::client::Client, version: &[u8]) -> Result<()> {
    let path = "/v1/modules/bench/preflight?sample=100000";
    let answer = client.send(Method::POST, path, version.to_vec().into()).await?;
    let answer: Value = serde_json::from_slice(&answer)?;
    let unchanged = answer["data"]["verdicts"]["unchanged"].as_u64();
    ensure!(unchanged >= Some(RUNS), "{answer:#}");
    Ok(())
}
