//! Who listens to how runs end, and who handles failures.

use std::time::Duration;

use dormouse_core::run::{Phase, Status};
use dormouse_core::system;
use serde_json::json;

use super::{PARKING, begin, ended_runs_of, output, quiet, runs_of, start, tuning};

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_is_started_once_for_each_end_and_not_by_its_own() {
    for park_idle in PARKING {
        let (running, _clock) = start(park_idle).await;
        let order = begin(&running, "shop/ordered", json!({})).await;
        let run = running.settled(order).await;
        assert_eq!(run.state.status, Status::Completed, "{run:#?}");
        let heard = ended_runs_of(&running, "hears-finished", 1).await;
        let heard = output(&heard[0]);
        assert_eq!(heard["name"], "dormouse/function.finished");
        let data = &heard["data"];
        assert_eq!(data["function_id"], "ends/order");
        assert_eq!(data["run_id"], order.to_string());
        assert_eq!(data["status"], "Completed");
        assert_eq!(data["_inngest"]["status"], "Completed");
        assert_eq!(data["result"], "shipped");
        assert_eq!(data["event"]["name"], "shop/ordered");
        // Its own end is told, too, and starts nothing.
        quiet(&running).await;
        assert_eq!(runs_of(&running, "hears-finished").await.len(), 1);
        for function in ["hears-failed", "hears-cancelled", "order-failed", "hears-invoked"] {
            assert_eq!(runs_of(&running, function).await, [], "{function}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_handled_once_by_a_run_of_its_own() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let order = begin(&running, "shop/ordered", json!({"fails": true})).await;
        let failed = running.settled(order).await;
        assert_eq!(failed.state.status, Status::Failed, "{failed:#?}");
        let ended_at = failed.ended_at.expect("it has ended");
        // The handler's run is known from the failed one, and that one from the handler's event.
        let handler = system::handler(order, ended_at);
        let sleeping = |run: &dormouse_store::read::Run| run.state.phase == Some(Phase::Sleeping);
        let deadline = std::time::Instant::now() + super::DEADLINE;
        while running
            .server
            .app()
            .store()
            .run(handler)
            .await
            .expect("reads")
            .is_none()
        {
            assert!(std::time::Instant::now() < deadline, "nobody handles it");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.until(handler, "asleep", sleeping).await;
        clock.advance(Duration::from_secs(1));
        let handled = output(&running.settled(handler).await);
        assert_eq!(handled["refunded"], true);
        assert_eq!(handled["run"], order.to_string());
        assert_eq!(handled["function"], "ends/order");
        assert_eq!(handled["error"]["code"], "out-of-stock");
        assert_eq!(handled["error"]["message"], "step \"ship\": out of stock");
        assert_eq!(handled["order"]["name"], "shop/ordered");
        assert_eq!(handled["order"]["data"], json!({"fails": true, "sleeps_ms": 0}));
        let heard = ended_runs_of(&running, "hears-failed", 1).await;
        assert_eq!(output(&heard[0])["run_id"], order.to_string());
        quiet(&running).await;
        assert_eq!(runs_of(&running, "order-failed").await.len(), 1);
        // Of the order's end alone: those that the ends have started start nothing more.
        assert_eq!(runs_of(&running, "hears-finished").await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_failure_of_a_handler_is_not_handled() {
    let (running, _clock) = start(Duration::ZERO).await;
    let careless = begin(&running, "shop/careless", json!({})).await;
    assert_eq!(running.settled(careless).await.state.status, Status::Failed);
    let handlers = ended_runs_of(&running, "careless-failed", 1).await;
    assert_eq!(handlers[0].state.status, Status::Failed);
    quiet(&running).await;
    assert_eq!(runs_of(&running, "order-failed").await, []);
    assert_eq!(runs_of(&running, "careless-failed").await.len(), 1);
    // Started otherwise, the handler is a function like any other, and its failure is handled.
    let invoked = running.invoke("ends/careless-failed", "{}").await;
    assert_eq!(running.settled(invoked).await.state.status, Status::Failed);
    let deadline = std::time::Instant::now() + super::DEADLINE;
    while runs_of(&running, "order-failed").await.is_empty() {
        assert!(std::time::Instant::now() < deadline, "nobody handles it");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_is_told_of_and_not_handled() {
    for park_idle in PARKING {
        let (running, _clock) = start(park_idle).await;
        let order = begin(&running, "shop/ordered", json!({"sleeps_ms": 60_000})).await;
        running
            .until(order, "asleep", |run| run.state.phase == Some(Phase::Sleeping))
            .await;
        running.server.app().cancel(order).await.expect("it is cancelled");
        let heard = ended_runs_of(&running, "hears-cancelled", 1).await;
        let heard = output(&heard[0]);
        assert_eq!(heard["run_id"], order.to_string());
        assert_eq!(heard["status"], "Cancelled");
        assert_eq!(heard["error"]["code"], "cancelled");
        quiet(&running).await;
        for function in ["order-failed", "hears-failed", "hears-finished"] {
            assert_eq!(runs_of(&running, function).await, [], "{function}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_can_wait_for_the_end_of_another_run() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let order = begin(&running, "shop/ordered", json!({"sleeps_ms": 1_000})).await;
        let waits = begin(&running, "test/await", json!({"run": order.to_string()})).await;
        for (run, phase) in [(order, Phase::Sleeping), (waits, Phase::Waiting)] {
            running
                .until(run, "waiting", |run| run.state.phase == Some(phase))
                .await;
        }
        // The end of another is not the one.
        let other = begin(&running, "shop/ordered", json!({})).await;
        running.settled(other).await;
        clock.advance(Duration::from_secs(1));
        let told = output(&running.settled(waits).await);
        assert_eq!(told["run_id"], order.to_string());
        assert_eq!(told["result"], "shipped");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoke_is_heard_of_but_not_by_who_hears_it() {
    let (running, _clock) = start(Duration::ZERO).await;
    // From outside, and by a step.
    let invoked = running.invoke("ends/order", r#"{"fails":false}"#).await;
    running.settled(invoked).await;
    let heard = ended_runs_of(&running, "hears-invoked", 1).await;
    assert_eq!(
        output(&heard[0]),
        json!({"data": {"fails": false}, "order": "shipped"})
    );
    let invokes = begin(&running, "test/invoke", json!({})).await;
    assert_eq!(output(&running.settled(invokes).await), "shipped");
    ended_runs_of(&running, "hears-invoked", 2).await;
    quiet(&running).await;
    assert_eq!(runs_of(&running, "hears-invoked").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_outlive_the_server_and_later_listeners_hear_of_later_ends() {
    let clock = dormouse_server::clock::SimClock::new(super::START);
    let running = super::Running::start("", Duration::ZERO, tuning(&clock)).await;
    running.deploy("bench", "bench").await;
    let before = running.invoke("bench/one", "{}").await;
    running.settled(before).await;
    let store = running.server.app().store();
    assert_eq!(store.untold(10).await.expect("reads"), [], "nobody listens");
    running.deploy("ends", "ends").await;
    let after = running.invoke("bench/one", "{}").await;
    running.settled(after).await;
    let running = running.restart(Duration::ZERO, tuning(&clock)).await;
    quiet(&running).await;
    let mut heard = Vec::new();
    for run in runs_of(&running, "hears-finished").await {
        heard.push(output(&running.run(run.id).await)["data"]["run_id"].clone());
    }
    let times = |run: dormouse_core::RunId| heard.iter().filter(|heard| **heard == run.to_string()).count();
    assert_eq!((times(before), times(after)), (0, 1), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_names_are_refused_from_outside() {
    let (running, _clock) = start(Duration::ZERO).await;
    for name in ["dormouse/function.failed", "inngest/function.failed", "Inngest/x"] {
        let event = json!({"name": name, "data": {}}).to_string();
        let refused = running.server.app().send_events(&[&event], None).await;
        assert_eq!(refused.expect_err(name).code, "invalid-event", "{name}");
    }
}
