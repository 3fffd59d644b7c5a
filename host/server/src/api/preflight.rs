//! Preflight: what a version would do to a module's runs in flight. Changes nothing.

use axum::body::Body;
use axum::extract::{Path, State};
use dormouse_core::Digest;
use dormouse_core::preflight::{Change, Group, Tally};
use http::HeaderMap;
use serde::Serialize;

use super::body;
use super::envelope::{Answer, data};
use super::modules::COMPONENT;
use super::query::{self, Params};
use crate::app::App;
use crate::preflight::Candidate;
use crate::problem::Problem;

/// How many runs are looked at, unless the request says otherwise.
const SAMPLE: u32 = 10_000;
/// How many may be asked for.
const SAMPLE_MAX: u32 = 100_000;

#[derive(Serialize)]
struct PreflightView {
    module: String,
    version: Digest,
    active: Option<Digest>,
    /// All in-flight runs could go on with the version.
    ok: bool,
    in_flight: u64,
    checked: u64,
    /// Not all runs in flight were looked at.
    sampled: bool,
    /// Ended before they were looked at.
    ended: u64,
    verdicts: Tally,
    groups: Vec<Group>,
    changes: Vec<Change>,
    #[serde(skip_serializing_if = "Option::is_none")]
    imports_http: Option<bool>,
}

/// `POST /v1/modules/{name}/preflight`: the body is a component; or it is empty and `?version=` names a version that the
/// module has. `sample` is how many runs to look at.
pub(super) async fn preflight(
    State(app): State<App>,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    params.only(&["policy", "sample", "version"])?;
    let module = query::module(&name)?;
    query::policy(params.get("policy"))?;
    let sample = params.read::<u32>("sample")?.unwrap_or(SAMPLE);
    if !(1..=SAMPLE_MAX).contains(&sample) {
        return Err(query::invalid(format!("sample: {sample} is not between 1 and {SAMPLE_MAX}")).into());
    }
    let version = params.get("version").map(query::digest).transpose()?;
    let component = body::read(&headers, body, COMPONENT).await?;
    let candidate = match version {
        None => Candidate::Component(component),
        Some(version) if component.is_empty() => Candidate::Version(version),
        Some(_) => {
            return Err(Problem::new(
                400,
                "invalid-body",
                "the request names a version and has a component as its body: send one of them",
            )
            .into());
        }
    };
    let preflight = app.preflight(module, candidate, sample).await?;
    let tally = preflight.report.tally();
    let view = PreflightView {
        ok: tally.stay() == 0,
        checked: tally.checked(),
        verdicts: tally,
        groups: preflight.report.groups().cloned().collect(),
        module: preflight.module,
        version: preflight.version,
        active: preflight.active,
        in_flight: preflight.in_flight,
        sampled: preflight.sampled,
        ended: preflight.ended,
        changes: preflight.changes,
        imports_http: preflight.imports_http,
    };
    Ok(data(app.now(), view))
}
