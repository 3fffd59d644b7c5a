#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f")]
async fn f(step: Step) -> dormouse::Result<()> {
    let count = std::cell::Cell::new(0);
    step.run("count", || {
        count.set(1);
        Ok(())
    })
    .await?;
    Ok(())
}

fn main() {}
