//! Modules and their versions: upload, activate, delete; and the functions that are active.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use dormouse_core::manifest::Function;
use dormouse_core::swap::Policy;
use dormouse_core::trigger::Trigger;
use dormouse_core::{Digest, EventId, Json, RunId, Timestamp, limit};
use dormouse_store::registry::{Changed, Version};
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::body::{self, Limit};
use super::envelope::{Answer, data};
use super::query::{self, Params};
use crate::app::App;
use crate::problem::Problem;

/// What someone says about a version, in bytes.
const MESSAGE_BYTES_MAX: usize = 4_096;

pub(super) const COMPONENT: Limit = Limit {
    bytes: limit::COMPONENT_BYTES_MAX,
    code: "component-too-large",
    what: "the component",
};

/// Who uploads, as long as there are no keys to tell by.
const UPLOADER: &str = "anonymous";

/// A version as the API shows it.
#[derive(Serialize)]
struct VersionView {
    module: String,
    version: Digest,
    active: bool,
    activated_at: Option<Timestamp>,
    /// What becomes of runs in flight of the module's other versions, if it is active.
    policy: Option<Policy>,
    size: u64,
    uploaded_at: Timestamp,
    uploaded_by: String,
    message: Option<String>,
    functions: Vec<FunctionView>,
    /// Runs on it that have not ended. Only where versions of one module are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    live_runs: Option<u64>,
}

/// A function as the API shows it.
#[derive(Serialize)]
struct FunctionView {
    function_id: String,
    id: String,
    module: String,
    version: Digest,
    name: Option<String>,
    triggers: Vec<Trigger>,
    retries: u32,
    /// Whether new runs are held. Only where the functions that are active are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
}

impl FunctionView {
    fn of(module: &str, version: Digest, function: &Function) -> FunctionView {
        FunctionView {
            function_id: format!("{module}/{}", function.id),
            id: function.id.clone(),
            module: module.to_owned(),
            version,
            name: function.name.clone(),
            triggers: function.triggers.clone(),
            retries: function.retry_policy().attempts.saturating_sub(1),
            paused: None,
        }
    }
}

impl VersionView {
    fn of(version: Version, functions: &[Function], live_runs: Option<u64>) -> VersionView {
        let digest = version.digest;
        VersionView {
            functions: functions
                .iter()
                .map(|function| FunctionView::of(&version.module, digest, function))
                .collect(),
            module: version.module,
            version: digest,
            active: version.active,
            activated_at: version.activated_at,
            policy: version.active.then_some(version.policy),
            size: version.size,
            uploaded_at: version.uploaded_at,
            uploaded_by: version.uploaded_by,
            message: version.message,
            live_runs,
        }
    }
}

/// `GET /v1/modules`: each with its active version.
pub(super) async fn list(State(app): State<App>, params: Params) -> Answer {
    params.only(&[])?;
    let snapshot = app.registry().snapshot();
    let mut views: Vec<VersionView> = snapshot
        .modules
        .values()
        .map(|active| VersionView::of(active.version.clone(), &active.manifest.functions, None))
        .collect();
    views.sort_by(|a, b| a.module.cmp(&b.module));
    Ok(data(app.now(), views))
}

/// `GET /v1/functions`: of all active versions.
pub(super) async fn functions(State(app): State<App>, params: Params) -> Answer {
    params.only(&["module"])?;
    let module = params.get("module").map(query::module).transpose()?;
    let snapshot = app.registry().snapshot();
    let mut views: Vec<FunctionView> = snapshot
        .modules
        .values()
        .filter(|active| module.is_none_or(|module| module == active.version.module))
        .flat_map(|active| {
            let Version { module, digest, .. } = &active.version;
            active
                .manifest
                .functions
                .iter()
                .map(|function| FunctionView::of(module, *digest, function))
        })
        .collect();
    for view in &mut views {
        let paused = |name| snapshot.paused.contains(&name);
        view.paused = view.function_id.parse().ok().map(paused);
    }
    views.sort_by(|a, b| a.function_id.cmp(&b.function_id));
    Ok(data(app.now(), views))
}

/// `GET /v1/modules/{name}/versions`, newest first.
pub(super) async fn versions(State(app): State<App>, Path(name): Path<String>, params: Params) -> Answer {
    params.only(&[])?;
    let module = query::module(&name)?;
    let versions = app.store().versions(module).await?;
    if versions.is_empty() {
        return Err(no_module(module).into());
    }
    let views: Vec<VersionView> = versions
        .into_iter()
        .map(|version| {
            // A manifest that this release no longer reads must not hide the version.
            let manifest = dormouse_core::manifest::Manifest::parse(version.manifest.as_str());
            let functions = manifest.map(|manifest| manifest.functions).unwrap_or_default();
            let live = version.live_runs;
            VersionView::of(version, &functions, Some(live))
        })
        .collect();
    Ok(data(app.now(), views))
}

#[derive(Serialize)]
struct DeployedView {
    module: String,
    version: Digest,
    /// The module did not have it before.
    new: bool,
    active: bool,
    policy: Policy,
    previous: Option<Digest>,
    size: u64,
    functions: Vec<FunctionView>,
}

/// `PUT /v1/modules/{name}`: the body is the component. 201 for a new version, 200 for one that was there.
pub(super) async fn upload(
    State(app): State<App>,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    params.only(&["policy"])?;
    let module = query::module(&name)?.to_owned();
    let policy = query::policy(params.get("policy"))?;
    let message = message(&headers)?;
    let component = body::read(&headers, body, COMPONENT).await?;
    let deployed = app.deploy(&module, component, UPLOADER, message, policy).await?;
    let status = if deployed.new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let functions = deployed.manifest.functions.iter();
    let view = DeployedView {
        functions: functions
            .map(|function| FunctionView::of(&deployed.module, deployed.version, function))
            .collect(),
        module: deployed.module.clone(),
        version: deployed.version,
        new: deployed.new,
        active: true,
        policy: deployed.policy,
        previous: deployed.previous,
        size: deployed.size,
    };
    Ok((status, data(app.now(), view)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Activate {
    version: String,
    #[serde(default)]
    policy: Option<String>,
}

#[derive(Serialize)]
struct ActivatedView {
    module: String,
    version: Digest,
    active: bool,
    policy: Policy,
    /// It was not active before, or with another policy.
    changed: bool,
}

/// `POST /v1/modules/{name}/activate`: makes a kept version active.
pub(super) async fn activate(
    State(app): State<App>,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    params.only(&[])?;
    let module = query::module(&name)?.to_owned();
    let asked: Activate = body::json(&headers, body, None).await?;
    let policy = query::policy(asked.policy.as_deref())?;
    let version = query::digest(&asked.version)?;
    let (changed, policy) = app.activate(&module, version, policy).await?;
    let changed = matches!(changed, Changed::Done(_));
    Ok(data(
        app.now(),
        ActivatedView {
            module,
            version,
            active: true,
            policy,
            changed,
        },
    ))
}

#[derive(Serialize)]
struct DeletedView {
    module: String,
    version: Digest,
    deleted: bool,
}

/// `DELETE /v1/modules/{name}/versions/{digest}`: a version that no run needs.
pub(super) async fn delete(
    State(app): State<App>,
    Path((name, version)): Path<(String, String)>,
    params: Params,
) -> Answer {
    params.only(&[])?;
    let module = query::module(&name)?.to_owned();
    let version = query::digest(&version)?;
    app.delete_version(&module, version).await?;
    Ok(data(
        app.now(),
        DeletedView {
            module,
            version,
            deleted: true,
        },
    ))
}

#[derive(Serialize)]
struct InvokedView {
    run_id: RunId,
    event_id: EventId,
    function_id: String,
}

/// `POST /invoke/{module}/{function}`: starts a run; 202 once that is durable. The body is the data, an object; an empty
/// body is an empty object.
pub(super) async fn invoke(
    State(app): State<App>,
    Path((module, function)): Path<(String, String)>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    params.only(&[])?;
    let name = query::function(&module, &function)?;
    let invoked = body::json(&headers, body, Some(Json::trusted("{}"))).await?;
    if invoked.len() > limit::EVENT_BYTES_MAX {
        let message = format!(
            "the data is {} bytes, more than the limit of {}",
            invoked.len(),
            limit::EVENT_BYTES_MAX
        );
        return Err(Problem::new(400, "event-too-big", message).into());
    }
    let (run_id, event_id) = app.invoke(&name, invoked).await?;
    let view = InvokedView {
        run_id,
        event_id,
        function_id: name.to_string(),
    };
    let mut response: Response = (StatusCode::ACCEPTED, data(app.now(), view)).into_response();
    if let Ok(location) = HeaderValue::try_from(format!("/v1/runs/{run_id}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

fn no_module(module: &str) -> Problem {
    Problem::not_found("module", format!("\"{module}\""))
}

/// What the uploader says about the version: UTF-8 in a header.
fn message(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("x-dormouse-message") else {
        return Ok(None);
    };
    let invalid =
        |reason: String| Problem::new(400, "invalid-message", format!("x-dormouse-message: {reason}"));
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|error| invalid(format!("it is not UTF-8: {error}")))?;
    if text.len() > MESSAGE_BYTES_MAX {
        return Err(invalid(format!(
            "{} bytes, more than the limit of {MESSAGE_BYTES_MAX}",
            text.len()
        )));
    }
    let text = text.trim();
    Ok((!text.is_empty()).then(|| text.to_owned()))
}
