//! Connections: accepting them, bounding what a slow or vanishing client can hold, and closing them at shutdown.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use futures::FutureExt as _;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::access::guard::Peer;
use crate::options::StartError;

/// How long a client may take to send a request's head; also how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at once; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 8_192;
/// How long open requests may take at shutdown. Streams are cut off then.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Binds an address.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| StartError::Address {
            address,
            reason: error.to_string(),
        })
}

/// Serves connections until told to stop; then lets open requests finish for a moment.
pub(crate) async fn serve(listener: TcpListener, routes: axum::Router, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = stop.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: let some connections end.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Answers are written whole; waiting to fill a segment only delays them.
        let _ = stream.set_nodelay(true);
        let routes = routes.clone();
        let service = service_fn(move |request| answer(routes.clone(), Peer(peer), request));
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // A client that goes away in the middle of a request is its own business.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, graceful.shutdown()).await;
}

/// Answers one request. A panic is a bug of ours, and the client is told so like anything else; at `debug`, a line says
/// what was asked and how it was answered.
async fn answer(
    routes: axum::Router,
    peer: Peer,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    request.extensions_mut().insert(peer);
    let shown = tracing::enabled!(tracing::Level::DEBUG)
        .then(|| (request.method().clone(), request.uri().clone(), Instant::now()));
    let answered = AssertUnwindSafe(routes.oneshot(request)).catch_unwind().await;
    let response = match answered {
        Ok(Ok(response)) => response,
        Err(panic) => {
            let message = panic
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            tracing::error!(message, "answering a request panicked");
            crate::api::panicked()
        }
    };
    if let Some((method, uri, began)) = shown {
        let (status, took) = (response.status().as_u16(), began.elapsed());
        let path = without_key(uri.path());
        tracing::debug!(%method, %path, status, ?took, "answered");
    }
    Ok(crate::api::finish(response))
}

/// A path as logs may have it: without the key that events are sent with, or any other.
fn without_key(path: &str) -> Cow<'_, str> {
    let begins = ["/e/", "dormouse_event_", "dormouse_api_", "signkey-"];
    let key = begins.into_iter().filter_map(|begin| {
        let place = path.find(begin)?;
        (begin != "/e/" || place == 0).then_some(place + begin.len())
    });
    match key.min() {
        Some(end) => Cow::Owned(format!("{}…", &path[..end])),
        None => Cow::Borrowed(path),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn no_key_stands_in_a_path_that_is_logged() {
        for (path, shown) in [
            ("/v1/runs", "/v1/runs"),
            ("/e/whatever/it/is", "/e/…"),
            ("/v1/e/x", "/v1/e/x"),
            ("/x/dormouse_api_3f9c_a5", "/x/dormouse_api_…"),
            ("/signkey-3f9c-a5", "/signkey-…"),
        ] {
            assert_eq!(without_key(path), shown);
        }
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_answered_for_and_the_connection_goes_on() {
        async fn broken() -> &'static str {
            panic!("a bug")
        }
        async fn whole() -> &'static str {
            "whole"
        }
        let routes = axum::Router::new()
            .route("/broken", axum::routing::get(broken))
            .route("/whole", axum::routing::get(whole));
        let listener = bind("127.0.0.1:0".parse().expect("an address"))
            .await
            .expect("binds");
        let address = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, routes, stop.clone()));
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
        let requests = "GET /broken HTTP/1.1\r\nhost: x\r\n\r\nGET /whole HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(requests.as_bytes()).await.expect("written");
        let mut answers = String::new();
        stream.read_to_string(&mut answers).await.expect("answered");
        assert!(answers.starts_with("HTTP/1.1 500 "), "{answers}");
        assert!(answers.contains(r#""code":"internal""#), "{answers}");
        assert!(answers.ends_with("whole"), "{answers}");
        stop.cancel();
        serving.await.expect("it ends");
    }
}
