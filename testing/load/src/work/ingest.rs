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
    for _ in 0..bench.rounds {
        let server = Server::with_bench(bench, &[]).await?;
        let before = server.cpu()?;
        let (events, elapsed) = flood(&server, body(NOBODY), time).await?;
        nobody.0.push(events as f64 / elapsed.as_secs_f64());
        cpu.0
            .push((server.cpu()? - before).as_secs_f64() * 1e6 / events as f64);
        let mut ended = Ended::new(&server).await?;
        let before = ended.completed().await?;
        let began = Instant::now();
        let (events, elapsed) = flood(&server, body("bench/one"), time / 2).await?;
        starting.0.push(events as f64 / elapsed.as_secs_f64());
        ended.reach(before + events).await?;
        completing.0.push(events as f64 / began.elapsed().as_secs_f64());
    }
    bench
        .report
        .row("event ingest, arrays of 100", "≥ 30,000 events/s");
    bench.report.rounds("nobody listens", &nobody, "events/s");
    bench.report.rounds("processor per event", &cpu, "µs");
    bench.report.rounds("each starts a run", &starting, "events/s");
    bench
        .report
        .rounds("and these runs complete", &completing, "runs/s");
    Ok(())
}

/// Events per second that nobody listens to.
pub(crate) async fn rate(server: &Server, time: Duration) -> Result<f64> {
    let (events, elapsed) = flood(server, body(NOBODY), time).await?;
    Ok(events as f64 / elapsed.as_secs_f64())
}

fn body(name: &str) -> Bytes {
    drive::events(
        name,
        &json!({ "order": "01KAYZ3M7R8G6Q5V4W3X2Y1Z0A", "note": "x".repeat(100) }),
        ARRAY,
    )
}

async fn flood(server: &Server, body: Bytes, time: Duration) -> Result<(u64, Duration)> {
    let mut clients = JoinSet::new();
    let began = Instant::now();
    for _ in 0..CLIENTS {
        let (mut client, body) = (server.client().await?, body.clone());
        clients.spawn(async move {
            let mut events = 0;
            while began.elapsed() < time {
                client.event(body.clone()).await?;
                events += ARRAY as u64;
            }
            anyhow::Ok(events)
        });
    }
    let mut events = 0;
    while let Some(sent) = clients.join_next().await {
        events += sent??;
    }
    Ok((events, began.elapsed()))
}
