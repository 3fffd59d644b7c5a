//! Functions that are started by some events and not by others.

use super::*;

/// Started by large payments, or by any in gold.
#[dormouse::function(
    id = "large",
    on(event = "steps/paid", if = "event.data.amount > 100"),
    on(event = "steps/paid", if = "event.data.kind == 'gold'")
)]
pub(crate) async fn large(event: Event<Value>) -> dormouse::Result<Value> {
    Ok(event.data)
}

/// Started by whole families of events.
#[dormouse::function(
    id = "any-of",
    on(event = "steps/family/*"),
    on(event = "steps/kind.*", if = "event.name != 'steps/kind.no'")
)]
pub(crate) async fn any_of(event: Event<Value>) -> dormouse::Result<String> {
    Ok(event.name)
}
