use dormouse::prelude::*;

#[dormouse::function(id = "hello", backoff = "fibonacci")]
async fn hello(_step: Step) -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
