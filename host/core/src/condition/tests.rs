//! What holds, what does not, what is refused, and that none of it takes long or deep.

use serde_json::{Value, json};

use super::{Condition, Scope};
use crate::limit;

fn compile(source: &str) -> Result<Condition, String> {
    Condition::compile(source, Scope::Wait).map_err(|invalid| invalid.0)
}

fn holds(source: &str, event: &Value, other: &Value) -> bool {
    compile(source)
        .unwrap_or_else(|refused| panic!("{source}: {refused}"))
        .holds(event, Some(other))
}

#[test]
fn expressions_mean_what_cel_says() {
    let event = json!({"data": {"id": 7, "name": "Ada", "tags": ["a", "b"], "price": 1.5, "none": null, "m": {"k": 1}}});
    let other = json!({"data": {"id": 7.0, "ok": true, "items": [{"n": 1}, {"n": 3}]}});
    for (source, expected) in [
        ("event.data.id == async.data.id", true),
        ("event.data.id != async.data.id", false),
        ("async.data.ok", true),
        ("!async.data.ok", false),
        (
            "event.data.name.startsWith('A') && event.data.name.endsWith(\"a\")",
            true,
        ),
        ("event.data.name.contains('d') || event.data.missing == 1", true),
        ("event.data.missing == 1 || event.data.name == 'Ada'", true),
        ("event.data.missing == 1", false),
        ("!(event.data.missing == 1)", false),
        ("event.data.missing == 1 && false", false),
        ("has(event.data.missing)", false),
        ("has(event.data.none) && event.data.none == null", true),
        ("'b' in event.data.tags", true),
        ("!('c' in event.data.tags)", true),
        ("'k' in event.data.m", true),
        ("event.data.tags[1] == 'b' && event.data['name'] == 'Ada'", true),
        ("event.data.tags[2] == 'b'", false),
        ("size(event.data.tags) == 2 && event.data.name.size() == 3", true),
        ("event.data.price * 2.0 >= 3", true),
        (
            "event.data.id + 1 == 8 && event.data.id % 2 == 1 && -event.data.id < 0",
            true,
        ),
        ("event.data.id / 0 == 1", false),
        ("9223372036854775807 + 1 > 0", false),
        ("event.data.id > 5 ? async.data.ok : false", true),
        ("event.data.tags == ['a', 'b'] && {'k': 1} == event.data.m", true),
        (
            "async.data.items.exists(i, i.n > 2) && !async.data.items.all(i, i.n > 2)",
            true,
        ),
        ("async.data.items.exists_one(i, i.n == 3)", true),
        ("async.data.items.filter(i, i.n > 1).map(i, i.n) == [3]", true),
        ("async.data.items.exists(i, i.missing == 1)", false),
        (
            "async.data.items.exists(i, async.data.items.exists(j, i.n < j.n))",
            true,
        ),
        (
            "int('12') == 12 && string(event.data.id) == '7' && double(1) == 1.0",
            true,
        ),
        ("event.data.name < 'B'", true),
        ("event.data.name == 7", false),
        ("event.data.name", false),
        ("1", false),
        ("'a' + 'b' == 'ab'", true),
    ] {
        assert_eq!(holds(source, &event, &other), expected, "{source}");
    }
}

#[test]
fn what_is_not_supported_is_refused_with_its_place() {
    for (source, words) in [
        ("", &["empty"][..]),
        ("event.data.name.matches('a+')", &["column 17", "matches"]),
        (
            "timestamp(event.ts) > timestamp('2026-01-01T00:00:00Z')",
            &["column 1", "timestamp"],
        ),
        ("event.data.x == b'ab'", &["bytes"]),
        ("\n  user.id == 1", &["line 2, column 3", "user"]),
        ("event.data ==", &["not CEL", "line 1"]),
        ("event.data.x = 1", &["not CEL"]),
        ("Message{a: 1}", &["message"]),
        ("now() > 1", &["now"]),
    ] {
        let refused = compile(source).expect_err(source);
        for word in words {
            assert!(refused.contains(word), "{source}: {refused}");
        }
    }
    let refused = Condition::compile("async.data.x == 1", Scope::Trigger).expect_err("no async");
    assert!(refused.0.contains("there is event"), "{refused}");
    assert!(Condition::compile("event.data.x == 1", Scope::Trigger).is_ok());
}

/// Shapes that take a parser or an evaluator deep, each as large as fits.
fn deep() -> Vec<String> {
    let n = limit::CONDITION_BYTES_MAX;
    vec![
        "(".repeat(n),
        "[".repeat(n),
        "!".repeat(n),
        "-".repeat(n),
        "{".repeat(n),
        format!("{}event{}", "(".repeat(500), ")".repeat(500)),
        format!("{}event", "!".repeat(n - 5)),
        format!("{}1", "- ".repeat(n / 2 - 1)),
        format!("event{}", ".a".repeat((n - 5) / 2)),
        format!("event{}", "[0]".repeat((n - 5) / 3)),
        format!("1{}", "+1".repeat((n - 1) / 2)),
        format!("true{}", "&&true".repeat((n - 4) / 6)),
        format!("true{}", "||true".repeat((n - 4) / 6)),
        format!("1{}", "==1".repeat((n - 1) / 3)),
        format!("{}1", "true?1:".repeat((n - 1) / 7)),
        format!("event{}", ".exists(a,a".repeat(300)),
        "'".repeat(n - 1),
        "\"\"\"(((".repeat(500),
        "event.data.x in ".repeat(200),
        format!("{}{}", "r'\\'".repeat(20), "(".repeat(n - 100)),
    ]
}

#[test]
fn neither_reading_nor_evaluating_takes_a_deep_stack() {
    // A task's stack is 2 MiB; half of it has to do.
    let work = || {
        for source in deep() {
            if let Ok(condition) = compile(&source) {
                condition.holds(&json!({}), None);
            }
        }
        let nested = |n: usize| format!("{}true{}", "(".repeat(n), ")".repeat(n));
        let most = usize::from(limit::CONDITION_NESTING_MAX);
        assert!(holds(&nested(most), &json!({}), &json!({})));
        let refused = compile(&nested(most + 1)).expect_err("too deep");
        assert!(refused.contains("32 levels"), "{refused}");
        let many = format!("true{}", "&&true".repeat(600));
        assert!(
            holds(&many, &json!({}), &json!({})),
            "a long chain of && is no deep one"
        );
    };
    std::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(work)
        .expect("a thread")
        .join()
        .expect("no overflow");
}

#[test]
fn an_expression_that_costs_too_much_does_not_hold() {
    let items: Vec<u32> = (0..2_000).collect();
    let event = json!({"data": {"items": items, "text": "x".repeat(1 << 20)}});
    let none = json!({});
    assert!(holds("event.data.items.exists(i, i == 1999)", &event, &none));
    assert!(!holds(
        "event.data.items.all(i, event.data.items.exists(j, i == j))",
        &event,
        &none
    ));
    assert!(!holds(
        "!event.data.items.all(i, event.data.items.exists(j, i == j))",
        &event,
        &none
    ));
    assert!(holds("event.data.text.contains('xx')", &event, &none));
    let long = vec!["event.data.text"; 60].join("+");
    assert!(!holds(&format!("size({long}) > 0"), &event, &none));
    assert!(
        !holds(&format!("size({long}) > 0 || true"), &event, &none),
        "nothing forgives an exhausted budget"
    );
}

#[test]
fn no_text_makes_it_panic() {
    use proptest::prelude::*;
    let word = prop::sample::select(vec![
        "event",
        ".",
        "data",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "?",
        ":",
        "&&",
        "||",
        "!",
        "-",
        "+",
        "==",
        "in",
        "1",
        "1.5",
        "1u",
        "'a'",
        "\"",
        "'",
        "\\",
        "b'",
        "r'",
        "has",
        "size",
        "exists",
        "all",
        "map",
        ",",
        "null",
        "true",
        "ä",
        "\n",
        "`",
        "//",
        "async",
        "x",
        "0x",
        "9999999999999999999",
        "e",
    ]);
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&prop::collection::vec(word, 0..30), |words| {
            for glue in ["", " "] {
                if let Ok(condition) = compile(&words.join(glue)) {
                    condition.holds(&json!({"data": [1, "a", {"x": null}]}), Some(&json!({})));
                }
            }
            Ok(())
        })
        .expect("no panic");
}
