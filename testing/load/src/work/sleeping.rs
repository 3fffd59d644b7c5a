//! Runs that sleep.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::sample;
use crate::Bench;
use crate::client::Client;
use crate::drive::{self, Ended};
use crate::report::Samples;
use crate::server::Server;

/// For how long a thousand runs a second are started.
const STEADY: Duration = Duration::from_secs(15);
/// How many runs' journals are read afterwards.
const SAMPLE: usize = 1_000;
/// How many runs wake at once.
const BURST: u64 = 10_000;
/// How often it is tried to have all of them asleep in time.
const TRIES: u32 = 4;
/// A day: longer than any of this takes.
const LONG_MS: u64 = 86_400_000;
/// Events in one request of the fill.
const FILL: usize = 1_000;
/// Parked instances are gone by then.
const SETTLED: Duration = Duration::from_secs(8);
/// How long the fill may take in all.
const FILL_PATIENCE: Duration = Duration::from_secs(3_600);

/// W3: a thousand sleeps of a second begin, and so a thousand end, each second.
pub(crate) async fn steady(bench: &mut Bench) -> Result<()> {
    let server = Server::with_bench(bench, &[]).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (idle, cpu) = (server.resident()?, server.cpu()?);
    let mut ended = Ended::new(&server).await?;
    let before = ended.completed().await?;
    let body = drive::events("bench/sleeper", &json!({ "ms": 1_000 }), 10);
    let mut most = idle;
    let load = drive::paced(&server, 16, Duration::from_millis(10), STEADY, body);
    tokio::pin!(load);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let (answered, failed) = loop {
        tokio::select! {
            done = &mut load => break done?,
            _ = tick.tick() => most = most.max(server.resident()?),
        }
    };
    let runs = STEADY.as_millis() as u64;
    ended.reach(before + runs).await?;
    let cpu = (server.cpu()? - cpu).as_secs_f64() * 1e3 / runs as f64;
    let (late, _) = sample::lateness(
        &server,
        &sample::completed(&server, "bench/sleeper", SAMPLE).await?,
    )
    .await?;
    bench.report.row(
        "W3 sleeps of 1 s, 1,000 wakes/s",
        "p99 ≤ 10 ms late; ≤ 60 MB above idle",
    );
    bench.report.number("late p50", late.median(), "ms");
    bench.report.number("late p99", late.quantile(0.99), "ms");
    bench.report.number("above idle", most - idle, "MiB");
    bench.report.number("processor per run", cpu, "ms");
    bench.report.number("answered p99", answered.quantile(0.99), "ms");
    bench.report.number("requests failed", failed as f64, "");
    Ok(())
}

/// W3: ten thousand sleeps end at the same moment.
pub(crate) async fn burst(bench: &mut Bench) -> Result<()> {
    let mut drained = Samples::default();
    for _ in 0..bench.rounds {
        drained.0.push(burst_once(bench).await?);
    }
    bench
        .report
        .row("W3 10,000 sleeps due at once", "drained in ≤ 1.5 s");
    bench.report.rounds("due to last end", &drained, "s");
    Ok(())
}

async fn burst_once(bench: &Bench) -> Result<f64> {
    let server = Server::with_bench(bench, &[]).await?;
    let mut client = server.client().await?;
    let mut ended = Ended::new(&server).await?;
    // How long it takes to have them all asleep is for the machine to say.
    for doubled in 0..TRIES {
        let before = ended.completed().await?;
        let due = now_millis() + (10_000 << doubled);
        let body = drive::events("bench/until", &json!({ "at": due }), 500);
        for _ in 0..BURST / 500 {
            client.event(body.clone()).await?;
        }
        let asleep = all_asleep(
            &mut client,
            Duration::from_millis(due.saturating_sub(now_millis())),
        )
        .await?;
        let left = Duration::from_millis(due.saturating_sub(now_millis()));
        tokio::time::sleep(left).await;
        ended.reach(before + BURST).await?;
        let end = now_millis();
        // Parked instances make it easier: they must have gone, or the sleep was short.
        if asleep && left > Duration::from_secs(1) {
            return Ok((end - due) as f64 / 1e3);
        }
    }
    bail!("{BURST} runs never sleep before they are due")
}

/// Waits until no run is queued or executing. False: not in time.
pub(super) async fn all_asleep(client: &mut Client, patience: Duration) -> Result<bool> {
    let began = Instant::now();
    while began.elapsed() < patience {
        let mut busy = false;
        for phase in ["queued", "executing"] {
            let runs = client.data(&format!("/v1/runs?phase={phase}&limit=1")).await?;
            busy |= runs != Value::Array(Vec::new());
        }
        if !busy {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(false)
}

/// Very many sleeping runs: memory, and starting again.
pub(crate) async fn many(bench: &mut Bench) -> Result<()> {
    let mut server = Server::with_bench(bench, &[]).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = server.resident()?;
    let mut client = server.client().await?;
    let body = drive::events("bench/sleeper", &json!({ "ms": LONG_MS }), FILL);
    let requests = bench.sleeping.div_ceil(FILL as u64);
    let (began, cpu) = (Instant::now(), server.cpu()?);
    for _ in 0..requests {
        client.event(body.clone()).await?;
    }
    ensure!(
        all_asleep(&mut client, FILL_PATIENCE).await?,
        "the runs never sleep"
    );
    let (elapsed, cpu) = (began.elapsed().as_secs_f64(), server.cpu()? - cpu);
    let runs = (requests * FILL as u64) as f64;
    tokio::time::sleep(SETTLED).await;
    let full = server.resident()?;
    server.stop().await?;
    let stopped = server.boot().await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let restarted = server.resident()?;
    server.kill()?;
    let killed = server.boot().await?;
    bench.report.row(
        &format!("{runs} sleeping runs"),
        "1,000,000: ≤ 300 MB; start ≤ 5 s",
    );
    bench.report.number("resident", full, "MiB");
    bench.report.number("idle before", idle, "MiB");
    bench.report.number("resident after a restart", restarted, "MiB");
    bench
        .report
        .number("ready after a stop", stopped.as_secs_f64() * 1e3, "ms");
    bench
        .report
        .number("ready after kill -9", killed.as_secs_f64() * 1e3, "ms");
    bench.report.number("put to sleep", runs / elapsed, "runs/s");
    bench
        .report
        .number("processor per run", cpu.as_secs_f64() * 1e3 / runs, "ms");
    Ok(())
}

/// Unix milliseconds: the clock the server has too.
pub(crate) fn now_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_millis() as u64)
}
