//! For the tests of concurrency limits: bodies that are open as long as a gate outside keeps them. It is told, in the URL of the
//! configuration value `gate`, the function, the key and the run, and so can count how many are open at once.

use std::time::Duration;

use dormouse::prelude::*;

dormouse::module!(limited, nested, first, second, free);

/// A body, a sleep and another body, as often as the event asks: `{"key": "ann", "turns": 1}`.
async fn work(name: &str, event: &Event<Value>, step: &Step, context: &Context) -> dormouse::Result<u64> {
    let gate: String = context.config("gate")?.unwrap_or_default();
    let line = format!(
        "{name} {} {}",
        event.data["key"].as_str().unwrap_or("-"),
        context.run_id()
    );
    let turns = event.data["turns"].as_u64().unwrap_or(1);
    for turn in 0..turns {
        if turn > 0 {
            step.sleep("rest", Duration::from_millis(20)).await?;
        }
        step.run("work", || {
            dormouse::http::post(&gate)
                .body(line.clone())
                .timeout(Duration::from_secs(50))
                .send()?
                .success()?;
            Ok(())
        })
        .await?;
    }
    Ok(turns)
}

#[dormouse::function(id = "limited", on(event = "slots/limited"), concurrency = 3)]
async fn limited(event: Event<Value>, step: Step, context: Context) -> dormouse::Result<u64> {
    work("limited", &event, &step, &context).await
}

#[dormouse::function(
    id = "nested",
    on(event = "slots/nested"),
    concurrency = 4,
    concurrency(limit = 1, key = "event.data.key")
)]
async fn nested(event: Event<Value>, step: Step, context: Context) -> dormouse::Result<u64> {
    work("nested", &event, &step, &context).await
}

#[dormouse::function(
    id = "first",
    on(event = "slots/shared"),
    concurrency(limit = 2, key = "'api'", scope = "account")
)]
async fn first(event: Event<Value>, step: Step, context: Context) -> dormouse::Result<u64> {
    work("shared", &event, &step, &context).await
}

#[dormouse::function(
    id = "second",
    on(event = "slots/shared"),
    concurrency(limit = 2, key = "'api'", scope = "account")
)]
async fn second(event: Event<Value>, step: Step, context: Context) -> dormouse::Result<u64> {
    work("shared", &event, &step, &context).await
}

#[dormouse::function(id = "free", on(event = "slots/free"))]
async fn free(event: Event<Value>, step: Step, context: Context) -> dormouse::Result<u64> {
    work("free", &event, &step, &context).await
}
