//! Functions in other languages, written to the plain contract: built by those languages' own tools, and run in whole
//! servers in virtual time, with instances that are dropped at each wait and with parked ones.

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::Timestamp;
use dormouse_core::run::{Phase, Status};
use dormouse_server::Tuning;
use dormouse_server::clock::{Clock as _, SimClock};
use dormouse_store::read::Run;
use dormouse_testing_packages as packages;
use serde_json::{Value, json};
use support::{Running, verifying};

const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const PARKING: [Duration; 2] = [Duration::ZERO, Duration::from_secs(5)];
const HOUR: Duration = Duration::from_secs(3_600);

/// Builds a guest when it, the contract or its tools have changed.
fn build(language: &str, command: impl FnOnce(&Path) -> Command) -> Bytes {
    let source = packages::repository()
        .join("testing/guests-foreign")
        .join(language);
    let wit = packages::repository().join("wit");
    let directory = packages::once(&format!("guest-{language}"), &[&source, &wit], |into| {
        let mut command = command(&into.join("guest.wasm"));
        command.current_dir(&source);
        packages::run(command);
    });
    std::fs::read(directory.join("guest.wasm"))
        .expect("it was built")
        .into()
}

fn javascript() -> Bytes {
    build("javascript", |output| {
        let modules = packages::npm("testing/guests-foreign/javascript", true);
        let mut command = Command::new(packages::node());
        command
            .arg(modules.join("node_modules/componentize-qjs/bin/componentize-qjs"))
            .args([
                "--wit",
                "../../../wit",
                "--world",
                "module",
                "--sync",
                "--js",
                "module.js",
            ])
            .arg("--output")
            .arg(output);
        command
    })
}

fn python() -> Bytes {
    build("python", |output| {
        let mut command = Command::new(packages::pip("testing/guests-foreign/python"));
        command
            .args([
                "-B",
                // What its script says, which names a directory that it is no longer in.
                "-c",
                "from componentize_py import script; script()",
                "--wit-path",
                "../../../wit",
                "--world",
                "module",
            ])
            .args(["componentize", "app", "--output"])
            .arg(output);
        command
    })
}

fn output(run: &Run) -> Value {
    assert_eq!(run.state.status, Status::Completed, "{run:#?}");
    serde_json::from_str(run.output.as_ref().expect("an output").as_str()).expect("JSON")
}

async fn event(running: &Running, event: Value) {
    let sent = running
        .server
        .app()
        .send_events(&[&event.to_string()], None)
        .await;
    sent.expect("sent");
}

/// Limits hold for instances that are made on demand as for those of the pool.
async fn limits(component: Bytes) {
    let config = "[modules.foreign.limits]\ncpu_ms = 1000\nmemory_bytes = 67108864\n";
    let running = Running::start(config, Duration::ZERO, verifying(false)).await;
    let app = running.server.app();
    let deployed = app.deploy("foreign", component, "test", None, None).await;
    deployed.unwrap_or_else(|problem| panic!("{problem:?}"));
    let hoard = running.invoke("foreign/hoard", "{}").await;
    let endless = running.invoke("foreign/endless", "{}").await;
    let run = running.settled(endless).await;
    assert_eq!(
        run.error.as_ref().map(|error| error.code.as_str()),
        Some("cpu-limit"),
        "{run:#?}"
    );
    // The language may say it in its own words: an allocation that fails is its own affair first.
    let run = running.settled(hoard).await;
    assert_eq!(run.state.status, Status::Failed, "{run:#?}");
    let run = running.invoke("foreign/sequence", "{}").await;
    assert_eq!(output(&running.settled(run).await), 6);
    assert_eq!(app.instances().memory_bytes, 0, "all memory is given back");
}

/// Everything that the two guests have in common.
async fn runs(component: Bytes) {
    for park_idle in PARKING {
        let clock = SimClock::new(START);
        let tuning = Tuning {
            clock: Arc::new(clock.clone()),
            ..verifying(true)
        };
        let running = Running::start("", park_idle, tuning).await;
        let app = running.server.app();
        let deployed = app.deploy("foreign", component.clone(), "test", None, None).await;
        deployed.unwrap_or_else(|problem| panic!("{problem:?}"));

        let run = running.invoke("foreign/sequence", "{}").await;
        assert_eq!(output(&running.settled(run).await), 6);

        let run = running.invoke("foreign/parallel", "{}").await;
        for _ in 0..3 {
            running
                .until(run, "asleep", |run| {
                    let ahead = run.wake_at.is_some_and(|at| at > clock.now());
                    run.state.phase == Some(Phase::Sleeping) && ahead
                })
                .await;
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(
            output(&running.settled(run).await),
            json!(["fast", "middling", "slow"])
        );

        let run = running.invoke("foreign/race", "{}").await;
        let waits = |run: &Run| matches!(run.state.phase, Some(Phase::Waiting | Phase::Sleeping));
        running.until(run, "waiting", waits).await;
        event(&running, json!({"name": "foreign/go", "data": {"n": 1}})).await;
        let won = json!({"first": "event", "data": {"n": 1}});
        assert_eq!(output(&running.settled(run).await), won);
        let run = running.invoke("foreign/race", "{}").await;
        running.until(run, "waiting", waits).await;
        clock.advance(Duration::from_secs(60));
        assert_eq!(output(&running.settled(run).await), json!({"first": "nap"}));

        let sent = app
            .send_events(&[r#"{"name":"foreign/suspend","data":{"text":"Füße ✓"}}"#], None)
            .await;
        let run = sent.expect("sent").runs[0];
        running
            .until(run, "asleep", |run| run.state.phase == Some(Phase::Sleeping))
            .await;
        clock.advance(HOUR);
        let expected = json!({
            "before": {"attempt": 1}, "waited_ms": 3_600_000, "same": true, "data": {"text": "Füße ✓"},
        });
        assert_eq!(output(&running.settled(run).await), expected);

        let run = running.invoke("foreign/flaky", "{}").await;
        for _ in 0..2 {
            running
                .until(run, "backing off", |run| {
                    let ahead = run.wake_at.is_some_and(|at| at > clock.now());
                    run.state.phase == Some(Phase::BackingOff) && ahead
                })
                .await;
            clock.advance(HOUR);
        }
        assert_eq!(output(&running.settled(run).await), 3);

        let run = running
            .settled(running.invoke("foreign/compensate", "{}").await)
            .await;
        assert_eq!(run.state.status, Status::Failed, "{run:#?}");
        let error = run.error.as_ref().expect("an error");
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("gave-up", "gave up")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_in_javascript() {
    let component = javascript();
    runs(component.clone()).await;
    limits(component).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_in_python() {
    let component = python();
    runs(component.clone()).await;
    limits(component).await;
}
