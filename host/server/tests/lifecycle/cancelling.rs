//! Cancelling many runs with one command.

use std::time::{Duration, Instant};

use dormouse_core::FunctionName;
use dormouse_core::run::{Phase, Status};
use dormouse_store::cancellation::{Cancellation, CancellationId};

use super::support::Running;
use super::{PARKING, send, start, tuning};

fn sleeper() -> FunctionName {
    "bench/sleeper".parse().expect("a name")
}

/// Waits until a cancellation is done.
async fn done(running: &Running, id: CancellationId) -> Cancellation {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let all = running
            .server
            .app()
            .store()
            .cancellations(dormouse_store::cancellation::CancellationFilter::newest(100))
            .await
            .expect("lists");
        let found = all.into_iter().find(|cancellation| cancellation.id == id);
        let found = found.expect("it is there");
        if found.done_at.is_some() {
            return found;
        }
        assert!(Instant::now() < deadline, "it was never done: {found:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_a_function_are_cancelled_by_condition_and_time_and_others_go_on() {
    for park_idle in PARKING {
        let (running, clock) = start(park_idle).await;
        let mut runs = Vec::new();
        for n in 0..30 {
            let event = format!(r#"{{"name":"bench/sleeper","data":{{"ms":3600000,"n":{n}}}}}"#);
            runs.push(send(&running, &event).await[0]);
            clock.advance(Duration::from_secs(1));
        }
        let other = running.invoke("bench/one", "{}").await;
        assert_eq!(running.settled(other).await.state.status, Status::Completed);
        for run in &runs {
            running
                .until(*run, "sleeping", |run| run.state.phase == Some(Phase::Sleeping))
                .await;
        }
        let app = running.server.app();
        let condition = Some("event.data.n % 2 == 0".to_owned());
        let before = Some(super::START.after(Duration::from_secs(20)));
        let asked = app
            .cancel_many(sleeper(), None, before, condition)
            .await
            .expect("asked");
        let asked = done(&running, asked.id).await;
        assert_eq!(asked.cancelled, 10);
        for (n, run) in runs.iter().enumerate() {
            let status = running.run(*run).await.state.status;
            let expected = if n % 2 == 0 && n < 20 {
                Status::Cancelled
            } else {
                Status::Running
            };
            assert_eq!(status, expected, "run {n}");
        }
        // What begins afterwards is not meant; what was asked for is remembered over a restart.
        let after = Some(super::START.after(Duration::from_secs(25)));
        let second = app
            .cancel_many(sleeper(), after, None, None)
            .await
            .expect("asked");
        clock.advance(Duration::from_millis(1));
        let later = running.invoke("bench/sleeper", r#"{"ms":3600000}"#).await;
        let running = running.restart(park_idle, tuning(&clock)).await;
        assert_eq!(done(&running, second.id).await.cancelled, 5);
        assert_eq!(running.run(runs[29]).await.state.status, Status::Cancelled);
        assert!(!running.run(later).await.state.status.is_terminal());
        let app = running.server.app();
        app.delete_cancellation(second.id).await.expect("deleted");
        assert_eq!(
            app.delete_cancellation(second.id).await.expect_err("gone").status,
            404
        );
    }
}
