//! The server itself: whether it lives, whether it can take work, its metrics, and its nodes.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use dormouse_core::Timestamp;
use dormouse_store::schedule::Node;
use serde::Serialize;

use super::envelope::{Answer, Failed, data};
use super::query::Params;
use crate::app::App;
use crate::telemetry::Metrics;

/// The release.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

#[derive(Serialize)]
struct Up {
    status: &'static str,
    version: &'static str,
}

/// `GET /health`: the process answers. Never more than that: whoever restarts what is unhealthy must not restart a
/// server for a full disk.
pub(super) async fn health() -> Response {
    Json(Up {
        status: "ok",
        version: RELEASE,
    })
    .into_response()
}

/// `GET /ready`: a write would be durable now.
pub(super) async fn ready(State(app): State<App>) -> Result<Response, Failed> {
    app.ready().await?;
    Ok(Json(Up {
        status: "ready",
        version: RELEASE,
    })
    .into_response())
}

/// `GET /metrics`: Prometheus text. When the store cannot be read, its gauges keep their last values.
pub(super) async fn metrics(State(app): State<App>) -> Response {
    let metrics = Metrics::install();
    ::metrics::gauge!("dormouse_instances_live").set(f64::from(app.instances().live));
    match app.store().counts().await {
        Ok(counts) => Metrics::observe(&counts, app.now()),
        Err(error) => tracing::warn!(%error, "the store's numbers are missing from /metrics"),
    }
    super::text("text/plain; version=0.0.4; charset=utf-8", metrics.render())
}

/// `GET /dev`: what clients of Inngest's third major look for to find a development server; they want JSON, no matter
/// which.
pub(super) async fn dev(State(app): State<App>) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Dev {
        version: &'static str,
        authed: bool,
        functions: Vec<String>,
        handlers: [(); 0],
        is_single_node_service: bool,
        is_missing_signing_key: bool,
        is_missing_event_keys: bool,
    }
    let snapshot = app.registry().snapshot();
    let mut functions: Vec<String> = snapshot
        .modules
        .iter()
        .flat_map(|(module, active)| {
            active
                .manifest
                .functions
                .iter()
                .map(move |function| format!("{module}/{}", function.id))
        })
        .collect();
    functions.sort_unstable();
    // Whoever asks shows no key.
    if app.inner().keys.closed() {
        functions.clear();
    }
    Json(Dev {
        version: RELEASE,
        authed: app.inner().keys.closed(),
        functions,
        handlers: [],
        is_single_node_service: true,
        is_missing_signing_key: false,
        is_missing_event_keys: false,
    })
    .into_response()
}

#[derive(Serialize)]
struct NodeView {
    incarnation: String,
    name: String,
    version: String,
    url: String,
    draining: bool,
    runs: u64,
    joined_at: Timestamp,
    heartbeat_at: Timestamp,
    silent_ms: u64,
}

impl From<Node> for NodeView {
    fn from(node: Node) -> NodeView {
        NodeView {
            incarnation: node.incarnation.to_string(),
            name: node.name,
            version: node.release,
            url: node.url,
            draining: node.draining,
            runs: node.runs,
            joined_at: node.joined_at,
            heartbeat_at: node.heartbeat_at,
            silent_ms: u64::try_from(node.silent_for.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// `GET /v1/nodes`.
pub(super) async fn nodes(State(app): State<App>, params: Params) -> Answer {
    params.only(&[])?;
    let nodes = app.store().nodes(app.now()).await?;
    let views: Vec<NodeView> = nodes.into_iter().map(NodeView::from).collect();
    Ok(data(app.now(), views))
}

/// `POST /v1/nodes/{node}/drain`: asks a node to hand its runs to the others and to end.
pub(super) async fn drain(State(app): State<App>, Path(node): Path<String>, params: Params) -> Answer {
    params.only(&[])?;
    let node = app.drain(&node).await?;
    Ok(data(app.now(), NodeView::from(node)))
}
