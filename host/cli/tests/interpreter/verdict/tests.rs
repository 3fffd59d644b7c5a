//! A verdict that finds nothing wrong says little unless it is known what it would find.

use serde_json::json;

use super::*;

fn wrongs(judge: impl FnOnce(&mut Wrongs)) -> Vec<String> {
    let mut wrong = Wrongs::default();
    judge(&mut wrong);
    wrong.told
}

#[test]
fn an_addition_that_is_missing_doubled_or_other_than_predicted_is_found() {
    let prediction = Prediction {
        counters: [(1, 5), (2, 7)].into(),
        ..Prediction::default()
    };
    let key = |step: &str| ("run".to_owned(), step.to_owned());
    let expected = BTreeMap::from([(key("a"), (1, 5)), (key("b"), (2, 7))]);
    let row = |step: &str, counter, by| ("run".to_owned(), step.to_owned(), counter, by);
    let judge = |ledger: &[(String, String, u32, i64)], counters: &[(u32, i64)]| {
        let added = Added {
            ledger: ledger.to_vec(),
            counters: counters.iter().copied().collect(),
        };
        wrongs(|wrong| added.judge(&prediction, &expected, wrong))
    };
    let (a, b) = (row("a", 1, 5), row("b", 2, 7));
    let counters = [(1, 5), (2, 7)];
    assert_eq!(judge(&[a.clone(), b.clone()], &counters), Vec::<String>::new());
    for (ledger, counters, word) in [
        // A row is missing, though the counter is right; and the other way round.
        (vec![a.clone()], &counters[..], "never added"),
        (vec![a.clone(), b.clone()], &[(1, 5)][..], "counter 2 is None"),
        // It is there twice.
        (
            vec![a.clone(), a.clone(), b.clone()],
            &counters[..],
            "run, a: added",
        ),
        (
            vec![a.clone(), b.clone()],
            &[(1, 10), (2, 7)][..],
            "counter 1 is Some(10)",
        ),
        // Another amount, another counter, a step that nobody predicted.
        (vec![row("a", 1, 6), b.clone()], &counters[..], "(1, 6)"),
        (vec![row("a", 2, 5), b.clone()], &counters[..], "(2, 5)"),
        (
            vec![a.clone(), b.clone(), row("c", 1, 0)],
            &counters[..],
            "run, c",
        ),
        (vec![a, b], &[(1, 5), (2, 7), (3, 1)][..], "counter 3"),
    ] {
        let found = judge(&ledger, counters);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(word), "{found:?}");
    }
}

#[test]
fn a_task_that_says_nothing_or_twice_that_it_is_done_is_found() {
    let prediction = Prediction {
        telling: [7].into(),
        ..Prediction::default()
    };
    let done = |tag: u64| json!({ "data": { "child": tag } });
    for (events, expected) in [
        (vec![done(7)], 0),
        (vec![], 1),
        (vec![done(7), done(7)], 1),
        (vec![done(7), done(8)], 1),
        (vec![done(7), json!({ "data": {} })], 1),
    ] {
        let found = wrongs(|wrong| tellings(&events, &prediction, wrong));
        assert_eq!(found.len(), expected, "{events:?}: {found:?}");
    }
}

#[test]
fn a_body_that_ran_again_was_skipped_or_was_never_heard_of_is_found() {
    let client = Client::of_urls([]);
    let (task, builds) = ([], HashMap::new());
    let began = Instant::now();
    let woken = [began + Duration::from_secs(60)];
    let verdict = Verdict {
        client: &client,
        module: "interpreter",
        roots: &task,
        builds: &builds,
        woken: &woken,
    };
    let line = |after: u64, attempt, token: &str| Line {
        at: began + Duration::from_secs(after),
        attempt,
        build: "v1".to_owned(),
        token: token.to_owned(),
    };
    let body = Body {
        step: "run 0.0".to_owned(),
        token: "c".to_owned(),
        attempts: 2,
    };
    let run = json!({ "output": { "build": "v1" } });
    let judge = |lines: &[Line]| verdict.body(&body, lines, &run);
    let usual = || vec![line(1, 1, "a"), line(2, 2, "c")];
    assert_eq!(judge(&usual()), Ok(0));
    // An attempt that a node had begun before it was killed is made again.
    assert_eq!(judge(&[line(1, 1, "a"), line(2, 2, "b"), line(3, 2, "c")]), Ok(0));
    // A node that had stood still ends a body that another has finished.
    let mut lines = usual();
    lines.push(line(61, 2, "d"));
    assert_eq!(judge(&lines), Ok(1));
    let mut other_build = usual();
    other_build[0].build = "v2".to_owned();
    for (lines, word) in [
        (vec![], "nobody has heard"),
        (vec![line(1, 1, "a"), line(2, 2, "b")], "nobody has heard"),
        (
            vec![line(1, 1, "a"), line(2, 2, "c"), line(3, 2, "d")],
            "ran again",
        ),
        // Long after the node that had stood still went on.
        (
            vec![line(1, 1, "a"), line(2, 2, "c"), line(70, 2, "d")],
            "ran again",
        ),
        (vec![line(1, 1, "c")], "could not before 2"),
        (vec![line(2, 2, "c")], "attempt 1 never was"),
        (
            vec![line(1, 1, "a"), line(2, 3, "b"), line(3, 2, "c")],
            "attempt 2 came after 3",
        ),
        (other_build, "another version"),
    ] {
        let error = judge(&lines).expect_err(word);
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_run_that_nobody_asked_for_or_that_says_something_else_is_found() {
    let run = json!({ "event_id": "E", "parent_run_id": null, "output": 1 });
    let child = json!({ "event_id": "E", "parent_run_id": "P", "output": 1 });
    for (asked, run, fits) in [
        (Asked::Unknown, &run, true),
        (Asked::Unknown, &child, false),
        (Asked::Event("E".to_owned()), &run, true),
        (Asked::Event("F".to_owned()), &run, false),
        (Asked::Abandoned("P".to_owned()), &child, true),
        (Asked::Abandoned("P".to_owned()), &run, false),
        (Asked::Invoked("P".to_owned(), json!(1)), &child, true),
        (Asked::Invoked("P".to_owned(), json!(2)), &child, false),
        (Asked::Invoked("Q".to_owned(), json!(1)), &child, false),
    ] {
        assert_eq!(asked.fits(run).is_ok(), fits, "{run}");
    }
}

/// Whoever reads a verdict that failed gets the journals of the runs that it names.
#[tokio::test]
#[should_panic(expected = "no node answers with the journal of run A")]
async fn what_is_wrong_is_told_with_the_journal_of_the_run() {
    let mut wrong = Wrongs::default();
    wrong.of_run("A", ": it is Failed");
    wrong.none(&Client::of_urls([])).await;
}
