//! What runs say of themselves afterwards, read from the API.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::report::Samples;
use crate::server::Server;

/// The most that a page of runs has.
const PAGE: usize = 100;

/// The newest completed runs of a function.
pub(crate) async fn completed(server: &Server, function: &str, count: usize) -> Result<Vec<Value>> {
    let mut client = server.client().await?;
    let path = format!("/v1/runs?status=Completed&function={function}&limit={PAGE}");
    let mut cursor = String::new();
    let mut all = Vec::new();
    while all.len() < count {
        let (page, next) = client.page(&format!("{path}{cursor}")).await?;
        let Value::Array(page) = page else {
            anyhow::bail!("a page that is no array")
        };
        all.extend(page);
        match next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    all.truncate(count);
    Ok(all)
}

/// How long runs took from being queued to their end, in milliseconds.
pub(crate) fn durations(runs: &[Value]) -> Result<Samples> {
    runs.iter()
        .map(|run| Ok(millis(&run["ended_at"])? - millis(&run["queued_at"])?))
        .collect::<Result<Vec<_>>>()
        .map(Samples)
}

/// How late the sleeps of runs ended, in milliseconds, from when they were due to when the function went on; and when
/// they were due, as Unix milliseconds.
pub(crate) async fn lateness(server: &Server, runs: &[Value]) -> Result<(Samples, Samples)> {
    let mut client = server.client().await?;
    let (mut late, mut due) = (Samples::default(), Samples::default());
    for run in runs {
        let id = run["run_id"].as_str().context("a run without an id")?;
        let journal = client.data(&format!("/v1/runs/{id}/journal")).await?;
        let entry = |kind| journal.as_array()?.iter().find(|entry| entry["entry"] == kind);
        let (started, delivered) = (entry("started"), entry("delivered"));
        let at = millis(&started.context("a sleep that was never started")?["due_at"])?;
        late.0
            .push(millis(&delivered.context("a sleep that never ended")?["at"])? - at);
        due.0.push(at);
    }
    Ok((late, due))
}

/// A time of the API as Unix milliseconds.
pub(crate) fn millis(time: &Value) -> Result<f64> {
    let text = time.as_str().context("a time is missing")?;
    Ok(text.parse::<jiff::Timestamp>()?.as_millisecond() as f64)
}
