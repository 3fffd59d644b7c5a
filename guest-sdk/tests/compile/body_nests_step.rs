#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f")]
async fn f(step: Step) -> dormouse::Result<()> {
    step.run("outer", || {
        drop(step.run("inner", || Ok(())));
        Ok(())
    })
    .await?;
    Ok(())
}

fn main() {}
