//! The stream of a list: it says that something changed, not what. The page then fetches its fragment anew.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{sleep, timeout};

use crate::app::App;

/// A list is looked at as a whole: under load this often.
const COALESCE: Duration = Duration::from_millis(500);
/// So that proxies and clients know that the stream lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often to see whether the node stops.
const TICK: Duration = Duration::from_secs(1);

/// `GET /overview/stream`: an event `change` for whatever changes, the first at once.
pub(super) async fn stream(State(app): State<App>) -> Response {
    let changes = app.changes();
    let events = futures::stream::unfold((app, changes, true), |(app, mut changes, first)| async move {
        if !first {
            loop {
                match timeout(TICK, changes.recv()).await {
                    Ok(Ok(_) | Err(RecvError::Lagged(_))) => break,
                    Ok(Err(RecvError::Closed)) => return None,
                    Err(_) if app.inner().draining.load(Ordering::Relaxed) => return None,
                    Err(_) => {}
                }
            }
            sleep(COALESCE).await;
            while let Ok(_) | Err(TryRecvError::Lagged(_)) = changes.try_recv() {}
        }
        let event = Event::default().event("change").data("{}");
        Some((Ok::<_, Infallible>(event), (app, changes, false)))
    });
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(HEARTBEAT))
        .into_response()
}
