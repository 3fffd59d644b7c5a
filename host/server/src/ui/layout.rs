//! What all pages share: the frame, and how a status, a time and a duration look.

use std::time::Duration;

use dormouse_core::Timestamp;
use dormouse_core::run::Phase;
use maud::{DOCTYPE, Markup, html};

use super::assets::{ICON_URL, SCRIPT_URL, STYLE_URL};
use crate::access::Access;
use crate::api::RunView;

/// Where in the navigation a page is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Overview,
    Runs,
    None,
}

/// A whole page. `access` is of whoever looks at it, where that is known.
pub(super) fn page(title: &str, tab: Tab, access: Option<&Access>, body: &Markup) -> Markup {
    let current = |own: Tab| (own == tab).then_some("page");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Dormouse" }
                link rel="icon" type="image/svg+xml" href=(*ICON_URL);
                link rel="stylesheet" href=(*STYLE_URL);
                script src=(*SCRIPT_URL) defer {}
            }
            body {
                a.skip href="#main" { "Skip to content" }
                header.bar {
                    a.brand href="/" { img src=(*ICON_URL) alt="" width="22" height="22"; "Dormouse" }
                    nav aria-label="Pages" {
                        a href="/" aria-current=[current(Tab::Overview)] { "Overview" }
                        a href="/runs" aria-current=[current(Tab::Runs)] { "Runs" }
                    }
                    span #connection.muted role="status" {}
                    @if let Some(access) = access.filter(|access| access.id().is_some()) {
                        form.sign-out method="post" action="/sign-out" {
                            span.muted { (access.name()) } " "
                            button type="submit" { "Sign out" }
                        }
                    }
                }
                main #main tabindex="-1" { (body) }
            }
        }
    }
}

/// A word with its sign: colour alone says nothing to many people.
pub(super) fn badge(word: &str) -> Markup {
    let (class, sign) = match word {
        "Completed" | "completed" => ("good", "✓"),
        "Failed" | "failed" => ("bad", "✕"),
        "blocked" => ("bad", "!"),
        "Cancelled" | "cancelled" => ("off", "⊘"),
        "Skipped" => ("off", "»"),
        "Running" | "executing" => ("busy", "▶"),
        "sleeping" => ("wait", "☾"),
        "backing-off" => ("warn", "↻"),
        "waiting" | "limited" | "paused" => ("wait", "…"),
        _ => ("wait", "○"),
    };
    html! { span.badge.(class) { span.sign aria-hidden="true" { (sign) } (word) } }
}

/// A run's status, and what it is doing while it has not ended.
pub(super) fn state(run: &RunView) -> Markup {
    html! {
        (badge(run.status))
        @if let Some(phase) = run.phase.filter(|phase| *phase != Phase::Executing.as_str()) { " " (badge(phase)) }
    }
}

/// A point in time: short, with the whole of it at hand.
pub(super) fn time(time: Timestamp) -> Markup {
    let full = time.to_string();
    // 2026-11-22T18:00:00.000Z: the date, and the time to the second.
    let short = match (full.get(..10), full.get(11..19)) {
        (Some(date), Some(clock)) => format!("{date} {clock}"),
        _ => full.clone(),
    };
    html! { time datetime=(full) title=(full) { (short) } }
}

/// A point in time on a day that is clear: to the millisecond.
pub(super) fn clock(time: Timestamp) -> Markup {
    let full = time.to_string();
    html! { time datetime=(full) title=(full) { (full.get(11..23).unwrap_or(&full)) } }
}

/// A point in time to come; the script counts down to it.
pub(super) fn until(time: Timestamp, now: Timestamp) -> Markup {
    let full = time.to_string();
    html! { time datetime=(full) title=(full) data-until=(time.as_millis()) { "in " (duration(time.since(now))) } }
}

/// A duration as people say it.
pub(super) fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{millis} ms"),
        1..=9 => format!("{}.{} s", seconds, millis % 1_000 / 100),
        10..=59 => format!("{seconds} s"),
        60..=3_599 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..=86_399 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Runs as a table.
pub(super) fn runs(runs: &[RunView], now: Timestamp) -> Markup {
    html! {
        div.scroll {
            table.runs {
                thead {
                    tr {
                        th scope="col" { "Status" }
                        th scope="col" { "Run" }
                        th scope="col" { "Function" }
                        th.wide scope="col" { "Queued" }
                        th.wide scope="col" { "Took" }
                        th scope="col" { "Why" }
                    }
                }
                tbody {
                    @for run in runs {
                        tr {
                            td { (state(run)) }
                            td.id { a.mono href={ "/runs/" (run.run_id) } { (run.run_id) } }
                            td.function { (run.function_id) }
                            td.wide { (time(run.queued_at)) }
                            td.wide.took { @if run.run_started_at.is_some() || run.ended_at.is_some() { (duration(run.taken(now))) } }
                            td.why { div { (why(run, now)) } }
                        }
                    }
                }
            }
        }
    }
}

/// Why a run is not moving, or why it failed, in one line.
pub(super) fn why(run: &RunView, now: Timestamp) -> Markup {
    html! {
        @if let Some(error) = &run.error {
            @let line = error.message.lines().next().unwrap_or_default();
            (line.chars().take(160).collect::<String>())
        } @else {
            @if let Some(reason) = &run.reason { (reason) " " }
            @if let Some(at) = run.wake_at { span.muted { (until(at, now)) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_speech() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_250, "1.2 s"),
            (59_999, "59 s"),
            (61_000, "1 min 1 s"),
            (3_661_000, "1 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }
}
