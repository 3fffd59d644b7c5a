//! For the tests of flow control: one function for each way to limit how runs start.

use dormouse::prelude::*;

dormouse::module!(rate_limited, once);

#[dormouse::function(
    id = "rate-limited",
    on(event = "flow/rate"),
    rate_limit(limit = 2, period = "1m", burst = 2, key = "event.data.user")
)]
async fn rate_limited(event: Event<Value>) -> dormouse::Result<Value> {
    Ok(event.data)
}

#[dormouse::function(id = "once", on(event = "flow/once"), idempotency = "event.data.order")]
async fn once(event: Event<Value>) -> dormouse::Result<Value> {
    Ok(event.data)
}
