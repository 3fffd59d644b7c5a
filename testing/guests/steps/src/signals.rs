//! A function that waits for a signal.

use std::time::Duration;

use dormouse::step::OnConflict;

use super::*;

/// One wait, as the data says; answers with the signal's data, `null`, or the failure's code.
#[dormouse::function(id = "wait-for-signal", on(event = "steps/wait-for-signal"))]
pub(crate) async fn wait_for_signal(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    let data = &event.data;
    let mut waited = step.wait_for_signal::<Value>("signal", data["signal"].as_str().unwrap_or("go"));
    if let Some(millis) = data["timeout_ms"].as_u64() {
        waited = waited.timeout(Duration::from_millis(millis));
    }
    if data["replace"] == true {
        waited = waited.on_conflict(OnConflict::Replace);
    }
    Ok(match waited.await {
        Ok(data) => json!({ "data": data }),
        Err(error) => json!({ "code": error.code() }),
    })
}

/// Sends a signal, and answers with who had it, or with the failure's code.
#[dormouse::function(id = "send-signal", on(event = "steps/send-signal"))]
pub(crate) async fn send_signal(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    let signal = event.data["signal"].as_str().unwrap_or("go");
    Ok(match step.send_signal("send", signal, &event.data).await {
        Ok(run) => json!({ "run": run }),
        Err(error) => json!({ "code": error.code() }),
    })
}

/// Sends itself signals: what is sent before the wait is lost, what is sent after it began is not.
#[dormouse::function(id = "signal-itself", on(event = "steps/signal-itself"))]
pub(crate) async fn signal_itself(step: Step, context: Context) -> dormouse::Result<Value> {
    let own = context.run_id();
    let early = step.send_signal("early", &own, 1).await?;
    let (waited, sent) = try_join!(
        step.wait_for_signal::<u32>("own", &own)
            .timeout(Duration::from_secs(60)),
        step.send_signal("late", &own, 2),
    )?;
    Ok(json!({ "early": early, "waited": waited, "itself": sent == Some(own) }))
}
