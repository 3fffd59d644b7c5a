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
