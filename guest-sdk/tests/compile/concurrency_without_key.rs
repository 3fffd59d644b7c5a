#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f", concurrency = 2, concurrency(limit = 3, scope = "account"))]
async fn f() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
