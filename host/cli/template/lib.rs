//! The functions of the module `{{name}}`.

use std::time::Duration;

use dormouse::prelude::*;

/// What an event `demo/hello` carries.
#[derive(Deserialize)]
struct Hello {
    name: Option<String>,
}

/// What the function returns: anything that serde can write.
#[derive(Serialize)]
struct Greeting {
    message: String,
}

/// Greets whom the event names.
///
/// The code between steps may run again at any time, so it only decides. What changes the world, takes long, or must
/// come out the same belongs in a step: its output is recorded once and stays, whatever crashes.
#[dormouse::function(id = "hello", on(event = "demo/hello"), retries = 4)]
async fn hello(event: Event<Hello>, step: Step) -> dormouse::Result<Greeting> {
    // A sleep costs nothing: nothing of this run is kept in memory, for a second or for a year.
    step.sleep("wait a moment", Duration::from_secs(1)).await?;

    // An error here is tried again, up to `retries` times, with a growing pause.
    let name = event.data.name.as_deref().unwrap_or("world");
    let message = step.run("greet", || Ok(format!("Hello {name}!"))).await?;

    Ok(Greeting { message })
}

// Exports the functions of this component: name each of them here.
dormouse::module!(hello);

#[cfg(test)]
mod tests {
    use super::hello;
    use dormouse::testing::Harness;
    use serde_json::{Value, json};

    // `cargo test` runs a function on this machine, without a server; its sleeps pass at once.
    #[test]
    fn it_greets() {
        let report = Harness::of::<hello>().event("demo/hello", json!({"name": "Ada"})).run();
        assert_eq!(report.output::<Value>(), json!({"message": "Hello Ada!"}));
        assert_eq!(report.step_names(), ["wait a moment", "greet"]);
    }
}
