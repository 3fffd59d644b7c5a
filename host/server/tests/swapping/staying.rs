//! Runs that cannot go over to a version: they stay on their own, say why, and complete there.

use std::time::Duration;

use dormouse_core::RunId;
use dormouse_core::preflight::Verdict;
use dormouse_core::run::{Phase, Status};
use dormouse_core::swap::Policy;
use dormouse_server::preflight::Candidate;

use super::support::{Running, component};
use super::versions::{Kind, output, version};
use super::{HOUR, PARKING, asleep, bodies, deploy, in_phase, start, swaps, wake, wake_at_its_next_nap};

/// What a preflight says of the one run in flight.
async fn verdict(running: &Running, candidate: Candidate) -> Verdict {
    let looked = running.server.app().preflight("swaps", candidate, 10).await;
    let report = looked.expect("looks").report;
    let groups: Vec<_> = report.groups().collect();
    assert_eq!(groups.len(), 1, "{report:?}");
    groups[0].verdict.clone()
}

async fn completes_on(running: &Running, run: RunId, version: dormouse_core::Digest, kind: Kind) {
    let ended = running.settled(run).await;
    assert_eq!(
        (ended.state.status, ended.version),
        (Status::Completed, version),
        "{ended:?}"
    );
    assert_eq!(output(&ended).0, kind);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_diverges_stays_says_where_and_is_not_tried_again() {
    for park_idle in PARKING {
        for (kind, code) in [
            (Kind::Inserting, "run \"inserted-0\""),
            (Kind::Reordering, "sleep \"nap-0\""),
            (Kind::Argument, "sleep \"nap-0\""),
        ] {
            let running = start(park_idle).await;
            let one = deploy(&running, &version(Kind::First, 0), None).await;
            let run = asleep(&running, HOUR).await;
            let other = version(kind, 0);
            let Verdict::Diverges { divergence } =
                verdict(&running, Candidate::Component(other.clone())).await
            else {
                panic!("{kind:?} does not diverge")
            };
            let two = deploy(&running, &other, Some(Policy::Migrate)).await;
            wake(&running, run).await;
            wake_at_its_next_nap(&running, run).await;
            completes_on(&running, run, one, Kind::First).await;
            assert_eq!(bodies(&running, run).await, ["work-0", "work-1"]);
            let [swap] = &*swaps(&running, run).await else {
                panic!("it was tried more than once")
            };
            assert_eq!((swap.from, swap.to, swap.seq), (one, two, 2));
            let why = swap.stayed.as_ref().expect("it stays");
            assert_eq!((&*why.code, &why.message), ("diverged", &divergence.to_string()));
            assert!(why.message.contains(code), "{kind:?}: {why:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_traps_before_it_has_done_anything_stays_and_what_traps_later_fails_there() {
    for park_idle in PARKING {
        let running = start(park_idle).await;
        let one = deploy(&running, &version(Kind::First, 0), None).await;
        let run = asleep(&running, HOUR).await;
        let trapping = version(Kind::Trapping, 0);
        let verdict_of = verdict(&running, Candidate::Component(trapping.clone())).await;
        assert!(matches!(&verdict_of, Verdict::Fails { error } if error.code == "guest-panic"));
        let two = deploy(&running, &trapping, Some(Policy::Migrate)).await;
        wake(&running, run).await;
        running
            .until(run, "at its second nap", |run| {
                run.journal_next == 5 && run.state.phase == Some(Phase::Sleeping)
            })
            .await;

        // Of this one the trap is among what is recorded; of the other it comes after an entry of the new version.
        let later = version(Kind::TrappingLater, 0);
        let three = deploy(&running, &version(Kind::First, 1), None).await;
        let fresh = asleep(&running, HOUR).await;
        let four = deploy(&running, &later, Some(Policy::Migrate)).await;
        for run in [run, fresh] {
            wake(&running, run).await;
        }
        completes_on(&running, run, one, Kind::First).await;
        let stays: Vec<_> = swaps(&running, run)
            .await
            .into_iter()
            .map(|swap| (swap.to, swap.stayed.map(|why| why.code)))
            .collect();
        let panicked = Some("guest-panic".to_owned());
        assert_eq!(stays, [(two, panicked.clone()), (four, panicked)]);
        let failed = running.settled(fresh).await;
        assert_eq!((failed.state.status, failed.version), (Status::Failed, four));
        assert_eq!(failed.error.expect("why").code, "guest-panic");
        let [swap] = &*swaps(&running, fresh).await else {
            panic!("it went over once")
        };
        assert_eq!((swap.from, swap.to, swap.stayed.clone()), (three, four, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_gone_keeps_its_runs_where_they_are() {
    for policy in [Policy::Pin, Policy::Migrate] {
        let running = start(Duration::ZERO).await;
        let app = running.server.app();
        let one = deploy(&running, &version(Kind::First, 0), None).await;
        let run = asleep(&running, HOUR).await;
        let other = component("bench");
        let gone = verdict(&running, Candidate::Component(other.clone())).await;
        assert_eq!(gone, Verdict::FunctionGone);
        let two = deploy(&running, &other, Some(policy)).await;
        // Its triggers stop.
        let event = r#"{"name":"test/swaps.walk","data":{}}"#;
        let sent = app.send_events(&[event], None).await.expect("sent");
        assert_eq!(sent.runs, []);
        wake(&running, run).await;
        wake_at_its_next_nap(&running, run).await;
        completes_on(&running, run, one, Kind::First).await;
        let stays: Vec<_> = swaps(&running, run)
            .await
            .into_iter()
            .map(|swap| (swap.to, swap.stayed.expect("it stays").code))
            .collect();
        match policy {
            Policy::Migrate => assert_eq!(stays, [(two, "function-gone".to_owned())]),
            _ => assert_eq!(stays, []),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_run_goes_on_after_a_deploy_that_mends_it() {
    let running = start(Duration::ZERO).await;
    let one = deploy(&running, &version(Kind::First, 0), None).await;
    let run = running.invoke("swaps/impure", r#"{"ms":1}"#).await;
    let blocked = async |code: &str| {
        let blocked = running
            .until(run, "blocked", |run| run.state.phase == Some(Phase::Blocked))
            .await;
        assert_eq!((&*blocked.error.expect("why").code, blocked.version), (code, one));
    };
    blocked("diverged").await;
    // Another that is no better: the run stays, and is blocked again.
    let worse = deploy(&running, &version(Kind::Trapping, 0), Some(Policy::Pin)).await;
    assert_ne!(worse, one);
    blocked("diverged").await;
    let two = deploy(&running, &version(Kind::Compatible, 0), Some(Policy::Migrate)).await;
    let ended = running
        .until(run, "ended", |run| run.state.status.is_terminal())
        .await;
    assert_eq!((ended.state.status, ended.version), (Status::Completed, two));
    assert_eq!(output(&ended).0, Kind::Compatible);
    assert_eq!(bodies(&running, run).await, ["work"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_stays_goes_over_to_a_later_version_that_fits() {
    for park_idle in PARKING {
        let running = start(park_idle).await;
        let one = deploy(&running, &version(Kind::First, 0), None).await;
        let run = asleep(&running, r#"{"laps":3,"ms":3600000}"#).await;
        let two = deploy(&running, &version(Kind::Inserting, 0), Some(Policy::Migrate)).await;
        wake(&running, run).await;
        running
            .until(run, "at its second nap", |run| {
                run.journal_next == 5 && run.state.phase == Some(Phase::Sleeping)
            })
            .await;
        let three = deploy(&running, &version(Kind::Compatible, 0), Some(Policy::Migrate)).await;
        wake(&running, run).await;
        running.until(run, "over", |run| run.version == three).await;
        in_phase(&running, run, Phase::Sleeping).await;
        wake(&running, run).await;
        completes_on(&running, run, three, Kind::Compatible).await;
        let history: Vec<_> = swaps(&running, run)
            .await
            .into_iter()
            .map(|swap| (swap.seq, swap.from, swap.to, swap.stayed.is_some()))
            .collect();
        assert_eq!(history, [(2, one, two, true), (5, one, three, false)]);
        assert_eq!(bodies(&running, run).await, ["work-0", "work-1", "work-2"]);
    }
}
