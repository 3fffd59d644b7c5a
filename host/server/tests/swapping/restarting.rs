//! Runs that begin again on another version: at once where they rest, after their body where they execute.

use dormouse_core::run::{Phase, Status};
use dormouse_core::swap::Policy;

use super::support::component;
use super::versions::{Kind, output, version};
use super::{HOUR, PARKING, asleep, bodies, deploy, in_phase, start, swaps, wake};

#[tokio::test(flavor = "multi_thread")]
async fn what_rests_begins_again_at_once_with_its_id_and_its_event() {
    for park_idle in PARKING {
        let running = start(park_idle).await;
        let app = running.server.app();
        let one = deploy(&running, &version(Kind::First, 0), None).await;
        let sleeping = asleep(&running, HOUR).await;
        let waiting = running
            .invoke("swaps/walk", r#"{"laps":1,"ms":100,"event":"test/never"}"#)
            .await;
        running.settled(waiting).await;
        let pinned = asleep(&running, HOUR).await;
        app.pin(pinned).await.expect("asked");
        let paused = asleep(&running, HOUR).await;
        app.pause(paused).await.expect("paused");
        // It would diverge from what they have recorded.
        let two = deploy(&running, &version(Kind::Reordering, 0), Some(Policy::Restart)).await;
        running
            .until(sleeping, "begun again", |run| run.version == two)
            .await;
        in_phase(&running, sleeping, Phase::Sleeping).await;
        let again = running.run(sleeping).await;
        assert_eq!((again.journal_base, again.journal_next), (2, 3), "it naps first");
        let [swap] = &*swaps(&running, sleeping).await else {
            panic!("it began again once")
        };
        assert_eq!(
            (swap.from, swap.to, swap.seq, swap.restarted),
            (one, two, 2, true)
        );
        for _ in 0..2 {
            let at = running.run(sleeping).await.journal_next;
            wake(&running, sleeping).await;
            running
                .until(sleeping, "further", |run| {
                    run.ended_at.is_some()
                        || (run.journal_next > at && run.state.phase == Some(Phase::Sleeping))
                })
                .await;
        }
        let ended = running.settled(sleeping).await;
        assert_eq!(
            (ended.state.status, ended.version),
            (Status::Completed, two),
            "{ended:?}"
        );
        assert_eq!(output(&ended).0, Kind::Reordering);
        assert_eq!(bodies(&running, sleeping).await, ["work-0", "work-1"]);
        // Those that may not: one that a person holds where it is, and one that has ended.
        assert_eq!(running.run(pinned).await.version, one);
        assert_eq!(running.run(waiting).await.version, one);
        // One that was paused does so when it is resumed.
        assert_eq!(running.run(paused).await.version, one);
        app.resume(paused).await.expect("resumed");
        running
            .until(paused, "begun again", |run| run.version == two)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_executes_begins_again_and_what_is_gone_stays() {
    for park_idle in PARKING {
        let running = start(park_idle).await;
        let one = deploy(&running, &version(Kind::First, 0), None).await;
        // Many short laps: wherever it is met, it executes or is about to.
        let busy = running.invoke("swaps/walk", r#"{"laps":3000,"ms":0}"#).await;
        running
            .until(busy, "under way", |run| run.journal_next > 20)
            .await;
        let two = deploy(&running, &version(Kind::Appending, 0), Some(Policy::Restart)).await;
        running.until(busy, "begun again", |run| run.version == two).await;
        running.server.app().cancel(busy).await.expect("cancelled");
        let [swap] = &*swaps(&running, busy).await else {
            panic!("it began again once")
        };
        assert_eq!((swap.from, swap.to, swap.restarted), (one, two, true));

        let run = asleep(&running, r#"{"laps":1,"ms":3600000}"#).await;
        let three = deploy(&running, &component("bench"), Some(Policy::Restart)).await;
        wake(&running, run).await;
        let ended = running.settled(run).await;
        assert_eq!((ended.state.status, ended.version), (Status::Completed, two));
        let [swap] = &*swaps(&running, run).await else {
            panic!("it is said once why it stays")
        };
        let why = swap.stayed.as_ref().expect("it stays");
        assert_eq!((swap.to, &*why.code), (three, "function-gone"));
    }
}
