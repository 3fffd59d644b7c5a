//! `/openapi.json`: the API described for programs, OpenAPI 3.1.
//!
//! It is kept by hand beside this file, a file for each room of the API, in a short form: what all operations have in
//! common is written once and put in here. Tests compare it with the router, so that no route can be without its
//! description, and send what it describes to a server, so that no answer can be another than it says.
//!
//! | in an operation | stands for |
//! |---|---|
//! | `x-data` | the answer 200, or `x-status`, with this as `data` of the envelope |
//! | `x-errors` | an answer in the shape of errors, or `x-error-schema`, for each of these statuses |
//!
//! Who may use a route, and what it answers to others, comes from the table that each request is held against.

use std::sync::OnceLock;

use axum::response::{IntoResponse, Response};
use http::Method;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use crate::access::table::{About, Needs, Rule, rule};

/// Version, descriptions of errors, and what several rooms name.
const BASE: &str = include_str!("base.json");
/// `{"paths", "schemas"}` of each room.
const ROOMS: [&str; 4] = [
    include_str!("events.json"),
    include_str!("runs.json"),
    include_str!("modules.json"),
    include_str!("node.json"),
];

/// `GET /openapi.json`.
pub(super) async fn document() -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| whole().to_string());
    ([(CONTENT_TYPE, "application/json")], text.as_str()).into_response()
}

/// The whole document.
fn whole() -> Value {
    // They are part of the program; a test reads them.
    let read = |text: &str| -> Value { serde_json::from_str(text).expect("JSON of our own") };
    let mut document = read(BASE);
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    let errors = document["components"]["errors"].take();
    let mut paths = Map::new();
    for room in ROOMS {
        let mut room = read(room);
        move_into(&mut document["components"]["schemas"], room["schemas"].take());
        for (path, mut item) in members(room["paths"].take()) {
            for (method, operation) in item.as_object_mut().into_iter().flatten() {
                let method = Method::from_bytes(method.to_uppercase().as_bytes());
                protect(operation, rule(&method.unwrap_or_default(), &path));
                spell_out(operation, &errors);
            }
            paths.insert(path, item);
        }
    }
    document["paths"] = paths.into();
    if let Some(components) = document["components"].as_object_mut() {
        components.remove("errors");
    }
    document
}

/// Says who may use an operation, and what others are answered.
fn protect(operation: &mut Value, rule: &Rule) {
    let (security, statuses, role) = match rule.needs {
        // Said all the same: otherwise what holds for the whole document would.
        Needs::Nothing => (json!([]), &[][..], None),
        Needs::Events => (json!([{ "eventKey": [] }, {}]), &[401, 403, 429, 503][..], None),
        Needs::Role(role) => (
            json!([{ "apiKey": [] }, { "session": [] }]),
            &[401, 403, 429, 503][..],
            Some(role),
        ),
    };
    operation["security"] = security;
    if let Some(role) = role {
        let mut words = vec![format!("Takes the role {}.", role.as_str())];
        match rule.about {
            About::Everything => words.push("Not for keys that are limited to modules.".to_owned()),
            About::Module(_) | About::Run => {
                words.push("A key that is limited to modules: only of these.".to_owned());
            }
            About::Chosen => {}
        }
        if rule.payloads {
            words.push("Takes the permission to see payloads.".to_owned());
        }
        let before = operation["description"].as_str();
        words.splice(0..0, before.map(str::to_owned));
        operation["description"] = words.join(" ").into();
    }
    if statuses.is_empty() {
        return;
    }
    let mut errors = operation["x-errors"].as_array().cloned().unwrap_or_default();
    for status in statuses {
        if !errors.contains(&json!(status)) {
            errors.push(json!(status));
        }
    }
    operation["x-errors"] = errors.into();
}

/// Writes an operation's short forms out.
fn spell_out(operation: &mut Value, errors: &Value) {
    let Some(operation) = operation.as_object_mut() else {
        return;
    };
    let mut take = |name: &str| operation.remove(name);
    let mut responses = members(take("responses").unwrap_or_default());
    let status = take("x-status").unwrap_or(json!(200));
    if let Some(data) = take("x-data") {
        let schema = json!({
            "type": "object",
            "required": ["data", "metadata"],
            "properties": { "data": data, "metadata": { "$ref": "#/components/schemas/Metadata" } },
        });
        let answer =
            json!({ "description": "Done.", "content": { "application/json": { "schema": schema } } });
        responses.insert(status.to_string(), answer);
    }
    let schema = take("x-error-schema").unwrap_or(json!("Error"));
    let schema = format!("#/components/schemas/{}", schema.as_str().unwrap_or_default());
    let statuses = take("x-errors").unwrap_or_default();
    for status in statuses.as_array().into_iter().flatten().map(Value::to_string) {
        let mut answer = json!({
            "description": errors[&status],
            "content": { "application/json": { "schema": { "$ref": &schema } } },
        });
        if matches!(status.as_str(), "429" | "503") {
            answer["headers"] = json!({
                "Retry-After": { "description": "Seconds.", "schema": { "type": "integer", "minimum": 0 } },
            });
        }
        responses.insert(status, answer);
    }
    operation.insert("responses".to_owned(), responses.into());
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn move_into(target: &mut Value, from: Value) {
    if let Some(target) = target.as_object_mut() {
        target.extend(members(from));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every reference of a document.
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match value.as_str() {
                        Some(target) if name == "$ref" => drop(found.insert(target)),
                        _ => references(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn everything_that_is_named_is_there_and_the_other_way_round() {
        let document = whole();
        let mut named = BTreeSet::new();
        references(&document, &mut named);
        for target in &named {
            let pointer = target.strip_prefix('#').expect("a reference within the document");
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
        for group in ["schemas", "parameters"] {
            for name in document["components"][group].as_object().expect("a group").keys() {
                let target = format!("#/components/{group}/{name}");
                assert!(named.contains(target.as_str()), "nothing names {target}");
            }
        }
    }

    #[test]
    fn every_operation_is_whole() {
        let document = whole();
        let mut ids = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("a path's operations") {
                let place = format!("{method} {path}");
                let id = operation["operationId"].as_str().expect(&place);
                assert!(ids.insert(id.to_owned()), "{place}: {id} is another's");
                assert!(operation["summary"].is_string(), "{place}");
                let responses = operation["responses"].as_object().expect(&place);
                assert!(!responses.is_empty(), "{place}");
                for (status, answer) in responses {
                    assert!(answer["description"].is_string(), "{place} {status}");
                }
                let inner: BTreeSet<String> = path
                    .split(['{', '}'])
                    .skip(1)
                    .step_by(2)
                    .map(str::to_owned)
                    .collect();
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let described: BTreeSet<String> = parameters
                    .iter()
                    .map(|parameter| match parameter["$ref"].as_str() {
                        Some(target) => document.pointer(&target[1..]).expect(target),
                        None => parameter,
                    })
                    .filter(|parameter| parameter["in"] == "path")
                    .map(|parameter| parameter["name"].as_str().expect("a name").to_owned())
                    .collect();
                assert_eq!(described, inner, "{place}: the parameters in the path");
                assert!(
                    operation
                        .as_object()
                        .is_some_and(|members| !members.keys().any(|name| name.starts_with("x-"))),
                    "{place}: a short form that nothing reads"
                );
            }
        }
    }
}
