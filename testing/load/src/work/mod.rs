//! What is measured: one file per kind of work.

mod ceiling;
mod churn;
mod elsewhere;
mod idle;
mod ingest;
mod preflight;
mod resume;
mod sample;
pub(crate) mod sleeping;
mod steps;
mod stored;
mod swap;

use anyhow::{Result, bail};

use crate::Bench;
pub(crate) use stored::template as stored_template;

/// All kinds of work, in the order in which they are measured.
pub(crate) const NAMES: [&str; 14] = [
    "ceiling",
    "idle",
    "w1",
    "w1-one",
    "w2",
    "w3",
    "w4",
    "ingest",
    "swap",
    "preflight",
    "stored",
    "sleeping",
    "elsewhere",
    "churn",
];

/// Measures one.
pub(crate) async fn run(name: &str, bench: &mut Bench) -> Result<()> {
    match name {
        "ceiling" => ceiling::machine(bench),
        "idle" => idle::idle(bench).await,
        "w1" => steps::many_clients(bench).await,
        "w1-one" => steps::one_client(bench).await,
        "w2" => steps::ten_steps(bench).await,
        "w3" => {
            sleeping::steady(bench).await?;
            sleeping::burst(bench).await
        }
        "w4" => resume::cold(bench).await,
        "ingest" => ingest::arrays(bench).await,
        "swap" => swap::hot(bench).await,
        "preflight" => preflight::replayed(bench).await,
        "stored" => stored::finished(bench).await,
        "sleeping" => sleeping::many(bench).await,
        "elsewhere" => elsewhere::followed(bench).await,
        "churn" => churn::sustained(bench).await,
        other => bail!("\"{other}\" is not known"),
    }
}
