//! What a version would do to runs in flight, in whole servers with real guests: each verdict beside the run it is about,
//! and nothing changed by it.

mod support;

#[path = "steps/setting.rs"]
mod setting;

use std::collections::BTreeMap;
use std::time::Duration;

use dormouse_core::preflight::{Change, Verdict};
use dormouse_core::run::{Phase, Status};
use dormouse_core::{Digest, RunId};
use dormouse_server::preflight::{Candidate, Preflight};
use dormouse_store::read::RunFilter;
use support::{Running, component, verifying};

const SAMPLE: u32 = 10_000;

async fn preflight(running: &Running, module: &str, guest: &str, sample: u32) -> Preflight {
    let looked = running
        .server
        .app()
        .preflight(module, Candidate::Component(component(guest)), sample)
        .await;
    looked.unwrap_or_else(|problem| panic!("{guest}: {problem:?}"))
}

async fn sleeping(running: &Running, function: &str, data: &str) -> RunId {
    let run = running.invoke(function, data).await;
    let asleep = running
        .until(run, "asleep", |run| run.state.phase == Some(Phase::Sleeping))
        .await;
    asleep.id
}

/// All that a run is in the store.
async fn stored(running: &Running, run: RunId) -> String {
    let store = running.server.app().store();
    let (journal, logs) = (store.journal(run, 0).await, store.logs(run, 0, 1000).await);
    format!("{:?} {journal:?} {logs:?}", running.run(run).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_more_diverges_at_its_entry_and_the_same_code_does_not() {
    let running = Running::start("", Duration::ZERO, verifying(false)).await;
    running.deploy("swap", "swap_v1").await;
    let run = sleeping(&running, "swap/swap", r#"{"ms":3600000}"#).await;
    let before = stored(&running, run).await;

    let looked = preflight(&running, "swap", "swap_v2", SAMPLE).await;
    assert_eq!((looked.in_flight, looked.sampled, looked.ended), (1, false, 0));
    assert_eq!(looked.report.tally().diverges, 1, "{looked:#?}");
    let group = looked.report.groups().next().expect("a group");
    assert_eq!(
        (group.function_id.as_str(), &*group.examples),
        ("swap/swap", &[run][..])
    );
    let Verdict::Diverges { divergence } = &group.verdict else {
        panic!("{group:?}")
    };
    assert_eq!(divergence.seq, 1);
    assert!(divergence.journal.contains("sleep \"pause\""), "{divergence}");
    assert_eq!(divergence.code, "run \"added\"");
    assert!(
        group.frames.iter().any(|frame| frame.contains("swap_v2::swap")),
        "{group:?}"
    );
    // What lies between the guest's code and the host is not the guest's code.
    let adapter = |frame: &String| frame.starts_with("function ") || frame.contains('#');
    assert!(!group.frames.iter().any(adapter), "{group:?}");
    assert_eq!(looked.changes, []);

    let looked = preflight(&running, "swap", "swap_v1", SAMPLE).await;
    assert_eq!(
        (looked.report.tally().unchanged, looked.report.tally().stay()),
        (1, 0)
    );

    // Nothing was changed: not the run, not what is active, not which versions there are.
    assert_eq!(stored(&running, run).await, before);
    let store = running.server.app().store();
    assert_eq!(store.versions("swap").await.expect("reads").len(), 1);
    let unknown = Digest::of(&component("swap_v2"));
    assert_eq!(store.component(unknown).await.expect("reads"), None);
    let missing = running
        .server
        .app()
        .preflight("swap", Candidate::Version(unknown), 1)
        .await;
    assert_eq!(missing.expect_err("not there").code, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_gone_is_said_and_a_kept_version_can_be_looked_at() {
    let running = Running::start("", Duration::ZERO, verifying(false)).await;
    running.deploy("swap", "swap_v1").await;
    let run = sleeping(&running, "swap/swap", r#"{"ms":3600000}"#).await;
    let looked = preflight(&running, "swap", "steps", SAMPLE).await;
    assert_eq!(looked.report.tally().function_gone, 1);
    assert_eq!(looked.report.groups().next().expect("a group").examples, [run]);
    assert!(looked.changes.contains(&Change::FunctionRemoved {
        function: "swap".to_owned()
    }));
    assert!(
        looked
            .changes
            .iter()
            .any(|change| matches!(change, Change::FunctionAdded { .. }))
    );

    // The other way round: the run's own version is no longer the active one.
    running.deploy("swap", "swap_v2").await;
    let one = Digest::of(&component("swap_v1"));
    let looked = running
        .server
        .app()
        .preflight("swap", Candidate::Version(one), SAMPLE)
        .await;
    let looked = looked.expect("looked at");
    assert_eq!((looked.version, looked.report.tally().unchanged), (one, 1));
    // And what was called diverging stays on its version, and completes there.
    running.server.app().wake(run).await.expect("woken");
    let ended = running.settled(run).await;
    assert_eq!((ended.state.status, ended.version), (Status::Completed, one));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_runs_than_asked_for_are_sampled_and_live_runs_go_on_meanwhile() {
    let running = Running::start("", Duration::ZERO, verifying(false)).await;
    running.deploy("swap", "swap_v1").await;
    let mut runs = BTreeMap::new();
    for _ in 0..60 {
        let run = running.invoke("swap/swap", r#"{"ms":3600000}"#).await;
        runs.insert(run, ());
    }
    for run in runs.keys() {
        running
            .until(*run, "asleep", |run| run.state.phase == Some(Phase::Sleeping))
            .await;
    }
    let looked = preflight(&running, "swap", "swap_v2", 20).await;
    assert_eq!((looked.in_flight, looked.sampled), (60, true));
    assert_eq!(looked.report.tally().checked(), 20);
    let (looked, quick) = tokio::join!(preflight(&running, "swap", "swap_v2", SAMPLE), async {
        let run = running.invoke("swap/swap", r#"{"ms":1}"#).await;
        running.settled(run).await
    });
    assert_eq!(quick.state.status, Status::Completed);
    assert!(
        !looked.sampled && looked.report.tally().diverges >= 60,
        "{looked:#?}"
    );
    let live = RunFilter {
        status: vec![Status::Running],
        limit: 100,
        ..RunFilter::default()
    };
    let store = running.server.app().store();
    assert_eq!(store.runs(live).await.expect("lists").len(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upload_would_be_refused_for_is_said() {
    let running = Running::start("", Duration::ZERO, verifying(false)).await;
    for (guest, code) in [
        ("lying_json", "invalid-manifest"),
        ("unknown_import", "unknown-import"),
    ] {
        let candidate = Candidate::Component(component(guest));
        let refused = running.server.app().preflight("swap", candidate, SAMPLE).await;
        assert_eq!(refused.expect_err(guest).code, code);
    }
    // A module that is new has nothing in flight.
    let looked = preflight(&running, "swap", "swap_v1", SAMPLE).await;
    assert_eq!((looked.in_flight, looked.active), (0, None));
}

/// The same code under another digest: with a section of its own that says nothing.
fn relabelled(guest: &str) -> Candidate {
    let mut bytes = component(guest).to_vec();
    bytes.extend([0, 2, 1, b'x']);
    Candidate::Component(bytes.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_may_ask_for_more_or_be_ended() {
    let running = Running::start("", Duration::ZERO, verifying(false)).await;
    running.deploy("swap", "swap_v1").await;
    let even = sleeping(&running, "swap/swap", r#"{"ms":3600000}"#).await;
    let odd = sleeping(&running, "swap/swap", r#"{"ms":3600001}"#).await;
    let looked = preflight(&running, "swap", "swap_v3", SAMPLE).await;
    let [fails, compatible] = &*looked.report.groups().collect::<Vec<_>>() else {
        panic!("{looked:#?}")
    };
    assert_eq!(
        (&*fails.examples, &*compatible.examples),
        (&[odd][..], &[even][..])
    );
    assert_eq!(compatible.verdict, Verdict::Compatible);
    let Verdict::Fails { error } = &fails.verdict else {
        panic!("{fails:?}")
    };
    assert_eq!(error.code, "guest-panic");
    assert!(error.message.contains("3600001 ms are odd"), "{error:?}");
    assert!(
        fails.frames.iter().any(|frame| frame.contains("swap_v3::swap")),
        "{fails:?}"
    );
    let changed = Change::FunctionChanged {
        function: "swap".to_owned(),
        member: "retries".to_owned(),
        before: serde_json::Value::Null,
        after: 2.into(),
    };
    assert_eq!(looked.changes, [changed]);
}

/// Runs that wait for each kind of step: the same code says of each that nothing is other, and what it asks for is not done.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_code_changes_nothing_for_a_run_at_any_kind_of_step() {
    let (running, _clock) = setting::start(Duration::ZERO).await;
    let mut runs = Vec::new();
    for (function, data) in [
        ("timed", r#"{"ms":3600000}"#),
        ("wait", r#"{"event":"steps/never"}"#),
        ("any-of-three", "{}"),
        ("wait-for-signal", r#"{"signal":"never"}"#),
        ("invoke", r#"{"data":{"sleep_ms":3600000}}"#),
        ("send-then-wait", "{}"),
        ("log", "{}"),
        ("all-kinds", "{}"),
    ] {
        let run = running.invoke(&format!("steps/{function}"), data).await;
        let at_rest = running
            .until(run, "at rest", |run| {
                matches!(
                    run.state.phase,
                    Some(Phase::Sleeping | Phase::Waiting | Phase::BackingOff)
                )
            })
            .await;
        runs.push((function, at_rest.id));
    }
    let app = running.server.app();
    let settled = async || {
        let counts = app.store().counts().await.expect("counts");
        counts.live[Phase::Executing as usize] + counts.live[Phase::Queued as usize] == 0
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !settled().await {
        assert!(std::time::Instant::now() < deadline, "the children never rest");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut before = Vec::new();
    for (_, run) in &runs {
        before.push(stored(&running, *run).await);
    }
    let in_flight = app.store().counts().await.expect("counts");

    let looked = app
        .preflight("steps", relabelled("steps"), SAMPLE)
        .await
        .expect("looks");
    let tally = looked.report.tally();
    assert_eq!(
        (tally.unchanged, tally.checked()),
        (looked.in_flight, looked.in_flight),
        "{looked:#?}"
    );
    // The children that all-kinds and invoke have begun are in flight, too.
    assert!(looked.in_flight > runs.len() as u64 + 5, "{}", looked.in_flight);
    assert_ne!(Some(looked.version), looked.active);
    for ((function, run), before) in runs.iter().zip(before) {
        assert_eq!(stored(&running, *run).await, before, "{function}");
    }
    assert_eq!(app.store().counts().await.expect("counts"), in_flight);
}
