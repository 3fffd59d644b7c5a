//! Sleeps through three stages of work, then writes a row into an application database, exactly once.
//!
//! The server has to grant it the database `app`, made by `migrations/`.

use std::time::Duration;

use dormouse::prelude::*;

#[derive(Deserialize)]
struct Hello {
    email: String,
}

#[derive(Serialize)]
struct Greeting {
    message: String,
}

/// Creates a workflow for whoever said hello.
#[dormouse::function(id = "create-workflow", on(event = "test/hello.world"), retries = 5)]
async fn create_workflow(event: Event<Hello>, step: Step, context: Context) -> dormouse::Result<Greeting> {
    step.sleep("fetch video", Duration::from_secs(1)).await?;
    step.sleep("transcribe video", Duration::from_secs(1)).await?;
    step.sleep("summarise with AI", Duration::from_secs(1)).await?;

    // The run's id is the same on every replay: one run, one row.
    step.sql(
        "create-workflow",
        "app",
        "insert into workflow (id, name) values (?, ?)",
        params![context.run_id(), "workflow-from-dormouse"],
    )
    .await?;

    Ok(Greeting {
        message: format!("Hello {}!", event.data.email),
    })
}

dormouse::module!(create_workflow);

#[cfg(test)]
mod tests {
    use super::create_workflow;
    use dormouse::step::Rows;
    use dormouse::testing::Harness;
    use serde_json::{Value, json};
    use std::cell::Cell;
    use std::rc::Rc;

    #[test]
    fn it_sleeps_three_times_and_writes_one_row() {
        let rows = Rc::new(Cell::new(0));
        let counted = rows.clone();
        let report = Harness::of::<create_workflow>()
            .event("test/hello.world", json!({"email": "ada@example.com"}))
            .sql(move |database, statements| {
                assert_eq!(database, "app");
                assert_eq!(statements[0].params[1], "workflow-from-dormouse");
                counted.set(counted.get() + 1);
                Ok(vec![Rows::affected(1)])
            })
            .run();

        assert_eq!(
            report.output::<Value>(),
            json!({"message": "Hello ada@example.com!"})
        );
        let names = [
            "fetch video",
            "transcribe video",
            "summarise with AI",
            "create-workflow",
        ];
        assert_eq!(report.step_names(), names);
        assert_eq!(report.elapsed.as_secs(), 3);
        assert_eq!(rows.get(), 1);
    }

    #[test]
    fn an_event_without_an_email_fails_and_says_why() {
        let report = Harness::of::<create_workflow>()
            .event("test/hello.world", json!({}))
            .run();
        assert!(
            report.error().message().contains("missing field `email`"),
            "{:?}",
            report.error()
        );
        assert!(report.steps.is_empty());
    }
}
