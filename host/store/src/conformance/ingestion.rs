//! Events and the runs they start.

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::EventId;
use dormouse_core::run::{Phase, State, Status};

use super::fixture::{Fixture, at, json, node};
use crate::contract::Store;
use crate::error::Error;
use crate::ingest::Created;
use crate::read::{EventFilter, RunFilter};

pub(super) async fn events_and_runs_come_together(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (first, second) = (fixture.event("shop/ordered"), fixture.event("shop/paid"));
    let runs = vec![
        fixture.run(first.id, "shop/order"),
        fixture.run(first.id, "shop/report"),
        fixture.run(second.id, "shop/report"),
    ];
    let ingest = fixture.ingest(vec![first.clone(), second.clone()], runs.clone(), at(10));
    let created = fixture.store.ingest(ingest).await.expect("ingests");
    assert_eq!(created, vec![Created::New { leased: false }; 3]);
    for run in &runs {
        let stored = fixture.get(run.id).await;
        assert_eq!(stored.state, State::NEW);
        assert_eq!(
            (stored.function, stored.event_id),
            (run.function.clone(), run.event_id)
        );
        assert_eq!(
            (stored.version, stored.epoch, stored.owner),
            (run.version, 0, None)
        );
        assert_eq!(
            (stored.queued_at, stored.wake_at, stored.started_at),
            (at(10), None, None)
        );
    }
    let stored = fixture
        .store
        .event(second.id)
        .await
        .expect("reads")
        .expect("is stored");
    assert_eq!((stored.payload, stored.name), (second.payload, second.name));
    let of_first = RunFilter {
        event: Some(first.id),
        limit: 10,
        ..RunFilter::default()
    };
    let found = fixture.store.runs(of_first).await.expect("lists");
    assert_eq!(
        found.iter().map(|run| run.id).collect::<Vec<_>>(),
        [runs[1].id, runs[0].id]
    );
    // A run may name an event that was stored before.
    let rerun = fixture.run(first.id, "shop/order");
    let again = fixture
        .store
        .ingest(fixture.ingest(vec![], vec![rerun], at(20)))
        .await;
    assert_eq!(again.expect("ingests"), [Created::New { leased: false }]);
}

pub(super) async fn an_event_that_is_sent_again_stays_as_it_was(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(100_000));
    for payload in ["{}", large.as_str()] {
        let mut first = fixture.event("shop/ordered");
        first.payload = json(payload);
        let sent = || {
            let mut run = fixture.run(first.id, "shop/order");
            run.dedupe = Some(first.id.to_string());
            run
        };
        let run = sent();
        let ingest = fixture.ingest(vec![first.clone()], vec![run.clone()], at(10));
        let created = fixture.store.ingest(ingest).await.expect("ingests");
        assert_eq!(created, [Created::New { leased: false }]);

        let mut again = first.clone();
        again.received_at = at(20);
        again.payload = json(&large.replace('x', "y"));
        let new = fixture.event("shop/paid");
        let ingest = fixture.ingest(vec![again, new.clone()], vec![sent()], at(20));
        let created = fixture.store.ingest(ingest).await.expect("ingests again");
        assert_eq!(created, [Created::Duplicate(run.id)]);
        let stored = fixture
            .store
            .event(first.id)
            .await
            .expect("reads")
            .expect("is stored");
        assert_eq!(
            (stored.payload, stored.received_at),
            (first.payload, first.received_at)
        );
        let stored = fixture.store.event(new.id).await.expect("reads");
        assert!(stored.is_some(), "what came with it is stored");
    }
}

async fn assert_nothing_stored(fixture: &Fixture) {
    let runs = fixture
        .store
        .runs(RunFilter {
            limit: 10,
            ..RunFilter::default()
        })
        .await;
    assert_eq!(runs.expect("lists"), []);
    let events = fixture
        .store
        .events(EventFilter {
            limit: 10,
            ..EventFilter::default()
        })
        .await;
    assert_eq!(events.expect("lists"), []);
}

pub(super) async fn a_stale_registry_stores_nothing(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let event = fixture.event("shop/ordered");
    let run = fixture.run(event.id, "shop/order");
    let mut ingest = fixture.ingest(vec![event], vec![run], at(10));
    ingest.generation -= 1;
    let answer = fixture.store.ingest(ingest).await;
    assert!(matches!(answer, Err(Error::StaleRegistry)), "{answer:?}");
    assert_nothing_stored(&fixture).await;
}

pub(super) async fn the_same_event_id_starts_a_function_once_a_day(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let keyed = |run: &mut crate::ingest::NewRun| run.dedupe = Some("order-1".to_owned());
    let (first, _) = fixture.create(at(0), keyed).await;
    let (_, again) = fixture.create(at(10), keyed).await;
    assert_eq!(again, Created::Duplicate(first));
    // Another function has its own memory.
    let event = fixture.event("shop/ordered");
    let mut other = fixture.run(event.id, "shop/report");
    keyed(&mut other);
    let mut same = fixture.run(event.id, "shop/report");
    keyed(&mut same);
    let both = fixture.ingest(vec![event.clone()], vec![other.clone(), same], at(20));
    let created = fixture.store.ingest(both).await.expect("ingests");
    assert_eq!(
        created,
        [Created::New { leased: false }, Created::Duplicate(other.id)]
    );
    assert!(
        fixture.store.event(event.id).await.expect("reads").is_some(),
        "the event itself is kept"
    );
    let day = 24 * 3600 * 1000;
    let (_, before) = fixture.create(at(day - 1), keyed).await;
    assert_eq!(before, Created::Duplicate(first));
    let (second, after) = fixture.create(at(day), keyed).await;
    assert_eq!(after, Created::New { leased: false });
    let (_, again) = fixture.create(at(day + 1), keyed).await;
    assert_eq!(again, Created::Duplicate(second));
}

pub(super) async fn a_delayed_run_waits_for_its_time(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (id, created) = fixture
        .create(at(0), |run| {
            run.start_at = at(5000);
            run.lease = Some(fixture.node);
        })
        .await;
    assert_eq!(created, Created::New { leased: false });
    let run = fixture.get(id).await;
    assert_eq!(run.state, State::live(Status::Scheduled, Phase::Sleeping));
    assert_eq!(
        (run.wake_at, run.queued_at, run.owner),
        (Some(at(5000)), at(5000), None)
    );
    assert_eq!(fixture.claim(10, at(4000)).await, []);
    assert_eq!(fixture.fire(at(4999), 10, 10).await.fired, 0);
    let fired = fixture.fire(at(5003), 10, 10).await;
    assert_eq!(fired.claimed.len(), 1);
    assert_eq!((fired.claimed[0].id, fired.claimed[0].queued_at), (id, at(5000)));
    let run = fixture.get(id).await;
    assert_eq!((run.started_at, run.reason), (Some(at(5003)), None));
}

pub(super) async fn a_run_is_born_leased_only_to_a_node_that_lives(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(3)).await;
    let run = fixture.get(id).await;
    assert_eq!(run.state, State::live(Status::Running, Phase::Executing));
    assert_eq!(
        (run.owner, run.epoch, run.started_at),
        (Some(fixture.node), 1, Some(at(3)))
    );
    assert_eq!(fixture.claim(10, at(4)).await, [], "it is not ready beside that");
    let stranger = node(9).incarnation;
    let (id, created) = fixture.create(at(5), |run| run.lease = Some(stranger)).await;
    assert_eq!(created, Created::New { leased: false });
    assert_eq!(fixture.claim(10, at(6)).await[0].id, id);
}

pub(super) async fn what_does_not_make_sense_stores_nothing(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let event = fixture.event("shop/ordered");
    let sound = fixture.run(event.id, "shop/order");
    let mut unknown_event = fixture.run(EventId::from_parts(at(0), [9; 10]), "shop/order");
    let mut unknown_version = fixture.run(event.id, "shop/order");
    unknown_version.version = dormouse_core::Digest::of(b"never uploaded");
    let mut twice = fixture.run(event.id, "shop/order");
    twice.id = sound.id;
    for run in [&mut unknown_event, &mut unknown_version, &mut twice] {
        let runs = vec![sound.clone(), run.clone()];
        let answer = fixture
            .store
            .ingest(fixture.ingest(vec![event.clone()], runs, at(10)))
            .await;
        assert!(matches!(answer, Err(Error::Corrupt(_))), "{answer:?}");
        assert_nothing_stored(&fixture).await;
    }
    // Beside others in the same commit, only the one that makes no sense fails.
    let mut calls = Vec::new();
    for number in 0..20 {
        let event = fixture.event("shop/ordered");
        let mut run = fixture.run(event.id, "shop/order");
        if number % 5 == 0 {
            run.id = sound.id;
        }
        let store = Arc::clone(&fixture.store);
        let ingest = fixture.ingest(vec![event], vec![run], at(10));
        calls.push(tokio::spawn(async move { store.ingest(ingest).await }));
    }
    let mut stored = 0;
    for call in calls {
        stored += usize::from(call.await.expect("no panic").is_ok());
    }
    assert_eq!(stored, 17, "16 sound ones, and one of the four that share an id");
    let runs = fixture
        .store
        .runs(RunFilter {
            limit: 100,
            ..RunFilter::default()
        })
        .await;
    assert_eq!(runs.expect("lists").len(), 17);
}

pub(super) async fn large_payloads_come_back_whole(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let mut event = fixture.event("shop/ordered");
    event.payload = json(&format!("\"{}\"", "é".repeat(100_000)));
    let run = fixture.run(event.id, "shop/order");
    let id = run.id;
    let ingest = fixture.ingest(vec![event.clone()], vec![run], at(1));
    fixture.store.ingest(ingest).await.expect("ingests");
    assert_eq!(
        fixture
            .store
            .event(event.id)
            .await
            .expect("reads")
            .expect("is there")
            .payload,
        event.payload
    );
    let claimed = fixture.claim(1, at(2)).await;
    assert_eq!(claimed[0].event, event.payload);
    let big = format!("[{}]", "1,".repeat(80_000).trim_end_matches(','));
    let records = vec![super::fixture::step(0, &big), super::fixture::step(1, "2")];
    let then = crate::execute::Then::Complete { output: json(&big) };
    assert_eq!(
        fixture.append(id, 1, records.clone(), then).await,
        crate::execute::Appended::Done
    );
    assert_eq!(fixture.store.journal(id, 0).await.expect("reads"), records);
    assert_eq!(fixture.get(id).await.output, Some(json(&big)));
    let pruned = fixture
        .store
        .prune(at(500).after(Duration::from_millis(1)), 10)
        .await;
    assert_eq!(pruned.expect("prunes"), 1);
    assert_eq!(fixture.store.event(event.id).await.expect("reads"), None);
    assert_eq!(fixture.store.journal(id, 0).await.expect("reads"), []);
}
