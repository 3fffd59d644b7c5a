//! Keys, and the audit log.

use std::sync::Arc;

use dormouse_core::key::{Key, KeyId, Kind, Refused, Role, Secret};
use dormouse_core::{EventId, RunId};

use super::fixture::{Fixture, at, function, version};
use crate::audit::{Filter, Record};
use crate::contract::Store;
use crate::key::{Created, Keys, Revoked};
use crate::read::RunFilter;

/// A key of the API. Its number is its id and its secret.
pub(super) fn key(number: u8, role: Role) -> Key {
    Key {
        id: KeyId::from_bytes([number; 6]),
        kind: Kind::Api,
        name: format!("key {number}"),
        role,
        modules: None,
        payloads: false,
        verifier: Secret::from_bytes([number; 32]).verifier(),
        created_at: at(number.into()),
        created_by: "open".to_owned(),
        expires_at: None,
        revoked_at: None,
    }
}

async fn keys(store: &Arc<dyn Store>) -> Keys {
    let keys = store.keys(None).await.expect("reads");
    keys.expect("nothing is known")
}

pub(super) async fn the_first_key_is_an_admin_s_and_the_last_such_is_kept(store: Arc<dyn Store>) {
    let before = keys(&store).await;
    assert_eq!(before.keys, []);
    let create = async |key: &Key| store.create_key(key.clone()).await.expect("answers");
    let (admin, second) = (key(1, Role::Admin), key(2, Role::Admin));
    let event = Key {
        kind: Kind::Event,
        ..key(3, Role::Viewer)
    };
    let limited = Key {
        modules: Some(vec!["shop".to_owned(), "stock".to_owned()]),
        payloads: true,
        expires_at: Some(at(500)),
        name: "Ünlaut, with a comma".to_owned(),
        ..key(4, Role::Operator)
    };
    for first in [&event, &limited] {
        let refused = Created::Refused(Refused::FirstMustBeAdmin);
        assert_eq!(create(first).await, refused);
    }
    assert_eq!(keys(&store).await, before, "what is refused changes nothing");
    for new in [&admin, &event, &limited] {
        assert_eq!(create(new).await, Created::Done);
    }
    assert_eq!(create(&event).await, Created::Refused(Refused::Taken));
    let three = keys(&store).await;
    assert_eq!(three.keys, [admin.clone(), event.clone(), limited.clone()]);
    assert_eq!(store.keys(Some(three.generation)).await.expect("reads"), None);

    let revoke = async |id| store.revoke_key(id, at(100)).await.expect("answers");
    assert_eq!(revoke(admin.id).await, Revoked::Last);
    assert_eq!(revoke(second.id).await, Revoked::NotFound);
    assert_eq!(
        keys(&store).await.generation,
        three.generation,
        "what is refused changes nothing"
    );
    let revoked = Key {
        revoked_at: Some(at(100)),
        ..event
    };
    assert_eq!(revoke(revoked.id).await, Revoked::Done(revoked.clone()));
    let later = store.revoke_key(revoked.id, at(200)).await.expect("answers");
    assert_eq!(later, Revoked::Before(revoked.clone()), "its time stays");
    let known = store.keys(Some(three.generation)).await.expect("reads");
    let known = known.expect("it has moved");
    assert_ne!(known.generation, three.generation);
    assert_eq!(
        known.keys,
        [admin.clone(), revoked, limited],
        "it stays as a record"
    );
    assert_eq!(create(&second).await, Created::Done);
    assert!(matches!(revoke(admin.id).await, Revoked::Done(_)));
    assert_eq!(revoke(second.id).await, Revoked::Last);
}

pub(super) async fn of_two_who_revoke_each_other_one_stays(store: Arc<dyn Store>) {
    let (one, two) = (key(1, Role::Admin), key(2, Role::Admin));
    for key in [&one, &two] {
        store.create_key(key.clone()).await.expect("creates");
    }
    let (first, second) = tokio::join!(store.revoke_key(one.id, at(9)), store.revoke_key(two.id, at(9)));
    let answers = [first.expect("answers"), second.expect("answers")];
    let last = answers.iter().filter(|answer| **answer == Revoked::Last);
    assert_eq!(last.count(), 1, "{answers:?}");
}

fn record(number: u8, millis: i64) -> Record {
    Record {
        id: EventId::from_parts(at(millis), [number; 10]),
        at: at(millis),
        key: None,
        who: "open".to_owned(),
        from: "127.0.0.1".to_owned(),
        action: "run.cancel".to_owned(),
        target: format!("target {number}"),
        result: "done".to_owned(),
        detail: None,
    }
}

pub(super) async fn records_are_kept_in_order_and_never_changed(store: Arc<dyn Store>) {
    let first = record(1, 10);
    let second = Record {
        key: Some(KeyId::from_bytes([7; 6])),
        who: "Ada's \"laptop\"".to_owned(),
        action: "module.deploy".to_owned(),
        result: "forbidden".to_owned(),
        detail: Some("sha256:…".to_owned()),
        ..record(2, 20)
    };
    let third = Record {
        target: first.target.clone(),
        ..record(3, 30)
    };
    for record in [&second, &first, &third] {
        store.record(record.clone()).await.expect("stores");
    }
    let other = Record {
        result: "changed".to_owned(),
        ..first.clone()
    };
    store.record(other).await.expect("answers");
    let all = Filter {
        limit: 10,
        ..Filter::default()
    };
    let list = async |filter: Filter| store.records(filter).await.expect("lists");
    assert_eq!(
        list(all.clone()).await,
        [third.clone(), second.clone(), first.clone()]
    );
    let narrowed = [
        (
            Filter {
                limit: 1,
                ..all.clone()
            },
            vec![&third],
        ),
        (
            Filter {
                before: Some(third.id),
                limit: 1,
                ..all.clone()
            },
            vec![&second],
        ),
        (
            Filter {
                key: second.key,
                ..all.clone()
            },
            vec![&second],
        ),
        (
            Filter {
                action: Some("run.cancel".to_owned()),
                ..all.clone()
            },
            vec![&third, &first],
        ),
        (
            Filter {
                target: Some(first.target.clone()),
                until: Some(at(30)),
                ..all.clone()
            },
            vec![&first],
        ),
        (
            Filter {
                after: Some(at(20)),
                ..all
            },
            vec![&third, &second],
        ),
    ];
    for (filter, expected) in narrowed {
        let found = list(filter.clone()).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter:?}");
    }
}

pub(super) async fn lists_are_of_the_modules_that_are_asked_for(store: Arc<dyn Store>) {
    let mut fixture = Fixture::on(store).await;
    for module in ["stock", "other"] {
        let stored = fixture
            .store
            .put_version(version(module, fixture.digest, true, at(0)))
            .await;
        fixture.generation = stored.expect("stores").generation;
    }
    let mut runs: Vec<RunId> = Vec::new();
    for name in [
        "shop/order",
        "stock/count",
        "other/thing",
        "shop/report",
        "stock/count",
    ] {
        let (run, _) = fixture.create(at(0), |run| run.function = function(name)).await;
        runs.push(run);
    }
    let list = async |modules: &[&str], module: Option<&str>, limit| {
        let filter = RunFilter {
            modules: Some(modules.iter().map(|module| (*module).to_owned()).collect()),
            module: module.map(str::to_owned),
            limit,
            ..RunFilter::default()
        };
        let found = fixture.store.runs(filter).await.expect("lists");
        found.iter().map(|run| run.id).collect::<Vec<_>>()
    };
    assert_eq!(
        list(&["shop", "stock"], None, 3).await,
        [runs[4], runs[3], runs[1]],
        "a page is full"
    );
    assert_eq!(list(&["other"], None, 10).await, [runs[2]]);
    assert_eq!(list(&["nobody"], None, 10).await, []);
    assert_eq!(list(&[], None, 10).await, []);
    assert_eq!(
        list(&["shop", "stock"], Some("shop"), 10).await,
        [runs[3], runs[0]]
    );
    assert_eq!(list(&["stock"], Some("shop"), 10).await, []);
}
