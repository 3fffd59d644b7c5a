//! Timeouts of nothing.
use dormouse::prelude::*;

#[dormouse::function(id = "f", timeouts())]
async fn f(step: Step) -> dormouse::Result<()> {
    let _ = step;
    Ok(())
}

fn main() {}
