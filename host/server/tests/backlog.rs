//! Very many runs that are due at once, as after an outage.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dormouse_core::Timestamp;
use dormouse_core::run::{Phase, Status};
use dormouse_server::Tuning;
use dormouse_server::clock::SimClock;
use dormouse_store::read::RunFilter;
use support::{Running, park_idle, verifying};

const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const HOUR: Duration = Duration::from_secs(3_600);
/// Events of one request.
const ARRAY: usize = 1_000;

/// The server was down when they came due. They wake in batches: never are there more instances than may be, others get
/// their turn meanwhile, and each run ends once.
#[tokio::test(flavor = "multi_thread")]
async fn timers_that_came_due_during_an_outage_wake_in_batches() {
    let long = std::env::var("DORMOUSE_TEST_LONG").is_ok_and(|value| value == "1");
    let runs = if long { 100_000 } else { 20_000 };
    let clock = SimClock::new(START);
    let tuning = || Tuning {
        clock: Arc::new(clock.clone()),
        ..verifying(false)
    };
    let running = Running::start("", park_idle(), tuning()).await;
    running.deploy("bench", "bench").await;
    let event = format!(r#"{{"name":"bench/one","ts":{}}}"#, START.after(HOUR).as_millis());
    let events = vec![event.as_str(); ARRAY];
    for _ in 0..runs / ARRAY {
        running
            .server
            .app()
            .send_events(&events, None)
            .await
            .expect("sent");
    }
    let store = running.server.app().store();
    let live: u64 = store.counts().await.expect("counts").live.iter().sum();
    assert!(live > 0, "none of them runs before its time");
    let filter = RunFilter {
        status: vec![Status::Completed],
        limit: 1,
        ..RunFilter::default()
    };
    assert!(store.runs(filter).await.expect("read").is_empty());

    clock.advance(2 * HOUR);
    let running = running.restart(park_idle(), tuning()).await;
    let newcomer = running.invoke("bench/one", "{}").await;
    let app = running.server.app();
    let (mut most, mut last) = (0, (u64::MAX, Instant::now()));
    loop {
        let instances = app.instances();
        assert!(instances.live <= instances.max, "{instances:?}");
        most = most.max(instances.live);
        let left: u64 = app.store().counts().await.expect("counts").live.iter().sum();
        if left == 0 {
            break;
        }
        app.ready().await.expect("it takes work meanwhile");
        if left != last.0 {
            last = (left, Instant::now());
        }
        assert!(
            last.1.elapsed() < Duration::from_secs(60),
            "{left} runs do not go on"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(most > 0, "runs were seen while they ran");
    assert_eq!(running.settled(newcomer).await.state.status, Status::Completed);
    let mut completed = 0;
    let mut before = None;
    loop {
        let filter = RunFilter {
            status: vec![Status::Completed],
            before,
            limit: 1_000,
            ..RunFilter::default()
        };
        let page = app.store().runs(filter).await.expect("read");
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        completed += page.len();
        assert!(page.iter().all(|run| run.state.phase != Some(Phase::Blocked)));
    }
    assert_eq!(completed, runs + 1, "each has run once, and the newcomer");
}
