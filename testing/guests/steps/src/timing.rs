//! What time it is.

use std::time::{Duration, UNIX_EPOCH};

use dormouse::prelude::*;

/// The contract's clock in Unix milliseconds: at the beginning, after a nap, and after a body that failed once. Nap and back-off
/// are as long as the event says: `{"ms": 1000}`.
#[dormouse::function(id = "timed", on(event = "steps/timed"))]
pub(crate) async fn timed(event: Event<Value>, step: Step, context: Context) -> dormouse::Result<Value> {
    let pause = Duration::from_millis(event.data["ms"].as_u64().unwrap_or(1_000));
    let now = || {
        let since = context.now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    };
    let begun = now();
    step.sleep("nap", pause).await?;
    let slept = now();
    step.run_with("failing", |attempt| match attempt.number() {
        1 => Err(Error::retryable("not yet")),
        _ => Ok(()),
    })
    .backoff(Backoff::constant(pause))
    .await?;
    Ok(json!([begun, slept, now()]))
}
