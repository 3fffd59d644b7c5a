//! Every route with every kind of key: the roles, no key, keys that are none any more, other modules' keys.
//!
//! The routes are those of the API's description, and of the pages. Who may use which is said here once more, by hand: what
//! is held against the server must not come from it.

use std::collections::{BTreeMap, BTreeSet};

use dormouse_core::Timestamp;
use dormouse_core::key::{Key, KeyId, Kind, Role, Secret};
use dormouse_store::Store;
use dormouse_store::key::Created;
use dormouse_testing_postgres::Cluster;

use super::server::{Answer, TestServer};

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Everybody.
    All,
    /// Whoever may send events.
    Senders,
    /// A role, or a greater one.
    Least(Role),
}

/// What becomes of the request of a key that is for another module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    /// It is refused: 403.
    Refused,
    /// There is no such thing: 404.
    Absent,
    /// It is answered, with nothing of that module.
    Nothing,
}

use Other::{Absent, Nothing, Refused};
use Role::{Admin, Deployer, Operator, Viewer};
use Who::{All, Least, Senders};

/// Method, path, who, what others' keys are answered, whether it takes the permission to see payloads, and a body.
const ROUTES: &[(&str, &str, Who, Other, bool, &str)] = &[
    ("GET", "/health", All, Refused, false, ""),
    ("GET", "/ready", All, Refused, false, ""),
    ("GET", "/dev", All, Refused, false, ""),
    ("GET", "/openapi.json", All, Refused, false, ""),
    ("GET", "/metrics", Least(Viewer), Refused, false, ""),
    ("GET", "/v1/nodes", Least(Viewer), Refused, false, ""),
    (
        "POST",
        "/v1/nodes/{node}/drain",
        Least(Operator),
        Refused,
        false,
        "",
    ),
    ("GET", "/v1/keys", Least(Admin), Refused, false, ""),
    ("POST", "/v1/keys", Least(Admin), Refused, false, "{}"),
    ("DELETE", "/v1/keys/{id}", Least(Admin), Refused, false, ""),
    ("GET", "/v1/audit", Least(Admin), Refused, false, ""),
    ("GET", "/v1/grants", Least(Admin), Refused, false, ""),
    ("PUT", "/v1/grants", Least(Admin), Refused, false, "{}"),
    ("POST", "/e/{key}", Senders, Refused, false, r#"{"name":"a/b"}"#),
    ("GET", "/v1/events", Least(Viewer), Refused, false, ""),
    ("GET", "/v1/events/{id}", Least(Viewer), Refused, false, ""),
    ("GET", "/v1/events/{id}/runs", Least(Viewer), Nothing, false, ""),
    (
        "GET",
        "/v1/events/{id}/triggers",
        Least(Viewer),
        Refused,
        true,
        "",
    ),
    (
        "POST",
        "/v1/signals",
        Least(Operator),
        Refused,
        false,
        r#"{"signal":"nobody"}"#,
    ),
    ("GET", "/v1/runs", Least(Viewer), Nothing, false, ""),
    ("GET", "/v1/runs/{id}", Least(Viewer), Absent, false, ""),
    ("GET", "/v1/runs/{id}/stream", Least(Viewer), Absent, false, ""),
    ("GET", "/v1/runs/{id}/journal", Least(Viewer), Absent, true, ""),
    ("GET", "/v1/runs/{id}/logs", Least(Viewer), Absent, true, ""),
    ("DELETE", "/v1/runs/{id}", Least(Operator), Absent, false, ""),
    ("POST", "/v1/runs/{id}/wake", Least(Operator), Absent, false, ""),
    (
        "POST",
        "/v1/runs/{id}/rerun",
        Least(Operator),
        Absent,
        false,
        "{}",
    ),
    ("POST", "/v1/runs/{id}/pause", Least(Operator), Absent, false, ""),
    ("POST", "/v1/runs/{id}/resume", Least(Operator), Absent, false, ""),
    ("GET", "/v1/cancellations", Least(Viewer), Nothing, false, ""),
    (
        "POST",
        "/v1/cancellations",
        Least(Operator),
        Refused,
        false,
        r#"{"function":"shop/nothing"}"#,
    ),
    (
        "DELETE",
        "/v1/cancellations/{id}",
        Least(Operator),
        Absent,
        false,
        "",
    ),
    ("GET", "/v1/modules", Least(Viewer), Nothing, false, ""),
    (
        "GET",
        "/v1/modules/{name}/versions",
        Least(Viewer),
        Refused,
        false,
        "",
    ),
    (
        "PUT",
        "/v1/modules/{name}",
        Least(Deployer),
        Refused,
        false,
        "no component",
    ),
    (
        "POST",
        "/v1/modules/{name}/activate",
        Least(Deployer),
        Refused,
        false,
        r#"{"version":"x"}"#,
    ),
    (
        "DELETE",
        "/v1/modules/{name}/versions/{digest}",
        Least(Deployer),
        Refused,
        false,
        "",
    ),
    (
        "POST",
        "/v1/modules/{name}/preflight",
        Least(Deployer),
        Refused,
        false,
        "no component",
    ),
    ("GET", "/v1/functions", Least(Viewer), Nothing, false, ""),
    ("GET", "/v1/schedules", Least(Viewer), Nothing, false, ""),
    (
        "POST",
        "/v1/functions/{module}/{function}/pause",
        Least(Operator),
        Refused,
        false,
        "",
    ),
    (
        "POST",
        "/v1/functions/{module}/{function}/resume",
        Least(Operator),
        Refused,
        false,
        "",
    ),
    (
        "POST",
        "/invoke/{module}/{function}",
        Least(Operator),
        Refused,
        false,
        "{}",
    ),
];

/// The same of the pages. The stream of the overview does not end: who is let in is seen at its fragment.
const PAGES: &[(&str, &str, Who, Other, bool, &str)] = &[
    ("GET", "/", Least(Viewer), Nothing, false, ""),
    ("GET", "/overview/fragment", Least(Viewer), Nothing, false, ""),
    ("GET", "/runs", Least(Viewer), Nothing, false, ""),
    ("GET", "/runs/{id}", Least(Viewer), Absent, false, ""),
    ("GET", "/runs/{id}/fragment", Least(Viewer), Absent, false, ""),
    ("POST", "/runs/{id}/cancel", Least(Operator), Absent, false, ""),
    ("POST", "/runs/{id}/wake", Least(Operator), Absent, false, ""),
    ("GET", "/assets/dormouse.css", All, Refused, false, ""),
];

/// What stands in runs and events, and is nobody's to see without the permission.
const PAYLOADS: [&str; 5] = [
    "12345678901234567890123",
    "Hello",
    "index out of bounds",
    "nearly",
    "try another card",
];

/// A key whose number is its id and its secret.
fn key(number: u8, role: Role) -> Key {
    Key {
        id: KeyId::from_bytes([number; 6]),
        kind: Kind::Api,
        name: format!("{} {number}", role.as_str()),
        role,
        modules: None,
        payloads: true,
        verifier: Secret::from_bytes([number; 32]).verifier(),
        created_at: Timestamp::from_millis(1_790_000_000_000 + i64::from(number)),
        created_by: "tests".to_owned(),
        expires_at: None,
        revoked_at: None,
    }
}

fn text(key: &Key) -> String {
    let number: u8 = u8::from_str_radix(&key.id.to_string()[..2], 16).expect("two digits");
    Secret::from_bytes([number; 32]).text(key.kind, key.id)
}

/// One of each kind.
struct Callers {
    all: Vec<Key>,
    revoked: Key,
    expired: Key,
}

impl Callers {
    fn new() -> Callers {
        let mut all = vec![key(1, Admin), key(2, Admin)];
        let of = |module: &str| Some(vec![module.to_owned(), "unheard-of".to_owned()]);
        let mut number = 2;
        for role in [Viewer, Operator, Deployer] {
            for modules in [None, of("shop"), of("other")] {
                for payloads in [true, false] {
                    number += 1;
                    all.push(Key {
                        modules: modules.clone(),
                        payloads,
                        ..key(number, role)
                    });
                }
            }
        }
        all.push(Key {
            kind: Kind::Event,
            ..key(100, Viewer)
        });
        let revoked = key(101, Admin);
        let expired = Key {
            expires_at: Some(Timestamp::from_millis(1_790_000_000_000)),
            ..key(102, Admin)
        };
        Callers {
            all,
            revoked,
            expired,
        }
    }

    async fn store(&self, store: &dyn Store) {
        for key in self.all.iter().chain([&self.revoked, &self.expired]) {
            let created = store.create_key(key.clone()).await.expect("stored");
            assert_eq!(created, Created::Done);
        }
        let at = Timestamp::from_millis(1_790_000_000_000);
        store.revoke_key(self.revoked.id, at).await.expect("revoked");
    }
}

/// A path with what its parameters stand for: runs and modules that are there, and else things that are not.
fn concrete(server: &TestServer, path: &str) -> String {
    let run = match path.ends_with("/stream") {
        // One that ends.
        true => server.runs.completed,
        false => server.runs.failed,
    };
    let id = match path {
        path if path.contains("/runs/{id}") => run.to_string(),
        path if path.contains("/events/{id}") => run.to_string(),
        path if path.contains("/keys/{id}") => "ffffffffffff".to_owned(),
        _ => "01JD7ZK3N8Y6W2X4V5T6R7Q8P9".to_owned(),
    };
    path.replace("{id}", &id)
        .replace("{name}", "shop")
        .replace("{module}", "shop")
        .replace("{function}", "nothing")
        .replace("{node}", "nobody")
        .replace("{digest}", &format!("sha256:{}", "0".repeat(64)))
}

async fn ask(server: &TestServer, method: &str, path: &str, body: &str, shown: Option<&str>) -> Answer {
    let path = concrete(server, path).replace("{key}", shown.unwrap_or("any"));
    let bearer = format!("Bearer {}", shown.unwrap_or_default());
    let mut headers = vec![("content-type", "application/json")];
    if shown.is_some() && !path.starts_with("/e/") {
        headers.push(("authorization", bearer.as_str()));
    }
    server.send(method, &path, &headers, body.as_bytes()).await
}

/// What is stored of what a command could change.
async fn state(store: &dyn Store) -> String {
    let runs = store.runs(dormouse_store::read::RunFilter {
        limit: 1_000,
        ..Default::default()
    });
    let versions = store.versions("shop").await.expect("reads");
    let cancellations = dormouse_store::cancellation::CancellationFilter::newest(100);
    format!(
        "{:?} {versions:?} {:?} {:?} {:?}",
        runs.await.expect("reads"),
        store.cancellations(cancellations).await.expect("reads"),
        store.keys(None).await.expect("reads"),
        store
            .events(dormouse_store::read::EventFilter {
                limit: 1_000,
                ..Default::default()
            })
            .await
            .expect("reads"),
    )
}

/// What a key must be answered: nothing for whatever the route answers to those it lets in.
fn refusal(key: &Key, who: Who, other: Other, payloads: bool) -> Option<&'static [u16]> {
    let is_other = |key: &Key| {
        let modules = key.modules.as_ref();
        modules.is_some_and(|modules| modules.iter().all(|module| module != "shop"))
    };
    match who {
        All => None,
        Senders if key.kind == Kind::Event => None,
        Senders => (key.role < Operator || key.modules.is_some()).then_some(&[403][..]),
        Least(_) if key.kind == Kind::Event => Some(&[403]),
        Least(role) if key.role < role => Some(&[403]),
        Least(_) if payloads && !key.payloads && key.role < Admin => Some(&[403]),
        Least(_) if is_other(key) => match other {
            Refused => Some(&[403]),
            Absent => Some(&[404]),
            Nothing => None,
        },
        Least(_) => None,
    }
}

/// Which routes are about the server as a whole, or about events, which belong to no module.
fn is_of_all(path: &str) -> bool {
    [
        "/metrics",
        "/v1/nodes",
        "/v1/keys",
        "/v1/audit",
        "/v1/grants",
        "/v1/signals",
    ]
    .iter()
    .any(|begin| path.starts_with(begin))
        || path.starts_with("/v1/events") && !path.ends_with("/runs")
}

async fn every_route(server: &TestServer, callers: &Callers) {
    let document = server.get("/openapi.json").await.json();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().expect("operations").keys();
            methods.map(move |method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    let known: BTreeSet<(String, String)> = ROUTES
        .iter()
        .map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    assert_eq!(described, known, "described, and said here who may use it");

    let before = state(&*server.store).await;
    let mut answered: BTreeMap<u16, u32> = BTreeMap::new();
    let routes = || ROUTES.iter().chain(PAGES);
    // First all that must be refused: nothing of it may have done anything.
    for (method, path, who, other, payloads, body) in routes() {
        let place = format!("{method} {path}");
        if *who == All {
            continue;
        }
        let wrong = Secret::from_bytes([103; 32]).text(Kind::Api, callers.all[0].id);
        let shown = [
            None,
            Some("nonsense".to_owned()),
            Some(wrong),
            Some(text(&callers.revoked)),
            Some(text(&callers.expired)),
        ];
        for (number, shown) in shown.into_iter().enumerate() {
            let answer = ask(server, method, path, body, shown.as_deref()).await;
            // Some of them are counted; that somebody fails often keeps nobody out whose key is one.
            let counted = (1..=3).contains(&number) || *who == Senders;
            assert!(
                answer.status == 401 || counted && answer.status == 429,
                "{place} with {shown:?}: {answer:?}"
            );
            if answer.status == 401 {
                assert!(answer.header("www-authenticate").is_some(), "{place}: {answer:?}");
            }
            *answered.entry(answer.status).or_default() += 1;
        }
        for key in &callers.all {
            let limited = key.modules.is_some() && is_of_all(path);
            let expected = refusal(key, *who, *other, *payloads).or(limited.then_some(&[403][..]));
            let Some(expected) = expected else { continue };
            let answer = ask(server, method, path, body, Some(&text(key))).await;
            assert!(
                expected.contains(&answer.status),
                "{place} as {key:?}: {answer:?}, not {expected:?}"
            );
            let code = if answer.status == 404 {
                "not-found"
            } else {
                "forbidden"
            };
            assert_eq!(
                answer.problem(),
                (answer.status, code.to_owned()),
                "{place} as {key:?}"
            );
            *answered.entry(answer.status).or_default() += 1;
        }
    }
    let after = state(&*server.store).await;
    assert_eq!(before, after, "what was refused has changed something");

    // Then all that is to be let in.
    for (method, path, who, other, payloads, body) in routes() {
        let place = format!("{method} {path}");
        if *who == All {
            let answer = ask(server, method, path, body, None).await;
            assert_eq!(answer.status, 200, "{place}: {answer:?}");
        }
        for key in &callers.all {
            let limited = key.modules.is_some() && is_of_all(path);
            if refusal(key, *who, *other, *payloads).is_some() || limited {
                continue;
            }
            let answer = ask(server, method, path, body, Some(&text(key))).await;
            let let_in = !matches!(answer.status, 401 | 403 | 429 | 500);
            assert!(let_in, "{place} as {key:?}: {answer:?}");
            let own = key.modules.as_ref();
            if own.is_some_and(|modules| !modules.contains(&"shop".to_owned())) && *other == Nothing {
                assert!(!answer.body.contains("shop"), "{place} as {key:?}: {answer:?}");
            }
            let looks = *method == "GET" && *who != All;
            if looks && !key.payloads && key.role < Admin {
                for payload in PAYLOADS {
                    assert!(!answer.body.contains(payload), "{place} as {key:?}: {answer:?}");
                }
            }
            *answered.entry(answer.status).or_default() += 1;
        }
    }
    println!("{answered:?}");
    let refused: u32 = [401, 403, 404].iter().map(|status| answered[status]).sum();
    assert!(refused > 300 && answered[&200] > 100, "{answered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_with_every_key_on_sqlite() {
    let callers = Callers::new();
    let server = TestServer::with(async |store| callers.store(store).await).await;
    every_route(&server, &callers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_with_every_key_on_postgres() {
    let callers = Callers::new();
    let database = Cluster::shared().database();
    let server = TestServer::on_postgres(&database, async |store| callers.store(store).await).await;
    every_route(&server, &callers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_everything_is_open_and_whatever_is_shown_is_no_matter() {
    let server = TestServer::start().await;
    for (method, path, _, _, _, body) in ROUTES.iter().chain(PAGES) {
        for shown in [None, Some("nonsense")] {
            let answer = ask(&server, method, path, body, shown).await;
            assert!(
                !matches!(answer.status, 401 | 403 | 429 | 500),
                "{method} {path}: {answer:?}"
            );
        }
    }
}
