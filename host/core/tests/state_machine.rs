//! docs/state-machine.md draws what [`State::on`] does. `DORMOUSE_BLESS=1` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use dormouse_core::run::{End, Event, Phase, State, Status, Wait};

const EVENTS: [(Event, &str); 17] = [
    (Event::Claim, "claim"),
    (Event::Suspend(Wait::Sleep), "suspend, to sleep"),
    (Event::Suspend(Wait::External), "suspend, to wait"),
    (Event::Suspend(Wait::BackOff), "suspend, to back off"),
    (Event::Release, "release"),
    (Event::Wake, "wake"),
    (Event::Block, "block"),
    (Event::Unblock, "unblock"),
    (Event::Finish(End::Completed), "finish, with an output"),
    (Event::Finish(End::Failed), "finish, with an error"),
    (Event::Cancel, "cancel"),
    (Event::Pause, "pause"),
    (Event::Resume, "resume"),
    (Event::Delay, "resume, before its time"),
    (Event::Throttle, "resume, throttled"),
    (Event::Limit, "limit"),
    (Event::Skip, "skip"),
];

/// A list of all events that the compiler keeps complete.
fn place(event: Event) -> usize {
    match event {
        Event::Claim => 0,
        Event::Suspend(Wait::Sleep) => 1,
        Event::Suspend(Wait::External) => 2,
        Event::Suspend(Wait::BackOff) => 3,
        Event::Release => 4,
        Event::Wake => 5,
        Event::Block => 6,
        Event::Unblock => 7,
        Event::Finish(End::Completed) => 8,
        Event::Finish(End::Failed) => 9,
        Event::Cancel => 10,
        Event::Pause => 11,
        Event::Resume => 12,
        Event::Delay => 13,
        Event::Throttle => 14,
        Event::Limit => 15,
        Event::Skip => 16,
    }
}

fn name(state: State) -> &'static str {
    match state.phase {
        Some(phase) => phase.as_str(),
        None => state.status.as_str(),
    }
}

fn after(status: Status, phase: Phase, event: Event) -> Option<State> {
    State::live(status, phase).on(event).ok()
}

fn table() -> String {
    let mut text = String::from("| event |");
    for phase in Phase::ALL {
        let _ = write!(text, " {} |", phase.as_str());
    }
    let _ = write!(text, "\n|---|{}\n", "---|".repeat(Phase::ALL.len()));
    for (event, word) in EVENTS {
        let _ = write!(text, "| {word} |");
        for phase in Phase::ALL {
            let running = after(Status::Running, phase, event);
            let cell = match (running, after(Status::Scheduled, phase, event)) {
                (Some(state), _) => name(state).to_owned(),
                (None, Some(state)) => format!("{}, if Scheduled", name(state)),
                (None, None) => "–".to_owned(),
            };
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

fn diagram() -> String {
    let id = |word: &str| word.replace('-', "_");
    let mut text = String::from("```mermaid\nstateDiagram-v2\n    [*] --> queued\n");
    for phase in Phase::ALL {
        // Several events may lead the same way: one arrow for all of them.
        let mut arrows: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (event, word) in EVENTS {
            let next =
                after(Status::Running, phase, event).or_else(|| after(Status::Scheduled, phase, event));
            // Said once below the diagram: everything can be cancelled, and a wake of what is awake changes nothing.
            match next {
                Some(state) if event != Event::Cancel && state.phase != Some(phase) => {
                    arrows.entry(id(name(state))).or_default().push(word);
                }
                _ => {}
            }
        }
        for (to, words) in arrows {
            let _ = writeln!(text, "    {} --> {to}: {}", id(phase.as_str()), words.join(" / "));
        }
    }
    for status in Status::ALL.into_iter().filter(|status| status.is_terminal()) {
        let _ = writeln!(text, "    {} --> [*]", status.as_str());
    }
    text + "```\n"
}

#[test]
fn the_document_says_what_the_code_does() {
    for (index, (event, _)) in EVENTS.into_iter().enumerate() {
        assert_eq!(place(event), index);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/state-machine.md");
    let document = std::fs::read_to_string(path).expect("docs/state-machine.md");
    let mut expected = document.clone();
    for (part, content) in [("diagram", diagram()), ("table", table())] {
        let (begin, end) = (format!("<!-- begin {part} -->\n"), format!("<!-- end {part} -->"));
        let (before, rest) = expected.split_once(&begin).expect("a place for it");
        let (_, after) = rest.split_once(&end).expect("an end of it");
        expected = format!("{before}{begin}{content}{end}{after}");
    }
    if std::env::var_os("DORMOUSE_BLESS").is_some() {
        std::fs::write(path, &expected).expect("written");
        return;
    }
    assert_eq!(
        document, expected,
        "docs/state-machine.md is behind: DORMOUSE_BLESS=1 writes it anew"
    );
}

/// What the document says in words.
#[test]
fn the_words_around_the_table_hold() {
    for phase in Phase::ALL {
        for status in [Status::Scheduled, Status::Running] {
            let state = State::live(status, phase);
            assert_eq!(
                state.on(Event::Cancel).map(|state| state.status),
                Ok(Status::Cancelled)
            );
            for (event, word) in EVENTS {
                let Ok(next) = state.on(event) else { continue };
                if event == Event::Claim {
                    assert_eq!(next, State::live(Status::Running, Phase::Executing));
                } else if next.phase.is_some() {
                    assert_eq!(next.status, status, "{word}: only a claim makes a run Running");
                }
                if event == Event::Skip {
                    assert_eq!(status, Status::Scheduled, "only what never began is skipped");
                }
            }
        }
    }
}
