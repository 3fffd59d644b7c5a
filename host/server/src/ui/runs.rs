//! `/runs`: the list. All that narrows it stands in the URL, so that a view can be kept and sent to someone.

use axum::extract::State;
use dormouse_core::run::{Phase, Status};
use maud::{Markup, html};

use super::{Failed, layout};
use crate::access::Access;
use crate::api::{self, Params};
use crate::app::App;

pub(super) async fn page(State(app): State<App>, access: Access, params: Params) -> Result<Markup, Failed> {
    params.only(&[
        "status", "function", "module", "phase", "parent", "limit", "cursor",
    ])?;
    let (runs, cursor) = api::list_runs(&app, &access, &params).await?;
    let statuses = params.statuses()?;
    let phase = params.phase()?;
    let (module, function) = params.function()?;
    let mut modules: Vec<String> = app.registry().snapshot().modules.keys().cloned().collect();
    modules.retain(|module| access.sees(module));
    // A module that is filtered by may have nothing active.
    modules.extend(module.clone());
    modules.sort_unstable();
    modules.dedup();
    let narrowed = !statuses.is_empty() || phase.is_some() || module.is_some();
    let body = html! {
        h1 { "Runs" }
        form.filters method="get" action="/runs" {
            label { "Status" select name="status" {
                option value="" { "any" }
                @if statuses.len() > 1 {
                    @let all = statuses.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(",");
                    option value=(all) selected { (all) }
                }
                @for status in Status::ALL {
                    option value=(status.as_str()) selected[statuses == [status]] { (status.as_str()) }
                }
            } }
            label { "Phase" select name="phase" {
                option value="" { "any" }
                @for own in Phase::ALL {
                    option value=(own.as_str()) selected[phase == Some(own)] { (own.as_str()) }
                }
            } }
            label { "Module" select name="module" {
                option value="" { "any" }
                @for own in &modules {
                    option value=(own) selected[module.as_deref() == Some(own)] { (own) }
                }
            } }
            label { "Function" input name="function" value=[function.as_deref()] placeholder="any" size="16"; }
            button type="submit" { "Show" }
            @if narrowed { a href="/runs" { "Show all" } }
        }
        @if runs.is_empty() {
            p.muted { @if narrowed { "No run is like that." } @else { "No run yet." } }
        } @else {
            (layout::runs(&runs, app.now()))
        }
        nav.pages aria-label="Pages of the list" {
            @if params.get("cursor").is_some() { a href=(address(&params, None)) { "← Newest" } }
            @if let Some(cursor) = &cursor { a href=(address(&params, Some(cursor))) rel="next" { "Older →" } }
        }
    };
    Ok(layout::page("Runs", layout::Tab::Runs, Some(&access), &body))
}

/// This list's address, at another place in it.
fn address(params: &Params, cursor: Option<&str>) -> String {
    let kept = params
        .pairs()
        .iter()
        .filter(|(name, value)| name != "cursor" && !value.is_empty());
    let pairs: Vec<String> = kept
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .chain(cursor.map(|cursor| ("cursor", cursor)))
        .map(|(name, value)| format!("{name}={}", escaped(value)))
        .collect();
    if pairs.is_empty() {
        "/runs".to_owned()
    } else {
        format!("/runs?{}", pairs.join("&"))
    }
}

/// A value as a query string has it. What is kept has been checked: words, names and numbers.
pub(super) fn escaped(value: &str) -> String {
    value.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_for_a_query() {
        assert_eq!(escaped("a/b&c=d e"), "a%2Fb%26c%3Dd%20e");
        assert_eq!(escaped("01ARZ-x_y.z~"), "01ARZ-x_y.z~");
    }
}
