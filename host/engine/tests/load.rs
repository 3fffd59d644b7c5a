//! Uploads: what is no module is refused with a word for it and leaves nothing; what is one is compiled once.

mod support;

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use dormouse_core::Digest;
use dormouse_core::limit::COMPONENT_BYTES_MAX;
use dormouse_engine::LoadError;
use support::{engine, engine_in, guest, module, once, output};

/// Files in the cache.
fn cached(directory: &tempfile::TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(directory.path().join("cache")).expect("the cache");
    entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

#[tokio::test]
async fn what_is_no_module_is_refused_and_leaves_nothing() {
    let (engine, directory) = engine();
    let hello = guest("bench");
    let core_module = [0, b'a', b's', b'm', 1, 0, 0, 0];
    let mut flipped = hello.to_vec();
    let middle = flipped.len() / 2;
    flipped[middle..middle + 64].fill(0xff);
    for (what, bytes, code) in [
        ("nothing", Bytes::new(), "not-a-component"),
        (
            "text",
            Bytes::from_static(b"#!/bin/sh\necho hello\n"),
            "not-a-component",
        ),
        ("wat", Bytes::from_static(b"(component)"), "not-a-component"),
        (
            "a core module",
            Bytes::copy_from_slice(&core_module),
            "not-a-component",
        ),
        ("a header", hello.slice(..8), "not-a-module"),
        ("three bytes", hello.slice(..3), "not-a-component"),
        (
            "half a component",
            hello.slice(..hello.len() / 2),
            "invalid-component",
        ),
        (
            "all but a byte",
            hello.slice(..hello.len() - 1),
            "invalid-component",
        ),
        ("a damaged component", flipped.into(), "invalid-component"),
        (
            "100 MB of zeros",
            vec![0; 100_000_000].into(),
            "component-too-large",
        ),
        ("zeros", vec![0; COMPONENT_BYTES_MAX].into(), "not-a-component"),
        ("unknown imports", guest("unknown_import"), "unknown-import"),
        ("no exports", guest("missing_exports"), "not-a-module"),
        (
            "a manifest that is no JSON",
            guest("lying_json"),
            "invalid-manifest",
        ),
        ("a manifest of 10 MB", guest("lying_huge"), "invalid-manifest"),
        ("a manifest without end", guest("lying_loop"), "describe-failed"),
        ("a manifest that panics", guest("lying_panic"), "describe-failed"),
        ("a manifest that calls", guest("lying_calls"), "describe-failed"),
    ] {
        let error = engine
            .load(bytes)
            .await
            .err()
            .unwrap_or_else(|| panic!("{what} is taken"));
        assert_eq!(error.code(), code, "{what}: {error}");
        assert!(!error.to_string().is_empty(), "{what}");
    }
    assert_eq!(cached(&directory), Vec::<String>::new());
    assert_eq!(engine.instances().live, 0);
    assert_eq!(engine.instances().memory_bytes, 0);
    let bench = module(&engine, "bench").await;
    assert_eq!(output(once(&engine, &bench, "one", "{}").await.0), 1);
}

#[tokio::test]
async fn errors_name_what_is_wrong() {
    let (engine, _directory) = engine();
    let error = engine.load(guest("unknown_import")).await.expect_err("refused");
    assert!(error.to_string().contains("acme:vault/doors"), "{error}");
    let error = engine
        .load(Bytes::from_static(&[0, b'a', b's', b'm', 1, 0, 0, 0]))
        .await
        .expect_err("refused");
    assert!(error.help().expect("help").contains("wasm32-wasip2"));
    let LoadError::Describe(trap) = engine.load(guest("lying_calls")).await.expect_err("refused") else {
        panic!("another error")
    };
    assert!(trap.message.contains("log.write"), "{trap:?}");
    let LoadError::Describe(trap) = engine.load(guest("lying_panic")).await.expect_err("refused") else {
        panic!("another error")
    };
    assert_eq!(trap.code, "guest-panic");
}

/// What a manifest says is the server's to judge; the engine hands it over as it is.
#[tokio::test]
async fn a_manifest_that_is_json_is_handed_over() {
    let (engine, _directory) = engine();
    let (_, manifest) = engine.load(guest("bench")).await.expect("a module");
    assert!(manifest.as_str().contains("\"sleeper\""), "{manifest}");
    assert!(engine.load(guest("lying_name")).await.is_ok());
    assert!(engine.load(guest("lying_duplicate")).await.is_ok());
}

#[tokio::test]
async fn http_is_known_from_the_imports() {
    let (engine, _directory) = engine();
    assert!(module(&engine, "kill").await.imports_http());
    assert!(!module(&engine, "bench").await.imports_http());
}

#[tokio::test]
async fn a_version_is_compiled_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let bytes = guest("bench");
    let digest = Digest::of(&bytes);
    let asked = AtomicU32::new(0);
    let fetch = || async {
        asked.fetch_add(1, Ordering::SeqCst);
        Ok(bytes.clone())
    };
    let first = engine_in(&directory, |_| {});
    let (module, _) = first.load(bytes.clone()).await.expect("a module");
    assert!(module.size() > 0);
    assert_eq!(cached(&directory).len(), 2, "code and its hash");
    let again = first.load_cached(digest, fetch).await.expect("in use");
    assert_eq!(again.digest(), digest);
    drop((module, again, first));

    let second = engine_in(&directory, |_| {});
    let module = second.load_cached(digest, fetch).await.expect("cached");
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nobody was asked for the bytes");
    assert_eq!(output(once(&second, &module, "ten", "{}").await.0), 45);
    second.forget(digest);
    assert_eq!(cached(&directory), Vec::<String>::new());
    assert_eq!(
        output(once(&second, &module, "ten", "{}").await.0),
        45,
        "what is in use stays usable"
    );
    drop(module);
    // Many runs of it may come at once.
    let anew = futures::future::join_all((0..50).map(|_| second.load_cached(digest, fetch))).await;
    assert!(anew.iter().all(Result::is_ok), "compiled anew");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "for all of them");
}

#[tokio::test]
async fn a_damaged_cache_is_compiled_anew() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let bytes = guest("bench");
    let digest = Digest::of(&bytes);
    engine_in(&directory, |_| {})
        .load(bytes.clone())
        .await
        .expect("a module");
    let code = std::fs::read_dir(directory.path().join("cache"))
        .expect("the cache")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "cwasm"))
        .expect("compiled code");
    let sound = std::fs::read(&code).expect("readable");
    let mut damaged = sound.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for bad in [damaged, sound[..sound.len() / 2].to_vec(), Vec::new()] {
        std::fs::write(&code, bad).expect("writable");
        std::fs::write(directory.path().join("cache/1-1.part"), "half").expect("writable");
        let engine = engine_in(&directory, |_| {});
        let module = engine
            .load_cached(digest, || async { Ok(bytes.clone()) })
            .await
            .expect("compiled anew");
        assert_eq!(output(once(&engine, &module, "one", "{}").await.0), 1);
        assert_eq!(cached(&directory).len(), 2, "what was half-written is gone");
    }
}

#[tokio::test]
async fn bytes_that_are_not_the_version_are_refused() {
    let (engine, directory) = engine();
    let digest = Digest::of(b"something else");
    for fetched in [Ok(guest("bench")), Err("it was deleted".to_owned())] {
        let error = engine
            .load_cached(digest, || async { fetched })
            .await
            .expect_err("refused");
        assert_eq!(error.code(), "version-missing");
    }
    assert_eq!(cached(&directory), Vec::<String>::new());
}
