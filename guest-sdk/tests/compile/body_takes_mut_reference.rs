#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f")]
async fn f(step: Step) -> dormouse::Result<()> {
    let mut lines = vec![1];
    let held = &mut lines;
    step.run("push", move || {
        held.push(2);
        Ok(())
    })
    .await?;
    Ok(())
}

fn main() {}
