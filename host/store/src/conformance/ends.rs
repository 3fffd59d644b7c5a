//! Ends of runs: told once, to whoever listens, in the commit that stores what tells of them.

use std::sync::Arc;

use dormouse_core::run::{RunError, Status};
use dormouse_core::system::{CANCELLED, FAILED, FINISHED, Kinds};
use dormouse_core::wait::EventWait;
use dormouse_core::{Digest, RunId, Timestamp};

use super::fixture::{Fixture, at, json, sleep, suspend, version};
use crate::command::Commanded;
use crate::contract::Store;
use crate::ends::{Tell, Told, Untold};
use crate::error::Error;
use crate::execute::{Append, Then};
use crate::ingest::Created;
use crate::read::RunFilter;
use crate::registry::{Changed, NewVersion};
use crate::wait::{NewWait, WaitOn};

/// A version whose functions listen to events of this name.
fn listening(module: &str, digest: Digest, event: &str, now: Timestamp) -> NewVersion {
    NewVersion {
        manifest: json(&format!(
            r#"{{"schema":1,"functions":[{{"id":"audit","triggers":[{{"event":"{event}"}}]}}]}}"#
        )),
        ..version(module, digest, true, now)
    }
}

impl Fixture {
    async fn listen(&mut self, event: &str) -> Digest {
        let digest = Digest::of(event.as_bytes());
        let stored = self
            .store
            .put_version(listening("audit", digest, event, at(0)))
            .await;
        self.generation = stored.expect("stores").generation;
        digest
    }

    /// Runs that end in each way.
    async fn ends(&self) -> [RunId; 3] {
        let completes = self.leased(at(10)).await;
        let output = json("1");
        self.append(completes, 1, vec![], Then::Complete { output }).await;
        let fails = self.leased(at(11)).await;
        let error = RunError::new("boom", "it broke");
        self.append(fails, 1, vec![], Then::Fail { error }).await;
        let is_cancelled = self.ready(at(12)).await;
        let commanded = self.store.cancel(is_cancelled, at(501)).await.expect("cancels");
        assert!(matches!(commanded, Commanded::Done(_)));
        [completes, fails, is_cancelled]
    }

    async fn untold(&self) -> Vec<Untold> {
        self.store.untold(100).await.expect("reads")
    }

    fn tell(&self, run: RunId, name: &str) -> Tell {
        let event = self.event(name);
        let mut started = self.run(event.id, "shop/audit");
        started.start_at = at(600);
        Tell {
            run,
            ingest: self.ingest(vec![event], vec![started], at(600)),
        }
    }
}

fn untold(run: RunId, names: &[&str]) -> Untold {
    let kinds = names.iter().map(|name| Kinds::named(name));
    Untold {
        run,
        kinds: kinds.fold(Kinds::NONE, Kinds::and),
    }
}

pub(super) async fn an_end_is_left_for_who_listens_when_it_ends(store: Arc<dyn Store>) {
    let mut fixture = Fixture::on(store).await;
    fixture.ends().await;
    assert_eq!(fixture.untold().await, [], "nobody listens");
    let failures = fixture.listen("inngest/function.failed").await;
    let [_, fails, _] = fixture.ends().await;
    assert_eq!(fixture.untold().await, [untold(fails, &[FAILED])]);
    fixture.listen("dormouse/function.*").await;
    let [completes, also_fails, is_cancelled] = fixture.ends().await;
    let all = [
        untold(fails, &[FAILED]),
        untold(completes, &[FINISHED]),
        untold(also_fails, &[FINISHED, FAILED]),
        untold(is_cancelled, &[CANCELLED]),
    ];
    assert_eq!(fixture.untold().await, all);
    assert_eq!(fixture.store.untold(1).await.expect("reads"), all[..1]);
    // What is not active may still have runs whose failures it handles; what is deleted listens to nothing.
    let other = Digest::of(b"listens to nothing");
    let stored = fixture
        .store
        .put_version(version("audit", other, true, at(0)))
        .await;
    fixture.generation = stored.expect("stores").generation;
    let [_, fails, _] = fixture.ends().await;
    assert!(
        fixture
            .untold()
            .await
            .contains(&untold(fails, &[FINISHED, FAILED]))
    );
    let everything = Digest::of(b"dormouse/function.*");
    for digest in [failures, everything] {
        let deleted = fixture.store.delete_version("audit", digest).await;
        assert!(matches!(deleted, Ok(Changed::Done(_))));
    }
    fixture.generation = fixture.store.registry().await.expect("reads").generation;
    let before = fixture.untold().await.len();
    fixture.ends().await;
    assert_eq!(fixture.untold().await.len(), before);
}

pub(super) async fn an_end_is_told_once(store: Arc<dyn Store>) {
    let mut fixture = Fixture::on(store).await;
    fixture.listen("dormouse/function.*").await;
    let [completes, fails, is_cancelled] = fixture.ends().await;
    let tell = fixture.tell(completes, FINISHED);
    let stale = Tell {
        ingest: crate::ingest::Ingest {
            generation: fixture.generation - 1,
            ..tell.ingest.clone()
        },
        ..tell.clone()
    };
    assert!(matches!(
        fixture.store.tell(stale).await,
        Err(Error::StaleRegistry)
    ));
    assert_eq!(fixture.untold().await.len(), 3, "nothing was written");
    let told = fixture.store.tell(tell.clone()).await.expect("tells");
    assert_eq!(told, Told::Done(vec![Created::New { leased: false }]));
    let started = &tell.ingest.runs[0];
    assert_eq!(fixture.get(started.id).await.state.status, Status::Scheduled);
    assert!(
        fixture
            .store
            .event(started.event_id)
            .await
            .expect("reads")
            .is_some()
    );
    // Another node comes too late.
    let again = fixture.tell(completes, FINISHED);
    assert_eq!(
        fixture.store.tell(again.clone()).await.expect("answers"),
        Told::Before
    );
    assert!(
        fixture
            .store
            .event(again.ingest.events[0].id)
            .await
            .expect("reads")
            .is_none()
    );
    // Two at once, and one that has nothing to say.
    let (one, two) = (fixture.tell(fails, FAILED), fixture.tell(fails, FAILED));
    let nothing = Tell {
        run: is_cancelled,
        ingest: fixture.ingest(vec![], vec![], at(600)),
    };
    let answers = tokio::join!(
        fixture.store.tell(one),
        fixture.store.tell(two),
        fixture.store.tell(nothing)
    );
    let done = [&answers.0, &answers.1]
        .into_iter()
        .filter(|answer| matches!(answer, Ok(Told::Done(_))))
        .count();
    assert_eq!(done, 1, "{answers:?}");
    assert_eq!(answers.2.expect("tells"), Told::Done(vec![]));
    assert_eq!(fixture.untold().await, []);
    let filter = RunFilter {
        module: Some("shop".to_owned()),
        function: Some("audit".to_owned()),
        limit: 100,
        ..RunFilter::default()
    };
    assert_eq!(fixture.store.runs(filter).await.expect("lists").len(), 2);
}

pub(super) async fn who_waits_for_an_end_listens(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let waits = fixture.leased(at(5)).await;
    let on = EventWait {
        event: FINISHED.to_owned(),
        path: String::new(),
        key: String::new(),
        condition: None,
        lookback_from: None,
    };
    let append = Append {
        waits: vec![NewWait {
            operation: 0,
            on: WaitOn::Event(on),
        }],
        ..fixture.append_of(waits, 1, vec![sleep(0)], suspend(None), at(500))
    };
    fixture.store.append(append).await.expect("appends");
    let [completes, fails, _] = fixture.ends().await;
    assert_eq!(
        fixture.untold().await,
        [untold(completes, &[FINISHED]), untold(fails, &[FINISHED])]
    );
    let tell = fixture.tell(completes, FINISHED);
    let payload = tell.ingest.events[0].payload.clone();
    fixture.store.tell(tell).await.expect("tells");
    let completions = fixture.store.completions(waits).await.expect("reads");
    assert_eq!(completions.len(), 1);
    assert_eq!(completions[0].outcome, Ok(payload));
}
