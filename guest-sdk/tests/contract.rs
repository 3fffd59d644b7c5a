//! What the SDK and the host must agree on.

use std::path::Path;

use dormouse::prelude::*;

/// The SDK carries a copy of the contract, so that it can be vendored.
#[test]
fn the_copy_of_the_contract_is_the_contract() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let original = here.join("../wit/dormouse.wit");
    // A vendored SDK stands without the repository around it.
    if !here.join("../host").exists() {
        return;
    }
    let read = |path: &Path| {
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    assert!(
        read(&original) == read(&here.join("wit/dormouse.wit")),
        "guest-sdk/wit/dormouse.wit is not wit/dormouse.wit any more: cp wit/dormouse.wit guest-sdk/wit/"
    );
}

/// The guide shows the examples as they are.
#[test]
fn the_guides_excerpts_are_the_examples() {
    excerpts_are_examples("functions.md", 2);
    excerpts_are_examples("from-inngest.md", 1);
}

fn excerpts_are_examples(page: &str, expected: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let Ok(guide) = std::fs::read_to_string(root.join("docs/guide").join(page)) else {
        assert!(!root.join("host").exists(), "docs/guide/{page} is missing");
        return;
    };
    let mut excerpts = 0;
    for part in guide.split("<!-- from ").skip(1) {
        let (file, rest) = part.split_once(" -->").expect("a file's name");
        let block = rest
            .split("```")
            .nth(1)
            .and_then(|block| block.split_once('\n'))
            .expect("a block")
            .1;
        let source =
            std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let wanted: String = block.split_whitespace().collect();
        assert!(
            source.split_whitespace().collect::<String>().contains(&wanted),
            "not in {file}:\n{block}"
        );
        excerpts += 1;
    }
    assert_eq!(excerpts, expected, "{page}");
}

/// Everything that can be said.
#[dormouse::function(
    id = "whole",
    on(event = "shop/order.placed"),
    on(event = "shop/order.changed"),
    on(cron = "@daily"),
    on(
        cron = "TZ=Europe/Paris 0 9 * * *",
        jitter = "30s",
        overlap = "queue",
        catch_up = "all"
    ),
    retries = 7,
    backoff(initial = "500ms", factor = 1.5, max = "2m"),
    timeout = "30s"
)]
async fn whole(_event: Event) -> dormouse::Result<()> {
    Ok(())
}

#[dormouse::function(id = "plain")]
async fn plain() -> Result<(), std::num::ParseIntError> {
    Ok(())
}

dormouse::module!(whole, plain);

#[test]
fn the_manifest_says_what_the_attributes_say_and_nothing_else() {
    let manifest: Value =
        serde_json::from_str(&dormouse::__private::describe(DORMOUSE_FUNCTIONS)).expect("JSON");
    let expected = json!({
        "schema": 1,
        "sdk": concat!("dormouse-rust/", env!("CARGO_PKG_VERSION")),
        "functions": [
            {
                "id": "whole",
                "triggers": [{"event": "shop/order.placed"}, {"event": "shop/order.changed"}, {"cron": "@daily"},
                    {"cron": "TZ=Europe/Paris 0 9 * * *", "jitter_ms": 30_000, "overlap": "queue", "catch_up": "all"}],
                "retries": 7,
                "backoff": {"initial_ms": 500, "factor": 1.5, "max_ms": 120_000},
                "timeout_ms": 30_000,
            },
            {"id": "plain", "triggers": []},
        ],
    });
    assert_eq!(manifest, expected);
}
