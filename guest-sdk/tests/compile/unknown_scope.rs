#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f", concurrency(limit = 3, key = "'a'", scope = "env"))]
async fn f() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
