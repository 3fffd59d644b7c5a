//! What operators copy (`deploy/`) speaks of what there is: metrics, sections of docs/operations.md, and commands.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All words of a text that begin so.
fn words(text: &str, beginning: &str) -> BTreeSet<String> {
    let word = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        rest[..end.unwrap_or(rest.len())].to_owned()
    };
    text.match_indices(beginning)
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
        .map(|(at, _)| word(&text[at..]))
        .collect()
}

/// The metrics of the server, as it describes them.
fn metrics() -> BTreeSet<String> {
    words(&read("host/server/src/telemetry/metrics.rs"), "dormouse_")
}

/// The sections of the operator's page that alerts lead to: heading and text.
fn sections() -> Vec<(String, String)> {
    let page = read("docs/operations.md");
    let alerts = page.split("\n## ").find(|chapter| chapter.starts_with("Alerts"));
    let sections = alerts.expect("a chapter about alerts").split("\n### ").skip(1);
    sections
        .map(|section| {
            let (heading, text) = section.split_once('\n').expect("a heading and a text");
            (heading.to_owned(), text.to_owned())
        })
        .collect()
}

/// Whether the command line takes these arguments: asked for help behind them, it has read them all.
fn is_command(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(env!("CARGO_BIN_EXE_dormouse"))
        .args(arguments)
        .arg("--help")
        .output()
        .expect("it runs");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn alerts_and_dashboard_show_metrics_that_there_are() {
    let there_are = metrics();
    assert!(there_are.len() > 10, "{there_are:?}");
    for file in ["deploy/alerts.yml", "deploy/grafana-dashboard.json"] {
        let shown = words(&read(file), "dormouse_");
        assert!(!shown.is_empty(), "{file} shows nothing");
        for name in shown {
            let series = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            let is_one = there_are.contains(&name) || series.is_some_and(|metric| there_are.contains(metric));
            assert!(is_one, "{file} shows {name}, which no server has");
        }
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("deploy/grafana-dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.iter().all(|panel| panel["targets"][0]["expr"].is_string()));
}

#[test]
fn every_alert_leads_to_a_section_that_says_what_to_do() {
    let sections = sections();
    let anchors: BTreeSet<String> = sections
        .iter()
        .map(|(heading, _)| heading.to_lowercase().replace(' ', "-"))
        .collect();
    let rules = read("deploy/alerts.yml");
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    let mut led_to = BTreeSet::new();
    for alert in &alerts {
        let name = alert.lines().next().expect("a name");
        assert!(alert.contains("summary: "), "{name} says nothing");
        let anchor = alert.split("runbook: docs/operations.md#").nth(1);
        let anchor = anchor.and_then(|rest| rest.lines().next());
        let anchor = anchor.unwrap_or_else(|| panic!("{name} leads nowhere"));
        assert!(
            anchors.contains(anchor),
            "{name} leads to #{anchor}, which is not among {anchors:?}"
        );
        led_to.insert(anchor.to_owned());
    }
    assert_eq!(led_to, anchors, "a section that no alert leads to");
    for (heading, text) in sections {
        for part in ["*Symptom*: ", "*Command*: ", "*Action*: "] {
            assert!(text.contains(part), "{heading} has no {part}");
        }
    }
}

#[test]
fn the_commands_that_operators_are_told_exist() {
    let mut told = 0;
    for (heading, text) in sections() {
        for command in text.split('`').skip(1).step_by(2) {
            let Some(arguments) = command.strip_prefix("dormouse ") else {
                continue;
            };
            let arguments: Vec<&str> = arguments.split_whitespace().collect();
            is_command(&arguments).unwrap_or_else(|said| panic!("{heading}: `{command}`: {said}"));
            told += 1;
        }
    }
    assert!(told > 10, "{told}");
}

#[test]
fn services_start_the_command_as_it_is_started() {
    let unit = read("deploy/dormouse.service");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/dormouse "));
    let arguments: Vec<&str> = start.expect("what is started").split_whitespace().collect();
    assert_eq!(is_command(&arguments), Ok(()));
    let image = read("deploy/Containerfile");
    for (part, words) in [("ENTRYPOINT", 1), ("CMD", 3)] {
        let line = image
            .lines()
            .find_map(|line| line.strip_prefix(part))
            .expect("a line");
        let list: Vec<String> = serde_json::from_str(line).expect("a list");
        assert_eq!(list.len(), words);
        if part == "CMD" {
            let arguments: Vec<&str> = list.iter().map(String::as_str).collect();
            assert_eq!(is_command(&arguments), Ok(()));
        }
    }
    let rust = read("Cargo.toml");
    let rust = rust
        .split("rust-version = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let rust = rust.expect("the minimum");
    assert!(
        image.contains(&format!("rust:{rust}-")),
        "the image is not built with Rust {rust}"
    );
    for name in image
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(name, _)| name)
    {
        if name.starts_with("DORMOUSE_") {
            let help = Command::new(env!("CARGO_BIN_EXE_dormouse"))
                .args(["start", "--help"])
                .output();
            let help = String::from_utf8_lossy(&help.expect("it runs").stdout).into_owned();
            assert!(help.contains(name), "{name} is no variable of `dormouse start`");
        }
    }
}
