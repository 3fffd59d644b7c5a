//! Runs that begin with what others recorded.

use std::sync::Arc;

use dormouse_core::RunId;
use dormouse_core::run::{Phase, State, Status};

use super::fixture::{Fixture, at, json, step, suspend};
use crate::contract::Store;
use crate::error::{Error, Result};
use crate::execute::{Appended, Then};
use crate::ingest::{Copied, Created};

/// A rerun of a run that takes over a part of it; its event is the same.
async fn rerun(fixture: &Fixture, source: RunId, copy: Copied) -> Result<RunId> {
    let event = fixture.get(source).await.event_id;
    let mut run = fixture.run(event, "shop/order");
    run.rerun_of = Some(source);
    run.copy = Some(copy);
    run.seed = [9; 32];
    run.lease = Some(fixture.node);
    run.start_at = at(5000);
    let id = run.id;
    let ingest = fixture.ingest(vec![], vec![run], at(5000));
    let created = fixture.store.ingest(ingest).await?;
    assert_eq!(created, [Created::New { leased: false }], "never born leased");
    Ok(id)
}

pub(super) async fn a_run_begins_with_what_another_recorded(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let source = fixture.leased(at(3)).await;
    let large = format!("\"{}\"", "x".repeat(100_000));
    let entries = vec![step(0, "1"), step(1, &large), step(2, "3")];
    fixture
        .append(source, 1, entries.clone(), suspend(Some(at(9000))))
        .await;
    let copy = Copied {
        run: source,
        base: 0,
        before: 2,
        bytes: 100_050,
    };
    let id = rerun(&fixture, source, copy).await.expect("is created");
    let run = fixture.get(id).await;
    assert_eq!((run.state, run.rerun_of), (State::NEW, Some(source)));
    assert_eq!(
        (run.journal_base, run.journal_next, run.queued_at),
        (0, 2, at(5000))
    );
    assert_eq!(fixture.store.journal(id, 0).await.expect("reads"), entries[..2]);
    let claimed = fixture.claim(10, at(5001)).await;
    assert_eq!(
        (claimed[0].id, claimed[0].journal_next, claimed[0].journal_bytes),
        (id, 2, 100_050)
    );
    assert_eq!(
        (claimed[0].seed, claimed[0].queued_at),
        ([7; 32], at(3)),
        "it replays as it did"
    );
    // It goes its own way from there.
    let appended = fixture.append(id, 1, vec![step(2, "4")], Then::Continue).await;
    assert_eq!(appended, Appended::Done);
    assert_eq!(fixture.store.journal(source, 0).await.expect("reads"), entries);
    assert_eq!(
        fixture.get(source).await.state,
        State::live(Status::Running, Phase::Sleeping)
    );
    // A rerun of the rerun begins when the first did; once it begins anew, it begins then.
    let copy = Copied {
        run: id,
        before: 1,
        ..copy
    };
    let second = rerun(&fixture, id, copy).await.expect("is created");
    assert_eq!(fixture.claim(10, at(5002)).await[0].queued_at, at(3));
    let continued = json("{\"round\":2}");
    let again = Then::ContinueWith {
        continued: continued.clone(),
    };
    fixture.append(second, 1, vec![step(1, "5")], again).await;
    let claimed = fixture.claim(10, at(5003)).await;
    assert_eq!((claimed[0].id, claimed[0].queued_at), (second, at(500)));
    fixture
        .append(second, 2, vec![step(2, "6"), step(3, "7")], Then::Continue)
        .await;
    // What had begun anew is taken over from there, with what it was handed.
    let copy = Copied {
        run: second,
        base: 2,
        before: 3,
        bytes: 20,
    };
    let third = rerun(&fixture, second, copy).await.expect("is created");
    let claimed = fixture.claim(10, at(5004)).await;
    assert_eq!((claimed[0].id, &claimed[0].continued), (third, &Some(continued)));
    assert_eq!((claimed[0].journal_base, claimed[0].queued_at), (2, at(500)));
    assert_eq!(
        fixture.store.journal(third, 0).await.expect("reads"),
        [step(2, "6")]
    );
}

pub(super) async fn what_is_not_there_cannot_be_taken_over(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let source = fixture.leased(at(0)).await;
    fixture
        .append(source, 1, vec![step(0, "1")], suspend(Some(at(9000))))
        .await;
    let copy = Copied {
        run: source,
        base: 0,
        before: 1,
        bytes: 10,
    };
    let wrong = [
        Copied { before: 2, ..copy },
        Copied { base: 1, ..copy },
        Copied {
            run: RunId::from_parts(at(0), [5; 10]),
            ..copy
        },
    ];
    for copy in wrong {
        let answer = rerun(&fixture, source, copy).await;
        assert!(matches!(answer, Err(Error::SourceGone)), "{copy:?}: {answer:?}");
    }
    assert_eq!(fixture.claim(10, at(6000)).await, [], "nothing was stored");
    rerun(&fixture, source, copy).await.expect("is created");
}
