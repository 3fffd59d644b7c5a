//! Whole servers, in this process, with real guests: determinism, verification, virtual time, refused uploads.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::run::{Phase, Status};
use dormouse_core::{Json, Timestamp};
use dormouse_server::Tuning;
use dormouse_server::clock::SimClock;
use dormouse_store::read::{EventFilter, RunFilter};

use support::{Running, component, park_idle, verifying};

const CONFIG: &str = "[modules.determinism]\nhttp = [\"127.0.0.1:9\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_misuse_what_varies_are_the_same_on_every_replay() {
    for (park_idle, bodies) in [
        (Duration::ZERO, true),
        (Duration::ZERO, false),
        (Duration::from_secs(5), true),
    ] {
        let running = Running::start(CONFIG, park_idle, verifying(bodies)).await;
        running.deploy("determinism", "determinism").await;
        let functions = [
            "clocks",
            "random",
            "map-order",
            "map-in-body",
            "seeded-by-output",
            "seeded-in-body",
            "declared-impure",
            "sleep-inside",
            "surroundings",
        ];
        for function in functions {
            let run = running
                .invoke(&format!("determinism/{function}"), r#"{"ms":5}"#)
                .await;
            let run = running.settled(run).await;
            assert_eq!(
                run.state.status,
                Status::Completed,
                "{function}, parked {park_idle:?}: {:?}",
                run.error
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_and_requests_outside_bodies_are_refused_clearly() {
    let running = Running::start(CONFIG, park_idle(), verifying(false)).await;
    running.deploy("determinism", "determinism").await;
    for (function, code, word) in [
        ("sleep-outside", "blocking-wait", "step.sleep"),
        ("raw-http-outside", "http-outside-body", "step"),
    ] {
        let run = running
            .invoke(&format!("determinism/{function}"), r#"{"ms":50}"#)
            .await;
        let run = running.settled(run).await;
        let error = run.error.expect("an error");
        assert_eq!(run.state.status, Status::Failed, "{function}");
        assert_eq!(error.code, code, "{function}: {error:?}");
        assert!(error.message.contains(word), "{function}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_verification_finds_a_deliberately_impure_body() {
    let running = Running::start(CONFIG, Duration::from_secs(5), verifying(true)).await;
    running.deploy("determinism", "determinism").await;
    let run = running.invoke("determinism/impure", r#"{"ms":5}"#).await;
    let run = running.settled(run).await;
    assert_eq!(run.state.phase, Some(Phase::Blocked), "{run:#?}");
    let error = run.error.expect("an error");
    assert_eq!(error.code, "impure-body", "{error:?}");
    assert!(
        error.message.contains("\"first\"") && error.message.contains("\"second\""),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_verification_the_next_replay_says_what_differs_and_nothing_runs() {
    // Only who is dropped is replayed.
    let running = Running::start(CONFIG, Duration::ZERO, verifying(false)).await;
    running.deploy("determinism", "determinism").await;
    let run = running.invoke("determinism/impure", r#"{"ms":5}"#).await;
    let run = running.settled(run).await;
    let error = run.error.expect("an error");
    assert_eq!(
        (run.state.phase, &*error.code),
        (Some(Phase::Blocked), "diverged"),
        "{error:?}"
    );
    assert!(error.message.contains("entry 1"), "{error:?}");
}

/// A month passes in a moment: timers wait on the server's clock alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_month_of_sleep_in_virtual_time() {
    for park_idle in [Duration::ZERO, Duration::from_secs(5)] {
        let start = Timestamp::from_millis(1_790_000_000_000);
        let clock = SimClock::new(start);
        let tuning = Tuning {
            clock: Arc::new(clock.clone()),
            ..verifying(false)
        };
        let running = Running::start("", park_idle, tuning).await;
        running.deploy("bench", "bench").await;
        let month = Duration::from_secs(30 * 86_400);
        let run = running
            .invoke("bench/sleeper", &format!(r#"{{"ms":{}}}"#, month.as_millis()))
            .await;
        let sleeping = running
            .until(run, "sleeping", |run| run.state.phase == Some(Phase::Sleeping))
            .await;
        assert_eq!(sleeping.wake_at, Some(start.after(month)));
        clock.advance(month - Duration::from_millis(1));
        assert_eq!(
            running.run(run).await.state.phase,
            Some(Phase::Sleeping),
            "a millisecond too early"
        );
        clock.advance(Duration::from_millis(1));
        let run = running.settled(run).await;
        assert_eq!(run.state.status, Status::Completed, "{run:#?}");
        assert_eq!(run.ended_at, Some(start.after(month)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_with_a_future_time_delays_its_runs() {
    let start = Timestamp::from_millis(1_790_000_000_000);
    let clock = SimClock::new(start);
    let running = Running::start(
        "",
        park_idle(),
        Tuning {
            clock: Arc::new(clock.clone()),
            ..verifying(false)
        },
    )
    .await;
    running.deploy("bench", "bench").await;
    let event = format!(r#"{{"name":"bench/one","ts":{}}}"#, start.as_millis() + 60_000);
    let sent = running
        .server
        .app()
        .send_events(&[&event], None)
        .await
        .expect("sent");
    let run = sent.runs[0];
    assert_eq!(running.run(run).await.state.status, Status::Scheduled);
    clock.advance(Duration::from_secs(60));
    assert_eq!(running.settled(run).await.state.status, Status::Completed);
}

/// Each is refused with a code and a sentence, and nothing of it is left behind.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_uploads_leave_nothing_behind() {
    let running = Running::start("", park_idle(), verifying(false)).await;
    let good = component("bench");
    let core_module = Bytes::from_static(b"\0asm\x01\0\0\0");
    let zeros = Bytes::from(vec![0; 100 << 20]);
    let uploads: Vec<(Bytes, &str, &str)> = vec![
        (Bytes::new(), "not-a-component", "empty"),
        (
            Bytes::from_static(b"not wasm at all"),
            "not-a-component",
            "as WebAssembly does",
        ),
        (core_module, "not-a-component", "core module"),
        (good.slice(..good.len() / 2), "invalid-component", "out of bounds"),
        (zeros, "component-too-large", "104857600 bytes"),
        (component("missing_exports"), "not-a-module", "export"),
        (component("unknown_import"), "unknown-import", "import"),
        (component("lying_calls"), "describe-failed", "describe"),
        (component("lying_duplicate"), "invalid-manifest", "two functions"),
        (component("lying_huge"), "invalid-manifest", "262144 are the most"),
        (component("lying_json"), "invalid-manifest", "JSON"),
        (component("lying_loop"), "describe-failed", "cpu"),
        (component("lying_name"), "invalid-manifest", "Not A Name!"),
        (component("lying_panic"), "describe-failed", "panic"),
        (
            component("lying_thousand"),
            "invalid-manifest",
            "1000 functions, more than the limit of 256",
        ),
        (component("kill"), "grant-missing", "may reach no host"),
    ];
    for (bytes, code, word) in uploads {
        let problem = running
            .server
            .app()
            .deploy("hostile", bytes, "test", None, None)
            .await
            .expect_err(word);
        assert!((400..500).contains(&problem.status), "{problem:?}");
        assert_eq!(problem.code, code, "{problem:?}");
        assert!(problem.message.contains(word), "no \"{word}\" in {problem:?}");
    }
    let store = running.server.app().store();
    assert!(store.versions("hostile").await.expect("read").is_empty());
    for directory in ["modules", "cache"] {
        let left: Vec<_> = std::fs::read_dir(running.dir.path().join("data").join(directory))
            .map(|entries| entries.flatten().map(|entry| entry.file_name()).collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "in {directory}: {left:?}");
    }
    running.deploy("hostile", "bench").await;
    let run = running.invoke("hostile/one", "{}").await;
    assert_eq!(
        running.settled(run).await.state.status,
        Status::Completed,
        "the server is unharmed"
    );
}

/// Guests that do their worst, all at once, beside one that just works.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_guests_fail_with_a_reason_and_their_neighbour_completes() {
    let config = "[modules.hostile.limits]\ncpu_ms = 200\nstretch_ms = 2000\nbody_cpu_ms = 400\n";
    let running = Running::start(config, park_idle(), verifying(false)).await;
    running.deploy("hostile", "hostile").await;
    running.deploy("bench", "bench").await;
    let functions = [
        ("loop-outside", "cpu-limit"),
        ("loop-inside", ""),
        ("allocate-outside", "memory-limit"),
        ("allocate-inside", ""),
        ("recurse-outside", "stack-overflow"),
        ("recurse-inside", ""),
        ("huge-output", ""),
        ("huge-step-output", ""),
        ("many-steps", "too-many-steps"),
        ("many-operations", ""),
        ("nested", ""),
        ("panic-outside", "guest-panic"),
        ("panic-inside", ""),
        ("out-of-bounds", "guest-panic"),
    ];
    let mut runs = Vec::new();
    for (function, code) in functions {
        runs.push((
            function,
            code,
            running.invoke(&format!("hostile/{function}"), "{}").await,
        ));
    }
    let neighbour = running.invoke("bench/ten", "{}").await;
    assert_eq!(running.settled(neighbour).await.state.status, Status::Completed);
    for (function, code, run) in runs {
        let run = running.settled(run).await;
        assert_eq!(run.state.status, Status::Failed, "{function}: {run:#?}");
        let error = run.error.expect("an error");
        assert!(code.is_empty() || error.code == code, "{function}: {error:?}");
        assert!(!error.message.is_empty(), "{function}");
    }
}

/// What is kept of a run has limits of its own, and a leg that its node may have been too busy for is tried three times more.
#[tokio::test(flavor = "multi_thread")]
async fn a_runs_journal_its_lines_and_its_tries_have_limits() {
    let config = "[modules.hostile.limits]\ncpu_ms = 300\n";
    let running = Running::start(config, park_idle(), verifying(false)).await;
    running.deploy("hostile", "hostile").await;
    let journal = running.invoke("hostile/huge-journal", "{}").await;
    let looping = running.invoke("hostile/loop-outside", "{}").await;
    let store = running.server.app().store();

    let run = running.settled(journal).await;
    let error = run.error.expect("an error");
    assert_eq!(
        (run.state.status, error.code.as_str()),
        (Status::Failed, "journal-too-large"),
        "{error:?}"
    );
    let records = store.journal(journal, 0).await.expect("read");
    let bytes: usize = records
        .iter()
        .filter_map(|record| record.payload.as_ref())
        .map(Json::len)
        .sum();
    // The one that was too much is kept as well: its body has run.
    assert!((64 << 20..68 << 20).contains(&bytes), "{bytes} bytes are kept");

    let run = running.settled(looping).await;
    assert_eq!(run.error.expect("an error").code, "cpu-limit");
    running.deploy("bench", "bench").await;
    let once = running.invoke("bench/one", "{}").await;
    let once = running.settled(once).await;
    assert_eq!(
        run.epoch,
        once.epoch + 3,
        "it was claimed again for three more tries"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_keeps_ten_thousand_lines_and_says_that_there_were_more() {
    let config = "[modules.hostile.limits]\ncpu_ms = 10000\n";
    let running = Running::start(config, park_idle(), verifying(false)).await;
    running.deploy("hostile", "hostile").await;
    let run = running.invoke("hostile/huge-log", "{}").await;
    assert_eq!(running.settled(run).await.state.status, Status::Completed);
    let store = running.server.app().store();
    let lines = store.logs(run, 0, 20_000).await.expect("read");
    assert_eq!(lines.len(), 10_000);
    assert!(lines.iter().zip(0..).all(|(line, number)| line.number == number));
    assert!(
        lines[0].message.len() < 20 << 10,
        "a line is cut: {} bytes",
        lines[0].message.len()
    );
    assert!(
        lines[9_999]
            .message
            .contains("10000 lines: later ones are not kept"),
        "{:?}",
        lines[9_999]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_id_starts_a_function_once_and_a_refused_request_stores_nothing() {
    let running = Running::start("", park_idle(), verifying(false)).await;
    running.deploy("bench", "bench").await;
    let app = running.server.app();
    let event = r#"{"name":"bench/one","id":"order-1"}"#;
    let first = app.send_events(&[event], None).await.expect("sent");
    let second = app.send_events(&[event, event], None).await.expect("sent");
    assert_eq!((first.runs.len(), second.runs.len()), (1, 0));
    let refused = app
        .send_events(&[r#"{"name":"bench/one"}"#, r#"{"name":""}"#], None)
        .await;
    assert_eq!(refused.expect_err("the second has no name").status, 400);
    let runs = app
        .store()
        .runs(RunFilter {
            limit: 10,
            ..RunFilter::default()
        })
        .await
        .expect("read");
    let events = app
        .store()
        .events(EventFilter {
            limit: 10,
            ..EventFilter::default()
        })
        .await
        .expect("read");
    assert_eq!((runs.len(), events.len()), (1, 3));
}
