//! Whatever is uploaded or configured is taken or refused, and never takes the server with it: components and
//! configuration files, damaged at random.

mod support;

use std::path::Path;

use dormouse_server::config::Config;
use dormouse_testing_mutate::Mutations;

use support::{Running, component, park_idle, verifying};

#[tokio::test(flavor = "multi_thread")]
async fn components() {
    let running = Running::start("", park_idle(), verifying(false)).await;
    let samples = [component("bench"), component("swap_v1")];
    let mut mutations = Mutations::of(
        &samples,
        &["dormouse:function/steps@0.1.0", "\0asm", "wasi:sockets/tcp@0.2.0"],
    );
    let mut refused = 0_u32;
    while let Some(input) = mutations.next_input() {
        match running
            .server
            .app()
            .deploy("damaged", input.into(), "test", None, None)
            .await
        {
            // Some damage is in what nobody reads: names, producers, padding.
            Ok(_) => {}
            Err(problem) => {
                assert!((400..500).contains(&problem.status), "{problem:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "no damage was found");
    running.deploy("bench", "bench").await;
    let run = running.invoke("bench/one", "{}").await;
    assert!(running.settled(run).await.state.status.is_terminal());
}

#[test]
fn configuration_files() {
    let samples = [
        "[retention]\nruns = \"30d\"\n[limits]\nmemory = \"64MiB\"\n[modules.shop]\nhttp = [\"api.example.com:443\"]\nconfig = { a = 1 }\n\
         databases.app = { url = \"sqlite:app.db\", migrations = \"migrations\" }\n",
        "[modules.a.limits]\nbody_ms = 1000\n[modules.a.databases]\nx = { url = \"sqlite:/x.db\" }\n",
    ];
    let words = [
        "[modules.",
        "]]",
        "= {",
        "\"\"\"",
        "99999999999d",
        "1e9",
        "nan",
        "0x",
        "[[limits]]",
    ];
    Mutations::of(&samples, &words).each(|input| {
        let _ = Config::parse(&String::from_utf8_lossy(input), Path::new("/nowhere"));
    });
}
