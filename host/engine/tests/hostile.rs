//! Guests that harm: each is ended with a word for it, and neither the engine nor the neighbours notice.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dormouse_engine::{Engine, LegEnd};
use support::{Host, engine, engine_in, leg, module, once, output, run, trap};

async fn still_well(engine: &Engine) {
    let bench = module(engine, "bench").await;
    let (end, host, _) = once(engine, &bench, "ten", "{}").await;
    assert_eq!(output(end), 45);
    assert_eq!(host.bodies, 10);
    assert_eq!(engine.instances().live, 0, "every instance is given back");
    assert_eq!(engine.instances().memory_bytes, 0, "all memory is given back");
}

#[tokio::test]
async fn each_harm_has_a_word() {
    let (engine, _directory) = engine();
    let hostile = module(&engine, "hostile").await;
    for (function, codes, step, host_dependent) in [
        ("allocate-outside", &["memory-limit"][..], None, false),
        ("allocate-inside", &["memory-limit"], Some("allocate"), false),
        ("recurse-outside", &["stack-overflow"], None, false),
        ("recurse-inside", &["stack-overflow"], Some("recurse"), false),
        ("nested", &["nested-step"], Some("outer"), false),
        ("panic-outside", &["guest-panic"], None, false),
        ("out-of-bounds", &["guest-panic"], None, false),
        ("many-operations", &["too-many-operations"], None, false),
        ("hoard", &["too-many-handles"], None, false),
    ] {
        let (end, ..) = once(&engine, &hostile, function, "{}").await;
        let trap = trap(end);
        assert!(codes.contains(&trap.code), "{function}: {trap:?}");
        assert_eq!(trap.step.as_deref(), step, "{function}: {trap:?}");
        assert_eq!(trap.host_dependent, host_dependent, "{function}: {trap:?}");
        assert!(!trap.message.is_empty(), "{function}");
    }
    still_well(&engine).await;
}

/// Whichever is reached first of the processor's time and the time that passes.
#[tokio::test]
async fn an_endless_loop_is_ended_by_either_clock() {
    let (engine, _directory) = engine();
    let hostile = module(&engine, "hostile").await;
    for (cpu_ms, stretch_ms, code) in [(100, 600_000, "cpu-limit"), (600_000, 100, "wall-limit")] {
        let mut leg = leg(&hostile, "loop-outside", "{}");
        leg.limits.cpu_ms = cpu_ms;
        leg.limits.stretch_ms = stretch_ms;
        let (end, ..) = run(&engine, &leg, Host::new(false)).await;
        let trap = trap(end);
        assert_eq!(trap.code, code, "{trap:?}");
        assert!(trap.host_dependent && trap.step.is_none(), "{trap:?}");
        assert!(trap.message.contains("100 ms"), "the limit is named: {trap:?}");
    }
    still_well(&engine).await;
}

#[tokio::test]
async fn a_panic_brings_its_message_and_where_it_was() {
    let (engine, _directory) = engine();
    let hostile = module(&engine, "hostile").await;
    let (end, host, _) = once(&engine, &hostile, "panic-outside", "{}").await;
    let outside = trap(end);
    assert!(
        outside.message.contains("as asked, outside of a body"),
        "{outside:?}"
    );
    assert!(outside.message.contains("hostile/src/lib.rs:"), "{outside:?}");
    assert!(
        outside.frames.iter().any(|frame| frame.contains("hostile::")),
        "{outside:?}"
    );
    assert!(
        outside.frames.iter().all(|frame| !frame.starts_with("core::")),
        "{outside:?}"
    );
    assert!(
        host.logs
            .iter()
            .any(|(_, line, in_body)| line.contains("as asked") && !in_body)
    );
    assert!(!outside.retryable_body());

    let (end, host, _) = once(&engine, &hostile, "panic-inside", "{}").await;
    let inside = trap(end);
    assert_eq!(
        (inside.code, inside.step.as_deref()),
        ("guest-panic", Some("panic"))
    );
    assert!(inside.retryable_body());
    assert!(
        host.logs
            .iter()
            .any(|(_, line, in_body)| line.contains("inside of a body") && *in_body)
    );
    let failure = inside.into_failure();
    assert_eq!(failure.code.as_deref(), Some("guest-panic"));
    assert!(failure.details.expect("frames").as_str().contains("hostile"));
}

#[tokio::test]
async fn what_is_too_large_is_refused_or_cut() {
    let (engine, _directory) = engine();
    let hostile = module(&engine, "hostile").await;
    let roomy = |function| {
        let mut leg = leg(&hostile, function, "{}");
        leg.limits.memory_bytes = 256 << 20;
        leg.limits.cpu_ms = 10_000;
        leg.limits.body_cpu_ms = 10_000;
        leg
    };
    let (end, ..) = run(&engine, &roomy("huge-output"), Host::new(false)).await;
    let LegEnd::Failed(failure) = end else {
        panic!("{end:?}")
    };
    assert_eq!(failure.code.as_deref(), Some("output-too-large"));

    let (end, host, _) = run(&engine, &roomy("huge-step-output"), Host::new(false)).await;
    let LegEnd::Failed(failure) = end else {
        panic!("{end:?}")
    };
    assert_eq!(failure.code.as_deref(), Some("output-too-large"), "{failure:?}");
    assert_eq!(host.entries().len(), 1, "the failure is the step's outcome");

    let (end, host, _) = once(&engine, &hostile, "huge-name", "{}").await;
    let LegEnd::Failed(failure) = end else {
        panic!("{end:?}")
    };
    assert_eq!(failure.code.as_deref(), Some("invalid-name"));
    assert!(host.entries().is_empty(), "nothing is recorded");

    let (end, host, _) = run(&engine, &roomy("huge-stdout"), Host::new(false)).await;
    assert!(matches!(end, LegEnd::Done(_)), "{end:?}");
    let printed: usize = host.logs.iter().map(|(_, line, _)| line.len()).sum();
    assert!(printed < 200 << 10, "{printed}");
    assert_eq!(
        host.logs
            .iter()
            .filter(|(_, line, _)| line.contains("cut here"))
            .count(),
        2
    );

    let (end, host, _) = run(&engine, &roomy("huge-log"), Host::new(false)).await;
    assert!(matches!(end, LegEnd::Done(_)), "{end:?}");
    assert!(host.logs[0].1.len() < 17 << 10 && host.logs[0].1.contains("bytes in all"));
    still_well(&engine).await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_ended() {
    let (engine, _directory) = engine();
    let hostile = module(&engine, "hostile").await;
    let mut timed = leg(&hostile, "loop-inside", "{}");
    timed.limits.body_cpu_ms = 60_000;
    let mut host = Host::new(false);
    host.body_timeout_ms = 300;
    let (end, ..) = run(&engine, &timed, host).await;
    let timeout = trap(end);
    assert_eq!(
        (timeout.code, timeout.step.as_deref()),
        ("step-timeout", Some("loop")),
        "{timeout:?}"
    );
    assert!(timeout.host_dependent && timeout.retryable_body());

    timed.limits.body_cpu_ms = 50;
    let (end, _, stats) = run(&engine, &timed, Host::new(false)).await;
    assert_eq!(trap(end).code, "cpu-limit");
    assert!(
        stats.cpu >= Duration::from_millis(50) && stats.yields > 0,
        "{stats:?}"
    );
}

/// On one thread: a guest that computes must let the others have it.
#[tokio::test(flavor = "current_thread")]
async fn neighbours_go_on_while_one_computes() {
    let (engine, _directory) = engine();
    let hostile = module(&engine, "hostile").await;
    let bench = module(&engine, "bench").await;
    let ended = Arc::new(AtomicBool::new(false));
    let looping = tokio::spawn({
        let (engine, ended) = (engine.clone(), ended.clone());
        let mut leg = leg(&hostile, "loop-outside", "{}");
        leg.limits.cpu_ms = 1_000;
        leg.limits.stretch_ms = 60_000;
        async move {
            let (end, ..) = engine.run_leg(leg, Host::new(false)).await;
            ended.store(true, Ordering::SeqCst);
            end
        }
    });
    tokio::task::yield_now().await;
    // A task like the other: what runs in `block_on` itself has another turn than tasks have.
    let beside = tokio::spawn({
        let engine = engine.clone();
        async move {
            let mut beside = 0;
            while !ended.load(Ordering::SeqCst) {
                let (end, ..) = once(&engine, &bench, "ten", "{}").await;
                assert_eq!(output(end), 45);
                beside += 1;
                tokio::task::yield_now().await;
            }
            beside
        }
    });
    assert_eq!(trap(looping.await.expect("no panic")).code, "cpu-limit");
    let beside: u32 = beside.await.expect("no panic");
    assert!(beside >= 20, "only {beside} legs beside a second of computing");
}

#[tokio::test]
async fn the_caller_ends_a_leg_anywhere() {
    let (engine, _directory) = engine();
    let hostile = module(&engine, "hostile").await;
    let mut computing = leg(&hostile, "loop-outside", "{}");
    computing.limits.cpu_ms = 600_000;
    computing.limits.stretch_ms = 600_000;
    let interrupt = computing.interrupt.clone();
    let task = tokio::spawn({
        let engine = engine.clone();
        async move { engine.run_leg(computing, Host::new(false)).await.0 }
    });
    while engine.instances().memory_bytes == 0 {
        tokio::task::yield_now().await;
    }
    interrupt.trap_now();
    assert_eq!(trap(task.await.expect("no panic")).code, "cancelled");

    let bench = module(&engine, "bench").await;
    let waiting = leg(&bench, "sleeper", "{\"ms\":1000}");
    let interrupt = waiting.interrupt.clone();
    let mut host = Host::new(false);
    host.park = true;
    let task = tokio::spawn({
        let engine = engine.clone();
        async move { engine.run_leg(waiting, host).await }
    });
    while engine.instances().memory_bytes == 0 {
        tokio::task::yield_now().await;
    }
    interrupt.trap_now();
    let (end, host, _) = task.await.expect("no panic");
    assert_eq!(trap(end).code, "cancelled");
    assert!(host.park, "the host comes back");
    still_well(&engine).await;
}

#[tokio::test]
async fn dropping_the_future_drops_the_instance() {
    let (engine, _directory) = engine();
    let bench = module(&engine, "bench").await;
    let mut host = Host::new(false);
    host.park = true;
    let task = tokio::spawn({
        let (engine, leg) = (engine.clone(), leg(&bench, "sleeper", "{\"ms\":1000}"));
        async move { engine.run_leg(leg, host).await.0 }
    });
    while engine.instances().memory_bytes == 0 {
        tokio::task::yield_now().await;
    }
    task.abort();
    assert!(task.await.expect_err("aborted").is_cancelled());
    still_well(&engine).await;
}

#[tokio::test]
async fn the_node_has_a_limit_and_legs_wait_their_turn() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let engine = engine_in(&directory, |options| {
        options.instances_max = 2;
        options.node_memory_max = 8 << 20;
    });
    let hostile = module(&engine, "hostile").await;
    let (end, ..) = once(&engine, &hostile, "allocate-outside", "{}").await;
    let full = trap(end);
    assert_eq!(
        (full.code, full.host_dependent),
        ("node-memory-limit", true),
        "{full:?}"
    );

    let bench = module(&engine, "bench").await;
    let legs = (0..20).map(|_| once(&engine, &bench, "ten", "{}"));
    for (end, ..) in futures::future::join_all(legs).await {
        assert_eq!(output(end), 45);
    }
    assert_eq!(engine.instances().waiting, 0);
    still_well(&engine).await;
}

/// The host refuses by its own count; the engine only has to carry that many.
#[tokio::test]
async fn many_steps_are_carried() {
    let (engine, _directory) = engine();
    let hostile = module(&engine, "hostile").await;
    let (end, host, stats) = once(&engine, &hostile, "many-steps", "{}").await;
    assert_eq!(output(end), 20_000);
    assert_eq!(host.bodies, 20_000);
    assert_eq!(stats.host_calls, 40_000);
}

/// Nothing to wait for and nothing to do: the SDK or the engine must say so, rather than hang.
#[tokio::test]
async fn awaiting_nothing_is_told() {
    let (engine, _directory) = engine();
    let hostile = module(&engine, "hostile").await;
    let (end, ..) = once(&engine, &hostile, "await-nothing", "{}").await;
    match end {
        LegEnd::Trapped(trap) => assert!(matches!(trap.code, "guest-panic" | "bad-call"), "{trap:?}"),
        LegEnd::Failed(failure) => assert!(!failure.message.is_empty()),
        other => panic!("{other:?}"),
    }
}
