#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f")]
async fn f(step: Step) -> dormouse::Result<()> {
    let text: &'static str = step.run("text", || Ok("text")).await?;
    Ok(())
}

fn main() {}
