//! Schedules and their ticks.

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::cron::Previous;
use dormouse_core::flow::{Admission, Decision, Limited, Rate};
use dormouse_core::{Digest, FunctionName, Timestamp};

use super::fixture::{Fixture, at, function, json, version};
use crate::contract::Store;
use crate::cron::{LastTick, NewSchedule, NewSchedules, Schedule, SkippedTick, StartTick, Tick, Ticked};
use crate::error::Error;
use crate::execute::Then;
use crate::ingest::Created;

const HOURLY: &str = "0 * * * *";

fn hour(number: i64) -> Timestamp {
    at(number * 3_600_000)
}

fn schedule(name: &str, cron: &str, next: Timestamp) -> NewSchedule {
    NewSchedule {
        function: function(name),
        cron: cron.to_owned(),
        next,
    }
}

impl Fixture {
    async fn put_schedules(&self, modules: &[&str], schedules: Vec<NewSchedule>) {
        let new = NewSchedules {
            modules: modules.iter().map(|module| (*module).to_owned()).collect(),
            schedules,
            generation: self.generation,
        };
        self.store.put_schedules(new).await.expect("puts schedules");
    }

    /// A tick of the hourly report that starts a run, from one hour to the next.
    fn tick(&self, from: i64) -> Tick {
        let now = hour(from).after(Duration::from_secs(1));
        let event = self.event("dormouse/scheduled.timer");
        let mut run = self.run(event.id, "shop/report");
        run.start_at = now;
        Tick {
            function: function("shop/report"),
            cron: HOURLY.to_owned(),
            from: hour(from),
            to: hour(from + 1),
            start: Some(StartTick {
                tick: hour(from),
                ingest: self.ingest(vec![event], vec![run], now),
            }),
            skipped: None,
            generation: self.generation,
            now,
        }
    }

    async fn schedules(&self) -> Vec<Schedule> {
        self.store.schedules().await.expect("lists")
    }
}

fn names(schedules: &[Schedule]) -> Vec<(FunctionName, String, Timestamp)> {
    let each = schedules.iter();
    each.map(|schedule| (schedule.function.clone(), schedule.cron.clone(), schedule.next))
        .collect()
}

pub(super) async fn schedules_follow_the_registry_and_keep_their_places(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let all = |daily: &str| {
        vec![
            schedule("shop/report", HOURLY, hour(1)),
            schedule("shop/report", daily, hour(24)),
            schedule("shop/audit", HOURLY, hour(1)),
        ]
    };
    let expected = |daily: &str, first: i64| {
        vec![
            (function("shop/audit"), HOURLY.to_owned(), hour(1)),
            (function("shop/report"), HOURLY.to_owned(), hour(first)),
            (function("shop/report"), daily.to_owned(), hour(24)),
        ]
    };
    // Done again, it changes nothing.
    for _ in 0..2 {
        fixture.put_schedules(&["shop"], all("0 9 * * *")).await;
        assert_eq!(names(&fixture.schedules().await), expected("0 9 * * *", 1));
    }
    assert!(matches!(
        fixture.store.tick(fixture.tick(1)).await,
        Ok(Ticked::Done(Some(Created::New { leased: false })))
    ));
    // One goes, one comes, and what stays keeps its place.
    fixture.put_schedules(&["shop"], all("30 9 * * *")).await;
    assert_eq!(names(&fixture.schedules().await), expected("30 9 * * *", 2));
    // Of other modules nothing is said.
    fixture.put_schedules(&["stock"], vec![]).await;
    fixture.put_schedules(&[], vec![]).await;
    assert_eq!(fixture.schedules().await.len(), 3);
    let stale = NewSchedules {
        modules: vec!["shop".to_owned()],
        schedules: vec![],
        generation: fixture.generation - 1,
    };
    assert!(matches!(
        fixture.store.put_schedules(stale).await,
        Err(Error::StaleRegistry)
    ));
    assert_eq!(fixture.schedules().await.len(), 3);
    fixture.put_schedules(&["shop"], vec![]).await;
    assert_eq!(fixture.schedules().await, []);
}

pub(super) async fn a_tick_is_one_commit_and_happens_once(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    assert_eq!(
        fixture.store.tick(fixture.tick(1)).await.expect("answers"),
        Ticked::Lost,
        "there is no such schedule"
    );
    fixture
        .put_schedules(&["shop"], vec![schedule("shop/report", HOURLY, hour(1))])
        .await;
    let tick = fixture.tick(1);
    let start = tick.start.clone().expect("it starts one");
    let (event, run) = (start.ingest.events[0].id, start.ingest.runs[0].id);
    let done = fixture.store.tick(tick.clone()).await.expect("ticks");
    assert_eq!(done, Ticked::Done(Some(Created::New { leased: false })));
    assert_eq!(fixture.get(run).await.event_id, event);
    assert!(fixture.store.event(event).await.expect("reads").is_some());
    // The same again, and another for the same tick: neither stores anything.
    let other = fixture.tick(1);
    let other_event = other.start.as_ref().expect("it starts one").ingest.events[0].id;
    for lost in [tick, other] {
        assert_eq!(fixture.store.tick(lost).await.expect("answers"), Ticked::Lost);
    }
    assert!(fixture.store.event(other_event).await.expect("reads").is_none());
    let last = Some(LastTick { tick: hour(1), run });
    let expected = Schedule {
        function: function("shop/report"),
        cron: HOURLY.to_owned(),
        next: hour(2),
        last,
        skipped: None,
        previous: Previous::Live,
    };
    assert_eq!(fixture.schedules().await, std::slice::from_ref(&expected));

    // Decided on a registry that has moved on: nothing moves.
    let mut stale = fixture.tick(2);
    stale.generation -= 1;
    assert!(matches!(
        fixture.store.tick(stale).await,
        Err(Error::StaleRegistry)
    ));
    let mut stale = fixture.tick(2);
    stale.start.as_mut().expect("it starts one").ingest.generation -= 1;
    assert!(matches!(
        fixture.store.tick(stale).await,
        Err(Error::StaleRegistry)
    ));
    assert_eq!(fixture.schedules().await, std::slice::from_ref(&expected));

    // The run ends, and is gone one day.
    fixture.claim(1, hour(2)).await;
    fixture
        .append(run, 1, vec![], Then::Complete { output: json("1") })
        .await;
    let ended = fixture.get(run).await.ended_at.expect("it has ended");
    assert_eq!(fixture.schedules().await[0].previous, Previous::Ended(ended));
    fixture.store.prune(Timestamp::MAX, 10).await.expect("prunes");
    let after = fixture.schedules().await;
    assert_eq!((after[0].previous, after[0].last), (Previous::None, last));
}

pub(super) async fn a_tick_that_is_left_out_says_why(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    fixture
        .put_schedules(&["shop"], vec![schedule("shop/report", HOURLY, hour(1))])
        .await;
    let left_out = Tick {
        start: None,
        to: hour(5),
        skipped: Some((hour(4), "for a check".to_owned())),
        ..fixture.tick(1)
    };
    let done = fixture.store.tick(left_out.clone()).await.expect("ticks");
    assert_eq!(done, Ticked::Done(None));
    assert_eq!(
        fixture.store.tick(left_out.clone()).await.expect("answers"),
        Ticked::Lost
    );
    let stands = &fixture.schedules().await[0];
    let skipped = SkippedTick {
        tick: hour(4),
        at: left_out.now,
        reason: "for a check".to_owned(),
    };
    assert_eq!(
        (stands.next, stands.last, stands.skipped.as_ref()),
        (hour(5), None, Some(&skipped))
    );
    let stale = Tick {
        generation: fixture.generation + 1,
        from: hour(5),
        ..left_out
    };
    assert!(matches!(
        fixture.store.tick(stale).await,
        Err(Error::StaleRegistry)
    ));

    // Flow control has the last word.
    let mut first = fixture.tick(5);
    let mut second = fixture.tick(6);
    for tick in [&mut first, &mut second] {
        let run = &mut tick.start.as_mut().expect("it starts one").ingest.runs[0];
        run.admission = Admission {
            rate_limit: Some(Limited {
                rate: Rate {
                    limit: 1,
                    period_ms: 86_400_000,
                    burst: 1,
                },
                key: String::new(),
            }),
            ..Admission::default()
        };
    }
    let event = second.start.as_ref().expect("it starts one").ingest.events[0].id;
    let done = fixture.store.tick(first).await.expect("ticks");
    assert_eq!(done, Ticked::Done(Some(Created::New { leased: false })));
    let before = fixture.schedules().await[0].last;
    assert_eq!(before.map(|last| last.tick), Some(hour(5)));
    let dropped = fixture.store.tick(second.clone()).await.expect("ticks");
    assert!(
        matches!(
            dropped,
            Ticked::Done(Some(Created::Dropped {
                decision: Decision::RateLimited,
                ..
            }))
        ),
        "{dropped:?}"
    );
    let stands = &fixture.schedules().await[0];
    assert_eq!((stands.next, stands.last), (hour(7), before));
    let skipped = stands.skipped.as_ref().expect("it says why");
    assert_eq!((skipped.tick, skipped.at), (hour(6), second.now));
    assert!(skipped.reason.contains("rate-limited"), "{skipped:?}");
    assert!(fixture.store.event(event).await.expect("reads").is_some());
    assert_eq!(fixture.store.decisions(event).await.expect("reads").len(), 1);
}

pub(super) async fn of_many_ticks_at_once_one_wins(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    fixture
        .put_schedules(&["shop"], vec![schedule("shop/report", HOURLY, hour(1))])
        .await;
    for round in 1..=5 {
        let ticks: Vec<Tick> = (0..8).map(|_| fixture.tick(round)).collect();
        let asked = ticks.into_iter().map(|tick| {
            let store = Arc::clone(&fixture.store);
            tokio::spawn(async move { store.tick(tick).await.expect("answers") })
        });
        let mut won = 0;
        for answer in asked.collect::<Vec<_>>() {
            won += u32::from(answer.await.expect("no panic") != Ticked::Lost);
        }
        assert_eq!(won, 1, "round {round}");
    }
    assert_eq!(fixture.schedules().await[0].next, hour(6));
    assert_eq!(fixture.claim(100, hour(6)).await.len(), 5);
}

pub(super) async fn a_tick_is_decided_on_what_is_active(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    // A module that has moved on does not take the schedule with it until it is told.
    fixture
        .put_schedules(&["shop"], vec![schedule("shop/report", HOURLY, hour(1))])
        .await;
    let digest = Digest::of(b"shop, second version");
    let stored = fixture
        .store
        .put_version(version("shop", digest, true, at(5)))
        .await;
    let generation = stored.expect("stores").generation;
    let old = fixture.tick(1);
    assert!(matches!(fixture.store.tick(old).await, Err(Error::StaleRegistry)));
    let mut tick = fixture.tick(1);
    tick.generation = generation;
    let start = tick.start.as_mut().expect("it starts one");
    start.ingest.generation = generation;
    start.ingest.runs[0].version = digest;
    start.ingest.runs[0].lease = Some(fixture.node);
    let run = start.ingest.runs[0].id;
    let done = fixture.store.tick(tick).await.expect("ticks");
    assert_eq!(done, Ticked::Done(Some(Created::New { leased: true })));
    assert_eq!(fixture.get(run).await.version, digest);
}
