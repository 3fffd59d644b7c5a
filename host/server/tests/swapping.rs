//! Runs in flight under another version, in whole servers with real guests: what a preflight says of each is what becomes of
//! it, also when instances stay in memory, and nothing that is recorded is executed again.

mod support;

#[path = "swapping/asking.rs"]
mod asking;
#[path = "swapping/restarting.rs"]
mod restarting;
#[path = "swapping/staying.rs"]
mod staying;
#[path = "swapping/versions.rs"]
mod versions;

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::run::{Phase, Status};
use dormouse_core::swap::{Policy, Swap};
use dormouse_core::{Digest, RunId, Timestamp};
use dormouse_server::Tuning;
use dormouse_server::clock::SimClock;
use dormouse_server::preflight::Candidate;
use dormouse_store::registry::Changed;
use support::{Running, verifying};

use versions::{Kind, output, version};

/// Both ways of coming back to a run: in a fresh instance, and in the one that was kept.
const PARKING: [Duration; 2] = [Duration::ZERO, Duration::from_secs(5)];
/// The guest can speak HTTP, though here it is not told to whom.
const CONFIG: &str = "[modules.swaps]\nhttp = [\"witness.example\"]\n";
/// Longer than any test takes.
const HOUR: &str = r#"{"laps":2,"ms":3600000}"#;

async fn start(park_idle: Duration) -> Running {
    Running::start(CONFIG, park_idle, verifying(false)).await
}

/// Deploys a version of the module `swaps` under a policy.
async fn deploy(running: &Running, bytes: &bytes::Bytes, policy: Option<Policy>) -> Digest {
    let deployed = running
        .server
        .app()
        .deploy("swaps", bytes.clone(), "test", None, policy)
        .await;
    deployed.expect("it is deployed").version
}

async fn asleep(running: &Running, data: &str) -> RunId {
    let run = running.invoke("swaps/walk", data).await;
    in_phase(running, run, Phase::Sleeping).await;
    run
}

async fn in_phase(running: &Running, run: RunId, phase: Phase) {
    let is = |found: &dormouse_store::read::Run| found.state.phase == Some(phase);
    running.until(run, phase.as_str(), is).await;
}

async fn wake(running: &Running, run: RunId) {
    running.server.app().wake(run).await.expect("it is woken");
}

async fn swaps(running: &Running, run: RunId) -> Vec<Swap> {
    running.server.app().store().swaps(run).await.expect("read")
}

/// Names of all steps' bodies in a run's journal, in order.
async fn bodies(running: &Running, run: RunId) -> Vec<String> {
    let journal = running.server.app().store().journal(run, 0).await;
    let records = journal.expect("read").into_iter();
    let body =
        |record: &dormouse_core::journal::Record| record.kind == dormouse_core::journal::RecordKind::Step;
    records.filter(body).map(|record| record.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_goes_over_with_the_next_thing_it_does_and_completes_there() {
    for park_idle in PARKING {
        for (kind, adds) in [(Kind::Compatible, false), (Kind::Appending, true)] {
            let running = start(park_idle).await;
            let first = version(Kind::First, 0);
            let one = deploy(&running, &first, None).await;
            let run = asleep(&running, HOUR).await;
            let next = version(kind, 0);
            let looked = running
                .server
                .app()
                .preflight("swaps", Candidate::Component(next.clone()), 10)
                .await;
            assert_eq!(looked.expect("looks").report.tally().stay(), 0, "{kind:?}");

            let two = deploy(&running, &next, Some(Policy::Migrate)).await;
            // It sleeps: nothing has become of it yet.
            let still = running.run(run).await;
            assert_eq!((still.version, still.state.phase), (one, Some(Phase::Sleeping)));
            assert_eq!(swaps(&running, run).await, []);
            wake(&running, run).await;
            running.until(run, "over", |run| run.version == two).await;
            in_phase(&running, run, Phase::Sleeping).await;
            let [swap] = &*swaps(&running, run).await else {
                panic!("it went over once")
            };
            assert_eq!((swap.from, swap.to, swap.stayed.clone()), (one, two, None));
            assert_eq!(
                swap.seq, 2,
                "work and nap were there; the nap's end is the new version's"
            );
            wake(&running, run).await;
            let ended = running.settled(run).await;
            assert_eq!(
                (ended.state.status, ended.version),
                (Status::Completed, two),
                "{ended:?}"
            );
            let (by, tokens) = output(&ended);
            assert_eq!(by, kind);
            let expected: &[&str] = match adds {
                true => &["work-0", "work-1", "appended"],
                false => &["work-0", "work-1"],
            };
            assert_eq!(bodies(&running, run).await, expected);
            assert_eq!(tokens.len(), expected.len());
            assert_eq!(swaps(&running, run).await.len(), 1);
            // Nothing needs the first version any more.
            running
                .server
                .app()
                .delete_version("swaps", one)
                .await
                .expect("deleted");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_runs_and_runs_of_a_pinned_deploy_are_left_alone() {
    let running = start(support::park_idle()).await;
    let one = deploy(&running, &version(Kind::First, 0), None).await;
    let run = asleep(&running, HOUR).await;
    let two = deploy(&running, &version(Kind::Compatible, 0), None).await;
    let new = asleep(&running, HOUR).await;
    for _ in 0..2 {
        for run in [run, new] {
            wake(&running, run).await;
        }
        for (run, version) in [(run, one), (new, two)] {
            running
                .until(run, "on", |run| {
                    run.state.phase == Some(Phase::Sleeping) || run.ended_at.is_some()
                })
                .await;
            assert_eq!(running.run(run).await.version, version);
        }
    }
    for (run, version) in [(run, one), (new, two)] {
        let ended = running.settled(run).await;
        assert_eq!((ended.state.status, ended.version), (Status::Completed, version));
        assert_eq!(swaps(&running, run).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_activation_decides_and_a_roll_back_is_an_activation() {
    for park_idle in PARKING {
        let running = start(park_idle).await;
        let app = running.server.app();
        let one = deploy(&running, &version(Kind::First, 0), None).await;
        let (moves, waits) = (asleep(&running, HOUR).await, asleep(&running, HOUR).await);
        let two = deploy(&running, &version(Kind::Compatible, 0), Some(Policy::Migrate)).await;
        wake(&running, moves).await;
        running.until(moves, "over", |run| run.version == two).await;
        in_phase(&running, moves, Phase::Sleeping).await;
        // The same component again, by who knows of no policies, changes nothing.
        deploy(&running, &version(Kind::Compatible, 0), None).await;
        assert_eq!(
            app.registry().snapshot().modules["swaps"].version.policy,
            Policy::Migrate
        );

        // Back, and whoever went over comes back too.
        let back = app
            .activate("swaps", one, Some(Policy::Migrate))
            .await
            .expect("activated");
        assert!(matches!(back, (Changed::Done(_), Policy::Migrate)), "{back:?}");
        let needed = app
            .delete_version("swaps", two)
            .await
            .expect_err("a run is on it");
        assert_eq!(needed.code, "version-needed");
        wake(&running, moves).await;
        let ended = running.settled(moves).await;
        assert_eq!((ended.state.status, ended.version), (Status::Completed, one));
        let history: Vec<(Digest, Digest)> = swaps(&running, moves)
            .await
            .iter()
            .map(|swap| (swap.from, swap.to))
            .collect();
        assert_eq!(history, [(one, two), (two, one)]);

        // Who had not gone over yet stays where it is under a policy that says so.
        app.activate("swaps", two, Some(Policy::Pin))
            .await
            .expect("activated");
        wake(&running, waits).await;
        wake_at_its_next_nap(&running, waits).await;
        let ended = running.settled(waits).await;
        assert_eq!((ended.state.status, ended.version), (Status::Completed, one));
        assert_eq!(swaps(&running, waits).await, []);
        app.delete_version("swaps", one).await.expect("nothing needs it");
    }
}

/// Wakes a run of two laps from its second nap.
async fn wake_at_its_next_nap(running: &Running, run: RunId) {
    running
        .until(run, "at its second nap", |run| {
            run.journal_next == 5 && run.state.phase == Some(Phase::Sleeping)
        })
        .await;
    wake(running, run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_wait_back_off_or_are_paused_go_over_too() {
    for park_idle in PARKING {
        // Nothing comes due before the test says so.
        let clock = SimClock::new(Timestamp::from_millis(1_790_000_000_000));
        let tuning = Tuning {
            clock: Arc::new(clock.clone()),
            ..verifying(false)
        };
        let running = Running::start(CONFIG, park_idle, tuning).await;
        let app = running.server.app();
        let one = deploy(&running, &version(Kind::First, 0), None).await;
        let waiting = running
            .invoke("swaps/walk", r#"{"laps":1,"ms":3600000,"event":"test/told"}"#)
            .await;
        in_phase(&running, waiting, Phase::Sleeping).await;
        wake(&running, waiting).await;
        in_phase(&running, waiting, Phase::Waiting).await;
        let backing_off = running
            .invoke("swaps/walk", r#"{"laps":1,"ms":1,"failing":2}"#)
            .await;
        in_phase(&running, backing_off, Phase::BackingOff).await;
        let paused = asleep(&running, HOUR).await;
        app.pause(paused).await.expect("paused");
        let two = deploy(&running, &version(Kind::Compatible, 0), Some(Policy::Migrate)).await;

        let event = r#"{"name":"test/told","data":{}}"#;
        app.send_events(&[event], None).await.expect("sent");
        assert_eq!(running.settled(waiting).await.version, two);
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while running.run(backing_off).await.ended_at.is_none() {
            assert!(std::time::Instant::now() < deadline, "it never ends");
            clock.advance(Duration::from_millis(100));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for run in [waiting, backing_off] {
            let ended = running.settled(run).await;
            assert_eq!(
                (ended.state.status, ended.version),
                (Status::Completed, two),
                "{ended:?}"
            );
            assert_eq!(output(&ended).0, Kind::Compatible);
            assert_eq!(swaps(&running, run).await[0].from, one);
        }
        // Resumed, it goes over with the wait that it comes back to, and wakes as it would have.
        app.resume(paused).await.expect("resumed");
        running.until(paused, "over", |run| run.version == two).await;
        in_phase(&running, paused, Phase::Sleeping).await;
        assert_eq!(running.run(paused).await.journal_next, 2, "without an entry");
        wake(&running, paused).await;
        wake_at_its_next_nap(&running, paused).await;
        assert_eq!(running.settled(paused).await.state.status, Status::Completed);
        assert_eq!(swaps(&running, paused).await.len(), 1);
    }
}
