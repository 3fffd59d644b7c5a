//! What docs/guide/contract.md shows as valid is valid.

use dormouse_core::manifest::Manifest;
use dormouse_core::step::StepOptions;
use serde_json::Value;

/// The JSON after a mark in the page.
fn example(mark: &str) -> &'static str {
    let page = include_str!("../../../docs/guide/contract.md");
    let (_, after) = page
        .split_once(&format!("<!-- {mark} -->\n```json\n"))
        .unwrap_or_else(|| panic!("the page has no example \"{mark}\""));
    after.split_once("```").expect("the example ends").0
}

#[test]
fn the_manifest_is_one_and_shows_every_member_of_a_function() {
    let manifest = Manifest::parse(example("manifest")).expect("a valid manifest");
    let function = manifest.function("create-workflow").expect("there");
    assert_eq!(function.retry_policy().attempts, 6);
    let page = include_str!("../../../docs/guide/contract.md");
    let known: Value = serde_json::to_value(function).expect("JSON");
    for member in known.as_object().expect("an object").keys() {
        assert!(
            page.contains(&format!("| `functions[].{member}` |")),
            "the page says nothing of `{member}`"
        );
    }
}

#[test]
fn the_options_of_a_body_are_valid() {
    let options = StepOptions::parse(Some(example("options of begin-run"))).expect("valid options");
    assert_eq!(options.attempts, Some(3));
}

#[test]
fn the_input_has_what_is_said_of_it() {
    let input: Value = serde_json::from_str(example("input")).expect("JSON");
    let event = input["event"].to_string();
    let id = input["event"]["id"]
        .as_str()
        .expect("an id")
        .parse()
        .expect("a ULID");
    let now = dormouse_core::Timestamp::from_millis(0);
    let accepted = dormouse_core::event::accept(&event, id, now).expect("a valid event");
    assert_eq!(accepted.name, "test/hello.world");
    assert_eq!(input["events"][0], input["event"]);
}
