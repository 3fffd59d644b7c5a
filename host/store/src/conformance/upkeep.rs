//! Lists, counts, pruning, closing.

use std::sync::Arc;

use dormouse_core::RunId;
use dormouse_core::run::{Phase, RunError, Status};

use super::fixture::{Fixture, at, json, sleep, step, suspend};
use crate::contract::Store;
use crate::error::Error;
use crate::execute::{LogLine, Then};
use crate::read::{EventFilter, RunFilter};

pub(super) async fn lists_are_newest_first_and_narrow(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let mut runs = Vec::new();
    for number in 0..6 {
        let (id, _) = fixture
            .create(at(0), |run| {
                run.lease = Some(fixture.node);
                run.function = super::fixture::function(["shop/order", "shop/report"][number % 2]);
            })
            .await;
        let then = match number / 2 {
            0 => Then::Complete { output: json("1") },
            1 => Then::Fail {
                error: RunError::new("boom", "boom"),
            },
            _ => suspend(Some(at(9000))),
        };
        fixture.append(id, 1, vec![], then).await;
        runs.push(id);
    }
    let list = async |filter: RunFilter| -> Vec<RunId> {
        let found = fixture.store.runs(filter).await.expect("lists");
        assert!(
            found.iter().all(|run| run.output.is_none()),
            "lists leave the output out"
        );
        found.iter().map(|run| run.id).collect()
    };
    let pick = |places: &[usize]| -> Vec<RunId> { places.iter().map(|place| runs[*place]).collect() };
    let all = RunFilter {
        limit: 10,
        ..RunFilter::default()
    };
    assert_eq!(list(all.clone()).await, pick(&[5, 4, 3, 2, 1, 0]));
    assert_eq!(
        list(RunFilter {
            limit: 2,
            before: Some(runs[4]),
            ..all.clone()
        })
        .await,
        pick(&[3, 2])
    );
    let status = |status: &[Status]| RunFilter {
        status: status.to_vec(),
        ..all.clone()
    };
    assert_eq!(list(status(&[Status::Failed])).await, pick(&[3, 2]));
    assert_eq!(list(status(&[Status::Running])).await, pick(&[5, 4]));
    assert_eq!(
        list(status(&[Status::Completed, Status::Failed])).await,
        pick(&[3, 2, 1, 0])
    );
    assert_eq!(
        list(status(&[Status::Cancelled, Status::Skipped])).await,
        pick(&[])
    );
    assert_eq!(
        list(RunFilter {
            phase: Some(Phase::Sleeping),
            ..all.clone()
        })
        .await,
        pick(&[5, 4])
    );
    // Of a module that there is not, however narrowed.
    for (status, phase) in [
        (vec![], None),
        (vec![Status::Running], None),
        (vec![Status::Failed], None),
        (vec![Status::Skipped], Some(Phase::Queued)),
    ] {
        let nobody = RunFilter {
            module: Some("nobody".to_owned()),
            status,
            phase,
            ..all.clone()
        };
        assert_eq!(list(nobody).await, pick(&[]));
    }
    let module = RunFilter {
        module: Some("shop".to_owned()),
        ..all.clone()
    };
    assert_eq!(
        list(RunFilter {
            limit: 4,
            ..module.clone()
        })
        .await,
        pick(&[5, 4, 3, 2])
    );
    let report = RunFilter {
        function: Some("report".to_owned()),
        ..module.clone()
    };
    assert_eq!(list(report.clone()).await, pick(&[5, 3, 1]));
    assert_eq!(
        list(RunFilter {
            status: vec![Status::Failed],
            ..report.clone()
        })
        .await,
        pick(&[3])
    );
    assert_eq!(
        list(RunFilter {
            before: Some(runs[3]),
            ..report
        })
        .await,
        pick(&[1])
    );
    assert_eq!(
        list(RunFilter {
            module: Some("none".to_owned()),
            ..all.clone()
        })
        .await,
        pick(&[])
    );
    let failed = fixture
        .store
        .runs(status(&[Status::Failed]))
        .await
        .expect("lists");
    assert_eq!(
        failed[0].error.as_ref().map(|error| error.code.as_str()),
        Some("boom")
    );
    events_too(&fixture).await;
}

async fn events_too(fixture: &Fixture) {
    let (first, second) = (fixture.event("a"), fixture.event("b"));
    let ingest = fixture.ingest(vec![first.clone(), second.clone()], vec![], at(0));
    fixture.store.ingest(ingest).await.expect("ingests");
    let list = async |filter: EventFilter| fixture.store.events(filter).await.expect("lists");
    let all = EventFilter {
        limit: 2,
        ..EventFilter::default()
    };
    let newest = list(all.clone()).await;
    assert_eq!(
        newest.iter().map(|event| event.id).collect::<Vec<_>>(),
        [second.id, first.id]
    );
    assert_eq!(
        list(EventFilter {
            name: Some("a".to_owned()),
            ..all.clone()
        })
        .await[0]
            .id,
        first.id
    );
    assert_eq!(
        list(EventFilter {
            before: Some(second.id),
            ..all.clone()
        })
        .await[0]
            .id,
        first.id
    );
    let after = EventFilter {
        received_after: Some(second.received_at),
        ..all.clone()
    };
    assert_eq!(list(after).await.len(), 1);
    let before = EventFilter {
        received_before: Some(first.received_at),
        ..all
    };
    assert_eq!(list(before).await[0].id, first.id);
}

pub(super) async fn counts_are_of_what_lives(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    assert_eq!(fixture.store.counts().await.expect("counts").oldest_ready, None);
    fixture.ready(at(30)).await;
    fixture.ready(at(20)).await;
    fixture.leased(at(0)).await;
    for then in [suspend(None), Then::Complete { output: json("1") }] {
        let id = fixture.leased(at(0)).await;
        fixture.append(id, 1, vec![], then).await;
    }
    let counts = fixture.store.counts().await.expect("counts");
    assert_eq!(counts.live, [2, 1, 1, 0, 0, 0, 0, 0]);
    assert_eq!(counts.oldest_ready, Some(at(20)));
}

pub(super) async fn pruning_takes_all_that_belongs_to_a_run(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let mut ended = Vec::new();
    for _ in 0..4 {
        let id = fixture.leased(at(0)).await;
        let mut append = fixture.append_of(id, 1, vec![step(0, "1"), sleep(1)], Then::Continue, at(100));
        append.logs = vec![LogLine {
            number: 0,
            at: at(1),
            level: "info".to_owned(),
            step: None,
            message: "hello".to_owned(),
            fields: None,
        }];
        fixture.store.append(append).await.expect("appends");
        fixture
            .append(id, 1, vec![], Then::Complete { output: json("1") })
            .await;
        ended.push(id);
    }
    let living = fixture.leased(at(0)).await;
    let event_of = async |id: RunId| {
        fixture
            .store
            .run(id)
            .await
            .expect("reads")
            .map(|run| run.event_id)
    };
    let first_event = event_of(ended[0]).await.expect("is there");
    // A second run keeps the first one's event.
    let rerun = fixture.run(first_event, "shop/order");
    fixture
        .store
        .ingest(fixture.ingest(vec![], vec![rerun], at(1)))
        .await
        .expect("ingests");
    let lonely = fixture.event("nobody/cares");
    fixture
        .store
        .ingest(fixture.ingest(vec![lonely.clone()], vec![], at(1)))
        .await
        .expect("ingests");
    assert_eq!(
        fixture.store.prune(at(500), 10).await.expect("prunes"),
        0,
        "they ended at 500, not before"
    );
    assert!(
        fixture.store.event(lonely.id).await.expect("reads").is_none(),
        "an old event without runs goes"
    );
    let last_event = event_of(ended[3]).await.expect("is there");
    assert_eq!(fixture.store.prune(at(501), 3).await.expect("prunes"), 3);
    assert_eq!(fixture.store.prune(at(501), 3).await.expect("prunes"), 1);
    for id in &ended {
        assert_eq!(event_of(*id).await, None);
        assert_eq!(fixture.store.journal(*id, 0).await.expect("reads"), []);
        assert_eq!(fixture.store.logs(*id, 0, 10).await.expect("reads"), []);
    }
    assert!(
        fixture.store.event(first_event).await.expect("reads").is_some(),
        "a rerun needs it"
    );
    assert!(fixture.store.event(last_event).await.expect("reads").is_none());
    assert_eq!(fixture.get(living).await.state.phase, Some(Phase::Executing));
}

pub(super) async fn a_closed_store_says_so(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    fixture.store.probe(at(1)).await.expect("writes");
    fixture.store.close().await;
    let unavailable =
        |error: Option<Error>| assert!(matches!(error, Some(Error::Unavailable(_))), "{error:?}");
    unavailable(fixture.store.probe(at(1)).await.err());
    unavailable(fixture.store.counts().await.err());
    unavailable(fixture.store.heartbeat(fixture.node, at(1)).await.err());
    fixture.store.close().await;
}
