//! Guests that misuse what differs between executions: the same on replay, or a word for it.

mod support;

use dormouse_core::Timestamp;
use dormouse_engine::{Engine, LegEnd, Module};
use support::{Host, START, engine, leg, module, once, output, run, trap};

async fn both_ways(engine: &Engine, module: &Module, function: &str) -> (LegEnd, Host, LegEnd, Host) {
    let leg = leg(module, function, "{\"ms\":20}");
    let (live, live_host, _) = run(engine, &leg, Host::new(false)).await;
    let (eager, eager_host, _) = run(engine, &leg, Host::new(true)).await;
    (live, live_host, eager, eager_host)
}

/// In one leg or in as many as possible, the run takes the same steps.
#[tokio::test]
async fn what_is_allowed_is_the_same_on_replay() {
    let (engine, _directory) = engine();
    let guest = module(&engine, "determinism").await;
    for function in [
        "clocks",
        "random",
        "map-order",
        "map-in-body",
        "declared-impure",
        "surroundings",
    ] {
        let (live, live_host, eager, eager_host) = both_ways(&engine, &guest, function).await;
        assert_eq!(live_host.divergence, None, "{function}");
        assert_eq!(eager_host.divergence, None, "{function}");
        assert_eq!(live_host.names(), eager_host.names(), "{function}");
        let (mut live, mut eager) = (output(live), output(eager));
        // What bodies saw is real, and so it differs.
        for seen in [&mut live, &mut eager] {
            if let Some(seen) = seen.as_object_mut() {
                seen.remove("inside");
            }
        }
        assert_eq!(live, eager, "{function}");
    }
    // The seed is drawn in a body, so each run has its own; its replays share it.
    for eager in [false, true] {
        let (end, host, _) = run(&engine, &leg(&guest, "seeded-by-output", "{}"), Host::new(eager)).await;
        assert_eq!(host.divergence, None);
        assert!(matches!(end, LegEnd::Done(_)), "{end:?}");
    }
}

#[tokio::test]
async fn another_seed_is_another_randomness() {
    let (engine, _directory) = engine();
    let guest = module(&engine, "determinism").await;
    let first = leg(&guest, "random", "{}");
    let mut second = first.clone();
    second.seed = [43; 32];
    let (_, host, _) = run(&engine, &first, Host::new(false)).await;
    let (_, other, _) = run(&engine, &second, Host::new(false)).await;
    assert_ne!(host.names()[0], other.names()[0]);
}

#[tokio::test]
async fn impurity_is_found_by_replaying() {
    let (engine, _directory) = engine();
    let guest = module(&engine, "determinism").await;
    let (end, host, _) = run(&engine, &leg(&guest, "impure", "{}"), Host::new(true)).await;
    // Replayed after every body, the static is never seen set: that is what declaring gives without being asked.
    assert!(matches!(end, LegEnd::Done(_)), "{end:?} {:?}", host.divergence);
    let (end, mut host, _) = run(&engine, &leg(&guest, "impure", "{}"), Host::new(false)).await;
    assert!(matches!(end, LegEnd::Done(_)), "{end:?}");
    assert_eq!(host.names()[..3], ["visit", "second", "first"]);
    host.rewind();
    let (end, host, _) = run(&engine, &leg(&guest, "impure", "{}"), host).await;
    assert_eq!(end, LegEnd::Stopped);
    let divergence = host.divergence.expect("found");
    assert!(
        divergence.contains("first") && divergence.contains("second"),
        "{divergence}"
    );
}

/// Drawing in a body marks it, so the host replaces the instance, and what was seeded there is gone at once.
#[tokio::test]
async fn a_draw_in_a_body_marks_it() {
    let (engine, _directory) = engine();
    let guest = module(&engine, "determinism").await;
    let (end, host, _) = once(&engine, &guest, "seeded-in-body", "{}").await;
    assert!(matches!(end, LegEnd::Done(_)), "{end:?}");
    assert_eq!(host.divergence, None);
    assert_eq!(host.state_changed[..2], [true, false]);
    let (_, host, _) = once(&engine, &guest, "declared-impure", "{}").await;
    assert!(host.state_changed[0]);
    let (_, host, _) = once(&engine, &guest, "map-order", "{}").await;
    assert!(
        host.state_changed.iter().all(|changed| !changed),
        "{:?}",
        host.state_changed
    );
}

#[tokio::test]
async fn clocks_stand_outside_and_run_inside() {
    let (engine, _directory) = engine();
    let guest = module(&engine, "determinism").await;
    let (end, host, _) = once(&engine, &guest, "clocks", "{\"ms\":5000}").await;
    let output = output(end);
    let seen: Vec<&str> = output["seen"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|name| name.as_str())
        .collect();
    let wall: Vec<u64> = seen
        .iter()
        .map(|name| {
            name.split(' ')
                .next()
                .expect("a clock")
                .parse()
                .expect("a number")
        })
        .collect();
    assert_eq!(wall[0], START.as_millis_u64() * 1_000_000, "the run's start");
    assert!(
        wall[1] >= wall[0] + 5_000_000_000 && wall[1].is_multiple_of(1_000_000),
        "{wall:?}"
    );
    let inside = Timestamp::from_millis(output["inside"].as_i64().expect("a time"));
    assert!(
        inside >= host.now_at_end().before(std::time::Duration::from_secs(5)),
        "{inside}"
    );

    let (end, ..) = once(&engine, &guest, "sleep-inside", "{\"ms\":30}").await;
    assert!(support::output(end).as_u64().expect("milliseconds") >= 30);
}

#[tokio::test]
async fn effects_outside_bodies_are_refused() {
    let (engine, _directory) = engine();
    let guest = module(&engine, "determinism").await;
    let (end, ..) = once(&engine, &guest, "sleep-outside", "{\"ms\":5}").await;
    let waited = trap(end);
    assert_eq!(waited.code, "blocking-wait", "{waited:?}");
    assert!(waited.message.contains("step.sleep"));
    let (end, ..) = once(&engine, &guest, "raw-http-outside", "{}").await;
    assert_eq!(trap(end).code, "http-outside-body");
    let (end, ..) = once(&engine, &guest, "http-outside", "{}").await;
    assert!(matches!(end, LegEnd::Failed(_) | LegEnd::Trapped(_)), "{end:?}");
}

#[tokio::test]
async fn there_is_nothing_around_a_guest() {
    let (engine, _directory) = engine();
    let guest = module(&engine, "determinism").await;
    let (end, ..) = once(&engine, &guest, "surroundings", "{}").await;
    let found = output(end);
    assert_eq!(found["environment"], serde_json::json!([]));
    assert_eq!(found["arguments"], serde_json::json!([]));
    assert_eq!(found["file"], serde_json::Value::Null);
    assert_eq!(found["write"], false);
    assert_eq!(found["nan"], "7ff8000000000000");
}
