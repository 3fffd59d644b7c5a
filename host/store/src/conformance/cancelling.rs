//! Cancelling many runs with one command.

use std::sync::Arc;

use dormouse_core::run::Status;
use dormouse_core::{EventId, RunId, Timestamp};

use super::fixture::{Fixture, at, function};
use crate::cancellation::{Cancellation, CancellationFilter, Examined, NewCancellation};
use crate::contract::Store;

/// A cancellation of the shop's orders, asked for at a time after all runs so far.
fn of_orders(now: Timestamp) -> NewCancellation {
    NewCancellation {
        id: EventId::from_parts(now, [0; 10]),
        function: function("shop/order"),
        started_after: None,
        started_before: None,
        condition: None,
        now,
    }
}

/// Works all cancellations off: every candidate is meant. Answers with the runs that were cancelled, in order.
async fn work_off(fixture: &Fixture, limit: u32, now: Timestamp) -> Vec<RunId> {
    let mut cancelled = Vec::new();
    while let Some(batch) = fixture.store.next_cancellation(limit).await.expect("reads") {
        assert!(batch.candidates.len() <= limit as usize);
        let examined = Examined {
            id: batch.cancellation.id,
            runs: batch.candidates.iter().map(|candidate| candidate.run).collect(),
            last: batch.last,
            now,
        };
        cancelled.extend(fixture.store.cancel_examined(examined).await.expect("cancels"));
    }
    cancelled
}

pub(super) async fn many_runs_are_cancelled_in_batches_once_each(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let mut orders = Vec::new();
    for _ in 0..7 {
        orders.push(fixture.ready(at(0)).await);
    }
    let (other, _) = fixture
        .create(at(0), |run| run.function = function("shop/report"))
        .await;
    fixture.store.cancel(orders[3], at(900)).await.expect("cancels");
    let new = of_orders(at(1000));
    let stored = fixture.store.put_cancellation(new.clone()).await.expect("stores");
    let expected = Cancellation {
        id: new.id,
        function: new.function.clone(),
        started_after: None,
        started_before: None,
        condition: None,
        created_at: at(1000),
        done_at: None,
        cancelled: 0,
    };
    assert_eq!(stored, expected);
    assert_eq!(
        fixture
            .store
            .cancellations(CancellationFilter::newest(10))
            .await
            .expect("lists"),
        std::slice::from_ref(&expected)
    );
    // Two nodes examine the same batch: each run is cancelled, and counted, once.
    let batch = fixture
        .store
        .next_cancellation(3)
        .await
        .expect("reads")
        .expect("there is one");
    assert_eq!(batch.last, Some(orders[2]));
    assert!(batch.candidates.iter().all(|candidate| candidate.event.is_none()));
    let examined = Examined {
        id: new.id,
        runs: orders[..2].to_vec(),
        last: batch.last,
        now: at(1001),
    };
    for expected in [&orders[..2], &[]] {
        let cancelled = fixture.store.cancel_examined(examined.clone()).await;
        assert_eq!(cancelled.expect("cancels"), expected);
    }
    // One that is behind does not take it back.
    let behind = Examined {
        runs: vec![],
        last: Some(orders[0]),
        ..examined
    };
    assert_eq!(fixture.store.cancel_examined(behind).await.expect("cancels"), []);
    assert_eq!(work_off(&fixture, 3, at(1002)).await, orders[4..]);
    for (number, run) in orders.iter().enumerate() {
        let cancelled = fixture.get(*run).await.state.status == Status::Cancelled;
        assert_eq!(cancelled, number != 2, "the third was examined and not meant");
    }
    assert_eq!(fixture.get(other).await.state.status, Status::Scheduled);
    let done = Cancellation {
        done_at: Some(at(1002)),
        cancelled: 5,
        ..expected
    };
    assert_eq!(
        fixture
            .store
            .cancellations(CancellationFilter::newest(10))
            .await
            .expect("lists"),
        [done]
    );
    assert_eq!(fixture.store.next_cancellation(3).await.expect("reads"), None);
}

pub(super) async fn a_cancellation_is_about_runs_from_before_it_within_its_bounds(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let mut orders = Vec::new();
    for _ in 0..6 {
        orders.push(fixture.ready(at(0)).await);
    }
    let time = |place: usize| orders[place].time();
    let bounded = NewCancellation {
        started_after: Some(time(1)),
        started_before: Some(time(3)),
        condition: Some("event.data.n == 1".to_owned()),
        ..of_orders(at(1000))
    };
    fixture
        .store
        .put_cancellation(bounded.clone())
        .await
        .expect("stores");
    let batch = fixture
        .store
        .next_cancellation(10)
        .await
        .expect("reads")
        .expect("there is one");
    assert_eq!(batch.cancellation.condition, bounded.condition);
    for candidate in &batch.candidates {
        let event = fixture.get(candidate.run).await.event_id;
        let event = fixture
            .store
            .event(event)
            .await
            .expect("reads")
            .expect("is there");
        assert_eq!(candidate.event, Some(event.payload));
    }
    assert_eq!(work_off(&fixture, 10, at(1001)).await, orders[1..3]);
    // Asked for in the middle: what was created later is not meant.
    let early = NewCancellation {
        id: EventId::from_parts(time(5), [0; 10]),
        ..of_orders(at(1000))
    };
    fixture.store.put_cancellation(early).await.expect("stores");
    assert_eq!(
        work_off(&fixture, 10, at(1001)).await,
        [orders[0], orders[3], orders[4]]
    );
    // Of a function that never had a run.
    let nothing = NewCancellation {
        id: EventId::from_parts(at(2000), [1; 10]),
        function: function("shop/never"),
        ..of_orders(at(2000))
    };
    fixture
        .store
        .put_cancellation(nothing.clone())
        .await
        .expect("stores");
    assert_eq!(work_off(&fixture, 10, at(2001)).await, []);
    let newest = fixture
        .store
        .cancellations(CancellationFilter::newest(1))
        .await
        .expect("lists");
    assert_eq!((newest[0].id, newest[0].done_at), (nothing.id, Some(at(2001))));
}

pub(super) async fn a_deleted_cancellation_cancels_nothing_more(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let run = fixture.ready(at(0)).await;
    let new = of_orders(at(1000));
    fixture.store.put_cancellation(new.clone()).await.expect("stores");
    assert!(fixture.store.delete_cancellation(new.id).await.expect("deletes"));
    assert!(!fixture.store.delete_cancellation(new.id).await.expect("answers"));
    let examined = Examined {
        id: new.id,
        runs: vec![run],
        last: None,
        now: at(1001),
    };
    assert_eq!(
        fixture.store.cancel_examined(examined).await.expect("answers"),
        []
    );
    assert_eq!(fixture.get(run).await.state.status, Status::Scheduled);
    assert_eq!(fixture.store.next_cancellation(3).await.expect("reads"), None);
    assert_eq!(
        fixture
            .store
            .cancellations(CancellationFilter::newest(10))
            .await
            .expect("lists"),
        []
    );
}
