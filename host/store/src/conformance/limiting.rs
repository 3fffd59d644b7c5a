//! Flow control: what is dropped, what is remembered of it, and until when.

use std::sync::Arc;

use dormouse_core::flow::{Admission, Decision, Limited, Rate};
use dormouse_core::{EventId, RunId};

use super::fixture::{Fixture, at};
use crate::contract::Store;
use crate::ingest::{Created, NewRun};
use crate::read::Decided;

const DAY: i64 = 86_400_000;

fn limited(limit: u32, period_ms: u64, burst: u32, key: &str) -> Option<Limited> {
    let rate = Rate {
        limit,
        period_ms,
        burst,
    };
    Some(Limited {
        rate,
        key: key.to_owned(),
    })
}

async fn decisions(fixture: &Fixture, event: EventId) -> Vec<Decided> {
    fixture.store.decisions(event).await.expect("reads")
}

/// One event with one run of `shop/order`.
async fn send(fixture: &Fixture, millis: i64, change: impl FnOnce(&mut NewRun)) -> (EventId, RunId, Created) {
    let event = fixture.event("shop/ordered");
    let mut run = fixture.run(event.id, "shop/order");
    run.start_at = at(millis);
    change(&mut run);
    let (event_id, id) = (event.id, run.id);
    let ingest = fixture.ingest(vec![event], vec![run], at(millis));
    let created = fixture.store.ingest(ingest).await.expect("ingests");
    (event_id, id, created[0])
}

pub(super) async fn what_is_over_the_rate_is_dropped_and_why_is_kept(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let at_rate =
        |key: &'static str| move |run: &mut NewRun| run.admission.rate_limit = limited(2, 1_000, 2, key);
    let new = Created::New { leased: false };
    for millis in [0, 1] {
        let (event, id, created) = send(&fixture, millis, at_rate("a")).await;
        assert_eq!(created, new);
        assert_eq!(decisions(&fixture, event).await, []);
        assert_eq!(fixture.get(id).await.event_id, event);
    }
    let (event, id, created) = send(&fixture, 2, at_rate("a")).await;
    let dropped = Created::Dropped {
        decision: Decision::RateLimited,
        run: None,
        until: Some(at(500)),
    };
    assert_eq!(created, dropped);
    assert_eq!(fixture.store.run(id).await.expect("reads"), None);
    assert!(
        fixture.store.event(event).await.expect("reads").is_some(),
        "the event is kept"
    );
    let kept = decisions(&fixture, event).await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(
        (
            kept[0].function.to_string().as_str(),
            kept[0].decision,
            kept[0].at,
            kept[0].run
        ),
        ("shop/order", Decision::RateLimited, at(2), None)
    );
    assert!(kept[0].detail.contains("2 per 1s"), "{kept:?}");
    // Other keys and other functions have limits of their own.
    assert_eq!(send(&fixture, 3, at_rate("b")).await.2, new);
    let other = |run: &mut NewRun| {
        run.function = super::fixture::function("shop/report");
        at_rate("a")(run);
    };
    assert_eq!(send(&fixture, 3, other).await.2, new);
    assert_eq!(send(&fixture, 499, at_rate("a")).await.2, dropped);
    assert_eq!(send(&fixture, 500, at_rate("a")).await.2, new);
    assert_eq!(
        send(&fixture, 501, at_rate("a")).await.2,
        Created::Dropped {
            decision: Decision::RateLimited,
            run: None,
            until: Some(at(1_000))
        }
    );
    // Why is kept as long as the event.
    fixture.store.prune(at(10 * DAY), 100).await.expect("prunes");
    assert_eq!(decisions(&fixture, event).await, []);
}

pub(super) async fn within_one_commit_limits_count_too(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let event = fixture.event("shop/ordered");
    let mut runs: Vec<NewRun> = (0..5).map(|_| fixture.run(event.id, "shop/order")).collect();
    for run in &mut runs {
        run.admission.rate_limit = limited(3, 1_000, 3, "");
    }
    let first = runs[0].id;
    let ingest = fixture.ingest(vec![event.clone()], runs, at(0));
    let created = fixture.store.ingest(ingest).await.expect("ingests");
    let new = |created: &Created| matches!(created, Created::New { .. });
    assert_eq!(
        created.iter().map(new).collect::<Vec<_>>(),
        [true, true, true, false, false]
    );
    assert_eq!(fixture.get(first).await.event_id, event.id);
    assert_eq!(
        decisions(&fixture, event.id).await.len(),
        1,
        "one reason for a function"
    );
}

pub(super) async fn the_same_value_starts_a_function_once_a_day(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let keyed = |run: &mut NewRun| run.admission.idempotency = Some("\"order 1\"".to_owned());
    let (_, first, created) = send(&fixture, 0, keyed).await;
    assert_eq!(created, Created::New { leased: false });
    let dropped = Created::Dropped {
        decision: Decision::Idempotent,
        run: Some(first),
        until: Some(at(DAY)),
    };
    for millis in [1, DAY - 1] {
        let (event, _, created) = send(&fixture, millis, keyed).await;
        assert_eq!(created, dropped);
        let kept = decisions(&fixture, event).await;
        assert_eq!(
            (kept[0].decision, kept[0].run),
            (Decision::Idempotent, Some(first))
        );
    }
    let (_, second, created) = send(&fixture, DAY, keyed).await;
    assert_eq!(created, Created::New { leased: false });
    let again = send(&fixture, DAY + 1, keyed).await.2;
    assert!(
        matches!(again, Created::Dropped { run: Some(run), .. } if run == second),
        "{again:?}"
    );
    // The sender's id is something else, asked first, and says so.
    let sent_again = |run: &mut NewRun| run.dedupe = Some("sender 1".to_owned());
    let (_, third, _) = send(&fixture, DAY + 2, sent_again).await;
    let (event, _, created) = send(&fixture, DAY + 3, sent_again).await;
    assert_eq!(created, Created::Duplicate(third));
    let kept = decisions(&fixture, event).await;
    assert_eq!(
        (kept[0].decision, kept[0].run),
        (Decision::Duplicate, Some(third))
    );
}

pub(super) async fn what_is_dropped_counts_towards_nothing(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let both = |key: &'static str| {
        move |run: &mut NewRun| {
            run.dedupe = Some(format!("sender {key}"));
            run.admission = Admission {
                idempotency: Some(key.to_owned()),
                rate_limit: limited(1, 1_000, 1, ""),
                ..Admission::default()
            };
        }
    };
    let new = Created::New { leased: false };
    assert_eq!(send(&fixture, 0, both("1")).await.2, new);
    let dropped = send(&fixture, 10, both("2")).await.2;
    assert!(
        matches!(
            dropped,
            Created::Dropped {
                decision: Decision::RateLimited,
                ..
            }
        ),
        "{dropped:?}"
    );
    // Sent again when there is room, it starts: neither its id nor its key is used up.
    assert_eq!(send(&fixture, 1_000, both("2")).await.2, new);
    // What is idempotent uses up no rate.
    let idempotent = |run: &mut NewRun| {
        both("1")(run);
        run.dedupe = None;
    };
    let dropped = send(&fixture, 2_500, idempotent).await.2;
    assert!(
        matches!(
            dropped,
            Created::Dropped {
                decision: Decision::Idempotent,
                ..
            }
        ),
        "{dropped:?}"
    );
    assert_eq!(send(&fixture, 2_500, both("3")).await.2, new);
}

pub(super) async fn a_thousand_keys_come_and_go(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let round = async |millis: i64| {
        let event = fixture.event("shop/ordered");
        let mut runs: Vec<NewRun> = (0..1_000).map(|_| fixture.run(event.id, "shop/order")).collect();
        for (number, run) in runs.iter_mut().enumerate() {
            run.admission.rate_limit = limited(1, 1_000, 1, &format!("\"user {number} \u{ffff}\""));
        }
        let ingest = fixture.ingest(vec![event], runs, at(millis));
        let created = fixture.store.ingest(ingest).await.expect("ingests");
        created
            .iter()
            .filter(|created| matches!(created, Created::New { .. }))
            .count()
    };
    assert_eq!(round(0).await, 1_000);
    assert_eq!(round(999).await, 0);
    assert_eq!(round(1_000).await, 1_000);
    // After a rest long enough for any sweep.
    assert_eq!(round(DAY).await, 1_000);
    assert_eq!(round(DAY + 1).await, 0);
}
