//! `/`: what is going on, at a glance.

use axum::extract::State;
use dormouse_core::run::Phase;
use dormouse_core::trigger::Trigger;
use dormouse_store::read::RunFilter;
use maud::{Markup, html};

use super::{Failed, layout};
use crate::access::Access;
use crate::api::RunView;
use crate::app::App;

/// How many runs stand on the overview.
const RECENT: u32 = 10;

pub(super) async fn page(State(app): State<App>, access: Access) -> Result<Markup, Failed> {
    let body = html! {
        div data-stream="/overview/stream" data-fragment="/overview/fragment" { (content(&app, &access).await?) }
    };
    Ok(layout::page(
        "Overview",
        layout::Tab::Overview,
        Some(&access),
        &body,
    ))
}

pub(super) async fn fragment(State(app): State<App>, access: Access) -> Result<Markup, Failed> {
    content(&app, &access).await
}

async fn content(app: &App, access: &Access) -> Result<Markup, Failed> {
    // They are of all modules.
    let counts = match access.modules() {
        None => Some(app.store().counts().await?),
        Some(_) => None,
    };
    let runs = app
        .store()
        .runs(RunFilter {
            modules: access.only(),
            limit: RECENT,
            ..RunFilter::default()
        })
        .await?;
    let runs: Vec<RunView> = runs.iter().map(|run| RunView::of(run, access)).collect();
    let snapshot = app.registry().snapshot();
    let mut modules: Vec<_> = snapshot
        .modules
        .values()
        .filter(|active| access.sees(&active.version.module))
        .collect();
    modules.sort_by(|a, b| a.version.module.cmp(&b.version.module));
    let now = app.now();
    Ok(html! {
        h1 { "Overview" }
        @if let Some(counts) = &counts { section aria-labelledby="phases" {
            h2 #phases { "Runs in flight " span.count { (counts.live.iter().sum::<u64>()) } }
            ul.tiles {
                @for phase in Phase::ALL {
                    @let count = counts.live[phase as usize];
                    li { a.tile.zero[count == 0] href={ "/runs?phase=" (phase.as_str()) } {
                        strong { (count) }
                        (layout::badge(phase.as_str()))
                    } }
                }
            }
            @if let Some(oldest) = counts.oldest_ready {
                p.muted { "The oldest ready run has waited " (layout::duration(now.since(oldest))) "." }
            }
        } }
        section aria-labelledby="recent" {
            h2 #recent { "Latest runs" }
            @if runs.is_empty() {
                p.muted { "No run yet. Send an event:" }
                pre { "dormouse events send test/hello.world --data '{\"email\":\"you@example.com\"}'" }
            } @else {
                (layout::runs(&runs, now))
                p { a href="/runs" { "All runs" } }
            }
        }
        section aria-labelledby="modules" {
            h2 #modules { "Modules" }
            @if modules.is_empty() {
                p.muted { "No module yet. Make one, build it and upload it:" }
                pre { "dormouse new hello\ncd hello\ndormouse build\ndormouse deploy" }
            } @else {
                div.scroll { table {
                    thead { tr {
                        th scope="col" { "Module" }
                        th scope="col" { "Active version" }
                        th scope="col" { "Functions" }
                        th.wide scope="col" { "Since" }
                    } }
                    tbody { @for module in modules { tr {
                        td { a href={ "/runs?module=" (module.version.module) } { (module.version.module) } }
                        td.mono title=(module.version.digest) { (module.version.digest.short()) }
                        td { ul.plain { @for function in &module.manifest.functions { li {
                            (function.id) " "
                            span.muted {
                                @for (index, trigger) in function.triggers.iter().enumerate() {
                                    @if index > 0 { ", " }
                                    @match trigger {
                                        Trigger::Event(trigger) => {
                                            (trigger.event)
                                            @if let Some(condition) = &trigger.condition { " if " code { (condition) } }
                                        }
                                        Trigger::Cron(trigger) => { "cron " code { (trigger.cron) } }
                                    }
                                }
                            }
                        } } } }
                        td.wide { @if let Some(at) = module.version.activated_at { (layout::time(at)) } }
                    } } }
                } }
            }
        }
    })
}
