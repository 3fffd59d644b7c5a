//! What a person says of a single run counts before what deploys say of all.

use dormouse_core::run::Status;
use dormouse_core::swap::Policy;

use super::support::park_idle;
use super::versions::{Kind, output, version};
use super::{HOUR, PARKING, asleep, deploy, in_phase, start, swaps, wake, wake_at_its_next_nap};
use dormouse_core::run::Phase;

#[tokio::test(flavor = "multi_thread")]
async fn one_run_goes_over_and_back_whatever_is_deployed() {
    for park_idle in PARKING {
        let running = start(park_idle).await;
        let app = running.server.app();
        let one = deploy(&running, &version(Kind::First, 0), None).await;
        let (run, other) = (
            asleep(&running, r#"{"laps":3,"ms":3600000}"#).await,
            asleep(&running, HOUR).await,
        );
        let two = deploy(&running, &version(Kind::Compatible, 0), None).await;
        app.migrate(run, None).await.expect("asked");
        assert_eq!(
            (running.run(run).await.version, running.run(run).await.asked),
            (one, Some(two))
        );
        let needed = app
            .delete_version("swaps", one)
            .await
            .expect_err("they are on it");
        assert_eq!(needed.code, "version-needed");
        wake(&running, run).await;
        running.until(run, "over", |run| run.version == two).await;
        in_phase(&running, run, Phase::Sleeping).await;
        // Back to a version that is not active; and a deploy that moves all others leaves it there.
        app.migrate(run, Some(one)).await.expect("asked");
        let three = deploy(&running, &version(Kind::Compatible, 1), Some(Policy::Migrate)).await;
        for run in [run, other] {
            wake(&running, run).await;
        }
        running.until(other, "over", |run| run.version == three).await;
        running.until(run, "back", |run| run.version == one).await;
        running
            .until(run, "at its third nap", |run| {
                run.journal_next == 8 && run.state.phase == Some(Phase::Sleeping)
            })
            .await;
        // Until it follows again.
        app.follow(run).await.expect("asked");
        wake(&running, run).await;
        let ended = running.settled(run).await;
        assert_eq!((ended.state.status, ended.version), (Status::Completed, three));
        let history: Vec<_> = swaps(&running, run)
            .await
            .iter()
            .map(|swap| (swap.from, swap.to))
            .collect();
        assert_eq!(history, [(one, two), (two, one), (one, three)]);
        let late = app.pin(run).await.expect_err("it has ended");
        assert_eq!(late.code, "already-ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_run_stays_and_what_cannot_be_is_refused() {
    let running = start(park_idle()).await;
    let app = running.server.app();
    let one = deploy(&running, &version(Kind::First, 0), None).await;
    let (pinned, stays) = (asleep(&running, HOUR).await, asleep(&running, HOUR).await);
    app.pin(pinned).await.expect("asked");
    let two = deploy(&running, &version(Kind::Inserting, 0), Some(Policy::Migrate)).await;
    for run in [pinned, stays] {
        wake(&running, run).await;
    }
    running
        .until(stays, "at its second nap", |run| run.journal_next == 5)
        .await;
    let refused = app.migrate(stays, Some(two)).await.expect_err("it was tried");
    assert_eq!(refused.code, "migration-refused");
    assert!(refused.message.contains("inserted-0"), "{refused:?}");
    let unknown = app
        .migrate(stays, Some(dormouse_core::Digest::of(b"unknown")))
        .await;
    assert_eq!(unknown.expect_err("there is none").code, "not-found");
    for run in [pinned, stays] {
        wake_at_its_next_nap(&running, run).await;
        let ended = running.settled(run).await;
        assert_eq!((ended.state.status, ended.version), (Status::Completed, one));
        assert_eq!(output(&ended).0, Kind::First);
    }
    assert_eq!(swaps(&running, pinned).await, [], "it was not even tried");
}
