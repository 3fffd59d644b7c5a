#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f")]
async fn f(step: Step) -> dormouse::Result<()> {
    step.run("later", async || Ok(1)).await?;
    Ok(())
}

fn main() {}
