#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f", singleton(mode = "queue"))]
async fn f() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
