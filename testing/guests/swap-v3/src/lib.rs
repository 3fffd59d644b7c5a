//! The third version of the module `swap`: the pause of the first, with a step beside it. It does not like odd pauses.

use std::time::Duration;

use dormouse::prelude::*;

#[derive(Deserialize)]
struct Pause {
    ms: u64,
}

/// Greets, and pauses for as long as the event says: `{"ms": 1000}`.
#[dormouse::function(id = "swap", on(event = "test/swap"), retries = 2)]
async fn swap(event: Event<Pause>, step: Step) -> dormouse::Result<String> {
    let greeting = step.run("greet", || Ok("Hello from three".to_owned())).await?;
    assert!(event.data.ms % 2 == 0, "{} ms are odd", event.data.ms);
    let pause = step.sleep("pause", Duration::from_millis(event.data.ms));
    try_join!(pause, step.run("beside", || Ok(())))?;
    Ok(greeting)
}

dormouse::module!(swap);
