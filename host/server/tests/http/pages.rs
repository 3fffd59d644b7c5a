//! The pages: they render, escape what they show, and their buttons do what they say.

use super::server::TestServer;

/// On one server: each maps much memory, which a process has only so much of.
#[tokio::test]
async fn pages_are_whole_whether_or_not_there_is_what_they_are_of() {
    let server = TestServer::start().await;
    pages_render_without_anything_from_elsewhere(&server).await;
    what_is_not_there_is_a_page_for_people_and_json_for_programs(&server).await;
}

async fn pages_render_without_anything_from_elsewhere(server: &TestServer) {
    let run = format!("/runs/{}", server.runs.completed);
    for path in ["/", "/runs", "/runs?status=Failed&module=shop", run.as_str()] {
        let page = server.get(path).await;
        assert_eq!(page.status, 200, "{path}: {page:?}");
        assert!(
            page.header("content-type")
                .is_some_and(|media| media.starts_with("text/html")),
            "{path}"
        );
        let policy = page.header("content-security-policy").unwrap_or_default();
        assert!(
            policy.contains("default-src 'self'") && !policy.contains("unsafe"),
            "{path}: {policy}"
        );
        assert!(
            page.body.contains("<title>") && page.body.contains("viewport"),
            "{path}"
        );
        for inline in ["<style", " style=", " onclick=", "http://", "https://"] {
            assert!(!page.body.contains(inline), "{path} has {inline}");
        }
        for address in page.body.split("\"/assets/").skip(1) {
            let address = format!("/assets/{}", address.split('"').next().unwrap_or_default());
            let asset = server.get(&address).await;
            assert_eq!(asset.status, 200, "{address}");
            assert!(
                asset
                    .header("cache-control")
                    .is_some_and(|kept| kept.contains("immutable")),
                "{address}"
            );
        }
    }
}

#[tokio::test]
async fn the_overview_counts_by_phase_and_shows_the_latest() {
    let server = TestServer::start().await;
    let page = server.get("/").await.body;
    assert!(page.contains("/runs?phase=sleeping"));
    assert!(page.contains(&server.runs.backing_off.to_string()));
    assert!(
        page.contains("dormouse deploy"),
        "what to do when there is no module"
    );
    assert!(!server.get("/overview/fragment").await.body.contains("<html"));
}

#[tokio::test]
async fn the_list_keeps_its_filters_from_page_to_page() {
    let server = TestServer::start().await;
    let first = server.get("/runs?module=shop&limit=2").await.body;
    let older = first
        .split("href=\"")
        .find(|part| part.contains("cursor="))
        .expect("there are older ones");
    let address = older.split('"').next().unwrap_or_default().replace("&amp;", "&");
    assert!(
        address.contains("module=shop") && address.contains("limit=2"),
        "{address}"
    );
    let second = server.get(&address).await.body;
    assert!(
        second.contains(&server.runs.completed.to_string()),
        "the oldest is on the second page"
    );
    assert!(second.contains("Newest"));
    let none = server.get("/runs?status=Skipped").await.body;
    assert!(none.contains("No run is like that"));
    let bad = server.get("/runs?status=Done").await;
    assert_eq!(bad.status, 400);
    assert!(bad.body.contains("none of Scheduled"), "{bad:?}");
}

#[tokio::test]
async fn a_run_shows_all_there_is_to_know_and_escapes_it() {
    let server = TestServer::start().await;
    let completed = server.get(&format!("/runs/{}", server.runs.completed)).await.body;
    for word in [
        "Completed",
        "charge-card",
        "123456789012345678901234567890",
        "Hello &lt;b&gt;you",
        "&lt;nearly&gt; expired",
        "shop/order.placed",
        "/journal",
    ] {
        assert!(completed.contains(word), "{word}");
    }
    assert!(
        !completed.contains("<b>you") && !completed.contains("data-stream"),
        "it has ended and is not live"
    );
    assert!(!completed.contains("Cancel run"));

    let failed = server.get(&format!("/runs/{}", server.runs.failed)).await.body;
    for word in [
        "Failed",
        "guest-panic",
        "index out of bounds",
        "shop::charge (src/lib.rs:7)",
    ] {
        assert!(failed.contains(word), "{word}");
    }

    let sleeping = server.get(&format!("/runs/{}", server.runs.sleeping)).await.body;
    for word in [
        "sleeping",
        "a-long-nap",
        "data-until",
        "data-stream",
        "Wake now",
        "Cancel run",
    ] {
        assert!(sleeping.contains(word), "{word}");
    }
    let backing_off = server
        .get(&format!("/runs/{}", server.runs.backing_off))
        .await
        .body;
    for word in ["backing-off", "attempt 1", "card-declined", "try another card"] {
        assert!(backing_off.contains(word), "{word}");
    }
}

#[tokio::test]
async fn buttons_do_what_they_say_and_lead_back() {
    let server = TestServer::start().await;
    let id = server.runs.sleeping;
    let origin = format!("http://{}", server.address);
    let own = [("origin", origin.as_str()), ("sec-fetch-site", "same-origin")];
    let answer = server
        .send("POST", &format!("/runs/{id}/cancel"), &own, b"")
        .await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some(format!("/runs/{id}").as_str()))
    );
    let page = server.get(&format!("/runs/{id}")).await.body;
    assert!(page.contains("Cancelled"));
    // A second click finds it done.
    let answer = server
        .send("POST", &format!("/runs/{id}/cancel"), &own, b"")
        .await;
    assert_eq!(answer.status, 303);
    let answer = server
        .send(
            "POST",
            &format!("/runs/{}/wake", server.runs.backing_off),
            &own,
            b"",
        )
        .await;
    assert_eq!(answer.status, 303);
}

async fn what_is_not_there_is_a_page_for_people_and_json_for_programs(server: &TestServer) {
    let html = [("accept", "text/html,application/xhtml+xml")];
    for path in ["/nothing", "/runs/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/runs/x"] {
        let page = server.send("GET", path, &html, b"").await;
        assert_eq!(page.status, 404, "{path}");
        assert!(page.body.contains("<h1>Not found</h1>"), "{path}: {page:?}");
        assert!(page.header("content-security-policy").is_some(), "{path}");
    }
    assert_eq!(
        server.get("/nothing").await.problem(),
        (404, "no-route".to_owned())
    );
    let v1 = server.send("GET", "/v1/nothing", &html, b"").await;
    assert_eq!(
        v1.problem(),
        (404, "no-route".to_owned()),
        "the API is JSON for everybody"
    );
}
