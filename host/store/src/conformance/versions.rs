//! Modules, versions, components, configuration.

use std::sync::Arc;

use dormouse_core::Digest;

use super::fixture::{Fixture, at, json, version};
use crate::contract::Store;
use crate::error::Error;
use crate::execute::Then;
use crate::registry::Changed;

pub(super) async fn activation_is_one_step(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let store = &fixture.store;
    let registry = store.registry().await.expect("reads");
    assert_eq!(registry.generation, fixture.generation);
    assert_eq!(registry.active.len(), 1);
    assert_eq!(
        (registry.active[0].digest, registry.active[0].activated_at),
        (fixture.digest, Some(at(0)))
    );
    let second = Digest::of(b"second");
    let stored = store
        .put_version(version("shop", second, false, at(5)))
        .await
        .expect("stores");
    assert!(stored.new && !stored.activated && stored.generation > fixture.generation);
    let again = store
        .put_version(version("shop", second, false, at(6)))
        .await
        .expect("stores");
    assert_eq!(
        (again.new, again.activated, again.generation),
        (false, false, stored.generation)
    );
    let changed = store
        .activate("shop", second, None, at(7))
        .await
        .expect("activates");
    let Changed::Done(generation) = changed else {
        panic!("{changed:?}")
    };
    assert!(generation > stored.generation);
    assert_eq!(
        store
            .activate("shop", second, None, at(8))
            .await
            .expect("answers"),
        Changed::Unchanged(generation)
    );
    let unknown = store.activate("shop", Digest::of(b"unknown"), None, at(8)).await;
    assert_eq!(unknown.expect("answers"), Changed::NotFound);
    let registry = store.registry().await.expect("reads");
    assert_eq!(
        (registry.generation, registry.active[0].digest),
        (generation, second)
    );
    let versions = store.versions("shop").await.expect("reads");
    assert_eq!(
        versions.iter().map(|version| version.digest).collect::<Vec<_>>(),
        [second, fixture.digest]
    );
    assert_eq!(
        versions.iter().map(|version| version.active).collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(
        store.version("shop", second).await.expect("reads").as_ref(),
        versions.first()
    );
    assert_eq!(store.versions("none").await.expect("reads"), []);
    assert_eq!(store.version("none", second).await.expect("reads"), None);
}

pub(super) async fn a_version_in_use_is_kept(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let store = &fixture.store;
    assert_eq!(
        store
            .delete_version("shop", fixture.digest)
            .await
            .expect("answers"),
        Changed::Needed(0)
    );
    let id = fixture.leased(at(0)).await;
    let second = Digest::of(b"second");
    store
        .put_version(version("shop", second, true, at(5)))
        .await
        .expect("stores");
    assert_eq!(
        store
            .delete_version("shop", fixture.digest)
            .await
            .expect("answers"),
        Changed::Needed(1)
    );
    assert_eq!(
        store
            .version("shop", fixture.digest)
            .await
            .expect("reads")
            .expect("is there")
            .live_runs,
        1
    );
    fixture
        .append(id, 1, vec![], Then::Complete { output: json("1") })
        .await;
    let deleted = store
        .delete_version("shop", fixture.digest)
        .await
        .expect("deletes");
    assert!(matches!(deleted, Changed::Done(_)));
    assert_eq!(
        store
            .delete_version("shop", fixture.digest)
            .await
            .expect("answers"),
        Changed::NotFound
    );
    assert_eq!(store.version("shop", fixture.digest).await.expect("reads"), None);
    assert_eq!(
        fixture.get(id).await.version,
        fixture.digest,
        "its runs still name it"
    );
}

pub(super) async fn a_deleted_version_can_come_back(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let store = &fixture.store;
    let second = Digest::of(b"second");
    store
        .put_version(version("shop", second, true, at(5)))
        .await
        .expect("stores");
    assert!(matches!(
        store.delete_version("shop", fixture.digest).await,
        Ok(Changed::Done(_))
    ));
    let back = store
        .put_version(version("shop", fixture.digest, true, at(9)))
        .await
        .expect("stores");
    assert!(back.new && back.activated);
    let registry = store.registry().await.expect("reads");
    assert_eq!(
        (registry.active.len(), registry.active[0].digest),
        (1, fixture.digest)
    );
    assert_eq!(registry.active[0].uploaded_at, at(9));
}

pub(super) async fn components_are_kept_by_digest(store: Arc<dyn Store>) {
    let bytes = b"\0asm and so on".as_slice();
    let digest = Digest::of(bytes);
    assert_eq!(store.component(digest).await.expect("reads"), None);
    for _ in 0..2 {
        store.put_component(digest, bytes).await.expect("stores");
    }
    assert_eq!(
        store.component(digest).await.expect("reads").as_deref(),
        Some(bytes)
    );
    let other = store.put_component(digest, b"something else").await;
    assert!(matches!(other, Err(Error::Corrupt(_))), "{other:?}");
    assert_eq!(
        store.component(digest).await.expect("reads").as_deref(),
        Some(bytes)
    );
}

pub(super) async fn the_same_configuration_has_one_revision(store: Arc<dyn Store>) {
    let first = store.put_config(json(r#"{"a":1}"#), at(0)).await.expect("stores");
    let second = store.put_config(json(r#"{"a":2}"#), at(1)).await.expect("stores");
    assert_ne!(first, second);
    assert_eq!(
        store.put_config(json(r#"{"a":1}"#), at(2)).await.expect("stores"),
        first
    );
    assert_eq!(
        store.config(second).await.expect("reads"),
        Some(json(r#"{"a":2}"#))
    );
    assert_eq!(store.config(second + 1).await.expect("reads"), None);
}
