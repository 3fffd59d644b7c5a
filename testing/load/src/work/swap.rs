//! New versions of one module while another works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use http::Method;
use serde_json::json;

use super::{sample, steps};
use crate::Bench;
use crate::drive::{self, Ended};
use crate::report::Samples;
use crate::server::Server;

/// One request each so often: busy, but not so that the queue is all that is measured.
const EVERY: Duration = Duration::from_millis(4);
/// Pairs of rounds: without and with.
const PAIRS: usize = 5;

/// The 99th percentile of another module's runs, while versions are deployed one after the other and while not.
pub(crate) async fn hot(bench: &mut Bench) -> Result<()> {
    let server = Server::with_bench(bench, &[]).await?;
    steps::warm(&server, bench).await?;
    let component = bench.guest("swap_v1")?;
    let (mut alone, mut beside, mut ratio) = (Samples::default(), Samples::default(), Samples::default());
    let (mut failed, mut versions) = (0, 0_u32);
    for _ in 0..PAIRS {
        let (calm, failures) = round(&server, bench).await?;
        failed += failures;
        let stop = Arc::new(AtomicBool::new(false));
        let mut client = server.client().await?;
        let deploying = tokio::spawn({
            let (stop, component, first) = (Arc::clone(&stop), component.clone(), versions);
            async move {
                let mut number = first;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let version = distinct(&component, number);
                    client
                        .send(Method::PUT, "/v1/modules/swap", version.into())
                        .await?;
                }
                anyhow::Ok(number)
            }
        });
        let outcome = round(&server, bench).await;
        stop.store(true, Ordering::Relaxed);
        versions = deploying.await??;
        let (busy, failures) = outcome?;
        failed += failures;
        ratio.0.push(busy / calm);
        alone.0.push(calm);
        beside.0.push(busy);
    }
    bench.report.row(
        "hot swap beside 250 runs/s of another module",
        "no request fails; p99 ≤ 1.5 × alone",
    );
    bench.report.rounds("alone p99", &alone, "ms");
    bench.report.rounds("beside deploys p99", &beside, "ms");
    bench.report.rounds("ratio", &ratio, "");
    bench.report.number("requests failed", failed as f64, "");
    bench.report.number("versions deployed", f64::from(versions), "");
    bench.report.number("resident", server.resident()?, "MiB");
    Ok(())
}

/// The 99th percentile of what a run takes from being sent, and requests that failed: until the answer, and from
/// there, because the run begins with the event's commit, until its end.
pub(super) async fn round(server: &Server, bench: &Bench) -> Result<(f64, u64)> {
    let mut ended = Ended::new(server).await?;
    let before = ended.completed().await?;
    let time = Duration::from_secs_f64(bench.seconds);
    let body = drive::events("bench/one", &json!({}), 1);
    let (answered, failed) = drive::paced(server, 32, EVERY, time, body).await?;
    let runs = answered.0.len() as u64 - failed;
    ended.reach(before + runs).await?;
    let whole = sample::durations(&sample::completed(server, "bench/one", runs as usize).await?)?;
    Ok((answered.quantile(0.99).max(whole.quantile(0.99)), failed))
}

/// The same component with other bytes, and so another digest: a custom section at its end means nothing.
pub(super) fn distinct(component: &[u8], number: u32) -> Vec<u8> {
    let mut bytes = component.to_vec();
    // Custom: a section's id 0, its size, its name's size, its name, and anything.
    bytes.extend([0, 6, 1, b'n']);
    bytes.extend(number.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_makes_another_component_of_the_same_length() {
        let (one, two) = (distinct(b"\0asm", 1), distinct(b"\0asm", 2));
        assert_ne!(one, two);
        assert_eq!((one.len(), two.len()), (12, 12));
        assert_eq!(one[4..8], [0, 6, 1, b'n']);
    }
}
