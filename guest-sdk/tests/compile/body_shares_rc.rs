#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f")]
async fn f(step: Step) -> dormouse::Result<()> {
    let shared = std::rc::Rc::new(1);
    step.run("read", || Ok(*shared)).await?;
    Ok(())
}

fn main() {}
