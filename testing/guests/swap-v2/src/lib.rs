//! The second version of the module `swap`: another greeting, and a step more.

use std::time::Duration;

use dormouse::prelude::*;

#[derive(Deserialize)]
#[serde(default)]
struct Pause {
    ms: u64,
}

impl Default for Pause {
    fn default() -> Pause {
        Pause { ms: 1_000 }
    }
}

/// Greets, and pauses for as long as the event says: `{"ms": 1000}`.
#[dormouse::function(id = "swap", on(event = "test/swap"))]
async fn swap(event: Event<Pause>, step: Step) -> dormouse::Result<String> {
    let greeting = step.run("greet", || Ok("Hello from two".to_owned())).await?;
    step.run("added", || Ok(())).await?;
    step.sleep("pause", Duration::from_millis(event.data.ms)).await?;
    Ok(greeting)
}

dormouse::module!(swap);
