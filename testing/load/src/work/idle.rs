//! A server that has nothing to do.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Bench;
use crate::report::Samples;
use crate::server::Server;

/// For how long it is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// For how long the database is, whose statistics come in pieces.
const ASKED: Duration = Duration::from_secs(30);

/// Start to ready on a fresh and on a used directory, and what it takes while idle: of the machine, and of a database.
pub(crate) async fn idle(bench: &mut Bench) -> Result<()> {
    let (mut fresh, mut again) = (Samples::default(), Samples::default());
    let mut last = None;
    for _ in 0..bench.rounds {
        let mut server = Server::start(bench, &[]).await?;
        if bench.template.is_none() {
            server.kill()?;
            std::fs::remove_dir_all(server.data_dir())?;
            fresh.0.push(server.boot().await?.as_secs_f64() * 1e3);
        }
        server.deploy("bench", bench.guest("bench")?).await?;
        server.stop().await?;
        again.0.push(server.boot().await?.as_secs_f64() * 1e3);
        last = Some(server);
    }
    bench.report.row(
        "W5 start to ready, idle",
        "≤ 100 ms; ≤ 40 MB; ≤ 0.5 % of a processor",
    );
    if !fresh.0.is_empty() {
        bench.report.rounds("ready, new directory", &fresh, "ms");
    }
    bench.report.rounds("ready, one module", &again, "ms");
    if let Some(server) = last {
        let before = server.cpu()?;
        tokio::time::sleep(WATCHED).await;
        bench.report.number("resident", server.resident()?, "MiB");
        let share = (server.cpu()? - before).as_secs_f64() / WATCHED.as_secs_f64();
        bench.report.number("processor", share * 100.0, "%");
        if let Some(database) = server.database() {
            let nodes = server.nodes() as f64;
            let connections = database.connections()? as f64;
            // Statistics of a session come when it has a moment, a second later at most.
            let before = (database.transactions()?, Instant::now());
            tokio::time::sleep(ASKED).await;
            let asked = (database.transactions()? - before.0) as f64 / before.1.elapsed().as_secs_f64();
            bench.report.row("an idle node on Postgres", "≤ 5 queries/s");
            bench.report.number("queries of each node", asked / nodes, "/s");
            bench
                .report
                .number("connections of each node", connections / nodes, "");
        }
    }
    Ok(())
}
