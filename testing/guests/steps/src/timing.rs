//! What time it is.

use std::time::{Duration, UNIX_EPOCH};

use dormouse::prelude::*;

/// The contract's clock in Unix milliseconds: at the beginning, after a nap, and after a body that failed once. Nap and back-off
/// are as long as the event says: `{"ms": 1000}`, or the back-off as long as its `backoff`.
#[dormouse::function(id = "timed", on(event = "steps/timed"))]
pub(crate) async fn timed(event: Event<Value>, step: Step, context: Context) -> dormouse::Result<Value> {
    let asked = |name: &str| event.data[name].as_u64().map(Duration::from_millis);
    let pause = asked("ms").unwrap_or(Duration::from_secs(1));
    let backoff = asked("backoff").unwrap_or(pause);
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
    .backoff(Backoff::constant(backoff))
    .await?;
    Ok(json!([begun, slept, now()]))
}
