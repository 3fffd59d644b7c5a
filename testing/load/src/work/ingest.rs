//! Events in arrays.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinSet;

use crate::Bench;
use crate::drive::{self, Ended};
use crate::report::Samples;
use crate::server::Server;

/// Events in one request.
const ARRAY: usize = 100;
/// How many clients send them.
const CLIENTS: usize = 8;
/// What an application would say of an order: some hundred bytes.
const NOBODY: &str = "bench/nobody";

/// Arrays of 100: of an event that nobody listens to, and of one that starts a run each.
pub(crate) async fn arrays(bench: &mut Bench) -> Result<()> {
    let mut nobody = Samples::default();
    let mut cpu = Samples::default();
    let mut starting = Samples::default();
    let mut completing = Samples::default();
    let time = Duration::from_secs_f64(bench.seconds);
    let (mut answered, mut resident) = (Samples::default(), Samples::default());
    for _ in 0..bench.rounds {
        let server = Server::with_bench(bench, &[]).await?;
        let before = server.cpu()?;
        let (events, elapsed, took) = flood(&server, body(NOBODY), time).await?;
        answered.0.extend(took.0);
        nobody.0.push(events as f64 / elapsed.as_secs_f64());
        cpu.0
            .push((server.cpu()? - before).as_secs_f64() * 1e6 / events as f64);
        let mut ended = Ended::new(&server).await?;
        let before = ended.completed().await?;
        let began = Instant::now();
        let (events, elapsed, _) = flood(&server, body("bench/one"), time / 2).await?;
        starting.0.push(events as f64 / elapsed.as_secs_f64());
        ended.reach(before + events).await?;
        completing.0.push(events as f64 / began.elapsed().as_secs_f64());
        resident.0.push(server.resident()?);
    }
    bench
        .report
        .row("event ingest, arrays of 100", "≥ 30,000 events/s");
    bench.report.rounds("nobody listens", &nobody, "events/s");
    bench
        .report
        .number("an array answered p50", answered.median(), "ms");
    bench.report.number("p99", answered.quantile(0.99), "ms");
    bench.report.rounds("processor per event", &cpu, "µs");
    bench.report.rounds("each starts a run", &starting, "events/s");
    bench
        .report
        .rounds("and these runs complete", &completing, "runs/s");
    bench.report.rounds("resident", &resident, "MiB");
    Ok(())
}

/// Events per second that nobody listens to.
pub(crate) async fn rate(server: &Server, time: Duration) -> Result<f64> {
    let (events, elapsed, _) = flood(server, body(NOBODY), time).await?;
    Ok(events as f64 / elapsed.as_secs_f64())
}

fn body(name: &str) -> Bytes {
    drive::events(
        name,
        &json!({ "order": "01KAYZ3M7R8G6Q5V4W3X2Y1Z0A", "note": "x".repeat(100) }),
        ARRAY,
    )
}

/// How many events were sent, how long that took, and how long each answer did, in milliseconds.
async fn flood(server: &Server, body: Bytes, time: Duration) -> Result<(u64, Duration, Samples)> {
    let mut clients = JoinSet::new();
    let began = Instant::now();
    for _ in 0..CLIENTS {
        let (mut client, body) = (server.client().await?, body.clone());
        clients.spawn(async move {
            let (mut events, mut took) = (0, Samples::default());
            while began.elapsed() < time {
                let sent = Instant::now();
                client.event(body.clone()).await?;
                took.0.push(sent.elapsed().as_secs_f64() * 1e3);
                events += ARRAY as u64;
            }
            anyhow::Ok((events, took))
        });
    }
    let (mut events, mut took) = (0, Samples::default());
    while let Some(sent) = clients.join_next().await {
        let (sent, answers) = sent??;
        events += sent;
        took.0.extend(answers.0);
    }
    Ok((events, began.elapsed(), took))
}
