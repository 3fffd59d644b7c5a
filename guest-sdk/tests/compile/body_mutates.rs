#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f")]
async fn f(step: Step) -> dormouse::Result<()> {
    let mut count = 0;
    step.run("count", || {
        count += 1;
        Ok(())
    })
    .await?;
    Ok(())
}

fn main() {}
