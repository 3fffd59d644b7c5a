#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(on(event = "a"))]
async fn f() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
