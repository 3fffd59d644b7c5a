//! The arithmetic of slots, against a model that counts what executes.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn limits(list: serde_json::Value) -> Result<Limits, String> {
    let list: Vec<Concurrency> = serde_json::from_value(list).expect("a definition");
    Limits::compile(&list)
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    for (definition, words) in [
        (json!([{"limit": 0}]), "concurrency: limit must be 1 to"),
        (json!([{"limit": 1_001}]), "concurrency: limit must be 1 to"),
        (
            json!([{"limit": 1}, {"limit": 2, "key": "event.data.a"}, {"limit": 3, "key": "event.data.b"}]),
            "3 limits",
        ),
        (json!([{"limit": 1, "scope": "account"}]), "needs a key"),
        (json!([{"limit": 1}, {"limit": 2}]), "the same scope and key"),
        (
            json!([{"limit": 1, "key": "event.data.a"}, {"limit": 2, "scope": "fn", "key": "event.data.a"}]),
            "the same scope and key",
        ),
        (json!([{"limit": 1, "key": "async.data.a"}]), "concurrency.key"),
    ] {
        let refused = limits(definition.clone()).expect_err(&definition.to_string());
        assert!(refused.contains(words), "{definition}: {refused}");
    }
    let unknown = serde_json::from_value::<Concurrency>(json!({"limit": 1, "scope": "env", "key": "'a'"}));
    let unknown = unknown.expect_err("there are no environments").to_string();
    assert!(
        unknown.contains("`env`") && unknown.contains("`account`"),
        "{unknown}"
    );
}

#[test]
fn slots_are_named_by_what_shares_them() {
    let limits = limits(json!([
        {"limit": 3, "key": "event.data.user"},
        {"limit": 9, "scope": "account", "key": "'openai'"},
    ]))
    .expect("valid");
    let names = |data| {
        let needs = limits.needs(&json!({ "data": data }));
        needs.into_iter().map(|need| need.name).collect::<Vec<_>>()
    };
    assert_eq!(
        names(json!({"user": "ann"})),
        ["event.data.user = \"ann\"", "\"openai\""]
    );
    assert_eq!(names(json!({}))[0], "event.data.user = null");
    assert!(names(json!({"user": "x".repeat(300)}))[0].starts_with("event.data.user = sha256:"));
    let [first, second]: [Need; 2] = limits
        .needs(&json!({"data": {"user": "ann"}}))
        .try_into()
        .expect("two");
    assert_eq!(
        first.reason(3),
        "waits for a slot: the concurrency limit of 3 for event.data.user = \"ann\" is used up"
    );
    assert_eq!(
        second.reason(9),
        "waits for a slot: the concurrency limit of 9 for \"openai\", which functions share, is used up"
    );
}

#[test]
fn the_active_version_says_how_many() {
    let need = Need {
        scope: Scope::Function,
        source: Some("event.data.user".to_owned()),
        name: "event.data.user = 1".to_owned(),
        limit: 2,
    };
    let active = |limit, key: Option<&str>| Concurrency {
        limit,
        key: key.map(str::to_owned),
        scope: Scope::Function,
    };
    assert_eq!(need.limit(None), Some(2), "it has no such function any more");
    assert_eq!(need.limit(Some(&[])), None, "it has lifted the limit");
    assert_eq!(need.limit(Some(&[active(5, Some("event.data.user"))])), Some(5));
    assert_eq!(
        need.limit(Some(&[active(5, Some("event.data.account"))])),
        Some(2)
    );
    assert_eq!(need.limit(Some(&[active(5, None)])), Some(2));
}

#[test]
fn a_manifest_of_any_release_is_read() {
    let manifest =
        r#"{"schema":9,"new":1,"functions":[{"id":"a","other":{},"concurrency":[{"limit":2}]},{"id":"b"}]}"#;
    let declared = declared(manifest);
    assert_eq!(declared["a"][0].limit, 2);
    assert_eq!(declared["b"], []);
    assert!(super::declared("{}").is_empty());
}

proptest! {
    /// Runs come, go and end in any order; each needs slots of up to two keys. Never do more execute than the limits say, nobody
    /// waits while there is room for it, and of those that need the same the first goes first.
    #[test]
    fn no_limit_is_exceeded_and_nobody_waits_for_nothing(
        bounds in prop::array::uniform4(1_u32..4),
        acts in prop::collection::vec((any::<bool>(), 0_usize..4, 0_usize..5, any::<prop::sample::Index>()), 1..200),
    ) {
        let mut taken: Taken<usize> = Taken::default();
        let mut waiting: VecDeque<(usize, BTreeSet<usize>)> = VecDeque::new();
        let mut executing: Vec<(usize, BTreeSet<usize>)> = Vec::new();
        for (who, (comes, one, other, which)) in acts.into_iter().enumerate() {
            if comes {
                // The fifth is none.
                waiting.push_back((who, [one, other].into_iter().filter(|pool| *pool < 4).collect()));
            } else if !executing.is_empty() {
                let (_, needs) = executing.swap_remove(which.index(executing.len()));
                for pool in needs {
                    let now = executing.iter().filter(|(_, needs)| needs.contains(&pool)).count();
                    taken.insert(pool, now as u32);
                }
            }
            let mut passed: Vec<BTreeSet<usize>> = Vec::new();
            for (who, needs) in std::mem::take(&mut waiting) {
                let asked: Vec<(usize, Option<u32>)> = needs.iter().map(|pool| (*pool, Some(bounds[*pool]))).collect();
                match taken.take(&asked) {
                    Ok(()) => {
                        prop_assert!(!passed.contains(&needs), "one that needs the same came first");
                        executing.push((who, needs));
                    }
                    Err(full) => {
                        let pool = asked[full].0;
                        let now = executing.iter().filter(|(_, needs)| needs.contains(&pool)).count();
                        prop_assert_eq!(now, bounds[pool] as usize, "it waits though there is room");
                        passed.push(needs.clone());
                        waiting.push_back((who, needs));
                    }
                }
            }
            for (pool, bound) in bounds.iter().enumerate() {
                let now = executing.iter().filter(|(_, needs)| needs.contains(&pool)).count();
                prop_assert!(now <= *bound as usize);
            }
        }
    }
}
