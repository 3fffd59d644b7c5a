//! A server that has nothing to do.

use std::time::Duration;

use anyhow::Result;

use crate::Bench;
use crate::report::Samples;
use crate::server::Server;

/// For how long it is watched.
const WATCHED: Duration = Duration::from_secs(10);

/// Start to ready on a fresh and on a used directory, and what it takes while idle.
pub(crate) async fn idle(bench: &mut Bench) -> Result<()> {
    let (mut fresh, mut again) = (Samples::default(), Samples::default());
    let mut last = None;
    for _ in 0..bench.rounds {
        let mut server = Server::start(bench, &[]).await?;
        server.kill()?;
        std::fs::remove_dir_all(server.data_dir())?;
        fresh.0.push(server.boot().await?.as_secs_f64() * 1e3);
        server.deploy("bench", bench.guest("bench")?).await?;
        server.stop().await?;
        again.0.push(server.boot().await?.as_secs_f64() * 1e3);
        last = Some(server);
    }
    bench.report.row(
        "W5 start to ready, idle",
        "≤ 100 ms; ≤ 40 MB; ≤ 0.5 % of a processor",
    );
    bench.report.rounds("ready, new directory", &fresh, "ms");
    bench.report.rounds("ready, one module", &again, "ms");
    if let Some(server) = last {
        let before = server.cpu()?;
        tokio::time::sleep(WATCHED).await;
        bench.report.number("resident", server.resident()?, "MiB");
        let share = (server.cpu()? - before).as_secs_f64() / WATCHED.as_secs_f64();
        bench.report.number("processor", share * 100.0, "%");
    }
    Ok(())
}
