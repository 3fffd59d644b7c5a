//! Events that cancel are looked up by their names.
use dormouse::prelude::*;

#[dormouse::function(id = "f", cancel_on(event = "shop/*"))]
async fn f(step: Step) -> dormouse::Result<()> {
    let _ = step;
    Ok(())
}

fn main() {}
