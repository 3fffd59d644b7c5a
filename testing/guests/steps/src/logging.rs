//! A function that logs, in and out of bodies.

use std::time::Duration;

use super::*;

/// Lines on both sides of two sleeps, and of a body that fails once.
#[dormouse::function(id = "log", on(event = "steps/log"))]
pub(crate) async fn log(step: Step) -> dormouse::Result<()> {
    dormouse::info!("begins");
    step.sleep("nap", Duration::from_secs(1)).await?;
    dormouse::warn!(naps = 1; "slept");
    step.run_with("body", |attempt| {
        dormouse::info!("attempt {}", attempt.number());
        match attempt.number() {
            1 => Err(Error::retryable("once")),
            _ => Ok(()),
        }
    })
    .backoff(Backoff::constant(Duration::from_secs(1)))
    .await?;
    dormouse::info!("awake");
    step.sleep("nap", Duration::from_secs(1)).await?;
    dormouse::info!("ends");
    Ok(())
}

/// Asks for what this server may not offer yet.
#[dormouse::function(id = "reveal", on(event = "steps/reveal"))]
pub(crate) async fn reveal(step: Step, context: Context) -> dormouse::Result<Value> {
    let revealed = step.run("reveal", || context.reveal_secret("key")).await;
    let signed = step.run("sign", || context.hmac_sha256("key", b"data")).await;
    let code = |error: dormouse::StepError| error.code().map(str::to_owned);
    Ok(json!({ "reveal": revealed.err().map(code), "hmac": signed.err().map(code) }))
}
