#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f", concurrency = 3)]
async fn f() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
