//! Entries as rows: whatever is written is read as it was, and what an earlier release wrote is read for ever.

use dormouse_core::journal::{Event, OperationKind, Record, RecordKind};
use dormouse_core::replay::input_hash;
use dormouse_core::{Entry, Failure, Json, Outcome, Retry, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;
use serde::Deserialize;

const KINDS: [OperationKind; 9] = [
    OperationKind::Sleep,
    OperationKind::SleepUntil,
    OperationKind::Sql,
    OperationKind::WaitForEvent,
    OperationKind::WaitForSignal,
    OperationKind::Invoke,
    OperationKind::SendEvents,
    OperationKind::Fetch,
    OperationKind::SendSignal,
];

/// Any JSON text, also with numbers and spaces that no library would write.
fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>()
            .prop_filter("has a JSON form", |value| value.is_finite())
            .prop_map(|value| format!("{value:e}")),
        Just("123456789012345678901234567890.10".to_owned()),
        Just(r#""\ud83d\ude00 \u0000""#.to_owned()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).expect("a string")),
    ];
    let tree = leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" ,"))),
            prop::collection::vec((any::<String>(), inner), 0..4).prop_map(|members| {
                let member = |(name, value): &(String, String)| {
                    format!("{}:\t{value}", serde_json::to_string(name).expect("a string"))
                };
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
            }),
        ]
    });
    tree.prop_map(|text| Json::parse(&text).expect("JSON"))
}

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        (0i64..4_000_000_000_000).prop_map(Timestamp::from_millis),
        Just(Timestamp::EPOCH),
        Just(Timestamp::MAX)
    ]
}

fn failure() -> impl Strategy<Value = Failure> {
    let retry = prop_oneof![
        Just(Retry::Default),
        Just(Retry::Never),
        any::<u64>().prop_map(Retry::After)
    ];
    (
        any::<String>(),
        any::<Option<String>>(),
        prop::option::of(json()),
        retry,
    )
        .prop_map(|(message, code, details, retry)| Failure {
            message,
            code,
            details,
            retry,
        })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![json().prop_map(Ok), failure().prop_map(Err)]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (any::<String>(), any::<u32>(), any::<u32>(), time(), outcome()).prop_map(
            |(name, occurrence, attempt, started_at, outcome)| {
                Event::Step {
                    name,
                    occurrence,
                    attempt,
                    started_at,
                    outcome,
                }
            }
        ),
        (
            any::<String>(),
            any::<u32>(),
            any::<u32>(),
            time(),
            failure(),
            time()
        )
            .prop_map(|(name, occurrence, attempt, started_at, failure, due_at)| {
                Event::Deferred {
                    name,
                    occurrence,
                    attempt,
                    started_at,
                    failure,
                    due_at,
                }
            }),
        (
            select(KINDS.to_vec()),
            any::<String>(),
            any::<u32>(),
            any::<u64>(),
            json(),
            prop::option::of(time())
        )
            .prop_map(|(kind, name, occurrence, input_hash, input, due_at)| {
                Event::Started {
                    kind,
                    name,
                    occurrence,
                    input_hash,
                    input,
                    due_at,
                }
            }),
        (any::<u32>(), outcome()).prop_map(|(operation, outcome)| Event::Delivered { operation, outcome }),
        any::<u32>().prop_map(|operation| Event::Cancelled { operation }),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (any::<u32>(), time(), event()).prop_map(|(seq, at, event)| Entry { seq, at, event })
}

/// How many cases are tried; the long form of the tests tries more.
fn cases(short: u32) -> u32 {
    let long = std::env::var("DORMOUSE_TEST_LONG").is_ok_and(|value| value == "1");
    if long { 50 * short } else { short }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(2_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(entry in entry()) {
        let record = entry.encode();
        prop_assert_eq!(RecordKind::from_number(record.kind as i64), Some(record.kind));
        prop_assert_eq!(Entry::decode(record), Ok(entry));
    }

    #[test]
    fn another_version_is_refused_by_name(entry in entry(), version in 2u64..10_000, grown in any::<bool>()) {
        let record = entry.encode();
        let member = if grown { r#","new":true"# } else { "" };
        let meta = record.meta.replacen(r#"{"v":1"#, &format!(r#"{{"v":{version}{member}"#), 1);
        prop_assert_ne!(&meta, &record.meta);
        let refused = Entry::decode(Record { meta, ..record }).expect_err("another version");
        prop_assert_eq!(refused.seq, entry.seq);
        prop_assert!(refused.reason.contains(&format!("version {version}")), "{}", refused);
    }

    #[test]
    fn a_damaged_row_is_refused_and_named(entry in entry(), cut in any::<prop::sample::Index>()) {
        let record = entry.encode();
        let mut cut = cut.index(record.meta.len());
        while !record.meta.is_char_boundary(cut) {
            cut -= 1;
        }
        let short = Record { meta: record.meta[..cut].to_owned(), ..record.clone() };
        prop_assert_eq!(Entry::decode(short).expect_err("cut off").seq, entry.seq);
        if record.payload.is_some() {
            let bare = Record { payload: None, ..record };
            let refused = Entry::decode(bare).expect_err("no payload");
            prop_assert!(refused.reason.contains("payload"), "{}", refused);
        }
    }
}

#[test]
fn a_large_payload_is_read_as_it_was_written() {
    let text = serde_json::to_string(&"größe 😀 \n".repeat(400_000)).expect("a string");
    assert!(text.len() > 4 << 20);
    let event = Event::Delivered {
        operation: 1,
        outcome: Ok(Json::parse(&text).expect("JSON")),
    };
    let entry = Entry {
        seq: 2,
        at: Timestamp::EPOCH,
        event,
    };
    assert_eq!(Entry::decode(entry.encode()), Ok(entry));
}

/// A row as a file keeps it: the columns of the store.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    seq: u32,
    kind: i64,
    name: String,
    at: i64,
    meta: String,
    payload: Option<String>,
}

impl Row {
    fn read(file: &str) -> Record {
        let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).expect(&path);
        let row: Row = serde_json::from_str(&text).expect(file);
        Record {
            seq: row.seq,
            kind: RecordKind::from_number(row.kind).expect(file),
            name: row.name,
            at: Timestamp::from_millis(row.at),
            meta: row.meta,
            payload: row.payload.map(|text| Json::parse(&text).expect(file)),
        }
    }
}

/// The files are rows that a release has written. They are never changed: a run may sleep for a year.
#[test]
fn rows_of_earlier_releases_are_read_for_ever() {
    let time = Timestamp::from_millis;
    let json = |text: &str| Json::parse(text).expect("JSON");
    let refused = Failure {
        message: "card declined 💳".to_owned(),
        code: Some("payment-declined".to_owned()),
        details: Some(json(r#"{"amount":12345678901234567890}"#)),
        retry: Retry::Never,
    };
    let sleep = json(r#"{"duration_ms":1000}"#);
    let sql = json(
        r#"{"database":"app","statements":[{"sql":"INSERT INTO workflows (name) VALUES (?)","params":["größe"]}]}"#,
    );
    let golden = [
        (
            "step.json",
            0,
            1_790_000_000_120,
            Event::Step {
                name: "create \"workflow\" größe".to_owned(),
                occurrence: 0,
                attempt: 1,
                started_at: time(1_790_000_000_100),
                outcome: Ok(json(r#"{"b":123456789012345678901234567890,"a":1.0}"#)),
            },
        ),
        (
            "step-failed.json",
            41,
            1_790_000_000_500,
            Event::Step {
                name: "pay".to_owned(),
                occurrence: 3,
                attempt: 5,
                started_at: time(1_790_000_000_400),
                outcome: Err(refused.clone()),
            },
        ),
        (
            "deferred.json",
            7,
            1_790_000_001_000,
            Event::Deferred {
                name: "pay".to_owned(),
                occurrence: 1,
                attempt: 2,
                started_at: time(1_790_000_000_990),
                failure: Failure {
                    retry: Retry::After(30_000),
                    details: None,
                    code: None,
                    ..refused.clone()
                },
                due_at: time(1_790_000_031_000),
            },
        ),
        (
            "started-sleep.json",
            1,
            1_790_000_000_000,
            Event::Started {
                kind: OperationKind::Sleep,
                name: "fetch video".to_owned(),
                occurrence: 0,
                input_hash: input_hash(&sleep),
                input: sleep,
                due_at: Some(time(1_790_000_001_000)),
            },
        ),
        (
            "started-sql.json",
            2,
            1_790_000_000_000,
            Event::Started {
                kind: OperationKind::Sql,
                name: "create-workflow".to_owned(),
                occurrence: 2,
                input_hash: input_hash(&sql),
                input: sql,
                due_at: None,
            },
        ),
        (
            "delivered.json",
            3,
            1_790_000_001_003,
            Event::Delivered {
                operation: 1,
                outcome: Ok(Json::null()),
            },
        ),
        (
            "delivered-failed.json",
            4,
            1_790_000_001_004,
            Event::Delivered {
                operation: 2,
                outcome: Err(refused),
            },
        ),
        (
            "cancelled.json",
            30_000,
            1_790_000_002_000,
            Event::Cancelled { operation: 29_999 },
        ),
        (
            "tried.json",
            5,
            1_790_000_003_000,
            Event::Tried {
                operation: 2,
                attempt: 3,
                started_at: time(1_790_000_002_000),
                failure: Failure::new("http-failed", "the server answered with status 503"),
                due_at: time(1_790_000_010_000),
            },
        ),
    ];
    let mut files: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"))
        .expect("the directory")
        .map(|file| file.expect("a file").file_name().into_string().expect("a name"))
        .collect();
    let mut tested: Vec<&str> = golden.iter().map(|(file, ..)| *file).collect();
    files.sort();
    tested.sort();
    assert_eq!(files, tested, "every file is read, and every row has a file");
    for (file, seq, at, event) in golden {
        let entry = Entry {
            seq,
            at: time(at),
            event,
        };
        let record = Row::read(file);
        assert_eq!(Entry::decode(record.clone()), Ok(entry.clone()), "{file}");
        assert_eq!(
            entry.encode(),
            record,
            "{file}: this release writes what it reads"
        );
    }
}

/// The words of kinds are on disk too.
#[test]
fn the_words_of_kinds_do_not_change() {
    let words = KINDS.map(|kind| serde_json::to_string(&kind).expect("a word"));
    let expected = [
        "sleep",
        "sleep-until",
        "sql",
        "wait-for-event",
        "wait-for-signal",
        "invoke",
        "send-events",
        "fetch",
        "send-signal",
    ];
    for ((kind, word), expected) in KINDS.into_iter().zip(words).zip(expected) {
        assert_eq!(word, format!("\"{expected}\""));
        assert_eq!(kind.as_str(), expected);
    }
}
