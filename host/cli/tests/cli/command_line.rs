//! The command line as scripts see it: help, exit codes, what is on stdout and what on stderr.

use std::fs;
use std::path::Path;

use crate::stub::{Answer, Stub, dormouse, text};

const COMMANDS: [&str; 39] = [
    "",
    "start",
    "new",
    "build",
    "deploy",
    "invoke",
    "events",
    "events send",
    "events list",
    "runs",
    "runs list",
    "runs get",
    "runs journal",
    "runs logs",
    "runs cancel",
    "runs wake",
    "runs rerun",
    "runs pause",
    "runs resume",
    "runs migrate",
    "runs pin",
    "runs follow",
    "cancellations",
    "cancellations create",
    "cancellations list",
    "cancellations delete",
    "modules",
    "modules list",
    "modules versions",
    "modules activate",
    "modules delete",
    "functions",
    "functions list",
    "functions pause",
    "functions resume",
    "schedules",
    "schedules list",
    "nodes",
    "nodes list",
    "nodes drain",
    "doctor",
    "completions",
];

/// Compares with the file; `DORMOUSE_UPDATE=1` writes it instead.
fn check_file(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(name);
    if std::env::var_os("DORMOUSE_UPDATE").is_some() {
        fs::write(&path, actual).expect("the repository is writable");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{} is not what the command says now; if that is right, run this test with DORMOUSE_UPDATE=1. It says:\n{actual}",
        path.display()
    );
}

#[test]
fn help_is_as_reviewed() {
    let mut all = String::new();
    for command in COMMANDS {
        let mut words: Vec<&str> = command.split_whitespace().collect();
        words.push("--help");
        let output = dormouse(&words).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(output.stderr.is_empty(), "{command}");
        all += &format!("$ dormouse {}\n\n{}\n", words.join(" "), text(&output.stdout));
    }
    check_file("help.txt", &all);
}

#[test]
fn the_guide_names_every_command() {
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/cli.md"))
        .expect("docs/guide/cli.md");
    let groups = [
        "",
        "events",
        "runs",
        "cancellations",
        "modules",
        "functions",
        "schedules",
    ];
    for command in COMMANDS.iter().filter(|command| !groups.contains(command)) {
        assert!(
            guide.contains(&format!("dormouse {command}")),
            "docs/guide/cli.md lacks `dormouse {command}`"
        );
    }
}

#[test]
fn mistakes_on_the_command_line_exit_with_2_and_say_what_to_do() {
    let cases: [(&[&str], &str); 10] = [
        (&["bogus"], "unrecognized subcommand 'bogus'"),
        (&["runs", "get"], "required"),
        (&["invoke", "hello"], "name it as MODULE/FUNCTION"),
        (
            &["invoke", "a/b", "--wait", "--timeout", "soon"],
            "is not a duration such as",
        ),
        (&["invoke", "a/b", "--timeout", "5s"], "--wait"),
        (
            &["events", "send", "x", "--data", "{oops"],
            "the data is not JSON",
        ),
        (
            &["events", "send", "x", "--data", "@/no/such/file"],
            "/no/such/file",
        ),
        (&["runs", "list", "--url", "ftp://x"], "only http and https"),
        (&["start", "--listen", "nowhere"], "is not an address such as"),
        (&["start", "--park-memory", "12 sheep"], "is not a size such as"),
    ];
    for (arguments, word) in cases {
        let output = dormouse(arguments).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(
            text(&output.stderr).contains(word),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn no_server_is_5_and_says_how_to_start_one() {
    // Bound and not listened on: nobody else can take the port meanwhile.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let output = dormouse(&["runs", "list", "--url", &closed.to_string()])
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(5));
    let talk = text(&output.stderr);
    assert!(
        talk.contains("no server answers") && talk.contains("dormouse start"),
        "{talk}"
    );
    assert!(!talk.contains('\u{1b}'), "no colours when nobody looks: {talk}");
}

#[test]
fn the_servers_refusals_have_their_exit_codes_and_its_own_words() {
    for (status, exit) in [
        (404, 3),
        (401, 4),
        (403, 4),
        (503, 5),
        (409, 6),
        (501, 6),
        (500, 70),
    ] {
        let stub = Stub::start(move |_| {
            Answer::Json(
                status,
                format!(r#"{{"error":"because","status":{status},"code":"the-code","help":"do this"}}"#),
            )
        });
        let output = stub.dormouse(&["runs", "get", "01J"]);
        assert_eq!(output.status.code(), Some(exit), "{status}");
        let talk = text(&output.stderr);
        let place = format!("GET http://{}/v1/runs/01J", stub.address);
        assert_eq!(
            talk,
            format!("error: because (the-code)\n  at: {place}\n  help: do this\n")
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_event_is_sent_as_the_contract_says_and_its_id_is_on_stdout() {
    let stub = Stub::start(|_| Answer::Json(200, r#"{"ids":["01E"],"status":200}"#.to_owned()));
    let arguments = [
        "events",
        "send",
        "a/b",
        "--data",
        r#"{"n":1}"#,
        "--id",
        "x-1",
        "--key",
        "secret",
    ];
    let output = stub.dormouse(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "01E\n");
    let requests = stub.requests();
    assert_eq!(requests[0].line, "POST /e/secret");
    assert_eq!(requests[0].header("authorization"), Some("Bearer secret"));
    let event: serde_json::Value = serde_json::from_slice(&requests[0].body).expect("JSON");
    assert_eq!(
        event,
        serde_json::json!({"name": "a/b", "data": {"n": 1}, "id": "x-1"})
    );
}

#[test]
fn schedules_say_when_they_tick_next_or_why_not() {
    let answer = r#"{"data":[
        {"function_id":"m/f","cron":"0 9 * * *","paused":false,"next_at":"2026-11-26T09:00:00.000Z","waits_for":null,
         "last":{"scheduled_at":"2026-11-25T09:00:00.000Z","run_id":"01R"},
         "last_skipped":{"scheduled_at":"2026-11-24T09:00:00.000Z","reason":"it overlapped"}},
        {"function_id":"m/g","cron":"@daily","paused":true,"next_at":null,"waits_for":null,"last":null,"last_skipped":null},
        {"function_id":"m/h","cron":"@daily","paused":false,"next_at":"2026-11-25T00:00:00.000Z","waits_for":"01Q",
         "last":null,"last_skipped":null}],"metadata":{}}"#;
    let stub = Stub::start(move |_| Answer::Json(200, answer.to_owned()));
    let table = text(&stub.dormouse(&["schedules", "list"]).stdout);
    assert_eq!(stub.requests()[0].line, "GET /v1/schedules");
    for part in [
        "FUNCTION  CRON",
        "2026-11-26T09:00:00.000Z  2026-11-25T09:00:00.000Z  01R",
        "2026-11-24T09:00:00.000Z: it overlapped",
        "paused",
        "when run 01Q has ended",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let none = Stub::start(|_| Answer::Json(200, r#"{"data":[],"metadata":{}}"#.to_owned()));
    let output = none.dormouse(&["schedules", "list"]);
    assert!(output.stdout.is_empty());
    assert!(
        text(&output.stderr).contains("no schedules"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn lists_are_tables_or_json_or_lines() {
    let answer = r#"{"data":[{"function_id":"m/f","triggers":[{"event":"a/b"},{"cron":"0 9 * * *"}],"retries":4,
        "version":"sha256:0123456789abcdef0123"},{"function_id":"m/g","triggers":[],"retries":0,"version":"sha256:01"}],
        "metadata":{}}"#;
    let stub = Stub::start(move |_| Answer::Json(200, answer.to_owned()));
    let table = text(&stub.dormouse(&["functions", "list"]).stdout);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect()
        })
        .collect();
    assert_eq!(
        rows[0],
        ["FUNCTION", "TRIGGERS", "RETRIES", "PAUSED", "VERSION"],
        "{table}"
    );
    assert_eq!(
        rows[1],
        ["m/f", "a/b, cron 0 9 * * *", "4", "sha256:0123456789ab"],
        "{table}"
    );
    let json = text(&stub.dormouse(&["functions", "list", "-o", "json"]).stdout);
    let json: serde_json::Value = serde_json::from_str(&json).expect("one JSON value");
    assert_eq!(
        json[0]["version"], "sha256:0123456789abcdef0123",
        "nothing is shortened for programs"
    );
    let lines = text(&stub.dormouse(&["-o", "jsonl", "functions", "list"]).stdout);
    assert_eq!(lines.lines().count(), 2);
}

#[test]
fn a_component_is_uploaded_whole_with_its_message() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("my_module.wasm");
    let component: Vec<u8> = (0..200_000_u32).map(|index| (index % 251) as u8).collect();
    fs::write(&file, &component).expect("writable");
    let answer = r#"{"data":{"module":"my-module","version":"sha256:ab","previous":null,"functions":[{"id":"f","function_id":"my-module/f"}]}}"#;
    let stub = Stub::start(move |_| Answer::Json(201, answer.to_owned()));
    let output = stub.dormouse(&["deploy", file.to_str().expect("plain"), "--message", "first"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "sha256:ab\n");
    assert!(
        text(&output.stderr).contains("dormouse invoke my-module/f"),
        "{}",
        text(&output.stderr)
    );
    let request = &stub.requests()[0];
    assert_eq!(request.line, "PUT /v1/modules/my-module");
    assert_eq!(request.header("x-dormouse-message"), Some("first"));
    assert_eq!(request.body, component);
}

#[test]
fn a_plan_says_what_a_version_would_do_and_fails_when_runs_could_not_go_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("shop.wasm");
    fs::write(&file, b"code").expect("writable");
    let answer = |groups: &str, ok: bool| {
        format!(
            r#"{{"data":{{"module":"shop","version":"sha256:0123456789abcdef","active":null,"ok":{ok},"in_flight":20000,"checked":8,"sampled":true,"ended":0,"verdicts":{{}},"groups":[{groups}],"changes":[{{"change":"function-changed","function":"charge","member":"retries","before":null,"after":2}},{{"change":"function-removed","function":"old"}}]}}}}"#
        )
    };
    let compatible = r#"{"function_id":"shop/charge","version":"sha256:fedcba9876543210","verdict":"compatible","runs":5,"examples":["01A","01B"]}"#;
    let diverges = r#"{"function_id":"shop/charge","version":"sha256:fedcba9876543210","verdict":"diverges","divergence":{"seq":3,"journal":"sleep \"pause\"","code":"run \"added\""},"frames":["shop::charge (src/lib.rs:7)"],"runs":2,"examples":["01C"]}"#;
    let fails = r#"{"function_id":"shop/charge","version":"sha256:fedcba9876543210","verdict":"fails","error":{"code":"guest-panic","message":"odd"},"runs":1,"examples":["01D"]}"#;
    let plan = ["deploy", "--plan", file.to_str().expect("plain")];

    let body = answer(&[diverges, fails, compatible].join(","), false);
    let stub = Stub::start(move |_| Answer::Json(200, body.clone()));
    let output = stub.dormouse(&plan);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    for line in [
        "shop at sha256:0123456789ab: 20000 runs in flight, 8 looked at (a sample)",
        r#"  2 of shop/charge on sha256:fedcba987654: diverges at entry 3: the journal has sleep "pause", the code asked for run "added""#,
        "    such as 01C",
        "    at shop::charge (src/lib.rs:7)",
        "  1 of shop/charge on sha256:fedcba987654: fails (guest-panic): odd",
        "  ~ charge: retries was not set, is 2",
        "  - old: its triggers stop",
    ] {
        assert!(
            told.lines().any(|found| found == line),
            "{line}\nis not in\n{told}"
        );
    }
    assert!(
        text(&output.stderr).contains("--policy pin"),
        "{}",
        text(&output.stderr)
    );
    let request = &stub.requests()[0];
    assert!(
        request.line.starts_with("POST /v1/modules/shop/preflight"),
        "{}",
        request.line
    );
    assert_eq!(request.body, b"code");

    let body = answer(compatible, true);
    let stub = Stub::start(move |_| Answer::Json(200, body.clone()));
    let output = stub.dormouse(&plan);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_version_is_not_deleted_unasked() {
    let stub = Stub::start(|_| Answer::Json(200, r#"{"data":[{"version":"sha256:abcd"}]}"#.to_owned()));
    let output = stub.dormouse(&["modules", "delete", "m", "abcd"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--yes"));
    let output = stub.dormouse(&["modules", "delete", "m", "abcd", "--yes"]);
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<String> = stub.requests().into_iter().map(|request| request.line).collect();
    let deletions: Vec<&String> = lines.iter().filter(|line| line.starts_with("DELETE")).collect();
    assert_eq!(deletions, ["DELETE /v1/modules/m/versions/sha256:abcd"]);
}

#[test]
fn completions_are_there_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = dormouse(&["completions", shell])
            .output()
            .expect("the binary runs");
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(text(&output.stdout).contains("journal"), "{shell}");
    }
}
