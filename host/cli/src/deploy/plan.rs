//! `dormouse deploy --plan`: what the server found a version to do to runs in flight, in words.

use serde_json::Value;

use crate::failure::{Exit, Failure, Outcome};
use crate::output::{short_digest, text};

/// The plan, for a person.
pub(super) fn tell(data: &Value) -> String {
    let count = |name: &str| data[name].as_u64().unwrap_or_default();
    let mut lines = vec![format!(
        "{} at {}: {} runs in flight, {} looked at{}",
        text(data, "module"),
        short_digest(&text(data, "version")),
        count("in_flight"),
        count("checked"),
        if data["sampled"] == true {
            " (a sample)"
        } else {
            ""
        },
    )];
    lines.extend(data["groups"].as_array().into_iter().flatten().flat_map(group));
    lines.extend(data["changes"].as_array().into_iter().flatten().map(change));
    lines.join("\n")
}

/// Success when all runs could go on; otherwise the exit code of a refusal.
pub(super) fn outcome(data: &Value) -> Outcome {
    if data["ok"] == true {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Refused,
        "some runs in flight cannot go on with this version",
    )
    .help("deployed with --policy pin, all finish on the version they have, and with --policy migrate, these do; nothing was changed now"))
}

fn group(group: &Value) -> Vec<String> {
    let runs = group["runs"].as_u64().unwrap_or_default();
    let examples: Vec<&str> = group["examples"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let what = match group["verdict"].as_str().unwrap_or_default() {
        "unchanged" => "unchanged".to_owned(),
        "compatible" => {
            "compatible: all that is recorded matches, what comes next is something else".to_owned()
        }
        "diverges" => format!(
            "diverges at entry {}: the journal has {}, the code asked for {}",
            group["divergence"]["seq"],
            text(&group["divergence"], "journal"),
            text(&group["divergence"], "code")
        ),
        "fails" => format!(
            "fails ({}): {}",
            text(&group["error"], "code"),
            text(&group["error"], "message")
        ),
        "function-gone" => "the version does not have the function".to_owned(),
        other => other.to_owned(),
    };
    let mut lines = vec![
        format!(
            "  {runs} of {} on {}: {what}",
            text(group, "function_id"),
            short_digest(&text(group, "version"))
        ),
        format!("    such as {}", examples.join(", ")),
    ];
    lines.extend(
        group["frames"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|frame| format!("    at {frame}")),
    );
    lines
}

fn change(change: &Value) -> String {
    let function = text(change, "function");
    match change["change"].as_str().unwrap_or_default() {
        "function-added" => format!("  + {function}"),
        "function-removed" => format!("  - {function}: its triggers stop"),
        _ => format!(
            "  ~ {function}: {} was {}, is {}",
            text(change, "member"),
            said(&change["before"]),
            said(&change["after"])
        ),
    }
}

/// A member of a definition, or that it has none.
fn said(member: &Value) -> String {
    match member {
        Value::Null => "not set".to_owned(),
        member => member.to_string(),
    }
}
