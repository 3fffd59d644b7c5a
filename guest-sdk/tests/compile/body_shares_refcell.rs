#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f")]
async fn f(step: Step) -> dormouse::Result<()> {
    let lines = std::cell::RefCell::new(Vec::new());
    step.run("collect", || {
        lines.borrow_mut().push(1);
        Ok(())
    })
    .await?;
    Ok(())
}

fn main() {}
