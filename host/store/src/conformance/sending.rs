//! Events that a run sends: with its entries, or not at all.

use std::sync::Arc;

use dormouse_core::EventId;
use dormouse_core::run::{State, Status};

use super::fixture::{Fixture, at, sleep, step, suspend};
use crate::contract::Store;
use crate::error::Error;
use crate::execute::{Append, Appended, Lost, Then};
use crate::ingest::Ingest;
use crate::read::{RunFilter, StoredEvent};

/// One event that starts one run, as a run sends it.
fn sent(fixture: &Fixture, dedupe: Option<&str>) -> (EventId, Ingest) {
    let event = fixture.event("shop/ordered");
    let mut run = fixture.run(event.id, "shop/ship");
    run.dedupe = dedupe.map(str::to_owned);
    (event.id, fixture.ingest(vec![event], vec![run], at(500)))
}

async fn stored(fixture: &Fixture, event: EventId) -> (Option<StoredEvent>, usize) {
    let filter = RunFilter {
        event: Some(event),
        limit: 10,
        ..RunFilter::default()
    };
    let runs = fixture.store.runs(filter).await.expect("lists");
    assert!(
        runs.iter()
            .all(|run| run.state == State::NEW && run.owner.is_none())
    );
    (fixture.store.event(event).await.expect("reads"), runs.len())
}

pub(super) async fn what_a_run_sends_comes_with_its_entry(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    // Whatever the run does next, what it sent is there with its entry.
    for (number, then) in [
        Then::Continue,
        suspend(Some(at(1000))),
        Then::Complete {
            output: super::fixture::json("1"),
        },
    ]
    .into_iter()
    .enumerate()
    {
        let id = fixture.leased(at(number as i64)).await;
        let (event, ingest) = sent(&fixture, None);
        let append = Append {
            ingest: Some(ingest),
            ..fixture.append_of(id, 1, vec![step(0, "1")], then, at(500))
        };
        assert_eq!(
            fixture.store.append(append).await.expect("appends"),
            Appended::Done
        );
        let (event, runs) = stored(&fixture, event).await;
        assert!(event.is_some() && runs == 1);
        assert_eq!(fixture.store.journal(id, 0).await.expect("reads").len(), 1);
    }
    assert_eq!(
        fixture.claim(10, at(600)).await.len(),
        3,
        "the new runs are ready"
    );
    // Of two with one id by the sender, the second starts nothing, and the entry is stored all the same.
    let id = fixture.leased(at(9)).await;
    for seq in 0..2 {
        let (event, ingest) = sent(&fixture, Some("order-1"));
        let append = Append {
            ingest: Some(ingest),
            ..fixture.append_of(id, 1, vec![sleep(seq)], Then::Continue, at(500))
        };
        assert_eq!(
            fixture.store.append(append).await.expect("appends"),
            Appended::Done
        );
        assert_eq!(stored(&fixture, event).await.1, usize::from(seq == 0));
    }
}

pub(super) async fn sent_again_with_the_same_entries_nothing_is_stored_twice(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    let (event, ingest) = sent(&fixture, None);
    let append = Append {
        ingest: Some(ingest),
        ..fixture.append_of(id, 1, vec![step(0, "1")], Then::Continue, at(500))
    };
    for _ in 0..3 {
        let appended = fixture.store.append(append.clone()).await.expect("appends");
        assert_eq!(appended, Appended::Done);
    }
    assert_eq!(stored(&fixture, event).await.1, 1);
    assert_eq!(fixture.store.journal(id, 0).await.expect("reads").len(), 1);
}

pub(super) async fn what_is_sent_without_a_lease_or_on_a_stale_registry_stores_nothing(
    store: Arc<dyn Store>,
) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    let (event, ingest) = sent(&fixture, None);
    let append = Append {
        ingest: Some(ingest.clone()),
        ..fixture.append_of(id, 2, vec![step(0, "1")], Then::Continue, at(500))
    };
    let appended = fixture.store.append(append).await.expect("answers");
    assert_eq!(appended, Appended::Lost(Lost::TakenOver));
    let stale = Ingest {
        generation: ingest.generation + 1,
        ..ingest
    };
    let append = Append {
        ingest: Some(stale),
        ..fixture.append_of(id, 1, vec![step(0, "1")], Then::Continue, at(500))
    };
    let refused = fixture.store.append(append).await;
    assert!(matches!(refused, Err(Error::StaleRegistry)), "{refused:?}");
    assert_eq!(stored(&fixture, event).await, (None, 0));
    assert_eq!(fixture.store.journal(id, 0).await.expect("reads"), []);
    let run = fixture.get(id).await;
    assert_eq!((run.state.status, run.journal_next), (Status::Running, 0));
}
