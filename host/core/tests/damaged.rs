//! Whatever strangers write is read or refused, and never takes the process with it: events, manifests, conditions,
//! journal rows, all damaged at random.

use dormouse_core::condition::{Condition, Scope};
use dormouse_core::cron::Schedule;
use dormouse_core::journal::{Entry, Record, RecordKind};
use dormouse_core::manifest::Manifest;
use dormouse_core::replay::Replay;
use dormouse_core::trigger::Trigger;
use dormouse_core::{EventId, Json, Timestamp, event};
use dormouse_testing_mutate::Mutations;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn text(input: &[u8]) -> String {
    String::from_utf8_lossy(input).into_owned()
}

#[test]
fn events() {
    let samples = [
        r#"{"name":"shop/order.placed","data":{"id":"o-1","items":[1,2.5,"x"]},"id":"e-1","ts":1790000000000}"#,
        r#"{"name":"a","user":{"id":1},"v":"2","data":null}"#,
        "{\"name\":\"\u{1f600}\",\"data\":{\"\\u00e9\":\"\\ud83d\\ude00\"}}",
    ];
    let words = [
        "inngest/",
        "dormouse/",
        "\\ud800",
        "[[[[[[[[",
        "{\"a\":",
        "\"data\":{}",
        "\u{feff}",
    ];
    Mutations::of(&samples, &words).each(|input| {
        let id = EventId::from_parts(NOW, [7; 10]);
        if let Ok(accepted) = event::accept(&text(input), id, NOW) {
            // What is accepted can be read by whoever reads it next, but for what JSON's grammar allows and texts and
            // numbers of most languages don't: half a surrogate pair, a number without bounds.
            let read: Result<serde_json::Value, _> = serde_json::from_str(accepted.payload.as_str());
            if let Err(error) = read.map_err(|error| error.to_string()) {
                let allowed = ["surrogate", "hex escape", "number out of range"];
                assert!(allowed.iter().any(|word| error.contains(word)), "{error}");
            }
        }
    });
}

#[test]
fn manifests() {
    let samples = [
        r#"{"schema":1,"functions":[{"id":"a","triggers":[{"event":"x/*","if":"event.data.n > 3"}],"retries":4,"timeout_ms":1000}]}"#,
        r#"{"schema":1,"functions":[{"id":"a","triggers":[]},{"id":"b","triggers":[{"event":"y"}],"backoff":{"initial_ms":5,"factor":2,"max_ms":50}}]}"#,
        r#"{"schema":1,"functions":[{"id":"a","triggers":[{"cron":"TZ=Europe/Paris */5 9-17 1,15 * MON-FRI","jitter_ms":3000,"overlap":"queue","catch_up":"all"}]}]}"#,
    ];
    let words = [
        "\"cron\":",
        "TZ=",
        "@daily",
        "L",
        "#",
        "\"triggers\":[",
        "\"schema\":2",
        "event.",
        "*",
    ];
    Mutations::of(&samples, &words).each(|input| {
        if let Ok(manifest) = Manifest::parse(&text(input)) {
            for function in &manifest.functions {
                for trigger in &function.triggers {
                    match trigger {
                        Trigger::Event(trigger) => {
                            let _ = trigger.compile();
                            trigger.matches("x/y");
                        }
                        Trigger::Cron(trigger) => {
                            let name = "shop/a".parse().expect("a name");
                            let schedule = Schedule::compile(&name, trigger).expect("checked");
                            let next = schedule.next(Timestamp::from_millis(1_790_000_000_000));
                            assert!(next < Timestamp::MAX && schedule.due(next) >= next, "{trigger:?}");
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn conditions() {
    let samples = [
        "event.data.total > 100 && (event.name == 'a' || !has(event.data.x))",
        "event.data.items.exists(i, i.price * 2.0 >= 3.5) ? true : size(event.data.name) < 4",
        "event.data.a in [1, 2, 3] && event.data.s.startsWith(\"b\") && lowercase(event.data.s) != 'c'",
    ];
    let words = [
        "(", ")", "((((((((", "!", "-", "event", "async", ".data", "[0]", "'", "all(", "map(", "? :", "&&",
        "||",
    ];
    let event = serde_json::json!({
        "name": "a", "data": {"total": 1e308, "items": [{"price": 1}], "name": "n", "a": u64::MAX, "s": "bé", "x": null}
    });
    Mutations::of(&samples, &words).each(|input| {
        if let Ok(condition) = Condition::compile(&text(input), Scope::Trigger) {
            condition.holds(&event, None);
        }
    });
}

#[test]
fn journal_rows() {
    let samples = [
        r#"{"v":1,"n":3,"attempt":1,"started":1790000000000}"#,
        r#"{"v":1,"kind":"sleep","hash":"00000000000000ff","due":1790000000000}"#,
        r#"{"v":1,"op":0,"failed":true}"#,
        r#"{"message":"no","code":"x","details":null,"retry":"default"}"#,
    ];
    let mut round = 0_u32;
    Mutations::of(&samples, &["\"v\":2", "\"op\":1"]).each(|input| {
        round += 1;
        let kinds = [1, 2, 3, 4, 5].map(|number| RecordKind::from_number(number).expect("known"));
        let entries: Vec<Entry> = (0..3)
            .filter_map(|seq| {
                let record = Record {
                    seq,
                    kind: kinds[(round + seq) as usize % kinds.len()],
                    name: "a".to_owned(),
                    at: NOW,
                    meta: text(input),
                    payload: Json::parse(&text(input)).ok(),
                };
                Entry::decode(record).ok()
            })
            .collect();
        // What can be read as a journal can be replayed, whatever the code then asks for.
        if let Ok(mut replay) = Replay::new(entries, 0, NOW) {
            let _ = replay.begin("a");
            let _ = replay.await_any(&[0]);
            let _ = replay.finish(false);
        }
    });
}
