//! The order in which things happen: what the executor, join! and select! promise, and what replay finds.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use dormouse::prelude::*;
use dormouse::testing::{Ending, Harness, Report};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn cancelled(report: &Report) -> Vec<&str> {
    report
        .steps
        .iter()
        .filter(|step| step.cancelled)
        .map(|step| step.name.as_str())
        .collect()
}

#[dormouse::function(id = "branches")]
async fn branches(step: Step) -> dormouse::Result<String> {
    let branch = async |name: &str, wait: u64| -> dormouse::Result<String> {
        step.sleep(format!("{name}-sleep"), seconds(wait)).await?;
        Ok(step.run(format!("{name}-run"), || Ok(name.to_owned())).await?)
    };
    let (slow, quick) = try_join!(branch("slow", 3), branch("quick", 1))?;
    Ok(slow + &quick)
}

#[test]
fn operations_overlap_and_each_delivery_is_followed_up_before_the_next() {
    let report = Harness::of::<branches>().run();
    assert_eq!(report.output::<String>(), "slowquick");
    assert_eq!(
        report.step_names(),
        ["slow-sleep", "quick-sleep", "quick-run", "slow-run"]
    );
    assert_eq!(report.elapsed, seconds(3));
}

#[dormouse::function(id = "same-time")]
async fn same_time(step: Step) -> dormouse::Result<Vec<String>> {
    let tasks = (0..4).map(|number| async move {
        step.sleep(format!("sleep-{number}"), seconds(1)).await?;
        dormouse::Ok(
            step.run(format!("run-{number}"), || Ok(format!("{number}")))
                .await?,
        )
    });
    try_join_all(tasks).await
}

use dormouse::try_join_all;

#[test]
fn of_several_that_are_due_the_first_begun_is_delivered_first_and_alone() {
    let report = Harness::of::<same_time>().run();
    assert_eq!(report.output::<Vec<String>>(), ["0", "1", "2", "3"]);
    assert_eq!(report.step_names()[4..], ["run-0", "run-1", "run-2", "run-3"]);
}

#[dormouse::function(id = "race")]
async fn race(event: Event<u64>, step: Step) -> dormouse::Result<String> {
    let winner = select! {
        outcome = step.sleep("short", seconds(event.data)) => { outcome?; "short" }
        _ = step.sleep("long", seconds(10)) => "long",
    };
    step.run("after", || Ok(())).await?;
    Ok(winner.to_owned())
}

#[test]
fn the_loser_of_a_race_is_cancelled_before_the_winners_expression_runs() {
    let report = Harness::of::<race>().event("a", 1).run();
    assert_eq!(report.output::<String>(), "short");
    assert_eq!(cancelled(&report), ["long"]);
    let report = Harness::of::<race>().event("a", 20).run();
    assert_eq!(report.output::<String>(), "long");
    assert_eq!(cancelled(&report), ["short"]);
}

#[test]
fn select_is_biased_to_the_first() {
    let report = Harness::of::<race>().event("a", 10).run();
    assert_eq!(report.output::<String>(), "short");
}

#[dormouse::function(id = "step-against-time", retries = 20, backoff(initial = "10s", factor = 1))]
async fn step_against_time(event: Event<u64>, step: Step) -> dormouse::Result<Option<u32>> {
    let succeeds_at = event.data;
    let body = |attempt: &Attempt| {
        if u64::from(attempt.number()) < succeeds_at {
            Err(Error::retryable("not yet"))
        } else {
            Ok(attempt.number())
        }
    };
    Ok(select! {
        done = step.run_with("try", body) => Some(done?),
        _ = step.sleep("limit", seconds(25)) => None,
    })
}

#[test]
fn a_race_can_be_lost_during_a_back_off() {
    let report = Harness::of::<step_against_time>().event("a", 99).run();
    assert_eq!(report.output::<Option<u32>>(), None);
    assert_eq!(report.steps[0].attempts, 3);
    assert_eq!(report.elapsed, seconds(25));
    assert_eq!(cancelled(&report), ["try"]);
}

#[test]
fn or_won_after_one() {
    let report = Harness::of::<step_against_time>().event("a", 3).run();
    assert_eq!(report.output::<Option<u32>>(), Some(3));
    assert_eq!(report.elapsed, seconds(20));
    assert_eq!(cancelled(&report), ["limit"]);
}

#[dormouse::function(id = "retry-while-other-waits", backoff(initial = "2s"))]
async fn retry_while_other_waits(step: Step) -> dormouse::Result<u32> {
    let body = |attempt: &Attempt| {
        if attempt.number() == 1 {
            Err(Error::retryable("no"))
        } else {
            Ok(attempt.number())
        }
    };
    let (tried, slept) = join!(step.run_with("try", body), step.sleep("wait", seconds(5)));
    slept?;
    Ok(tried?)
}

#[test]
fn a_branch_is_retried_while_another_waits() {
    let report = Harness::of::<retry_while_other_waits>().run();
    assert_eq!((report.output::<u32>(), report.elapsed), (2, seconds(5)));
}

#[dormouse::function(id = "fail-early")]
async fn fail_early(step: Step) -> dormouse::Result<()> {
    try_join!(
        step.sleep("long", seconds(100)),
        step.run::<(), _>("fail", || Err(Error::non_retriable("no")))
    )?;
    Ok(())
}

#[test]
fn the_first_failure_of_try_join_cancels_the_rest() {
    let report = Harness::of::<fail_early>().run();
    assert_eq!(report.error().message(), "step \"fail\": no");
    assert_eq!((cancelled(&report), report.elapsed), (vec!["long"], seconds(0)));
}

#[dormouse::function(id = "unused")]
async fn unused(step: Step) -> dormouse::Result<()> {
    drop(step.sleep("never", seconds(1)));
    let many = join_all((0..3).map(|number| step.sleep(format!("{number}"), seconds(number)))).await;
    assert!(many.into_iter().all(|slept| slept.is_ok()));
    Ok(())
}

#[test]
fn a_step_that_is_never_polled_is_no_step() {
    assert_eq!(Harness::of::<unused>().run().step_names(), ["0", "1", "2"]);
}

#[dormouse::function(id = "foreign-waker")]
async fn foreign_waker(step: Step) -> dormouse::Result<u32> {
    let mut polls = 0;
    std::future::poll_fn(|context| {
        polls += 1;
        if polls == 3 {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
    step.sleep("sleep", seconds(1)).await?;
    Ok(polls)
}

#[test]
fn a_future_that_wakes_itself_is_polled_again_without_the_host() {
    assert_eq!(Harness::of::<foreign_waker>().run().output::<u32>(), 3);
}

#[dormouse::function(id = "forever")]
async fn forever() -> dormouse::Result<()> {
    std::future::pending::<()>().await;
    Ok(())
}

#[test]
#[should_panic(expected = "awaits something that is not a step")]
fn awaiting_what_never_comes_panics_and_says_why() {
    Harness::of::<forever>().run();
}

static TURNED: AtomicBool = AtomicBool::new(false);

#[dormouse::function(id = "impure")]
async fn impure(step: Step) -> dormouse::Result<()> {
    step.run("turn", || {
        TURNED.store(true, Ordering::Relaxed);
        Ok(())
    })
    .await?;
    let name = if TURNED.swap(false, Ordering::Relaxed) {
        "turned"
    } else {
        "straight"
    };
    step.run(name, || Ok(())).await?;
    Ok(())
}

#[test]
fn an_impure_function_diverges_and_both_sides_are_named() {
    let report = Harness::of::<impure>().run();
    let Ending::Diverged(reason) = report.ending else {
        panic!("{:?}", report.ending)
    };
    assert_eq!(
        reason,
        "entry 1: journal has run \"turned\", code asked for run \"straight\""
    );
}

#[dormouse::function(id = "unsteady-output")]
async fn unsteady_output(step: Step) -> dormouse::Result<u32> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    step.run("step", || Ok(())).await?;
    Ok(CALLS.fetch_add(1, Ordering::Relaxed))
}

#[test]
fn another_output_on_replay_diverges_too() {
    let ending = Harness::of::<unsteady_output>().run().ending;
    assert!(matches!(ending, Ending::Diverged(_)), "{ending:?}");
}

#[dormouse::function(id = "maps")]
async fn maps(step: Step) -> dormouse::Result<()> {
    let mine = || (0..10).collect::<dormouse::HashSet<u32>>().len();
    let standard = || HashMap::<u32, u32>::from([(1, 2)]).len();
    step.run("fixed", || Ok(mine())).await?;
    step.run("standard", || Ok(standard())).await?;
    step.run_with("declared", |attempt| {
        attempt.state_changed();
        Ok(())
    })
    .await?;
    Ok(())
}

#[test]
fn standard_maps_made_inside_a_body_are_noticed() {
    let report = Harness::of::<maps>().parked().run();
    let changed: Vec<bool> = report.steps.iter().map(|step| step.state_changed).collect();
    assert_eq!(changed, [false, true, true]);
    // Each of the two replaced the instance, and the last leg verifies.
    assert_eq!(report.legs, 1 + 2 + 1);
}

thread_local!(static SMUGGLED: RefCell<Option<Step>> = const { RefCell::new(None) });

#[dormouse::function(id = "nested")]
async fn nested(step: Step) -> dormouse::Result<()> {
    SMUGGLED.set(Some(step));
    step.run("outer", || {
        let inner = SMUGGLED.take().map(|step| step.run("inner", || Ok(())));
        let mut inner = std::pin::pin!(inner.expect("smuggled"));
        let waker = std::task::Waker::from(Arc::new(Silent));
        let _ = inner.as_mut().poll(&mut std::task::Context::from_waker(&waker));
        Ok(())
    })
    .await?;
    Ok(())
}

struct Silent;

impl std::task::Wake for Silent {
    fn wake(self: Arc<Self>) {}
}

#[test]
#[should_panic(expected = "nested step: the body of \"outer\" asked for run \"inner\"")]
fn steps_do_not_nest_even_when_smuggled() {
    Harness::of::<nested>().run();
}

#[test]
#[should_panic(expected = "there is no run")]
fn a_step_outside_of_a_run_says_how_to_run_it() {
    thread_local!(static DUMMY: Cell<u8> = const { Cell::new(0) });
    DUMMY.set(1);
    dormouse::info!("nobody listens");
}
