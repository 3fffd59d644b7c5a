//! The smallest function: it sleeps, then greets.

use std::time::Duration;

use dormouse::prelude::*;

#[derive(Deserialize)]
struct Hello {
    name: Option<String>,
}

#[derive(Serialize)]
struct Greeting {
    message: String,
}

/// Greets whom the event names, a second later.
#[dormouse::function(id = "hello-world", on(event = "demo/hello"))]
async fn hello_world(event: Event<Hello>, step: Step) -> dormouse::Result<Greeting> {
    step.sleep("wait-a-moment", Duration::from_secs(1)).await?;
    let name = event.data.name.as_deref().unwrap_or("world");
    Ok(Greeting {
        message: format!("Hello {name}!"),
    })
}

dormouse::module!(hello_world);

#[cfg(test)]
mod tests {
    use super::hello_world;
    use dormouse::testing::Harness;
    use serde_json::{Value, json};

    #[test]
    fn it_greets_after_a_second() {
        for (data, message) in [
            (json!({"name": "Ada"}), "Hello Ada!"),
            (json!({}), "Hello world!"),
        ] {
            let report = Harness::of::<hello_world>().event("demo/hello", data).run();
            assert_eq!(report.output::<Value>(), json!({"message": message}));
            assert_eq!(report.step_names(), ["wait-a-moment"]);
            assert_eq!(report.elapsed.as_secs(), 1);
        }
    }
}
